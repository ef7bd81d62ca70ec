//! The `visage` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    visage::run_command_line()
}
