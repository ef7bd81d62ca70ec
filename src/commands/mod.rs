//! One file per subcommand: validate, build, run, report.

mod audit;
mod bench;
mod classify;
mod detect;
mod detection;
mod distil;
mod doctor;
mod embed;
mod evaluate;
mod evaluate_pairs;
mod evaluate_strangers;
mod export;
mod fetch;
mod framing;
mod gallery;
mod gallery_enroll;
mod gallery_transfer;
mod gallery_trunk;
mod given_triplets;
mod info;
mod inputs;
mod lr_find;
mod models;
mod numpy;
mod out_of_memory;
mod output;
mod pair_training;
mod prepare;
mod prepare_faces;
mod prepare_pack;
mod processes;
mod replies;
mod runs;
#[cfg(feature = "serve")]
mod serve;
mod strangers;
mod train_classifier;
mod train_pairs;
mod train_triplet;
mod training;
mod trunk;
mod tsne;
mod use_run;
mod verify;
mod weights;
mod weights_verify;

use std::cell::OnceCell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use tch::Device;

use crate::cli::{Cli, Command, Common, Resume};
use crate::data::picture;
use crate::device::{self, DeviceChoice};
use crate::native::cuda;
use crate::progress::Reporter;
use crate::train::run_folder::{RunFolder, is_interrupted};
use crate::train::set_up::settings_json;
use crate::train::world::{Place, World};
use crate::words::printable;
use crate::{Error, Result};

/// The folder of runs in which a model is looked up if no model file is given.
const RUNS: &str = "runs";

/// What all commands share.
struct Context {
    common: Common,
    say: Reporter,
    /// The folder of the run of this command, once there is one.
    run: OnceCell<PathBuf>,
    /// The interrupted run to go on with.
    resume: Option<Resume>,
    /// This process among those that train together.
    place: Option<Place>,
}

impl Context {
    fn new(mut common: Common, command: &Command) -> Result<Self> {
        let place = if command.trains() { Place::from_environment()? } else { None };
        if common.deterministic {
            cuda::use_deterministic_algorithms()?;
        }
        let say = match &place {
            Some(place) if place.rank > 0 => Reporter::hidden(),
            _ => Reporter::stderr(common.quiet),
        };
        let cpus = u16::try_from(device::available_cpus()).unwrap_or(u16::MAX);
        if let Some(asked) = common.threads.filter(|&asked| asked > cpus) {
            // More threads than CPUs wait for each other in every operator.
            say.warn(&format!("--threads {asked}: {cpus} are used, one per CPU available here"));
            common.threads = Some(cpus);
        }
        match common.threads {
            Some(threads) => tch::set_num_threads(i32::from(threads)),
            None => device::limit_threads(),
        }
        if let Some(workers) = common.workers.or(common.threads) {
            // For decoding and distances. Only a second call could fail, and there is none.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(usize::from(workers));
            let _ = pool.build_global();
        }
        picture::set_max_pixels(common.max_pixels);
        Ok(Self { common, say, run: OnceCell::new(), resume: command.resume(), place })
    }

    /// The device to compute on, resolved when a command needs one.
    fn device(&self) -> Result<Device> {
        let device = self.common.device.resolve()?;
        match &self.place {
            // One GPU for each process of a machine.
            Some(place) if device == Device::Cuda(0) => {
                DeviceChoice::Cuda(place.local_rank).resolve()
            }
            _ => Ok(device),
        }
    }

    /// The processes of the training.
    fn world(&self) -> Result<Rc<World>> {
        let world = self.place.as_ref().map(World::join).transpose()?;
        Ok(Rc::new(world.unwrap_or_default()))
    }

    /// The run folder of all processes of a training, which the first one makes.
    fn shared_run_folder<S: serde::Serialize>(
        &self,
        world: &World,
        out: &Path,
        command: &str,
        settings: &S,
    ) -> Result<RunFolder> {
        let own = world.is_first().then(|| self.run_folder(out, command, settings)).transpose()?;
        let path = own.as_ref().map(|run| (run.path().to_owned(), run.is_resumed()));
        let (path, is_resumed) = world.agree(|| Ok(path))?.unwrap_or_default();
        let anyway = self.resume.as_ref().is_some_and(|resume| resume.anyway);
        match own {
            Some(own) => Ok(own),
            None => RunFolder::follow(&path, command, is_resumed.then_some(anyway)),
        }
    }

    /// Seeds libtorch's generators and gives the device. In this order: libtorch looks for CUDA when it
    /// is first seeded and remembers the answer, so that its CUDA library has to be there by then.
    fn seed(&self, seed: u64) -> Result<Device> {
        let device = self.device()?;
        tch::manual_seed(seed as i64);
        Ok(device)
    }

