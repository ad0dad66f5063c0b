//! Manual pages and shell completions, written by the programs themselves when packages are made, so that they say what the
//! programs say. Not in the help: nobody else needs it.

use clap_complete::{Shell, generate_to};
use std::{io, path::Path};

/// The hidden command: `package-files DIR`.
pub const COMMAND: &str = "package-files";

/// Writes `*.1`, and completions for Bash, Zsh and Fish, into `dir`.
///
/// # Errors
/// The file system.
pub fn write(command: clap::Command, dir: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command.clone(), &name, dir)?;
    }
    clap_mangen::generate_to(command, dir)
}
