//! How a deployment is shown: as text or as JSON lines. In text mode the tool's bytes go unchanged
//! to stdout and stderr, relay's messages go to stderr, and a terminal gets a live line. Untrusted
//! text stays raw only in the tool's bytes; relay's messages escape it (clause FRM-17).

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

/// Whether to print a line for a user who asked for quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Importance {
    Progress,
    Must,
}

/// Prints one deployment.
#[derive(Debug)]
pub(crate) struct Show {
    output: Output,
    clock: Clock,
    bar: Option<ProgressBar>,
    quiet: bool,
    /// Whether stdout and stderr take no more. The deployment goes on without them.
    closed: [bool; 2],
    /// Whether a stream failed for a reason other than a closed pipe.
    failed: bool,
    /// Whether the tool left stderr in the middle of a line. relay's next message then starts a new
    /// one.
    open_line: Cell<bool>,
}

impl Show {
    /// Shows a live line only to a person at a terminal: in a CI log every redraw would be a line.
    pub(crate) fn new(output: Output, quiet: bool, clock: Clock) -> Self {
        let live =
            output == Output::Text && !quiet && std::io::stderr().is_terminal() && std::env::var_os("CI").is_none();
        let bar = live.then(|| live_line(clock.elapsed(), String::new()));
        Self { output, clock, bar, quiet, closed: [false; 2], failed: false, open_line: Cell::new(false) }
    }

    /// Prints where the deployment is: `relay admitted 0.4s by policy0`.
    pub(crate) fn event(&self, name: &str, text: &str, more: Value) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{name} {}", printable(text)));
        }
        let space = if text.is_empty() { "" } else { " " };
        let plain = format!("{name} {:.1}s{space}{}", self.clock.elapsed().as_secs_f64(), printable(text));
        self.tell(&plain, Importance::Progress, self.json(name, text, more));
    }

    /// Prints that a step begins: `relay step 1/2 plan`.
    /// `of` is `None` if nobody said how many there are.
    pub(crate) fn step(&self, kind: &str, number: usize, of: Option<usize>, name: &str) {
        let of_all = of.map(|of| format!("/{of}")).unwrap_or_default();
        let plain = format!("{kind} {number}{of_all} {}", printable(name));
        if let Some(bar) = &self.bar {
            bar.set_message(plain.clone());
        }
        self.tell(&plain, Importance::Progress, self.json(kind, name, json!({ "number": number, "of": of })));
    }

    /// Prints how the deployment ended: `relay finished: exit 0, 3m12s, output verified`. Quiet
    /// hides only a plain end, which the exit code tells completely.
    pub(crate) fn end_line(&self, name: &str, text: &str, plain_end: bool) {
        let importance = if plain_end { Importance::Progress } else { Importance::Must };
        self.tell(&format!("{name}: {}", printable(text)), importance, self.json(name, text, json!({})));
    }

    /// Prints the one result that the command was for.
    pub(crate) fn result(&self, name: &str, text: &str, more: Value) {
        self.tell(&format!("{name}: {}", printable(text)), Importance::Must, self.json(name, text, more));
    }

    /// Says that the deployment goes on without this command. Its id goes alone to stdout, for
    /// scripts.
    pub(crate) fn detached(&self, follow: &str, id: &DeploymentId) {
        let text = format!("follow it with: {follow}");
        let json = self.json("detached", &text, json!({ "deployment_id": id }));
        self.tell(&format!("detached: {text}"), Importance::Progress, json);
        if self.output == Output::Text {
            self.line(&mut std::io::stdout().lock(), id.as_str());
        }
    }

    /// Prints an explanation.
    pub(crate) fn say(&self, text: &str) {
        self.words("note", text, Importance::Progress);
    }

    /// Prints a warning, even for a user who asked for quiet.
    pub(crate) fn warn(&self, text: &str) {
        self.words("warning", text, Importance::Must);
    }

    fn words(&self, name: &str, text: &str, importance: Importance) {
        // No space between `relay` and the colon: this is a message, not a state.
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
        // If the stream is closed, nobody is left to tell.
        let mut write = || drop(writeln!(out, "{text}"));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Writes the tool's bytes. A stream that cannot take them is closed, and the deployment goes
    /// on. Any reason but a closed pipe is reported.
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
        // The live line would overwrite a line that the tool has not ended yet, such as a prompt or
        // a row of dots.
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

    /// Returns whether output could not be written for a reason other than a closed pipe.
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
                self.warn(&format!("cannot write to {name} ({error}); the deployment continues without it"));
            }
        }
    }

    /// Removes the live line.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints a line for people on stderr, from a command that follows no deployment.
pub(crate) fn line(text: &str) {
    // If the stream is closed, nobody is left to tell.
    drop(writeln!(std::io::stderr(), "{}", harmless(text)));
}

/// Prints a line for programs on stdout.
pub(crate) fn out(text: &str) {
    // If the stream is closed, nobody is left to tell.
    drop(writeln!(std::io::stdout(), "{}", harmless(text)));
}

/// Creates a live line on stderr.
fn live_line(elapsed: Duration, message: String) -> ProgressBar {
    let bar =
        ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_elapsed(elapsed).with_message(message);
    // The template is a constant. If it were wrong, the default style would do.
    if let Ok(style) = ProgressStyle::with_template("{spinner} relay: {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
