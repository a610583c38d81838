//! docs/reference says what the code does. RELAY_BLESS=1 rewrites it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use relay_console::manual::{self, Shell};
use relay_policy::Configuration;
use relay_tests::reference::{documents, fields, programs};
use serde_json::Value;

#[test]
fn the_documents_are_those_of_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    for (name, made) in documents() {
        let path = folder.join(name);
        if std::env::var_os("RELAY_BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, made).unwrap();
        } else {
            let present = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(present == made, "docs/reference/{name} differs from the code: RELAY_BLESS=1 rewrites it");
        }
    }
}

#[test]
fn every_command_has_a_manual_page_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    for command in programs() {
        let name = command.get_name().to_owned();
        manual::pages(command.clone(), folder.path()).unwrap();
        let visible = command.get_subcommands().filter(|inner| !inner.is_hide_set());
        let subcommands = visible.map(|inner| format!("{name}-{}.1", inner.get_name()));
        for page in subcommands.chain([format!("{name}.1")]) {
            let text = std::fs::read_to_string(folder.path().join(&page)).expect(&page);
            assert!(text.contains(".SH NAME"), "{page}");
        }
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut out = Vec::new();
            manual::completions(command.clone(), shell, &mut out);
            assert!(String::from_utf8(out).unwrap().contains("completions"), "{name} {shell:?}");
        }
    }
}

/// The names that a parser says it knows when it meets one that it does not.
fn known(error: &str) -> BTreeSet<String> {
    let list = error.split_once("expected ").map(|(_, list)| list).unwrap_or_default();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A schema that leaves out a field, or names one that is gone, differs from the parser's own list.
#[test]
fn the_schema_of_a_target_has_the_parsers_fields() {
    let schema: Value = serde_json::from_str(include_str!("../../docs/schema/target.json")).unwrap();
    for (table, names) in fields(&schema) {
        let text = match table.as_str() {
            "" => "odd = 1".to_owned(),
            table if table.ends_with("[]") => format!("[[{}]]\nodd = 1", table.trim_matches(['/', '[', ']'])),
            table => format!("[{}]\nodd = 1", table.trim_matches('/').replace("/*", ".x").replace('/', ".")),
        };
        let error = Configuration::parse(&text).unwrap_err().to_string();
        assert_eq!(known(&error), names.into_iter().collect(), "{table}: {error}");
    }
}

#[test]
fn the_schema_of_relay_toml_has_the_parsers_fields() {
    let schema: Value = serde_json::from_str(include_str!("../../docs/schema/relay.json")).unwrap();
    for (table, names) in fields(&schema) {
        let text = match table.as_str() {
            "" => "odd = 1",
            "/targets/*" => "[targets.\"a/b\"]\nodd = 1",
            "/default" => "[default]\nodd = 1",
            other => panic!("a new table: {other}"),
        };
        let error = relay_trigger_cli::check_settings(text).unwrap_err();
        assert_eq!(known(&error), names.into_iter().collect(), "{table}: {error}");
    }
}
