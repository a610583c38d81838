//! `relay approvals`: the requests that wait. What it prints is the requesters' word; `relay
//! approve` shows what is verified.

use relay_aws::Sdk;
use relay_aws::clock::now;
use relay_aws::objects::Objects;
use relay_console::Failure;
use relay_protocol::time::plain_duration;

use super::store::Store;
use crate::args;
use crate::settings::Layers;
use crate::show::out;

/// Prints a line for each.
pub(crate) async fn list(arguments: &args::Approvals) -> Result<u8, Failure> {
    let layers = Layers::read(&arguments.place)?;
    let mut waiting = 0;
    for (region, (bucket, prefix)) in layers.approval_stores(None)? {
        let store = Store { objects: Objects::new(&Sdk::from_environment(region.as_ref()).await), bucket, prefix };
        for ticket in store.tickets().await? {
            let Some(pending) = store.get(&ticket).await? else { continue };
            let given = store.approvals(&ticket).await?.len();
            let text = match pending.request() {
                Ok(request) => {
                    let age = plain_duration(now().since(request.issued_at));
                    format!("{ticket} {} asked {age} ago, {given} given", request.target)
                }
                Err(problem) => format!("{ticket} cannot be read: {problem}"),
            };
            out(&text);
            waiting += 1;
        }
    }
    if waiting == 0 {
        out("no request waits for an approval");
    }
    Ok(0)
}
