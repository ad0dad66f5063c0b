//! `shipwatch-agent`: the program on every host, and the on-host command.
//!
//! Exit codes: 0 done; 1 it failed (a check, a deployment, the start); 2 wrong usage or configuration.

mod cli;

use shipwatch_agent::deploy::shim;
use std::{path::Path, process::ExitCode};

/// The agent allocates little and rarely; one arena keeps its memory from growing with its threads.
fn main() -> ExitCode {
    // Before anything else: a step's shim must not depend on configuration or a runtime.
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let [command, dir] = arguments.as_slice()
        && command == shim::COMMAND
    {
        return shim::main(Path::new(dir));
    }
    cli::run()
}
