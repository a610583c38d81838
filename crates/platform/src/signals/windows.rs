//! Windows, whose consoles have events in the place of signals.

use std::io;

use tokio::signal::windows::{CtrlBreak, CtrlC, CtrlClose, ctrl_break, ctrl_c, ctrl_close};

use super::Signal;

#[derive(Debug)]
pub(crate) struct Signals {
    interrupts: CtrlC,
    breaks: CtrlBreak,
    closed: CtrlClose,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { interrupts: ctrl_c()?, breaks: ctrl_break()?, closed: ctrl_close()? })
    }

    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupts.recv() => Signal::Interrupt("Ctrl-C"),
            _ = self.breaks.recv() => Signal::Terminate("Ctrl-Break"),
            _ = self.closed.recv() => Signal::Terminate("the console has closed"),
        }
    }
}

/// Windows has no limit on the size of files.
pub fn survive_file_limit() {}
