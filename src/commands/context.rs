//! What all commands share: the flags of every command, where notes go, the device, the run folder.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tch::Device;

use super::out_of_memory;
use crate::Result;
use crate::cli::{Command, Common, Resume};
use crate::data::picture;
use crate::device::{self, DeviceChoice};
use crate::native::cuda;
use crate::progress::Reporter;
use crate::train::run_folder::{RunFolder, is_interrupted};
use crate::train::world::{Place, World};

/// The folder of runs in which a model is looked up if no model file is given.
const RUNS: &str = "runs";

/// What all commands share.
pub(super) struct Context {
    pub(super) common: Common,
    pub(super) say: Reporter,
    /// The folder of the run of this command, once there is one.
    pub(super) run: OnceCell<PathBuf>,
    /// The interrupted run to go on with.
    pub(super) resume: Option<Resume>,
    /// This process among those that train together.
    pub(super) place: Option<Place>,
}

impl Context {
    pub(super) fn new(mut common: Common, command: &Command) -> Result<Self> {
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
    pub(super) fn device(&self) -> Result<Device> {
        let device = self.common.device.resolve()?;
        if device == Device::Cpu {
            out_of_memory::refuse_more_than_there_is();
        }
        match &self.place {
            // One GPU for each process of a machine.
            Some(place) if device == Device::Cuda(0) => {
                DeviceChoice::Cuda(place.local_rank).resolve()
            }
            _ => Ok(device),
        }
    }

    /// The processes of the training.
    pub(super) fn world(&self) -> Result<Rc<World>> {
        let world = self.place.as_ref().map(World::join).transpose()?;
        Ok(Rc::new(world.unwrap_or_default()))
    }

    /// The run folder of all processes of a training, which the first one makes.
    pub(super) fn shared_run_folder<S: serde::Serialize>(
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
    pub(super) fn seed(&self, seed: u64) -> Result<Device> {
        let device = self.device()?;
        tch::manual_seed(seed as i64);
        Ok(device)
    }

    /// Creates the folder of a run; reports it if it is not `out`, because that holds a run already.
    pub(super) fn run_folder<S: serde::Serialize>(
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

    pub(super) fn runs(&self) -> &Path {
        Path::new(RUNS)
    }
}
