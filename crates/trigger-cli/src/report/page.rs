//! The page of a report, as HTML. Everything that it shows is escaped, and its policy lets it load
//! nothing and run no script but its own, which it names by digest.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use relay_protocol::Digest;
use relay_protocol::encoding::{base64, escaped};
use relay_protocol::outcome::Outcome;
use relay_protocol::time::plain_elapsed;
use std::time::Duration;

use crate::ansi::{self, Style};
use crate::report::log::{From, Line, Log};
use crate::verify::checks::{Finding, Level, Signed};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The lines in one block. A browser lays out only the blocks that are in view.
const BLOCK: usize = 200;

/// A part of the deployment's time.
#[derive(Debug)]
pub(crate) struct Phase {
    name: String,
    milliseconds: u64,
    is_ok: bool,
}

impl Phase {
    pub(crate) fn new(name: &str, milliseconds: u64, is_ok: bool) -> Self {
        Self { name: name.to_owned(), milliseconds, is_ok }
    }
}

/// What the page shows.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) id: Option<String>,
    pub(crate) target: String,
    pub(crate) succeeded: bool,
    pub(crate) outcome: String,
    pub(crate) phases: Vec<Phase>,
    findings: Vec<Finding>,
    outputs: Vec<(String, String)>,
    log: Log,
    /// Why there is no log.
    pub(crate) no_log: String,
}

impl Page {
    /// The page of a record.
    pub(crate) fn of(signed: &Signed, findings: Vec<Finding>, log: Log) -> Self {
        let about = signed.about();
        let ended = findings.iter().find(|finding| finding.what == "how it ended");
        let mut page = Self {
            id: Some(about.deployment_id.to_string()),
            target: about.target.to_string(),
            outcome: ended.map(|finding| finding.text.clone()).unwrap_or_default(),
            findings,
            log,
            ..Self::default()
        };
        if let Some(it) = signed.deployment() {
            page.succeeded = matches!(it.outcome, Outcome::Exited { code: 0, .. });
            let between = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or_default() * 1_000;
            let waited = between(about.deployment_id.time().unix(), it.started_at.unix());
            let whole = between(it.started_at.unix(), it.finished_at.unix());
            let steps: u64 = it.steps.iter().map(|step| step.milliseconds).sum();
            page.phases.push(Phase::new("until the runner started", waited, true));
            page.phases
                .extend(it.steps.iter().map(|step| Phase::new(&step.name, step.milliseconds, step.exit_code == 0)));
            page.phases.push(Phase::new("beside the steps", whole.saturating_sub(steps), true));
            page.outputs = it.outputs.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        }
        page
    }

