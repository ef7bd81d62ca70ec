//! Checkpoints: everything a training needs to go on after it was killed, so that it ends with the same
//! bits as if it had not been.
//!
//! `checkpoint.safetensors` in the run folder holds the network, the optimiser's moments, the loss
//! scaler, the moving average and what a loss remembers, as tensors; and as JSON in its metadata where
//! the run stands (epoch, step, sums of the epoch, best scores), what `metrics.csv` and TensorBoard's
//! file held then, and on what it ran. The generators need no state: every draw is a function of the
//! seed, the epoch and the step. The file before it is kept as `checkpoint-previous.safetensors`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::Tensor;

use super::interval::Interval;
use super::log::LogPosition;
use super::state::{Environment, RangeState, State};
use crate::weights::TensorFile;
use crate::{Error, Result};

/// The newest checkpoint of a run.
const NEWEST: &str = "checkpoint.safetensors";
/// The one before it.
const PREVIOUS: &str = "checkpoint-previous.safetensors";
/// One that is being written.
const NEXT: &str = "checkpoint-next.safetensors";
/// The metadata key of the state.
const STATE: &str = "checkpoint";
/// The metadata key of the checksum.
const SUM: &str = "sha256";
/// Checkpoints at the ends of epochs hold the training up for at most one part in this many.
const SHARE: u32 = 100;

/// What a checkpoint holds besides tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Where the training stood.
    pub state: State,
    /// Number of steps in the sums of the epoch, and the figures' names.
    pub totals: (u64, Vec<String>),
    /// What the log's files held.
    pub log: LogPosition,
    /// On what it ran.
    pub environment: Environment,
    /// Both as they were when the epoch began, if that was before.
    pub start: Option<(State, LogPosition)>,
    /// What a learning-rate range test has measured, if it is one.
    pub range: Option<RangeState>,
}

/// A checkpoint in memory.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where the training stood.
    pub header: Header,
    /// Everything that trains, by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// The tensors of one part, without its prefix.
pub fn part(tensors: &BTreeMap<String, Tensor>, part: &str) -> Vec<(String, Tensor)> {
    let own = tensors.iter().filter_map(|(name, tensor)| {
        let name = name.strip_prefix(part)?.strip_prefix('.')?;
        Some((name.to_owned(), tensor.shallow_clone()))
    });
    own.collect()
}

impl Checkpoint {
    /// The newest whole checkpoint of a run folder; none if there is no file of one.
    ///
    /// # Errors
    /// Neither file can be used: names both, and why.
    pub fn find(run: &Path) -> Result<Option<Self>> {
        let mut reasons = Vec::new();
        for name in [NEWEST, PREVIOUS] {
            let path = run.join(name);
            match path.try_exists() {
                Ok(false) => continue,
                _ => match Self::read(&path) {
                    Ok(found) => return Ok(Some(found)),
                    Err(error) => reasons.push(error.to_string()),
                },
            }
        }
        match reasons.is_empty() {
            true => Ok(None),
            false => Err(Error::Config(format!(
                "{}: no checkpoint can be used; start the run again in another --out\n  {}",
                run.display(),
                reasons.join("\n  ")
            ))),
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let file = TensorFile::read(path)?;
        let fail = |reason: &str| Error::weights(path, reason.to_owned());
        let text = file.meta(STATE).ok_or_else(|| fail("not a checkpoint of a training"))?;
        if file.meta(SUM) != Some(sum(text, &file.tensors)?.as_str()) {
            return Err(fail("its checksum is wrong: the file is damaged"));
        }
        let header = serde_json::from_str(text)
            .map_err(|error| fail(&format!("the state cannot be read: {error}")))?;
        Ok(Self { header, tensors: file.tensors })
    }

    fn write(self, run: &Path) -> Result<()> {
        let Self { header, tensors } = self;
        let header =
            serde_json::to_string(&header).map_err(|error| Error::Config(error.to_string()))?;
        let sum = sum(&header, &tensors)?;
        let metadata = BTreeMap::from([(STATE.to_owned(), header), (SUM.to_owned(), sum)]);
        let [next, newest, previous] = [NEXT, NEWEST, PREVIOUS].map(|name| run.join(name));
        TensorFile { tensors, metadata }.write(&next)?;
        let rename = |from: &Path, to: &Path| {
            std::fs::rename(from, to).map_err(|source| Error::io(from, source))
        };
        if newest.exists() {
            rename(&newest, &previous)?;
        }
        rename(&next, &newest)?;
        // The names, too, have to survive a loss of power.
        let folder = std::fs::File::open(run).and_then(|folder| folder.sync_all());
        folder.map_err(|source| Error::io(run, source))
    }
}

/// SHA-256 of the state and of every tensor's name and bytes.
fn sum(state: &str, tensors: &BTreeMap<String, Tensor>) -> Result<String> {
    let mut sum = Sha256::new_with_prefix(state);
    for (name, tensor) in tensors {
        sum.update(name);
        sum.update(crate::weights::bytes_of(tensor)?);
    }
    Ok(format!("{:x}", sum.finalize()))
}

/// Writes the checkpoints of a run, each on a thread of its own while the training goes on.
#[derive(Debug)]
pub struct Checkpoints {
    run: PathBuf,
    interval: Interval,
    writing: Option<JoinHandle<Result<()>>>,
    last: (Instant, u64),
    /// How long the last one held the training up.
    cost: Duration,
    /// Goes true with the first that cannot be written.
    has_warned: bool,
}

impl Checkpoints {
    /// For the run in this folder, after `done` steps.
    pub fn new(run: &Path, interval: Interval, done: u64) -> Self {
        Self {
            run: run.to_owned(),
            interval,
            writing: None,
            last: (Instant::now(), done),
            cost: Duration::ZERO,
            has_warned: false,
        }
    }

