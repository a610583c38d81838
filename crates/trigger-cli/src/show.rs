//! How a deployment is shown: as text or as JSON lines. In text mode the tool's bytes go unchanged
//! to stdout and stderr, relay's messages go to stderr, and a terminal gets a live line. Untrusted
//! text stays raw only in the tool's bytes; relay's messages escape it (clause FRM-17).
//!
//! Nothing here blocks: the [`Outlet`] writes. Its reader may be slow or stuck, so the caller asks
//! [`Show::has_room`] before it hands out more, and [`Show::written`] before it deletes a message.

use std::io::{ErrorKind, IsTerminal as _};
use std::time::Duration;

use relay_aws::clock::now;
use relay_console::outlet::{self, Outlet, To};
use relay_console::{Failure, harmless};
use relay_protocol::DeploymentId;
use relay_protocol::encoding::{ascii_json, base64, printable};
use relay_protocol::frame::Chunk;
use serde_json::{Value, json};

use crate::args::{Following, Output};
use crate::clock::Clock;
use crate::fold::Fold;
use crate::signals::Signals;
use crate::stamp::Stamper;
use crate::summary::{self, Recent};
use crate::weave::{Piece, Weave};

/// Bytes that may wait to be written before the deployment's output is no longer read.
const WAITING_MAX: usize = 1024 * 1024;

/// The most characters of the live line's message, so that it fits into a line of 80.
const LIVE_MAX: usize = 60;

/// Moves to the beginning of the live line and removes it.
const ERASE: &str = "\r\x1b[K";

/// Whether to print a line for a user who asked for quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Importance {
    Progress,
    Must,
}

/// The line at the bottom of a terminal that says where the deployment is.
#[derive(Debug)]
struct Live {
    message: String,
    /// What it says now, if it is there.
    drawn: Option<String>,
}

/// Prints one deployment.
#[derive(Debug)]
pub(crate) struct Show {
    output: Output,
    clock: Clock,
    quiet: bool,
    live: Option<Live>,
    outlet: Outlet,
    weave: Weave,
    /// The foldable sections of a CI system's log.
    fold: Option<Fold>,
    /// Begins each line with the time.
    stamper: Option<Stamper>,
    /// The last of the output, for the summary.
    recent: Option<Recent>,
    /// Whether the user was told that stdout and stderr take no more.
    told_closed: [bool; 2],
    /// Whether a stream failed for a reason other than a closed pipe.
    failed: bool,
    /// When something was last printed.
    printed_at: Duration,
}

impl Show {
    /// Shows a live line only to a person at a terminal: in a CI log every redraw would be a line.
    ///
    /// # Errors
    ///
    /// The streams do not suit the sections that the caller asks for.
    pub(crate) fn new(following: &Following, clock: Clock) -> Result<Self, Failure> {
        let Following { output, quiet, .. } = *following;
        let variable = |name: &str| std::env::var(name).ok();
        let is_text = output == Output::Text;
        let live = is_text && !quiet && std::io::stderr().is_terminal() && variable("CI").is_none();
        let one_file = relay_platform::is_one_stream();
        let fold = if is_text { Fold::of(following.fold, one_file, variable)? } else { None };
        Ok(Self {
            output,
            clock,
            quiet,
            live: live.then(|| Live { message: String::new(), drawn: None }),
            outlet: Outlet::start(),
            weave: Weave::new(one_file),
            fold,
            stamper: (is_text && following.timestamps).then(Stamper::default),
            recent: following.summary_file.as_ref().map(|_| Recent::default()),
            told_closed: [false; 2],
            failed: false,
            printed_at: clock.elapsed(),
        })
    }

    /// Prints where the deployment is: `relay admitted 0.4s by policy0`.
    pub(crate) fn event(&mut self, name: &str, text: &str, more: Value) {
        let space = if text.is_empty() { "" } else { " " };
        let plain = format!("{name} {:.1}s{space}{}", self.clock.elapsed().as_secs_f64(), printable(text));
        self.set_live(format!("{name}{space}{}", printable(text)));
        self.tell(&plain, Importance::Progress, self.json(name, text, more));
    }

    /// Prints that a step begins: `relay step 1/2 plan`.
    /// `of` is `None` if nobody said how many there are.
    pub(crate) fn step(&mut self, kind: &str, number: usize, of: Option<usize>, name: &str) {
        let of_all = of.map(|of| format!("/{of}")).unwrap_or_default();
        let plain = format!("{kind} {number}{of_all} {}", printable(name));
        self.set_live(plain.clone());
        match &mut self.fold {
            Some(fold) if !self.quiet => {
                let lines = fold.section(&format!("relay {plain}"), now().unix());
                self.push(Piece::Line(lines));
            }
            _ => self.tell(&plain, Importance::Progress, self.json(kind, name, json!({ "number": number, "of": of }))),
        }
    }