    /// The whole document.
    pub(crate) fn html(&self) -> String {
        let mut log = String::new();
        let colours = self.log(&mut log);
        let style = STYLE.to_owned() + &palette(&colours);
        let hash = |text: &str| format!("'sha256-{}'", base64(Digest::of(text.as_bytes()).as_bytes()));
        let policy = format!("default-src 'none'; style-src {}; script-src {}", hash(&style), hash(SCRIPT));
        let target = html(&self.target);
        let id = html(self.id.as_deref().unwrap_or("no deployment"));
        let (class, word) = if self.succeeded { ("ok", "succeeded") } else { ("bad", "did not succeed") };
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{target} {word}</title>\n<style>{style}</style>\n</head>\n<body>\n\
             <header><h1>{target} <span class=\"{class}\">{word}</span></h1>\n<p>{outcome}</p>\n\
             <p class=\"id\">{id}</p></header>\n<main>\n{timeline}{outputs}{findings}{log}</main>\n\
             <script>{SCRIPT}</script>\n</body>\n</html>\n",
            outcome = html(&self.outcome),
            timeline = self.timeline(),
            outputs = self.outputs(),
            findings = self.findings(),
        )
    }

    fn timeline(&self) -> String {
        let total: u64 = self.phases.iter().map(|phase| phase.milliseconds).sum();
        if total == 0 {
            return String::new();
        }
        let mut rows = String::new();
        let mut begun = 0;
        for Phase { name, milliseconds, is_ok } in &self.phases {
            let share = |value: u64| value as f64 * 100.0 / total as f64;
            let class = if *is_ok { "bar" } else { "bar bad" };
            let _ = writeln!(
                rows,
                "<tr><th>{}</th><td class=\"num\">{}</td><td class=\"wide\"><svg viewBox=\"0 0 100 4\" \
                 preserveAspectRatio=\"none\" role=\"presentation\"><rect class=\"{class}\" x=\"{:.2}\" y=\"0\" \
                 width=\"{:.2}\" height=\"4\"/></svg></td></tr>",
                html(name),
                took(*milliseconds),
                share(begun),
                share(*milliseconds).max(0.4),
            );
            begun += milliseconds;
        }
        format!("<section><h2>Time</h2>\n<table class=\"time\">{rows}</table></section>\n")
    }

    fn outputs(&self) -> String {
        if self.outputs.is_empty() {
            return String::new();
        }
        let row =
            |(name, value): &(String, String)| format!("<tr><th>{}</th><td>{}</td></tr>\n", html(name), html(value));
        let rows: String = self.outputs.iter().map(row).collect();
        format!("<section><h2>Outputs</h2>\n<table>{rows}</table></section>\n")
    }

    fn findings(&self) -> String {
        let table = |title: &str, rows: String| match rows.is_empty() {
            true => String::new(),
            false => format!("<section><h2>{title}</h2>\n<table>{rows}</table></section>\n"),
        };
        let row = |class: &str, what: &str, mark: &str, text: &str| {
            format!("<tr><th>{}</th><td class=\"{class}\">{mark}{}</td></tr>\n", html(what), html(text))
        };
        let said = self.findings.iter().filter(|finding| finding.level == Level::Says);
        let said: String = said.map(|Finding { what, text, .. }| row("", what, "", text)).collect();
        let judged = self.findings.iter().filter_map(|Finding { level, what, text }| match level {
            Level::Says => None,
            Level::Proved => Some(row("ok", what, "proved: ", text)),
            Level::NotProved => Some(row("bad", what, "NOT PROVED: ", text)),
            Level::Open => Some(row("open", what, "open: ", text)),
        });
        table("What the record says", said) + &table("What is proved", judged.collect())
    }

    /// Writes the log, and returns the colours of the palette that it uses.
    fn log(&self, out: &mut String) -> BTreeSet<u8> {
        let mut colours = BTreeSet::new();
        out.push_str("<section><h2>Log</h2>\n");
        if self.log.lines.is_empty() {
            let _ = writeln!(out, "<p>{}</p></section>", html(&self.no_log));
            return colours;
        }
        out.push_str(
            "<p class=\"find\"><label>Find <input id=\"find\" type=\"search\"></label>\n\
             <label><input id=\"out\" type=\"checkbox\" checked> stdout</label>\n\
             <label><input id=\"err\" type=\"checkbox\" checked> stderr</label>\n\
             <label><input id=\"times\" type=\"checkbox\"> times</label> <output id=\"count\"></output></p>\n",
        );
        if self.log.left_out > 0 {
            let _ = writeln!(
                out,
                "<p>The first {} lines are left out. The archive has them: relay-admin log prints all.</p>",
                self.log.left_out
            );
        }
        out.push_str("<div id=\"log\">");
        let mut styles = [Style::default(); 2];
        for (at, line) in self.log.lines.iter().enumerate() {
            if at % BLOCK == 0 {
                out.push_str(if at == 0 { "<div class=\"k\">" } else { "</div><div class=\"k\">" });
            }
            let number = self.log.left_out + at as u64 + 1;
            one_line(line, number, &mut styles, &mut colours, out);
        }
        out.push_str("</div></div></section>\n");
        colours
    }
}

/// One line of the log. The number and the time are attributes, so that a copied text is the log's.
fn one_line(line: &Line, number: u64, styles: &mut [Style; 2], colours: &mut BTreeSet<u8>, out: &mut String) {
    let class = match line.from {
        From::Stdout => "o",
        From::Stderr => "e",
        From::Relay => "r",
    };
    let _ = write!(out, "<p class=\"{class}\" data-n=\"{number}\" data-t=\"{}\">", took(line.ms));
    let pieces = match line.from {
        From::Relay => vec![(Style::default(), escaped(&String::from_utf8_lossy(&line.bytes)))],
        From::Stdout => ansi::pieces(&line.bytes, &mut styles[0]),
        From::Stderr => ansi::pieces(&line.bytes, &mut styles[1]),
    };
    for (style, text) in pieces {
        if style == Style::default() {
            out.push_str(&html(&text));
            continue;
        }
        let mut classes = Vec::new();
        let mut colour = |kind: char, value: Option<u8>| {
            if let Some(value) = value {
                colours.insert(value);
                classes.push(format!("{kind}{value}"));
            }
        };
        colour('f', style.foreground);
        colour('b', style.background);
        let marks = [(style.bold, "B"), (style.dim, "D"), (style.italic, "I"), (style.underline, "U")];
        classes.extend(marks.iter().filter(|(has, _)| *has).map(|(_, class)| (*class).to_owned()));
        let _ = write!(out, "<i class=\"{}\">{}</i>", classes.join(" "), html(&text));
    }
    out.push_str("</p>\n");
}

