//! How a deployment looks: the tool's bytes to stdout and stderr as they are, relay's own words to stderr, a live line where there is a terminal,
//! or JSON lines. What a stranger wrote stays the tool's bytes; relay's words never contain it unescaped (clause FRM-17).

use std::cell::Cell;
use std::io::{ErrorKind, IsTerminal as _, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relay_console::harmless;
use relay_protocol::DeploymentId;
use relay_protocol::encoding::{ascii_json, base64, printable};
use relay_protocol::frame::{Chunk, Stream};
use serde_json::{Value, json};

use crate::args::Output;
use crate::clock::Clock;

/// Whether a line is shown to a user who asked for quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Importance {
    Progress,
    Must,
}

/// Shows one deployment.
#[derive(Debug)]
pub(crate) struct Show {
    output: Output,
    clock: Clock,
    bar: Option<ProgressBar>,
    quiet: bool,
    /// A stream that takes no more: the deployment goes on without it.
    closed: [bool; 2],
    /// Whether a stream stopped taking output for another reason than that its reader went.
    failed: bool,
    /// Whether the tool left stderr in the middle of a line; relay's own words then begin a new one.
    open_line: Cell<bool>,
}

impl Show {
    /// The live line is for a person at a terminal only: in a CI log every redraw would be a line.
    pub(crate) fn new(output: Output, quiet: bool, clock: Clock) -> Self {
        let live =
            output == Output::Text && !quiet && std::io::stderr().is_terminal() && std::env::var_os("CI").is_none();
        let bar = live.then(|| live_line(clock.elapsed(), String::new()));
        Self { output, clock, bar, quiet, closed: [false; 2], failed: false, open_line: Cell::new(false) }
    }