    /// Creates the folder of a run; reports it if it is not `out`, because that holds a run already.
    fn run_folder<S: serde::Serialize>(
        &self,
        out: &Path,
        command: &str,
        settings: &S,
    ) -> Result<RunFolder> {
        // A launcher starts all processes again when one has died: they go on with their run.
        let restarted = self.place.as_ref().filter(|place| place.restarts > 0);
        let restarted = restarted.and_then(|_| RunFolder::newest_interrupted(out, command));
        let restarted = restarted.map(|run| Resume { run, anyway: false });
        if let Some(Resume { run, anyway }) = self.resume.as_ref().or(restarted.as_ref()) {
            let run = RunFolder::resume(run, command, *anyway)?;
            if run.checkpoint().is_none() {
                self.say.line(
                    "note: the run was interrupted before its first checkpoint; it starts again",
                );
            }
            let _ = self.run.set(run.path().to_owned());
            return Ok(run);
        }
        let run = RunFolder::create(out, command, settings)?;
        if run.path() != out && is_interrupted(out) {
            let out = out.display();
            self.say.line(&format!(
                "note: the run in {out} was interrupted; to go on with it: visage {command} --resume {out}"
            ));
        }
        if run.path() != out {
            let (out, new) = (out.display(), run.path().display());
            self.say.line(&format!("note: {out} holds a run already; this run goes to {new}"));
        }
        let _ = self.run.set(run.path().to_owned()); // a command makes one run
        Ok(run)
    }

    fn runs(&self) -> &Path {
        Path::new(RUNS)
    }
}

/// Runs the command.
///
/// # Errors
/// Whatever ends it early; [`report`] prints it.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let context = Context::new(cli.common, &cli.command)?;
    if context.place.is_some() && !matches!(cli.command, Command::TrainTriplet(_)) {
        let text =
            "only train-triplet trains in several processes; start this without the launcher";
        return Err(Error::Config(text.into()).into());
    }
    let advice = out_of_memory::Advice::of(&cli.command, &context.run);
    out_of_memory::guard(&advice, || dispatch(&context, cli.command))
}

fn dispatch(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::TrainTriplet(command) => train_triplet::run(context, *command),
        Command::TrainPairs(command) => train_pairs::run(context, command.settings),
        Command::TrainClassifier(command) => train_classifier::run(context, command.settings),
        Command::Distil(command) => distil::run(context, command.settings),
        Command::LrFind(flags) => lr_find::run(context, *flags),
        Command::Classify(flags) => classify::run(context, &flags),
        Command::Gallery(flags) => gallery::run(context, &flags.action),
        #[cfg(feature = "serve")]
        Command::Serve(flags) => serve::run(context, &flags),
        Command::Detect(flags) => detect::run(context, &flags),
        Command::Evaluate(flags) => evaluate::run(context, &flags),
        Command::Verify(flags) => verify::run(context, &flags),
        Command::Audit(flags) => audit::run(context, &flags),
        Command::Tsne(flags) => tsne::run(context, &flags),
        Command::Embed(flags) => embed::run(context, &flags),
        Command::Weights(flags) => weights::run(context, &flags.action),
        Command::Export(flags) => export::run(context, &flags),
        Command::Info(flags) => info::run(context, &flags),
        Command::Runs(flags) => runs::run(context, &flags),
        Command::Use(flags) => use_run::run(context, &flags),
        Command::Models(flags) => models::run(&flags),
        Command::Prepare(flags) => prepare::run(context, &flags.action),
        Command::Fetch(flags) => fetch::run(context, &flags),
        Command::Bench(flags) => bench::run(context, &flags),
        Command::Doctor(flags) => doctor::run(context, &flags),
    }
}

/// Prints an error once, with the causes its own text does not already hold.
///
/// A reader that closed our standard output early (`| head`) is no error; any other broken pipe is.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(output::is_closed)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    // If standard error is closed, too, there is no one left to tell.
    let text = printable(&text);
    if let Some(Error::Interrupted { signal, .. }) = error.downcast_ref() {
        let _ = writeln!(std::io::stderr(), "{text}");
        return ExitCode::from(128 + signal);
    }
    let _ = writeln!(std::io::stderr(), "error: {text}");
    let is_training_gone_wrong = matches!(error.downcast_ref(), Some(Error::Stopped { .. }));
    ExitCode::from(if is_training_gone_wrong { 3 } else { 2 })
}
