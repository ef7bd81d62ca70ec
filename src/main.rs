//! The `visage` command: parse, run, report.

use std::process::ExitCode;

use visage::{cli, commands, native};

fn main() -> ExitCode {
    let outcome = native::version::check()
        .and_then(|()| cli::parse(std::env::args_os()))
        .map_err(anyhow::Error::from)
        .and_then(commands::run);
    match outcome {
        Ok(code) => code,
        Err(error) => commands::report(&error),
    }
}
