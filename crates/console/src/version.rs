//! What `--version` says.

use std::sync::LazyLock;

/// The version of this program, that of the protocol that it speaks, and the commit that it was
/// built from: `cargo xtask package` gives it as RELAY_COMMIT.
#[must_use]
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| said(env!("CARGO_PKG_VERSION"), option_env!("RELAY_COMMIT")));
    &VERSION
}

fn said(version: &str, commit: Option<&str>) -> String {
    let origin = commit.map_or_else(|| "not a release".to_owned(), |commit| format!("commit {commit}"));
    format!("{version} (protocol 1, {origin})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_names_its_commit() {
        assert_eq!(said("1.2.3", Some("0123abc")), "1.2.3 (protocol 1, commit 0123abc)");
        assert_eq!(said("1.2.3", None), "1.2.3 (protocol 1, not a release)");
    }
}