    /// Prints that a quiet deployment is alive: `relay: step apply running for 12m`. CI systems end
    /// jobs that print nothing for ten minutes or so.
    pub(crate) fn alive(&mut self, text: &str) {
        self.words("waiting", text, Importance::Progress);
    }

    /// Prints how the deployment ended: `relay finished: exit 0, 3m12s, output verified`. Quiet
    /// hides only a plain end, which the exit code tells completely.
    pub(crate) fn end_line(&mut self, name: &str, text: &str, plain_end: bool, more: Value) {
        self.end_section();
        let importance = if plain_end { Importance::Progress } else { Importance::Must };
        self.tell(&format!("{name}: {}", printable(text)), importance, self.json(name, text, more));
    }

    /// Ends the open section. What relay says at the end stands outside.
    fn end_section(&mut self) {
        if let Some(line) = self.fold.as_mut().and_then(|fold| fold.end(now().unix())) {
            self.push(Piece::Line(line));
        }
    }

    /// Prints the one result that the command was for.
    pub(crate) fn result(&mut self, name: &str, text: &str, more: Value) {
        self.tell(&format!("{name}: {}", printable(text)), Importance::Must, self.json(name, text, more));
    }

    /// Says that the deployment goes on without this command. Its id goes alone to stdout, for
    /// scripts.
    pub(crate) fn detached(&mut self, follow: &str, id: &DeploymentId) {
        let text = format!("follow it with: {follow}");
        let json = self.json("detached", &text, json!({ "deployment_id": id }));
        self.tell(&format!("detached: {text}"), Importance::Progress, json);
        if self.output == Output::Text {
            self.outlet.put(To::Stdout, format!("{id}\n").into_bytes());
        }
    }

    /// Prints a document for programs on stdout.
    pub(crate) fn document(&mut self, text: String) {
        self.outlet.put(To::Stdout, text.into_bytes());
    }

    /// Prints an explanation.
    pub(crate) fn say(&mut self, text: &str) {
        self.words("note", text, Importance::Progress);
    }

    /// Prints a warning, even for a user who asked for quiet.
    pub(crate) fn warn(&mut self, text: &str) {
        self.words("warning", text, Importance::Must);
    }

    /// Prints what to do next, even for a user who asked for quiet.
    pub(crate) fn hint(&mut self, text: &str) {
        let json = self.json("hint", text, json!({}));
        self.print(format!("relay: hint: {}", printable(text)), Importance::Must, json);
    }

    fn words(&mut self, name: &str, text: &str, importance: Importance) {
        // No space between `relay` and the colon: this is a message, not a state.
        self.print(format!("relay: {}", printable(text)), importance, self.json(name, text, json!({})));
    }

    fn tell(&mut self, plain: &str, importance: Importance, json: Value) {
        self.print(format!("relay {plain}"), importance, json);
    }

    /// The types of JSON lines are words with underscores.
    fn json(&self, name: &str, text: &str, more: Value) -> Value {
        let elapsed_ms = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut line = json!({ "type": name.replace(' ', "_"), "elapsed_ms": elapsed_ms, "text": text });
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        line
    }

    fn print(&mut self, plain: String, importance: Importance, json: Value) {
        match self.output {
            Output::Json => self.json_line(&json),
            Output::Text if self.quiet && importance == Importance::Progress => {}
            Output::Text => {
                let time = self.stamper.as_ref().map(|_| Stamper::time()).unwrap_or_default();
                self.push(Piece::Line(time + &plain));
            }
        }
    }

    fn json_line(&mut self, line: &Value) {
        self.printed_at = self.clock.elapsed();
        self.outlet.put(To::Stdout, (ascii_json(line) + "\n").into_bytes());
    }

    /// Prints the tool's bytes. A stream that cannot take them is closed, and the deployment goes
    /// on.
    pub(crate) fn output(&mut self, chunks: Vec<Chunk>) {
        if let Some(line) = self.fold.as_mut().and_then(Fold::before_output) {
            self.push(Piece::Line(line));
        }
        for chunk in chunks {
            if let Some(recent) = &mut self.recent {
                recent.push(&chunk.bytes);
            }
            if self.output == Output::Text {
                let bytes = match &mut self.stamper {
                    Some(stamper) => stamper.stamped(chunk.stream, &chunk.bytes),
                    None => chunk.bytes,
                };
                self.push(Piece::Tool(chunk.stream, bytes));
                continue;
            }
            let mut line = json!({ "type": "output", "stream": chunk.stream, "ms": chunk.ms });
            if let Some(line) = line.as_object_mut() {
                match std::str::from_utf8(&chunk.bytes) {
                    Ok(text) => line.insert("text".to_owned(), json!(text)),
                    Err(_) => line.insert("base64".to_owned(), json!(base64(&chunk.bytes))),
                };
            }
            self.json_line(&line);
        }
    }

    fn push(&mut self, piece: Piece) {
        self.printed_at = self.clock.elapsed();
        self.weave.push(self.clock.elapsed(), piece);
        self.put_ready();
    }

