//! The Cedar policies of a target: parsing, validation against the target's own schema, and
//! evaluation.
//!
//! Without a policy, everything is denied. Any evaluation error denies too: Cedar by itself would
//! skip a `forbid` that fails to evaluate, and let a `permit` through.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::str::FromStr as _;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression, Schema,
    ValidationMode, Validator,
};
use relay_protocol::keys::KnownSigner;
use relay_protocol::{ParameterName, TargetName, Timestamp};

use crate::parameters::ParameterRule;

/// The policies of one target, with the schema that results from its parameters.
pub struct Policies {
    set: PolicySet,
    schema: Schema,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").field("policies", &self.set.num_of_policies()).finish_non_exhaustive()
    }
}

/// Why a policy text is invalid, or why the policies gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The text is not Cedar.
    #[error("not valid Cedar: {0}")]
    Parse(String),
    /// The text is Cedar, but does not match the schema.
    #[error("{0}")]
    Invalid(String),
    /// The text has no policy, so everything would be denied.
    #[error("there is no policy, so everything is denied: write at least one permit")]
    Empty,
    /// The question could not be expressed in the schema. This indicates a bug.
    #[error("cannot ask the policies: {0}")]
    Question(String),
    /// The evaluation of a policy failed, so everything is denied.
    #[error("a policy could not be evaluated, so everything is denied: {0}")]
    Evaluation(String),
}

/// A question to the policies.
#[derive(Debug)]
pub struct Question<'a> {
    /// The signer who asks.
    pub signer: &'a KnownSigner,
    /// The action: `deploy` or `cancel`.
    pub action: &'static str,
    /// The target of the deployment.
    pub target: &'a TargetName,
    /// The parameters of the request.
    pub parameters: &'a BTreeMap<ParameterName, String>,
    /// When the request or control statement was made, as it states itself.
    pub issued_at: Timestamp,
    /// The number of distinct persons who approved, not counting those who ask.
    pub approvals: u32,
}

/// The claims that a signer may have. A missing claim is an empty string, so that a condition on it
/// is false and never an error.
const CLAIMS: [&str; 4] = ["repository_id", "repository_owner_id", "environment", "job_workflow_ref"];

fn schema(parameters: &BTreeMap<ParameterName, ParameterRule>) -> String {
    let claims: String = CLAIMS.iter().map(|claim| format!(", {claim}: String")).collect();
    let parameters: Vec<String> = parameters.keys().map(|name| format!("\"{name}\": String")).collect();
    format!(
        "entity Group;
         entity Signer in [Group] = {{ name: String, person: String, key_id: String{claims} }};
         entity Target = {{ service: String, environment: String }};
         type Asked = {{ parameters: {{ {} }}, issued_at: datetime, weekday: String, hour: Long, approvals: Long }};
         action deploy, cancel appliesTo {{ principal: [Signer], resource: [Target], context: Asked }};",
        parameters.join(", ")
    )
}

impl Policies {
    /// Reads and validates policies. `parameters` define the members of `context.parameters`.
    ///
    /// # Errors
    ///
    /// If the text is not Cedar, has no policy, or does not match the schema.
    pub fn parse(text: &str, parameters: &BTreeMap<ParameterName, ParameterRule>) -> Result<Self, PolicyError> {
        let set = PolicySet::from_str(text).map_err(|error| PolicyError::Parse(error.to_string()))?;
        if set.num_of_policies() == 0 {
            return Err(PolicyError::Empty);
        }
        let (schema, _) = Schema::from_cedarschema_str(&schema(parameters))
            .map_err(|error| PolicyError::Invalid(error.to_string()))?;
        let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
        if let Some(error) = result.validation_errors().next() {
            return Err(PolicyError::Invalid(error.to_string()));
        }
        Ok(Self { set, schema })
    }