/// Style rules for the colours of xterm's palette beyond the 16 that have names of their own in the
/// style sheet: a cube of 6 x 6 x 6, and 24 greys.
fn palette(colours: &BTreeSet<u8>) -> String {
    let rule = |colour: &u8| {
        let (red, green, blue) = match colour {
            0..=15 => return None,
            232.. => {
                let grey = 8 + 10 * (colour - 232);
                (grey, grey, grey)
            }
            _ => {
                let level = |value: u8| if value == 0 { 0 } else { 55 + 40 * value };
                let at = colour - 16;
                (level(at / 36), level(at / 6 % 6), level(at % 6))
            }
        };
        let value = format!("#{red:02x}{green:02x}{blue:02x}");
        Some(format!(".f{colour}{{color:{value}}}.b{colour}{{background:{value}}}\n"))
    };
    colours.iter().filter_map(rule).collect()
}

/// Text as HTML, also inside an attribute in double quotes. Characters that hide or reorder text
/// are written out.
fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push('\t'),
            c if c.is_control() || relay_protocol::encoding::is_invisible(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

fn took(milliseconds: u64) -> String {
    if milliseconds < 60_000 {
        return format!("{}.{} s", milliseconds / 1_000, milliseconds % 1_000 / 100);
    }
    plain_elapsed(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(lines: &[(From, &[u8])]) -> String {
        let line = |(from, bytes): &(From, &[u8])| Line { from: *from, ms: 61_000, bytes: bytes.to_vec() };
        let mut log = Log::default();
        log.lines.extend(lines.iter().map(line));
        let phases = vec![Phase::new("wait", 1_000, true), Phase::new("<step>", 3_000, false)];
        Page { target: "shop/<b>".to_owned(), log, phases, outcome: "\"quoted\" & odd".to_owned(), ..Page::default() }
            .html()
    }

    #[test]
    fn nothing_in_a_log_becomes_markup() {
        let text = page(&[
            (From::Stdout, b"<script>alert(1)</script>\x1b[31m</i><img src=x onerror=alert(1)>"),
            (From::Stderr, b"\"><svg onload=x>\xe2\x80\xae&lt;"),
            (From::Relay, "</p></div><b>\u{1b}[1m".as_bytes()),
        ]);
        let body = text.split_once("<body>").unwrap().1;
        let tags: BTreeSet<&str> = body.split('<').skip(1).map(|tag| tag.split(['>', ' ']).next().unwrap()).collect();
        let own = [
            "/body", "/div", "/h1", "/h2", "/header", "/html", "/i", "/label", "/main", "/output", "/p", "/script",
            "/section", "/span", "/svg", "/table", "/td", "/th", "/tr", "div", "h1", "h2", "header", "i", "input",
            "label", "main", "output", "p", "rect", "script", "section", "span", "svg", "table", "td", "th", "tr",
        ];
        let strange: Vec<&&str> = tags.iter().filter(|tag| !own.contains(tag) && !SCRIPT.contains(**tag)).collect();
        assert!(strange.is_empty(), "{strange:?}");
        assert!(body.contains("&lt;script&gt;alert(1)&lt;/script&gt;<i class=\"f1\">&lt;/i&gt;&lt;img src=x"));
        assert!(body.contains("\\u{202e}&amp;lt;") && body.contains("&lt;step&gt;") && body.contains("\\u{1b}[1m"));
    }

    #[test]
    fn the_policy_names_exactly_the_pages_own_script_and_style() {
        let text = page(&[(From::Stdout, b"\x1b[38;5;200mx")]);
        let between = |begin: &str, end: &str| {
            let from = text.split_once(begin).unwrap().1;
            from.split_once(end).unwrap().0.to_owned()
        };
        for (name, inner) in [("script", between("<script>", "</script>")), ("style", between("<style>", "</style>"))] {
            let hash = base64(Digest::of(inner.as_bytes()).as_bytes());
            assert!(text.contains(&format!("{name}-src 'sha256-{hash}'")), "{name}");
        }
        assert!(text.contains("default-src 'none'") && text.contains(".f200{color:#ff00d7}"));
        assert!(!text.contains(" style=") && !text.contains(" onclick"));
    }
}
