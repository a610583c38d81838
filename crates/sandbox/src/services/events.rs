//! EventBridge: takes events for the default bus. No rule reads them; the log has them.

use serde_json::{Value, json};

use super::call::Call;
use super::contract::{Effect, Reaction, Table};
use super::principal::REGION;
use super::resource_policy::authorise;
use crate::wire::answer::Answer;
use crate::wire::error::{AwsError, Outcome};
use crate::wire::times::uuid;

/// The most entries in one call.
const ENTRIES_MAX: usize = 10;

pub(crate) const OPERATIONS: Table<Events> = &[("PutEvents", Events::put)];

#[derive(Debug, Default)]
pub(crate) struct Events;

impl Events {
    fn put(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let bus = format!("arn:aws:events:{REGION}:{}:event-bus/default", call.principal.account);
        authorise(&call.principal.account.clone(), None, &call.principal, "events:PutEvents", &bus)?;
        let entries = call.params.list("Entries").to_vec();
        let invalid = |what: &str| AwsError::client("ValidationException", format!("{what} is not valid"));
        if entries.is_empty() || entries.len() > ENTRIES_MAX {
            return Err(invalid("Entries"));
        }
        let mut ids = Vec::new();
        for entry in &entries {
            let text = |name: &str| entry[name].as_str().filter(|text| !text.is_empty());
            let (Some(source), Some(kind), Some(detail)) = (text("Source"), text("DetailType"), text("Detail")) else {
                return Err(invalid("an entry without Source, DetailType and Detail"));
            };
            let detail: Value = serde_json::from_str(detail).map_err(|_| invalid("Detail"))?;
            if !detail.is_object() || source.starts_with("aws.") {
                return Err(invalid("Detail or Source"));
            }
            call.note("source", source);
            call.note("detailType", kind);
            call.note("detail", detail);
            ids.push(json!({ "EventId": uuid() }));
        }
        Ok(Answer::Json(json!({ "FailedEntryCount": 0, "Entries": ids })).into())
    }
}
