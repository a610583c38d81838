//! `target check` and `target pin`: what can be said of a configuration without a request.

use std::io::Write;
use std::path::{Path, PathBuf};

use relay_policy::{Configuration, Pin};
use relay_protocol::Digest;

use crate::error::AdminError;

/// A configuration's text and what it says.
pub(crate) fn load(file: &Path) -> Result<(String, Configuration), AdminError> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| AdminError::Read { file: name.clone(), error })?;
    let configuration = Configuration::parse(&text).map_err(|error| AdminError::Configuration { file: name, error })?;
    Ok((text, configuration))
}

/// Checks each file, whatever is wrong with those before it; returns the worst exit code.
pub(crate) fn check(files: &[PathBuf], out: &mut impl Write, err: &mut impl Write) -> Result<u8, AdminError> {
    let mut worst = 0;
    for file in files {
        let name = file.display();
        let code = match load(file) {
            Ok((text, configuration)) => {
                let findings = relay_policy::check(&configuration);
                for finding in &findings {
                    writeln!(out, "{name}: {}: {}", finding.field, finding.problem)?;
                }
                if findings.is_empty() {
                    writeln!(out, "{name}: ok, sha256 {}", Digest::of(text.as_bytes()))?;
                }
                u8::from(!findings.is_empty())
            }
            Err(error) => {
                writeln!(err, "{}", error.failure())?;
                error.exit_code()
            }
        };
        worst = worst.max(code);
    }
    Ok(worst)
}

/// Prints what only the task definition can hold (clause RUN-1).
pub(crate) fn pin(file: &Path, runner: &str, out: &mut impl Write) -> Result<u8, AdminError> {
    let (text, configuration) = load(file)?;
    let pin = Pin::of(&configuration.target, &text);
    // The names are those of a task definition in JSON.
    let json = serde_json::json!({
        "family": configuration.target.family(),
        "entryPoint": pin.entry_point(runner),
    });
    writeln!(out, "{json:#}")?;
    Ok(0)
}
