//! The pin: the entry point of a target's container, which is the one part that a RunTask override
//! cannot change (clauses RUN-1, RUN-2).

use relay_protocol::{Digest, TargetName};

/// What the entry point pins: the target, and the digest of its configuration.
///
/// ```
/// use relay_policy::Pin;
/// use relay_protocol::TargetName;
///
/// let target: TargetName = "demo/hello".parse()?;
/// let pin = Pin::of(&target, "the text of the configuration");
/// let arguments = pin.entry_point("/relay/relay-runner");
/// assert_eq!(Pin::parse(&arguments[1..])?, pin);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The target.
    pub target: TargetName,
    /// SHA-256 of the configuration's text.
    pub configuration: Digest,
}

/// The arguments are not those of an entry point that relay wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the arguments must be exactly: run --target TARGET --configuration-sha256 DIGEST")]
pub struct PinError;

impl Pin {
    /// The pin for a target and the text of its configuration.
    pub fn of(target: &TargetName, configuration: &str) -> Self {
        Self { target: target.clone(), configuration: Digest::of(configuration.as_bytes()) }
    }

    /// The entry point of the container. `runner` is the path of the runner's program.
    pub fn entry_point(&self, runner: &str) -> Vec<String> {
        [runner, "run", "--target", self.target.as_str(), "--configuration-sha256", &self.configuration.to_string()]
            .map(str::to_owned)
            .to_vec()
    }

    /// Reads the arguments after the program name. Anything more or less is refused, because the
    /// `command` of an override would be appended to them.
    ///
    /// # Errors
    ///
    /// If the arguments are not exactly those of [`Pin::entry_point`].
    pub fn parse(arguments: &[String]) -> Result<Self, PinError> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match arguments.as_slice() {
            ["run", "--target", target, "--configuration-sha256", digest] => Ok(Self {
                target: target.parse().map_err(|_| PinError)?,
                configuration: digest.parse().map_err(|_| PinError)?,
            }),
            _ => Err(PinError),
        }
    }

    /// Whether `configuration` is the pinned text.
    pub fn fits(&self, configuration: &str) -> bool {
        Digest::of(configuration.as_bytes()) == self.configuration
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // clause: RUN-1
    #[test]
    fn nothing_may_stand_behind_the_pin() {
        let pin = Pin::of(&"a/b".parse().unwrap(), "text");
        let mut arguments = pin.entry_point("/relay/relay-runner").split_off(1);
        assert_eq!(Pin::parse(&arguments), Ok(pin.clone()));
        assert!(pin.fits("text") && !pin.fits("texu"));
        arguments.push("--verbose".into());
        assert_eq!(Pin::parse(&arguments), Err(PinError));
    }
}
