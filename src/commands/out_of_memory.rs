//! A lack of memory, on a GPU or on the host, ends a command with a sentence that names the flag to
//! lower.

use std::any::Any;
use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::Error;
use crate::cli::Command;
use crate::device::available_cpus;
use crate::native::cuda::is_out_of_memory;
use crate::weights::BEST;

/// What to lower, and where a training keeps what it has.
pub struct Advice<'a> {
    flags: &'static str,
    /// The folder of the run, once there is one.
    run: &'a OnceCell<PathBuf>,
}

impl<'a> Advice<'a> {
    /// For a command, before it runs.
    pub fn of(command: &Command, run: &'a OnceCell<PathBuf>) -> Self {
        let mined = "lower --micro-batch (pictures in one pass), -p or -k, or --input-size";
        let tuples = "lower --batch-size or --input-size";
        let flags = match command {
            Command::TrainTriplet(command) if command.configured.settings.triplets.is_some() => {
                tuples
            }
            Command::TrainTriplet(_) | Command::LrFind(_) => mined,
            Command::TrainPairs(_) | Command::Distil(_) => tuples,
            Command::Bench(_) => "lower --batch or --mined",
            Command::Detect(_) => "raise --min-face",
            _ => "take another --device, or a model with a smaller input",
        };
        Self { flags, run }
    }

    fn sentence(&self, message: &str) -> String {
        let size = asked_for(message).map(|size| format!(" for {size}")).unwrap_or_default();
        let kept = self.run.get().filter(|run| run.join(BEST).is_file());
        let kept = kept.map(|run| format!("; the best model so far is kept in {}", run.display()));
        format!("not enough memory{size}: {}{}", self.flags, kept.unwrap_or_default())
    }
}

/// Address space above the memory that there is: stacks and what was reserved and never filled.
#[cfg(target_os = "linux")]
const UNFILLED: u64 = 1 << 30;
/// The same for each CPU, whose threads have stacks.
#[cfg(target_os = "linux")]
const UNFILLED_EACH: u64 = 16 << 20;

/// Has allocations refused that are far beyond the memory of this machine, or of the container: Linux
/// grants them and kills the process, without a word, once they are filled. Not where a GPU computes,
/// whose driver maps more than there is.
#[cfg(target_os = "linux")]
pub fn refuse_more_than_there_is() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use rustix::system::sysinfo;

    let machine = sysinfo();
    let unit = u64::from(machine.mem_unit);
    let all = (machine.totalram as u64).saturating_add(machine.totalswap as u64);
    // "max" is no number, and no limit. Version 1 of control groups has memory and swap in one number.
    let number = |file: &str| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let swap = number("/sys/fs/cgroup/memory.swap.max").unwrap_or(u64::MAX);
    let group = number("/sys/fs/cgroup/memory.max").map(|memory| memory.saturating_add(swap));
    let old = number("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes");
    let there_is = all.saturating_mul(unit).min(group.or(old).unwrap_or(u64::MAX));
    let threads = UNFILLED_EACH.saturating_mul(available_cpus() as u64);
    let limit = there_is.saturating_add(UNFILLED).saturating_add(threads);
    let Rlimit { current, maximum } = getrlimit(Resource::Data);
    if current.is_none_or(|current| current > limit) && maximum.is_none_or(|most| limit <= most) {
        // Where it is forbidden, everything is as before.
        let _ = setrlimit(Resource::Data, Rlimit { current: Some(limit), maximum });
    }
}

#[cfg(not(target_os = "linux"))]
pub fn refuse_more_than_there_is() {}

/// Runs a command; errors and panics that say that there was no memory become one sentence.
///
/// # Errors
/// An error from `body`.
pub fn guard(
    advice: &Advice,
    body: impl FnOnce() -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    // tch's operators panic where they cannot return an error; what it prints then helps nobody here.
    let usual = std::sync::Arc::new(take_hook());
    let hook = usual.clone();
    set_hook(Box::new(move |info| {
        if !text_of(info.payload()).is_some_and(|text| is_out_of_memory(&text)) {
            hook(info);
        }
    }));
    let outcome = catch_unwind(AssertUnwindSafe(body));
    drop(take_hook());
    set_hook(Box::new(move |info| usual(info)));
    match outcome {
        Ok(Err(error)) => match is_out_of_memory(&format!("{error:#}")) {
            true => Err(refusal(advice, &format!("{error:#}"))),
            false => Err(error),
        },
        Ok(done) => done,
        Err(panic) => match text_of(&*panic).filter(|text| is_out_of_memory(text)) {
            Some(text) => Err(refusal(advice, &text)),
            None => resume_unwind(panic),
        },
    }
}

fn refusal(advice: &Advice, message: &str) -> anyhow::Error {
    Error::Device(advice.sentence(message)).into()
}

/// What a panic says.
fn text_of(panic: &(dyn Any + Send)) -> Option<String> {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
}

/// The size in libtorch's message: "Tried to allocate 20.00 GiB", "you tried to allocate 123 bytes".
fn asked_for(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("ried to allocate ")?;
    let mut words = rest.split_whitespace();
    let (number, unit) = (words.next()?, words.next()?);
    let unit: String = unit.chars().take_while(char::is_ascii_alphabetic).collect();
    match (number.parse::<f64>(), unit.as_str()) {
        (Ok(bytes), "bytes") => Some(format!("{:.1} GiB", bytes / f64::from(1 << 30))),
        (Ok(_), _) => Some(format!("{number} {unit}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice() -> Advice<'static> {
        Advice { flags: "lower --batch", run: Box::leak(Box::default()) }
    }

    #[test]
    fn the_model_that_is_kept_is_named_once_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let run = OnceCell::from(folder.path().to_owned());
        let said = || Advice { flags: "lower --batch", run: &run }.sentence("");
        assert!(!said().contains("kept in"), "{}", said());
        std::fs::write(folder.path().join(BEST), "").unwrap();
        assert!(said().contains("kept in"), "{}", said());
    }

    #[test]
    fn a_panic_and_an_error_for_lack_of_memory_become_one_sentence() {
        let cuda = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to \
                    allocate 20.00 GiB. GPU 0 has a total capacity of 79.1 GiB\")";
        let cpu = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate \
                   memory: you tried to allocate 214748364800 bytes. Error code 12";
        for (message, size) in [(cuda, "20.00 GiB"), (cpu, "200.0 GiB")] {
            let wanted = format!("not enough memory for {size}: lower --batch");
            let panicked = guard(&advice(), || panic!("{message}")).unwrap_err().to_string();
            let failed = guard(&advice(), || Err(Error::Device(message.into()).into()));
            assert!(panicked.contains(&wanted), "{panicked}");
            assert!(failed.unwrap_err().to_string().contains(&wanted));
        }
    }

    #[test]
    fn everything_else_passes_through() {
        let error = guard(&advice(), || Err(Error::Device("no driver".into()).into()));
        assert_eq!(error.unwrap_err().to_string(), "no driver");
        assert!(guard(&advice(), || Ok(ExitCode::SUCCESS)).is_ok());
        let panicked = catch_unwind(|| guard(&advice(), || panic!("a defect")));
        assert!(panicked.is_err());
    }
}
