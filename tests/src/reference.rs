//! The reference of commands, files and codes, made from the code: the documents in
//! `docs/reference`.

use std::fmt::Write as _;

use clap::Command;
use relay_protocol::Reason;
use relay_protocol::outcome::ExitCode;
use serde_json::Value;

/// The programs that people call, as clap knows them.
pub fn programs() -> [Command; 2] {
    [relay_trigger_cli::command(), relay_admin::command()]
}

/// The documents, by the name of their file.
pub fn documents() -> Vec<(&'static str, String)> {
    vec![
        ("commands.md", commands()),
        ("codes.md", codes()),
        ("../aws-assumptions.md", relay_admin::assumptions()),
        ("relay-toml.md", settings("relay.toml", "relay.json", include_str!("../../docs/schema/relay.json"))),
        ("target.md", settings("The file of a target", "target.json", include_str!("../../docs/schema/target.json"))),
    ]
}

const MADE: &str = "<!-- Made from the code: RELAY_BLESS=1 cargo test --workspace --test reference -->\n";

/// The help of every command.
fn commands() -> String {
    let mut out = format!("# Commands\n\n{MADE}\nThe help of every command, as `--help` prints it.\n");
    for command in programs() {
        let name = command.get_name().to_owned();
        help(&mut out, command, &name, 2);
    }
    out
}

fn help(out: &mut String, command: Command, path: &str, level: usize) {
    let mut command = command.bin_name(path).term_width(100).disable_help_subcommand(true);
    command.build();
    let text = command.render_long_help().to_string();
    let _ = write!(out, "\n{} `{path}`\n\n```text\n{}\n```\n", "#".repeat(level), trimmed(&text));
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        help(out, inner.clone(), &format!("{path} {}", inner.get_name()), (level + 1).min(4));
    }
}

fn trimmed(text: &str) -> String {
    text.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Every reason and exit code.
fn codes() -> String {
    let mut out = format!(
        "# Reasons and exit codes\n\n{MADE}\n`relay explain CODE` prints the same. Codes are stable: scripts may compare \
         them.\n\n| exit code | meaning | reasons |\n|---|---|---|\n"
    );
    for exit in ExitCode::ALL {
        let of = Reason::ALL.iter().filter(|reason| reason.exit_code() == *exit);
        let reasons: Vec<String> = of.map(|reason| format!("[{0}](#{0})", reason.code())).collect();
        let _ = writeln!(out, "| {} | {} | {} |", exit.code(), exit.words(), reasons.join(", "));
    }
    for reason in Reason::ALL {
        let (code, exit) = (reason.code(), reason.exit_code().code());
        let hint = wrapped(&format!("{}.", capital(reason.hint())));
        let _ = write!(out, "\n## {code}\n\nExit code {exit}: {}.\n\n{hint}\n", reason.words());
    }
    out
}

/// Prose in lines of at most 100 columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= 100 => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// A table of the fields that a schema names.
fn settings(title: &str, file: &str, schema: &str) -> String {
    let schema: Value = serde_json::from_str(schema).expect("a schema is JSON");
    let mut out = format!(
        "# {title}\n\n{MADE}\nThe same as a JSON Schema, for editors: [{file}](../schema/{file}). An editor with the \
         Taplo language server finds it by the file's first line, `#:schema path/to/{file}`.\n\n\
         | field | what it is | default |\n|---|---|---|\n"
    );
    rows(&mut out, &schema, "");
    out
}

fn rows(out: &mut String, schema: &Value, prefix: &str) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let words = field["description"].as_str().unwrap_or_default();
        let choice: Vec<String> =
            field["enum"].as_array().into_iter().flatten().map(|value| format!("`{value}`")).collect();
        let choice =
            if choice.is_empty() { String::new() } else { format!(" One of {}.", choice.join(", ").replace('"', "")) };
        let default = match &field["default"] {
            Value::Null if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => String::new(),
            Value::String(text) => format!("`{text}`"),
            value => format!("`{value}`"),
        };
        let _ = writeln!(out, "| `{prefix}{name}` | {words}{choice} | {default} |");
        rows(out, field, &format!("{prefix}{name}."));
        rows(out, &field["additionalProperties"], &format!("{prefix}{name}.NAME."));
        rows(out, &field["items"], &format!("{prefix}{name}[]."));
    }
}

/// The fields of each table that a schema names: the path of the table, and the names in it. A
/// parser that refuses unknown fields names the same ones.
pub fn fields(schema: &Value) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    collect(&mut all, schema, String::new());
    all
}

fn collect(all: &mut Vec<(String, Vec<String>)>, schema: &Value, path: String) {
    let Some(properties) = schema["properties"].as_object() else { return };
    all.push((path.clone(), properties.keys().cloned().collect()));
    for (name, field) in properties {
        collect(all, field, format!("{path}/{name}"));
        collect(all, &field["additionalProperties"], format!("{path}/{name}/*"));
        collect(all, &field["items"], format!("{path}/{name}[]"));
    }
}
