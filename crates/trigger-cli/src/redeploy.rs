//! `relay redeploy`: asks again for what a record names. The record decides nothing: the request is
//! new, and the target account judges it as any other.

use relay_console::Failure;

use crate::args::{self, Output};
use crate::deploy::deploy;
use crate::show::line;
use crate::verify::checks::Signed;
use crate::verify::{keys, record_at};

/// Deploys what the record names, and returns the exit code as `relay deploy` does.
pub(crate) async fn redeploy(arguments: args::Redeploy) -> Result<u8, Failure> {
    let signed = Signed::read(&record_at(&arguments.record)?).map_err(Failure::usage)?;
    let about = signed.about();
    let place = &arguments.asking.place;
    if !place.trust_first_answer {
        let keys = keys(None, place, about.target)?;
        signed.verify(&keys).map_err(|problem| {
            Failure::usage(format!("{problem}, so relay does not repeat what it says"))
                .hint("check that the file is whole, and that the pins in relay.toml are those of its target")
        })?;
    }
    let asking = arguments.asking;
    if !asking.following.quiet && asking.following.output == Output::Text {
        line(&format!("relay: repeats {}", about.deployment_id));
    }
    let parameters = about.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    deploy(&args::Deploy { target: about.target.to_string(), parameters, artifacts: Vec::new(), asking }).await
}
