//! Checks that the tables of `docs/protocol.md` that repeat the code are generated from it.

use std::fmt::Write as _;

use relay_protocol::{Reason, limits};
use relay_tests::document;

const DOCUMENT: &str = "docs/protocol.md";

// clause: OUT-2
#[test]
fn reasons_have_the_exit_codes_and_words_of_the_document() {
    let mut table = String::from("| code | exit code | meaning |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let (code, exit, words) = (reason.code(), reason.exit_code().code(), reason.words());
        writeln!(table, "| `{code}` | {exit} | {words} |").unwrap();
    }
    document::holds(DOCUMENT, "reasons", &table);
}

#[test]
fn limits_have_the_values_of_the_document() {
    let mut table = String::from("| constant | value | reason |\n|---|---|---|\n");
    for (name, value, reason) in limits::ALL {
        writeln!(table, "| `{name}` | {value} | {reason} |").unwrap();
    }
    document::holds(DOCUMENT, "limits", &table);
}