    /// The validator's warnings, such as policies that can never match, or look-alike characters.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let result = Validator::new(self.schema.clone()).validate(&self.set, ValidationMode::Strict);
        result.validation_warnings().map(ToString::to_string).collect()
    }

    /// The groups that the policies name.
    pub(crate) fn groups(&self) -> BTreeSet<String> {
        let mut groups = BTreeSet::new();
        for policy in self.set.policies() {
            if let Ok(json) = policy.to_json() {
                collect_groups(&json, &mut groups);
            }
        }
        groups
    }

    /// Asks the policies. `Ok(Some(ids))` means permitted, by these policies; `Ok(None)` means
    /// denied.
    ///
    /// # Errors
    ///
    /// If the question does not match the schema, or if any policy fails to evaluate. The caller
    /// must deny.
    pub fn ask(&self, question: &Question<'_>) -> Result<Option<Vec<String>>, PolicyError> {
        let put = |error: String| PolicyError::Question(error);
        let principal = uid("Signer", &question.signer.key_id)?;
        let resource = uid("Target", question.target.as_str())?;
        let action = uid("Action", question.action)?;
        let groups =
            question.signer.groups.iter().map(|group| uid("Group", group)).collect::<Result<HashSet<_>, _>>()?;
        let (service, environment) = question.target.as_str().split_once('/').unwrap_or_default();
        let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
        let mut attributes = vec![
            ("name", text(&question.signer.name)),
            ("person", text(&question.signer.person)),
            ("key_id", text(&question.signer.key_id)),
        ];
        attributes.extend(CLAIMS.iter().map(|claim| (*claim, text(""))));
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut entities: Vec<Entity> =
            groups.iter().map(|group| Entity::new_no_attrs(group.clone(), HashSet::new())).collect();
        entities.push(Entity::new(principal.clone(), attributes, groups).map_err(|error| put(error.to_string()))?);
        let about = [("service".to_owned(), text(service)), ("environment".to_owned(), text(environment))].into();
        entities.push(Entity::new(resource.clone(), about, HashSet::new()).map_err(|error| put(error.to_string()))?);
        let entities = Entities::from_entities(entities, Some(&self.schema)).map_err(|error| put(error.to_string()))?;
        let context = serde_json::json!({
            "parameters": question.parameters,
            "issued_at": { "__extn": { "fn": "datetime", "arg": question.issued_at.to_string() } },
            "weekday": question.issued_at.weekday(),
            "hour": question.issued_at.hour(),
            "approvals": question.approvals,
        });
        let context =
            Context::from_json_value(context, Some((&self.schema, &action))).map_err(|error| put(error.to_string()))?;
        let request = Request::new(principal, action, resource, context, Some(&self.schema))
            .map_err(|error| put(error.to_string()))?;
        let response = Authorizer::new().is_authorized(&request, &self.set, &entities);
        if let Some(error) = response.diagnostics().errors().next() {
            return Err(PolicyError::Evaluation(error.to_string()));
        }
        let named =
            |id: &cedar_policy::PolicyId| self.set.annotation(id, "id").map_or_else(|| id.to_string(), str::to_owned);
        Ok((response.decision() == Decision::Allow).then(|| {
            let mut ids: Vec<String> = response.diagnostics().reason().map(named).collect();
            ids.sort();
            ids
        }))
    }
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, PolicyError> {
    let kind =
        cedar_policy::EntityTypeName::from_str(kind).map_err(|error| PolicyError::Question(error.to_string()))?;
    Ok(EntityUid::from_type_name_and_id(kind, cedar_policy::EntityId::new(id)))
}

/// Finds every `{"type":"Group","id":…}` in the JSON form of a policy.
fn collect_groups(json: &serde_json::Value, groups: &mut BTreeSet<String>) {
    match json {
        serde_json::Value::Object(object) => {
            if let (Some("Group"), Some(id)) =
                (object.get("type").and_then(|v| v.as_str()), object.get("id").and_then(|v| v.as_str()))
            {
                groups.insert(id.to_owned());
            }
            object.values().for_each(|value| collect_groups(value, groups));
        }
        serde_json::Value::Array(array) => array.iter().for_each(|value| collect_groups(value, groups)),
        _ => {}
    }
}
