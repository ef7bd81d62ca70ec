//! `--processes N`: one process of this program for each share of the batches.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::context::Context;
use crate::device::available_cpus;
use crate::train::interrupt::{Interrupt, LAUNCHED};
use crate::words::count;
use crate::{Error, Result};

/// How long processes may take to end after one of them has.
const GRACE: Duration = Duration::from_secs(5);
/// How often it is looked whether one has ended.
const PAUSE: Duration = Duration::from_millis(30);

/// A process and what it says.
struct Process {
    child: Child,
    /// Standard error of those that share no terminal.
    errors: Option<JoinHandle<String>>,
    ended: Option<ExitStatus>,
}

/// Starts this command `processes` times, passes signals on, and waits for all; when one fails, the others are
/// stopped.
///
/// # Errors
/// A process cannot be started, or one was killed.
pub fn launch(context: &Context, processes: usize) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::watch();
    let threads = context.common.threads.is_none() && std::env::var_os("OMP_NUM_THREADS").is_none();
    let threads = threads.then(|| (available_cpus() / processes).max(1));
    let each =
        threads.map_or_else(String::new, |threads| format!(" of {}", count(threads, "thread")));
    context.say.line(&format!("training with {processes} processes{each}"));
    let port = free_port()?;
    let start = |rank| start(rank, processes, port, threads);
    let mut all = (0..processes).map(start).collect::<Result<Vec<_>>>()?;
    let (mut passed, mut first_end) = (None, None);
    loop {
        for process in &mut all {
            if process.ended.is_none() {
                process.ended = process.child.try_wait()?;
            }
        }
        if all.iter().all(|process| process.ended.is_some()) {
            break;
        }
        let signal = interrupt.signal();
        if signal != passed {
            passed = signal;
            let signal = signal.map(|signal| [signal]);
            for pipe in all.iter_mut().filter_map(|process| process.child.stdin.as_mut()) {
                // One that has ended takes no more of them.
                let _ = pipe.write_all(signal.as_ref().map_or(&[], |signal| signal));
            }
        }
        if all.iter().any(|process| process.ended.is_some_and(|status| !status.success())) {
            let since = *first_end.get_or_insert_with(Instant::now);
            if since.elapsed() > GRACE {
                for process in &mut all {
                    // It may have ended just now.
                    let _ = process.child.kill();
                }
            }
        }
        std::thread::sleep(PAUSE);
    }
    outcome(all)
}

/// What all of them together ended with.
fn outcome(all: Vec<Process>) -> anyhow::Result<ExitCode> {
    let size = all.len();
    let mut failed = None;
    for (rank, process) in all.into_iter().enumerate() {
        let said = process.errors.and_then(|errors| errors.join().ok()).unwrap_or_default();
        let Some(status) = process.ended.filter(|status| !status.success()) else { continue };
        match status.code() {
            None => {
                return Err(Error::Config(format!(
                    "process {rank} of {size} was killed ({status}), and the others were stopped; --resume RUN goes \
                     on from the last checkpoint"
                ))
                .into());
            }
            Some(code) => {
                if failed.is_none() && rank > 0 {
                    let _ = write!(std::io::stderr(), "process {rank} of {size}: {said}");
                }
                failed.get_or_insert(code);
            }
        }
    }
    let code = failed.map_or(0, |code| u8::try_from(code).unwrap_or(2));
    Ok(ExitCode::from(code))
}

fn start(rank: usize, size: usize, port: u16, threads: Option<usize>) -> Result<Process> {
    let fail = |source| Error::io("visage", source);
    let mut command = Command::new(std::env::current_exe().map_err(fail)?);
    command.args(arguments(std::env::args_os().skip(1)));
    if let Some(threads) = threads {
        command.args(["--threads", &threads.to_string()]);
    }
    let variables = [
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("WORLD_SIZE", size.to_string()),
        ("MASTER_ADDR", "127.0.0.1".into()),
        ("MASTER_PORT", port.to_string()),
        (LAUNCHED, "1".into()),
    ];
    command.envs(variables).env_remove("TORCHELASTIC_USE_AGENT_STORE").stdin(Stdio::piped());
    #[cfg(unix)]
    {
        // Ctrl-C reaches this process only, which passes it on.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
    }
    if rank > 0 {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
    }
    let mut child = command.spawn().map_err(fail)?;
    let errors = child.stderr.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // Whatever it said before the pipe broke.
            let _ = pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    Ok(Process { child, errors, ended: None })
}

/// The arguments without `--processes`.
fn arguments(all: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut kept, mut is_value) = (Vec::new(), false);
    for argument in all {
        let text = argument.to_string_lossy();
        let (is_flag, is_both) = (text == "--processes", text.starts_with("--processes="));
        if !std::mem::replace(&mut is_value, is_flag) && !is_flag && !is_both {
            kept.push(argument);
        }
    }
    kept
}

/// A port that no one listens at now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0));
    let port = listener.and_then(|listener| listener.local_addr());
    port.map(|address| address.port()).map_err(|source| Error::io("127.0.0.1", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_get_all_flags_but_their_number() {
        let of = |flags: &[&str]| {
            let flags = arguments(flags.iter().map(OsString::from));
            flags.into_iter().map(|flag| flag.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(
            of(&["train-triplet", "--processes", "2", "-p", "4"]),
            ["train-triplet", "-p", "4"]
        );
        assert_eq!(of(&["--processes=2", "--out", "x"]), ["--out", "x"]);
        assert_eq!(of(&["--processes", "--processes"]), [""; 0]);
    }
}
