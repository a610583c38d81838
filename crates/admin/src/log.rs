//! `log`: prints a deployment's output from the evidence bucket, with an operator's credentials in
//! the target account, for when the CI log does not have it.
//!
//! The code that `relay deploy` uses verifies and orders every frame, so only signed output is
//! shown.

use std::io::Write;
use std::time::Duration;

use relay_aws::Sdk;
use relay_aws::clock::now;
use relay_aws::keys::Keys;
use relay_aws::objects::Objects;
use relay_console::Failure;
use relay_engine::{Authenticator, End, Event, Inbox, Start, Timeouts};
use relay_protocol::encoding::printable;
use relay_protocol::evidence::{Evidence, frames};
use relay_protocol::frame::Stream;
use relay_protocol::keys::Cached;
use relay_protocol::outcome::ExitCode;

use crate::cli::Log;
use crate::target;

/// Maximum number of bytes read from one object: several times what a runner puts into one.
const OBJECT_MAX: u64 = 16 * 1_024 * 1_024;

/// Writes stdout to `out` and everything else to `err`. Returns 1 when the output is incomplete, or
/// when the archive does not hold the deployment's end.
pub(crate) async fn log(arguments: &Log, out: &mut impl Write, err: &mut impl Write) -> Result<u8, Failure> {
    let (_, configuration) = target::load(&arguments.file)?;
    let sdk = Sdk::from_environment(Some(configuration.topic.region())).await;
    let key = Keys::new(&sdk).public_key(&configuration.target_key).await;
    let key = key.map_err(|error| Failure::aws("reading the target key's public half", &error))?;
    let authenticator = Authenticator::archived(arguments.id.clone(), vec![key], Cached::default());
    let evidence = Evidence::of(&configuration.target, &arguments.id);
    let mut reader = Inbox::new(authenticator, Start::Fresh, Timeouts::default(), Duration::ZERO, now());
    let objects = Objects::new(&sdk);
    let mut token = 0;
    for number in 0.. {
        let name = evidence.frames(number);
        let object = objects.get(&configuration.evidence, &name, OBJECT_MAX).await;
        let object =
            object.map_err(|error| Failure::aws(&format!("reading s3://{}/{name}", configuration.evidence), &error))?;
        let Some(object) = object else { break };
        for frame in frames(&object.bytes) {
            let Ok(frame) = frame else {
                writeln!(err, "relay: {name} has a line that is not a frame")?;
                continue;
            };
            token += 1;
            reader.handle(Duration::ZERO, token, frame);
            show(&mut reader, out, err)?;
        }
    }
    if token == 0 {
        return Err(Failure::new(
            ExitCode::No,
            format!(
                "found nothing of {} in the archive of {}: no runner started it, one started it less than half a minute ago, or its retention in the archive is over",
                arguments.id, configuration.target
            ),
        ));
    }
    if reader.dropped() > 0 {
        writeln!(err, "relay: {} frames were dropped: this deployment's runner did not sign them", reader.dropped())?;
    }
    end(&reader, err)
}

/// Reports the exit code and whether the output is complete.
fn end(reader: &Inbox<Cached>, err: &mut impl Write) -> Result<u8, Failure> {
    let offset = reader.offset();
    let (stdout, stderr) = (offset.stdout, offset.stderr);
    match reader.poll_end() {
        Some(End::Finished { finished, verified, .. }) => {
            writeln!(
                err,
                "relay: {} bytes of stdout, {} of stderr; exit code {}",
                stdout,
                stderr,
                finished.outcome.exit_code()
            )?;
            if !verified {
                writeln!(err, "relay: this output is incomplete")?;
            }
            Ok(if *verified { 0 } else { ExitCode::No.code() })
        }
        _ => {
            writeln!(
                err,
                "relay: the archive does not have the deployment's end: it still runs, or its runner was killed; the output is complete up to byte {stdout} of stdout and {stderr} of stderr"
            )?;
            Ok(ExitCode::No.code())
        }
    }
}

fn show(reader: &mut Inbox<Cached>, out: &mut impl Write, err: &mut impl Write) -> Result<(), Failure> {
    while let Some(event) = reader.poll_event() {
        match event {
            Event::Output(chunks) => {
                for chunk in chunks {
                    match chunk.stream {
                        Stream::Stdout => out.write_all(&chunk.bytes)?,
                        Stream::Stderr => err.write_all(&chunk.bytes)?,
                    }
                }
            }
            Event::Started { task_arn, .. } => writeln!(err, "relay: started {}", printable(&task_arn))?,
            Event::Step { name, rollback, .. } => {
                writeln!(err, "relay: {} {}", if rollback { "rollback" } else { "step" }, printable(&name))?;
            }
            Event::Note(text) => writeln!(err, "relay: {}", printable(&text))?,
            Event::Launcher(_) | Event::Gap(_) => {}
        }
    }
    if let Some(mark) = reader.polled() {
        reader.written(mark);
    }
    drop(reader.take_deletable());
    Ok(())
}
