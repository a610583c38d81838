//! The files that a command writes for the steps after it: the deployment's id, its result, and a
//! summary. Each is opened before anything is published, so that a file that cannot be written is a
//! usage error.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use relay_console::Failure;
use relay_platform::{has_no_reader, is_stdout, open_without_blocking};
use relay_protocol::DeploymentId;
use serde_json::Value;

use crate::args;
use crate::show::Show;

/// How long the reader of a FIFO may take to open it.
const READER: Duration = Duration::from_secs(2);

/// The files of one command.
#[derive(Debug, Default)]
pub(crate) struct Files {
    id: Option<OutFile>,
    result: Option<OutFile>,
    summary: Option<OutFile>,
    /// The result of the last deployment, for its trace.
    last: Option<Value>,
}

impl Files {
    /// Opens the files, and empties them.
    pub(crate) async fn open(following: &args::Following, id: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self {
            id: OutFile::open("id file", id).await?,
            result: OutFile::open("result file", following.result_file.as_deref()).await?,
            summary: OutFile::open("summary file", following.summary_file.as_deref()).await?,
            last: None,
        })
    }

    /// A deployment begins.
    pub(crate) fn begins(&mut self, show: &mut Show, id: &DeploymentId) {
        if let Some(file) = &mut self.id {
            file.write(show, format!("{id}\n"));
        }
    }

    /// The command ends with this result.
    pub(crate) fn ended(&mut self, show: &mut Show, result: Value) {
        if let Some(file) = &mut self.summary {
            let text = show.summary(&result);
            file.write(show, text);
        }
        if let Some(file) = &mut self.result {
            file.write(show, format!("{result:#}\n"));
        }
        self.last = Some(result);
    }

    /// The result with which the command ends.
    pub(crate) fn last(&self) -> Option<&Value> {
        self.last.as_ref()
    }
}

/// A file that is open for writing. Neither opening nor writing blocks, whatever kind of file it
/// is.
#[derive(Debug)]
struct OutFile {
    what: &'static str,
    path: PathBuf,
    /// `None` if it is the command's own stdout, which has another owner.
    file: Option<File>,
}

impl OutFile {
    async fn open(what: &'static str, path: Option<&Path>) -> Result<Option<Self>, Failure> {
        let Some(path) = path else { return Ok(None) };
        let began = Instant::now();
        let file = loop {
            match open_without_blocking(path) {
                Ok(file) => break file,
                Err(error) if has_no_reader(&error) && began.elapsed() < READER => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => {
                    let problem = match has_no_reader(&error) {
                        true => "it is a pipe that nobody reads".to_owned(),
                        false => error.to_string(),
                    };
                    return Err(Failure::usage(format!("cannot write the {what} {}: {problem}", path.display())));
                }
            }
        };
        let file = (!is_stdout(&file)).then_some(file);
        let mut opened = Self { what, path: path.to_owned(), file };
        // Only a disk with an error fails here, and then the write fails too.
        drop(opened.file.as_mut().map_or(Ok(()), emptied));
        Ok(Some(opened))
    }

    /// Replaces the content. A pipe takes what it has room for (64 KiB, if nothing else is in it),
    /// and it is an error if that is not all.
    fn write(&mut self, show: &mut Show, text: String) {
        let Some(file) = &mut self.file else { return show.document(text) };
        if let Err(error) = emptied(file).and_then(|()| file.write_all(text.as_bytes())) {
            let problem = match error.kind() {
                io::ErrorKind::WouldBlock => "its reader does not keep up".to_owned(),
                _ => error.to_string(),
            };
            // The deployment's own exit code matters more.
            show.warn(&format!("cannot write the {} {}: {problem}", self.what, self.path.display()));
        }
    }
}

/// Empties a file that is not a pipe or a device.
fn emptied(file: &mut File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
        file.rewind()?;
    }
    Ok(())
}
