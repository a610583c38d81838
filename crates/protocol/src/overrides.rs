//! The size of RunTask overrides as ECS counts them, so that the CLI refuses before it publishes (clause LIM-1).

use crate::limits::OVERRIDES_MAX;

/// The container that every target's task definition has.
pub const CONTAINER: &str = "runner";

/// The variable in which the runner finds the verified envelope.
pub const VARIABLE: &str = "RELAY_ENVELOPE";

/// Over the limit, by how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request needs {found} characters of task overrides, {over} more than the {OVERRIDES_MAX} that ECS allows", over = found - OVERRIDES_MAX)]
pub struct OverridesTooLarge {
    /// Characters needed.
    pub found: usize,
}

/// The overrides as they are serialised, with `bundle` as the value of [`VARIABLE`].
pub fn overrides_json(bundle: &str) -> String {
    let value = serde_json::Value::from(bundle);
    format!(
        "{{\"containerOverrides\":[{{\"name\":\"{CONTAINER}\",\"environment\":[{{\"name\":\"{VARIABLE}\",\"value\":{value}}}]}}]}}"
    )
}

/// Checks the size of the overrides for `bundle`, escapes included.
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
