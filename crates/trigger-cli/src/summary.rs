//! The file of `--summary-file`: how a deployment ended, as Markdown for the page of a CI run or a
//! comment on a change.
//!
//! Everything that a tool, a launcher or a runner has said is in a fence that it cannot close, so
//! it makes no markup, no link and no mention.

use std::collections::VecDeque;

use serde_json::Value;

use crate::ansi;

/// The most characters of the file: a comment on GitHub may have 65,536.
const CHARACTERS_MAX: usize = 60_000;

/// The most bytes of the output that are kept for it.
const KEPT: usize = 48 * 1024;

/// The last of what a deployment printed, both streams together.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    kept: VecDeque<u8>,
    /// How many bytes there were in all.
    total: u64,
}

impl Recent {
    /// Adds some output.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let bytes = &bytes[bytes.len().saturating_sub(KEPT)..];
        let over = (self.kept.len() + bytes.len()).saturating_sub(KEPT);
        self.kept.drain(..over);
        self.kept.extend(bytes);
    }

    /// The text, and whether its beginning is missing. It then begins with a whole line, if it has
    /// one.
    fn text(&self) -> (String, bool) {
        let bytes: Vec<u8> = self.kept.iter().copied().collect();
        let is_cut = self.total > bytes.len() as u64;
        let begin = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(at) if is_cut && at + 1 < bytes.len() => at + 1,
            _ => 0,
        };
        (ansi::text(&bytes[begin..]), is_cut)
    }
}

/// The summary of a deployment: the result as `--result-file` has it, and the last of the output.
pub(crate) fn markdown(result: &Value, recent: &Recent) -> String {
    let mut out = format!("### relay: {} {}\n\n", result["target"].as_str().unwrap_or_default(), headline(result));
    if let Some(message) = result["message"].as_str() {
        out += &fenced(&cut(message, 4_000));
    }
    out += &facts(result);
    let outputs = result["outputs"].as_object().filter(|outputs| !outputs.is_empty());
    if let Some(outputs) = outputs {
        let lines: Vec<String> = outputs
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect();
        out += "Outputs:\n\n";
        out += &fenced(&cut(&ansi::text(lines.join("\n").as_bytes()), 8_000));
    }
    let (text, mut is_cut) = recent.text();
    if !text.trim().is_empty() {
        let room = CHARACTERS_MAX.saturating_sub(out.chars().count() + 300);
        let count = text.chars().count();
        let shown: String = text.chars().skip(count.saturating_sub(room)).collect();
        is_cut |= count > room;
        let what = if is_cut { "The last of what it printed" } else { "What it printed" };
        out += &format!("<details open><summary>{what}</summary>\n\n{}</details>\n", fenced(&shown));
    }
    out
}

/// The outcome in a few words.
fn headline(result: &Value) -> String {
    let code = &result["exit_code"];
    match (result["decided_by"].as_str(), result["reason"].as_str()) {
        (Some("tool"), _) if *code == 0 => "succeeded".to_owned(),
        (Some("tool"), _) => format!("failed: the tool exited with {code}"),
        (_, Some(reason)) => format!("did not succeed: {reason} (exit {code})"),
        _ => format!("did not succeed (exit {code})"),
    }
}

/// The table of facts. All values are relay's own words, numbers, or names of a strict form.
fn facts(result: &Value) -> String {
    let mut rows = Vec::new();
    if let Some(id) = result["deployment_id"].as_str() {
        rows.push(("deployment", format!("`{id}`")));
    }
    let phase = |name: &str| {
        let at = result["milliseconds"][name].as_u64()?;
        Some(format!("{name} after {}.{} s", at / 1000, at % 1000 / 100))
    };
    let phases: Vec<String> = ["published", "admitted", "started", "finished"].into_iter().filter_map(phase).collect();
    if !phases.is_empty() {
        rows.push(("phases", phases.join(", ")));
    }
    if let Some(verified) = result["output"]["verified"].as_bool() {
        let words = if verified { "verified, complete" } else { "**incomplete**" };
        rows.push(("output", words.to_owned()));
    }
    if let Some(digest) = result["record_sha256"].as_str() {
        let proof = if result["record_problem"].is_null() { "proves this end" } else { "**does not prove this end**" };
        rows.push(("record", format!("`{digest}` {proof}")));
    }
    if rows.is_empty() {
        return String::new();
    }
    let rows: String = rows.iter().map(|(name, value)| format!("| {name} | {value} |\n")).collect();
    format!("| | |\n|---|---|\n{rows}\n")
}

/// The longest run of backticks that keeps its form. A fence is longer than what it encloses.
const BACKTICKS_MAX: usize = 40;

/// The text as a block of code that it cannot end.
fn fenced(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    if longest > BACKTICKS_MAX {
        return fenced(&text.replace('`', "'"));
    }
    let fence = "`".repeat(longest.max(2) + 1);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{fence}text\n{text}{end}{fence}\n\n")
}

fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result() -> Value {
        json!({
            "deployment_id": "01a200d5-1fa8-7707-8707-070707070707", "target": "shop/production", "exit_code": 0,
            "decided_by": "tool", "reason": null, "message": null,
            "milliseconds": { "published": 400, "admitted": 1_250, "started": null, "finished": 61_999 },
            "output": { "verified": true }, "outputs": { "url": "https://example.com/`x`" },
            "record_sha256": "00ff", "record_problem": null,
        })
    }

    #[test]
    fn a_summary_says_how_it_ended_and_what_it_printed() {
        let mut recent = Recent::default();
        recent.push(b"Plan: \x1b[32m1 to add\x1b[0m\n");
        let expected = "### relay: shop/production succeeded\n\n\
            | | |\n|---|---|\n\
            | deployment | `01a200d5-1fa8-7707-8707-070707070707` |\n\
            | phases | published after 0.4 s, admitted after 1.2 s, finished after 61.9 s |\n\
            | output | verified, complete |\n\
            | record | `00ff` proves this end |\n\n\
            Outputs:\n\n```text\nurl=https://example.com/`x`\n```\n\n\
            <details open><summary>What it printed</summary>\n\n```text\nPlan: 1 to add\n```\n\n</details>\n";
        assert_eq!(markdown(&result(), &recent), expected);
        let failed = json!({ "target": "a/b", "exit_code": 120, "decided_by": "relay", "message": "no ``` @you\n```" });
        assert_eq!(
            markdown(&failed, &Recent::default()),
            "### relay: a/b did not succeed (exit 120)\n\n````text\nno ``` @you\n```\n````\n\n"
        );
    }

    #[test]
    fn the_last_lines_are_kept_and_the_size_is_bounded() {
        let mut recent = Recent::default();
        (0..20_000).for_each(|n| recent.push(format!("line {n} \u{1f600}\n").as_bytes()));
        recent.push(&vec![b'`'; 2 * KEPT]);
        recent.push(b"\n");
        (0..900).for_each(|n| recent.push(format!("last {n} {}\n", "x".repeat(40)).as_bytes()));
        let text = markdown(&result(), &recent);
        assert!(text.chars().count() <= CHARACTERS_MAX, "{}", text.chars().count());
        assert!(text.contains("The last of what it printed") && text.contains("last 899 x"));
        let all = "`".repeat(CHARACTERS_MAX);
        recent.push(all.as_bytes());
        assert!(markdown(&result(), &recent).chars().count() <= CHARACTERS_MAX);
    }
}