    /// Where the deployment is: `relay admitted 0.4s by policy0`.
    pub(crate) fn event(&self, name: &str, text: &str, more: Value) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{name} {}", printable(text)));
        }
        let space = if text.is_empty() { "" } else { " " };
        let plain = format!("{name} {:.1}s{space}{}", self.clock.elapsed().as_secs_f64(), printable(text));
        self.tell(&plain, Importance::Progress, self.json(name, text, more));
    }

    /// A step begins: `relay step 1/2 plan`.
    pub(crate) fn step(&self, kind: &str, number: usize, of: usize, name: &str) {
        let plain = format!("{kind} {number}/{of} {}", printable(name));
        if let Some(bar) = &self.bar {
            bar.set_message(plain.clone());
        }
        self.tell(&plain, Importance::Progress, self.json(kind, name, json!({ "number": number, "of": of })));
    }

    /// How it ended: `relay finished: exit 0, 3m12s, output verified`. Being quiet hides only an end that the exit code tells whole.
    pub(crate) fn end_line(&self, name: &str, text: &str, plain_end: bool) {
        let importance = if plain_end { Importance::Progress } else { Importance::Must };
        self.tell(&format!("{name}: {}", printable(text)), importance, self.json(name, text, json!({})));
    }

    /// The deployment goes on without this command: its id, alone on stdout, for a script.
    pub(crate) fn detached(&self, follow: &str, id: &DeploymentId) {
        let text = format!("follow it: {follow}");
        let json = self.json("detached", &text, json!({ "deployment_id": id }));
        self.tell(&format!("detached: {text}"), Importance::Progress, json);
        if self.output == Output::Text {
            self.line(&mut std::io::stdout().lock(), id.as_str());
        }
    }

    /// An explanation.
    pub(crate) fn say(&self, text: &str) {
        self.words("note", text, Importance::Progress);
    }

    /// What must be heard even by a user who asked for quiet.
    pub(crate) fn warn(&self, text: &str) {
        self.words("warning", text, Importance::Must);
    }

    fn words(&self, name: &str, text: &str, importance: Importance) {
        // Without a blank between `relay` and the colon: these are words, and no state.
        self.print(&format!("relay: {}", printable(text)), importance, self.json(name, text, json!({})));
    }

    fn tell(&self, plain: &str, importance: Importance, json: Value) {
        self.print(&format!("relay {plain}"), importance, json);
    }

    fn json(&self, name: &str, text: &str, more: Value) -> Value {
        let elapsed_ms = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut line = json!({ "type": name, "elapsed_ms": elapsed_ms, "text": text });
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        line
    }

    fn print(&self, plain: &str, importance: Importance, json: Value) {
        match self.output {
            Output::Json => self.line(&mut std::io::stdout().lock(), &ascii_json(&json)),
            Output::Text if self.quiet && importance == Importance::Progress => {}
            Output::Text => {
                let start = if self.open_line.replace(false) { "\n" } else { "" };
                self.line(&mut std::io::stderr().lock(), &format!("{start}{plain}"));
            }
        }
    }

    fn line(&self, out: &mut impl Write, text: &str) {
        // Nobody left to tell when it is closed.
        let mut write = || drop(writeln!(out, "{text}"));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// The tool's bytes. A stream that cannot take them is closed and told of; the deployment goes on.
    pub(crate) fn output(&mut self, chunks: &[Chunk]) {
        if self.output == Output::Json {
            for chunk in chunks {
                let mut line = json!({ "type": "output", "stream": chunk.stream, "ms": chunk.ms });
                if let Some(line) = line.as_object_mut() {
                    match std::str::from_utf8(&chunk.bytes) {
                        Ok(text) => line.insert("text".to_owned(), json!(text)),
                        Err(_) => line.insert("base64".to_owned(), json!(base64(&chunk.bytes))),
                    };
                }
                self.line(&mut std::io::stdout().lock(), &ascii_json(&line));
            }
            return;
        }
        // The live line would be drawn over a line that the tool has not ended yet: a prompt, a row of dots.
        let open =
            chunks.iter().rfind(|chunk| !chunk.bytes.is_empty()).is_some_and(|chunk| !chunk.bytes.ends_with(b"\n"));
        let Some(bar) = self.bar.clone() else { return chunks.iter().for_each(|chunk| self.write(chunk)) };
        if bar.is_finished() || open {
            bar.finish_and_clear();
            chunks.iter().for_each(|chunk| self.write(chunk));
            if !open {
                self.bar = Some(live_line(self.clock.elapsed(), bar.message()));
            }
        } else {
            bar.suspend(|| chunks.iter().for_each(|chunk| self.write(chunk)));
        }
    }

    /// Whether output could not be written, other than because nobody wanted to read it.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    fn write(&mut self, chunk: &Chunk) {
        let at = usize::from(chunk.stream == Stream::Stderr);
        if self.closed[at] {
            return;
        }
        let result = match chunk.stream {
            Stream::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(&chunk.bytes).and_then(|()| out.flush())
            }
            Stream::Stderr => std::io::stderr().lock().write_all(&chunk.bytes),
        };
        if chunk.stream == Stream::Stderr
            && let Some(last) = chunk.bytes.last()
        {
            self.open_line.set(*last != b'\n');
        }
        if let Err(error) = result {
            self.closed[at] = true;
            if error.kind() != ErrorKind::BrokenPipe {
                self.failed = true;
                let name = if at == 0 { "stdout" } else { "stderr" };
                self.warn(&format!("{name} takes no more output ({error}); the deployment goes on without it"));
            }
        }
    }

    /// Takes the live line away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line for people, from a command that shows no deployment.
pub(crate) fn line(text: &str) {
    // Nobody left to tell when it is closed.
    drop(writeln!(std::io::stderr(), "{}", harmless(text)));
}

/// A line for a program.
pub(crate) fn out(text: &str) {
    // Nobody left to tell when it is closed.
    drop(writeln!(std::io::stdout(), "{}", harmless(text)));
}

/// A live line on stderr.
fn live_line(elapsed: Duration, message: String) -> ProgressBar {
    let bar =
        ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_elapsed(elapsed).with_message(message);
    // The template is a constant; if it were wrong, the default style would do.
    if let Ok(style) = ProgressStyle::with_template("{spinner} relay: {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
