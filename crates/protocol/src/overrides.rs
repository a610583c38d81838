//! The size of RunTask overrides as ECS counts them, so that the CLI can refuse a request before it
//! publishes it (clause LIM-1).

use crate::limits::OVERRIDES_MAX;

/// The name of the container in every target's task definition.
pub const CONTAINER: &str = "runner";

/// The environment variable in which the runner finds the verified envelope.
pub const VARIABLE: &str = "RELAY_ENVELOPE";

/// The overrides are over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request needs {found} characters of task overrides, {over} more than the {OVERRIDES_MAX} that ECS allows", over = found - OVERRIDES_MAX)]
pub struct OverridesTooLarge {
    /// The number of characters needed.
    pub found: usize,
}

/// The serialised overrides, with `bundle` as the value of [`VARIABLE`].
pub fn overrides_json(bundle: &str) -> String {
    let value = serde_json::Value::from(bundle);
    format!(
        "{{\"containerOverrides\":[{{\"name\":\"{CONTAINER}\",\"environment\":[{{\"name\":\"{VARIABLE}\",\"value\":{value}}}]}}]}}"
    )
}

/// Checks the size of the overrides for `bundle`, including escapes.
///
/// # Errors
///
/// If the overrides have more than [`OVERRIDES_MAX`] characters.
pub fn check(bundle: &str) -> Result<(), OverridesTooLarge> {
    let found = overrides_json(bundle).chars().count();
    if found > OVERRIDES_MAX { Err(OverridesTooLarge { found }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_count() {
        let plain = overrides_json("a").len();
        assert_eq!(overrides_json("\"").len(), plain + 1);
        let room = OVERRIDES_MAX - overrides_json("").len();
        assert_eq!(check(&"a".repeat(room)), Ok(()));
        assert_eq!(check(&"a".repeat(room + 7)), Err(OverridesTooLarge { found: OVERRIDES_MAX + 7 }));
    }
}
