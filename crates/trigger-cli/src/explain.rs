//! `relay explain`: the registry of reasons and exit codes, for people.

use relay_console::Failure;
use relay_protocol::Reason;
use relay_protocol::outcome::ExitCode;

use crate::args;
use crate::show::out;

/// Prints one entry, or a table of all.
pub(crate) fn explain(arguments: &args::Explain) -> Result<u8, Failure> {
    out(&text(arguments.code.as_deref().map(str::trim))?);
    Ok(0)
}

/// The explanation of a code, or of all codes.
fn text(code: Option<&str>) -> Result<String, Failure> {
    let Some(code) = code else {
        let reasons = Reason::ALL
            .iter()
            .map(|reason| format!("{:<16} exit {:<4} {}", reason.code(), reason.exit_code().code(), reason.words()));
        let codes = ExitCode::ALL.iter().map(|exit| format!("{:<16} {}", exit.code(), exit.words()));
        return Ok(reasons.chain([String::new()]).chain(codes).collect::<Vec<_>>().join("\n"));
    };
    if let Some(reason) = Reason::ALL.iter().find(|reason| reason.code() == code) {
        return Ok(format!(
            "{code}: {}\nexit code {}: {}\nwhat to do: {}",
            reason.words(),
            reason.exit_code().code(),
            reason.exit_code().words(),
            reason.hint()
        ));
    }
    // The CI integrations have words for exit codes, and write them with hyphens.
    if let Some(exit) = ExitCode::ALL.iter().find(|exit| word(**exit) == code) {
        return text(Some(&exit.code().to_string()));
    }
    let number: Option<u8> = code.parse().ok();
    let Some(number) = number else {
        let distances = Reason::ALL.iter().map(|reason| (strsim::damerau_levenshtein(reason.code(), code), reason));
        let near = distances.filter(|(distance, _)| *distance <= 3).min_by_key(|(distance, _)| *distance);
        let failure = Failure::usage(format!("relay has no reason code and no exit code `{code}`"));
        return Err(match near {
            Some((_, reason)) => failure.hint(format!("did you mean {}?", reason.code())),
            None => failure.hint("`relay explain` lists all codes"),
        });
    };
    let Some(exit) = ExitCode::ALL.iter().find(|exit| exit.code() == number) else {
        let signal = number.checked_sub(128).filter(|signal| (1..=64).contains(signal));
        let tool = match signal {
            Some(signal) => format!("the tool was ended by signal {signal}"),
            None => "the tool's own; see its manual".to_owned(),
        };
        return Ok(format!("{number}: {tool}"));
    };
    let reasons: Vec<&str> =
        Reason::ALL.iter().filter(|reason| reason.exit_code() == *exit).map(|reason| reason.code()).collect();
    let why = if reasons.is_empty() { String::new() } else { format!("\nreasons: {}", reasons.join(", ")) };
    Ok(format!(
        "{number}: {}{why}\nA tool may exit with {number} too: `decided_by` in the result file tells them apart.",
        exit.words()
    ))
}

/// The word that the CI integrations have for an exit code of `relay deploy`.
fn word(exit: ExitCode) -> &'static str {
    match exit {
        ExitCode::No => "",
        ExitCode::Usage => "usage",
        ExitCode::Refused => "refused",
        ExitCode::NeverStarted => "never-started",
        ExitCode::Unknown => "unknown",
        ExitCode::Incomplete => "incomplete",
        ExitCode::TimedOut => "timed-out",
        ExitCode::Fault => "fault",
        ExitCode::Interrupted | ExitCode::Terminated => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained() {
        for reason in Reason::ALL {
            let said = text(Some(reason.code())).unwrap();
            assert!(said.contains(reason.hint()) && said.contains(reason.words()));
        }
        let all = text(None).unwrap();
        assert!(Reason::ALL.iter().all(|reason| all.contains(reason.code())) && all.contains("\n123 "));
        assert!(text(Some("120")).unwrap().contains("busy"));
        assert_eq!(text(Some("137")).unwrap(), "137: the tool was ended by signal 9");
        assert!(text(Some("never-started")).unwrap().starts_with("121: "));
        assert_eq!(text(Some("7")).unwrap(), "7: the tool's own; see its manual");
        assert_eq!(text(Some("buzy")).unwrap_err().hints, ["did you mean busy?"]);
        assert_eq!(text(Some("nothing at all")).unwrap_err().hints, ["`relay explain` lists all codes"]);
    }
}