    /// Whether one is due after `done` steps.
    pub fn is_due(&self, done: u64) -> bool {
        let (since, before) = self.last;
        match self.interval {
            Interval::Steps(steps) => done.saturating_sub(before) >= steps,
            Interval::Milliseconds(time) => since.elapsed() >= Duration::from_millis(time),
        }
    }

    /// Whether one at the end of an epoch is due: always, unless it would slow the training down.
    pub fn is_due_after_epoch(&self, done: u64) -> bool {
        self.is_due(done) || self.last.0.elapsed() >= self.cost * SHARE
    }

    /// Has a checkpoint written, whose tensors no one changes any more. One that cannot be written (a full
    /// disk) ends no training: the first gives a warning.
    pub fn save(&mut self, header: Header, tensors: BTreeMap<String, Tensor>) -> Option<String> {
        let since = Instant::now();
        let warning = self.wait();
        self.last = (since, header.state.done);
        let (checkpoint, run) = (Checkpoint { header, tensors }, self.run.clone());
        self.writing = Some(std::thread::spawn(move || checkpoint.write(&run)));
        self.cost = since.elapsed();
        warning
    }

    /// Waits until the last one is on the disk; a warning if it could not be written.
    pub fn wait(&mut self) -> Option<String> {
        let outcome = self.writing.take()?.join();
        let outcome = outcome.unwrap_or_else(|_| Err(Error::Config("the writer panicked".into())));
        let error = outcome.err()?;
        let is_first = !std::mem::replace(&mut self.has_warned, true);
        is_first.then(|| format!("no checkpoint could be written, the next one is tried: {error}"))
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.wait();
    }
}

/// Removes the checkpoints of a run that is finished.
pub fn remove(run: &Path) {
    for name in [NEWEST, PREVIOUS, NEXT] {
        // They are of no use now, and harm no one.
        let _ = std::fs::remove_file(run.join(name));
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Tensor};

    use super::*;
    use crate::train::fit_result::Scores;
    use crate::train::state::State;

    fn header(done: u64) -> Header {
        let scores = Scores {
            values: vec![("knn", 0.1 + 0.2), ("auc", f64::INFINITY)],
            rank: vec![f64::NEG_INFINITY],
            criterion: "auc",
            headline: "so far".into(),
        };
        let mut state = State::new(0.1 + 0.2, None, scores.clone());
        state.batches = vec![vec![3, 1], vec![2]];
        state.done = done;
        state.history.push((Some(1.0 / 3.0), scores));
        Header {
            start: Some((state.clone(), LogPosition::default())),
            state,
            totals: (1, vec!["loss".into()]),
            log: LogPosition::default(),
            environment: Environment::here(Device::Cpu, 1),
            range: None,
        }
    }

    fn save(run: &Path, done: u64, value: f32) {
        let mut saver = Checkpoints::new(run, Interval::Steps(1), 0);
        let tensor = Tensor::from_slice(&[value, 2.0]);
        assert_eq!(saver.save(header(done), BTreeMap::from([("model.w".into(), tensor)])), None);
        assert_eq!(saver.wait(), None);
    }

    #[test]
    fn a_damaged_checkpoint_gives_way_to_the_one_before_it() {
        let run = tempfile::tempdir().unwrap();
        assert!(Checkpoint::find(run.path()).unwrap().is_none());
        save(run.path(), 1, 1.0);
        save(run.path(), 2, 5.0);
        let found = Checkpoint::find(run.path()).unwrap().unwrap();
        assert_eq!(found.header, header(2));
        let model = part(&found.tensors, "model");
        assert_eq!((model[0].0.as_str(), model[0].1.double_value(&[0])), ("w", 5.0));

        let newest = run.path().join(NEWEST);
        let whole = std::fs::read(&newest).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&whole[..whole.len() / 2], &[], &flipped] {
            std::fs::write(&newest, damaged).unwrap();
            assert_eq!(Checkpoint::find(run.path()).unwrap().unwrap().header, header(1));
        }
        std::fs::write(run.path().join(PREVIOUS), "x").unwrap();
        let error = Checkpoint::find(run.path()).unwrap_err().to_string();
        assert!(error.contains(NEWEST) && error.contains(PREVIOUS), "{error}");
        remove(run.path());
        assert!(Checkpoint::find(run.path()).unwrap().is_none());
    }

    #[test]
    fn a_folder_that_vanished_gives_one_warning() {
        let run = tempfile::tempdir().unwrap().path().join("run/x");
        std::fs::create_dir_all(run.parent().unwrap()).unwrap();
        std::fs::write(&run, "a file where the folder was").unwrap();
        let mut saver = Checkpoints::new(&run, Interval::Steps(1), 0);
        assert_eq!(saver.save(header(1), BTreeMap::new()), None);
        assert!(saver.wait().unwrap().contains("no checkpoint could be written"));
        assert_eq!(saver.save(header(2), BTreeMap::new()), None);
        assert_eq!(saver.wait(), None, "one warning");
        std::fs::remove_file(&run).unwrap();
        std::fs::create_dir(&run).unwrap();
        assert_eq!((saver.save(header(3), BTreeMap::new()), saver.wait()), (None, None));
        assert_eq!(Checkpoint::find(&run).unwrap().unwrap().header, header(3));
        std::fs::remove_dir_all(run.parent().unwrap()).unwrap();
    }
}
