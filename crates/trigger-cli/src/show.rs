//! How a deployment looks: the tool's bytes to stdout and stderr as they are, relay's own words to stderr, a live line where there is a terminal,
//! or JSON lines. What a stranger wrote stays the tool's bytes; relay's words never contain it unescaped (clause FRM-17).

use std::cell::Cell;
use std::io::{ErrorKind, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relay_console::harmless;
use relay_protocol::DeploymentId;
use relay_protocol::encoding::{ascii_json, base64, printable};
use relay_protocol::frame::{Chunk, Stream};
use serde_json::{Value, json};

use crate::args::Output;

/// When each phase began, since the command did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phases {
    pub(crate) published: Option<Duration>,
    pub(crate) admitted: Option<Duration>,
    pub(crate) started: Option<Duration>,
    pub(crate) finished: Option<Duration>,
    /// ECS's last word about the task.
    pub(crate) task: Option<String>,
}

impl Phases {
    pub(crate) fn to_json(&self) -> Value {
        let ms = |at: Option<Duration>| at.map(|at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        json!({ "published": ms(self.published), "admitted": ms(self.admitted), "started": ms(self.started), "finished": ms(self.finished) })
    }
}

/// Shows one deployment.
#[derive(Debug)]
pub(crate) struct Show {
    output: Output,
    began: Instant,
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
    pub(crate) fn new(output: Output, quiet: bool, began: Instant) -> Self {
        let live =
            output == Output::Text && !quiet && std::io::stderr().is_terminal() && std::env::var_os("CI").is_none();
        let bar = live.then(|| live_line(began.elapsed(), String::new()));
        Self { output, began, bar, quiet, closed: [false; 2], failed: false, open_line: Cell::new(false) }
    }

    /// Time since the command began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Where the deployment is: `relay admitted 0.4s by policy0`.
    pub(crate) fn event(&self, name: &str, text: &str, more: Value) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{name} {}", printable(text)));
        }
        let space = if text.is_empty() { "" } else { " " };
        self.tell(
            name,
            text,
            more,
            &format!("relay {name} {:.1}s{space}{}", self.elapsed().as_secs_f64(), printable(text)),
            false,
        );
    }

    /// A step begins: `relay step 1/2 plan`.
    pub(crate) fn step(&self, kind: &str, number: usize, of: usize, name: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{kind} {number}/{of} {}", printable(name)));
        }
        let more = json!({ "number": number, "of": of });
        self.tell(kind, name, more, &format!("relay {kind} {number}/{of} {}", printable(name)), false);
    }

    /// How it ended: `relay finished: exit 0, 3m12s, output verified`. Being quiet hides only an end that the exit code tells whole.
    pub(crate) fn end_line(&self, name: &str, text: &str, plain_end: bool) {
        self.tell(name, text, json!({}), &format!("relay {name}: {}", printable(text)), !plain_end);
    }

    /// The deployment goes on without this command: its id, alone on stdout, for a script.
    pub(crate) fn detached(&self, follow: &str, id: &DeploymentId) {
        let text = format!("follow it: {follow}");
        self.tell("detached", &text, json!({ "deployment_id": id }), &format!("relay detached: {text}"), false);
        if self.output == Output::Text {
            self.line(&mut std::io::stdout().lock(), id.as_str());
        }
    }

    /// An explanation.
    pub(crate) fn say(&self, text: &str) {
        self.tell("note", text, json!({}), &format!("relay: {}", printable(text)), false);
    }

    /// What must be heard even by who asked for quiet.
    pub(crate) fn warn(&self, text: &str) {
        self.tell("warning", text, json!({}), &format!("relay: {}", printable(text)), true);
    }

    fn tell(&self, name: &str, text: &str, more: Value, plain: &str, important: bool) {
        match self.output {
            Output::Json => {
                let mut line = json!({ "type": name, "elapsed_ms": u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX), "text": text });
                if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
                    line.extend(more);
                }
                self.line(&mut std::io::stdout().lock(), &ascii_json(&line));
            }
            Output::Text if self.quiet && !important => {}
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
                self.bar = Some(live_line(self.elapsed(), bar.message()));
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
