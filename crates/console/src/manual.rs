//! Manual pages and shell completions of a command line.

use std::io::{self, Write};
use std::path::Path;

use clap::Command;
pub use clap_complete::Shell;

/// Writes the completions of a program for a shell.
pub fn completions(mut command: Command, shell: Shell, out: &mut impl Write) {
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, out);
}

/// Writes a manual page for a program and for each of its commands to `folder`, which is made if it
/// does not exist.
///
/// # Errors
///
/// If a file cannot be written.
pub fn pages(command: Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command.disable_help_subcommand(true), folder)
}
