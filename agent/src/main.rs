//! The Shipwatch agent's program.

use shipwatch_agent::deploy::shim;
use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let [command, dir] = arguments.as_slice()
        && command == shim::COMMAND
    {
        return shim::main(Path::new(dir));
    }
    ExitCode::FAILURE
}