    fn put_ready(&mut self) {
        let ready = self.weave.take_ready();
        if !ready.is_empty() {
            self.erase_live();
        }
        for (to, bytes) in ready {
            self.outlet.put(to, bytes);
        }
    }

    /// Prints what has waited long enough, says what has failed, and draws the live line. The
    /// caller calls it whenever something has happened, and when [`Show::poll_timeout`] is due.
    pub(crate) fn handle_timeout(&mut self) {
        self.weave.handle_timeout(self.clock.elapsed());
        self.put_ready();
        self.tell_closed();
        // In the middle of the tool's line, such as a prompt, there is no room for a live line.
        if self.live.is_some() && self.outlet.waiting() == 0 && !self.weave.is_open() {
            self.draw_live();
        }
    }

    /// Returns when [`Show::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        self.weave.poll_timeout()
    }

    /// Says once for each stream why it takes no more, unless its reader has gone.
    fn tell_closed(&mut self) {
        for (to, name) in [(To::Stdout, "stdout"), (To::Stderr, "stderr")] {
            let Some(kind) = self.outlet.closed(to) else { continue };
            if std::mem::replace(&mut self.told_closed[to as usize], true) || kind == ErrorKind::BrokenPipe {
                continue;
            }
            self.failed = true;
            let text = format!("relay: cannot write to {name} ({kind}); the deployment continues without it");
            // In JSON mode, stdout cannot carry this.
            self.push(Piece::Line(text));
        }
    }

    /// Whether output could not be written for a reason other than a closed pipe.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether the reader of this program keeps up. If not, nothing more should be handed out.
    pub(crate) fn has_room(&self) -> bool {
        self.outlet.waiting() < WAITING_MAX
    }

    /// The number of the last piece that was handed to the outlet. `None` while something is held
    /// back, which then has no number yet.
    pub(crate) fn handed_out(&self) -> Option<u64> {
        self.weave.is_empty().then(|| self.outlet.taken())
    }

    /// The number of the last piece up to which everything is written.
    pub(crate) fn written(&self) -> u64 {
        self.outlet.written()
    }

    /// Waits until something is written.
    pub(crate) async fn progress(&self) {
        self.outlet.progress().await;
    }

    /// For how long a stream has taken nothing of what waits for it.
    pub(crate) fn stuck_for(&self) -> Duration {
        self.outlet.stuck_for()
    }

    /// How long nothing was printed. Zero if a live line shows that relay is alive, or the user
    /// asked for quiet.
    pub(crate) fn silent_for(&self) -> Duration {
        if self.live.is_some() || self.quiet {
            return Duration::ZERO;
        }
        self.clock.elapsed().saturating_sub(self.printed_at)
    }

    /// Gives up what waits to be written: a stream took nothing for too long.
    pub(crate) fn abandon(&mut self) {
        self.outlet.abandon();
        self.tell_closed();
    }

    /// The text of the summary file.
    pub(crate) fn summary(&self, result: &Value) -> String {
        summary::markdown(result, self.recent.as_ref().unwrap_or(&Recent::default()))
    }

    /// Removes the live line, and prints what was held back.
    pub(crate) fn finish(&mut self) {
        self.weave.finish();
        self.put_ready();
        self.erase_live();
        self.live = None;
    }

    /// Waits until everything is written, a signal comes, or a stream has taken nothing for
    /// `limit`.
    pub(crate) async fn drain(&mut self, signals: &mut Signals, limit: Duration) {
        self.end_section();
        self.finish();
        while self.outlet.waiting() > 0 && self.outlet.stuck_for() < limit {
            tokio::select! {
                () = self.outlet.progress() => {}
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                _ = signals.next() => return,
            }
        }
    }

    fn set_live(&mut self, message: String) {
        if let Some(live) = &mut self.live {
            live.message = message;
        }
    }

    fn draw_live(&mut self) {
        let Some(live) = &mut self.live else { return };
        let message: String = live.message.chars().take(LIVE_MAX).collect();
        let text = format!("{ERASE}relay: {message} ({}s)", self.clock.elapsed().as_secs());
        if live.drawn.as_ref() != Some(&text) {
            self.outlet.put(To::Stderr, text.clone().into_bytes());
            live.drawn = Some(text);
        }
    }

    fn erase_live(&mut self) {
        if let Some(live) = &mut self.live
            && live.drawn.take().is_some()
        {
            self.outlet.put(To::Stderr, ERASE);
        }
    }
}

/// Prints a line for people on stderr, from a command that follows no deployment.
pub(crate) fn line(text: &str) {
    // If the stream is closed, nobody is left to tell.
    drop(outlet::write(To::Stderr, (harmless(text) + "\n").as_bytes()));
}

/// Prints a line for programs on stdout.
pub(crate) fn out(text: &str) {
    // If the stream is closed, nobody is left to tell.
    drop(outlet::write(To::Stdout, (harmless(text) + "\n").as_bytes()));
}
