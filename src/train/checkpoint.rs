//! Checkpoints: everything a training needs to go on after it was killed, so that it ends with the same
//! bits as if it had not been.
//!
//! `checkpoint.safetensors` in the run folder holds the network, the optimiser's moments, the loss
//! scaler, the moving average and what a loss remembers, as tensors; and as JSON in its metadata where
//! the run stands (epoch, step, sums of the epoch, best scores), what `metrics.csv` and TensorBoard's
//! file held then, and on what it ran. The generators need no state: every draw is a function of the
//! seed, the epoch and the step. The file before it is kept as `checkpoint-previous.safetensors`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Device, Tensor, no_grad};

use super::fit_result::Scores;
use super::log::LogPosition;
use super::schedule::Plateau;
use crate::native;
use crate::weights::TensorFile;
use crate::{Error, Result, device};

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

/// How often a training writes a checkpoint: after steps, or after time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Interval {
    /// Every N steps.
    Steps(u64),
    /// Every so many milliseconds.
    Milliseconds(u64),
}

impl Default for Interval {
    fn default() -> Self {
        Self::Milliseconds(5 * 60 * 1000)
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text}: give a number of steps (200) or a time (30s, 5m, 1h)");
        let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
        let count = f64::from_str(number).ok().filter(|count| count.is_finite() && *count > 0.0);
        let count = count.ok_or_else(wrong)?;
        let seconds = match &text[number.len()..] {
            "" if count.fract() == 0.0 => return Ok(Self::Steps(count as u64)),
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        Ok(Self::Milliseconds((count * seconds * 1000.0).ceil() as u64))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self::Steps(steps) => write!(out, "{steps}"),
            Self::Milliseconds(time) if time % 60_000 == 0 => write!(out, "{}m", time / 60_000),
            Self::Milliseconds(time) => write!(out, "{}s", time as f64 / 1000.0),
        }
    }
}

impl TryFrom<String> for Interval {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> Self {
        interval.to_string()
    }
}

/// What decides, besides seed and data, which bits a training computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    visage: String,
    libtorch: String,
    device: String,
    processor: String,
    threads: i32,
}

impl Environment {
    /// Of this process, training on `device`.
    pub fn here(device: Device) -> Self {
        Self {
            visage: env!("CARGO_PKG_VERSION").into(),
            libtorch: native::version::runs_on_text(),
            device: device::name(device),
            processor: native::cpu_capability().unwrap_or_default(),
            threads: tch::get_num_threads(),
        }
    }

    /// What is not as it was, in words.
    pub fn changes(&self, now: &Self) -> Vec<String> {
        let pairs = [
            ("visage", &self.visage, &now.visage),
            ("libtorch", &self.libtorch, &now.libtorch),
            ("--device", &self.device, &now.device),
            ("the processor's instructions", &self.processor, &now.processor),
            ("--threads", &self.threads.to_string(), &now.threads.to_string()),
        ];
        let changed = pairs.into_iter().filter(|(_, before, now)| before != now);
        changed.map(|(what, before, now)| format!("{what}: {before}, now {now}")).collect()
    }
}

/// Where a training stands between two steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The epoch in training, from 1; the number of epochs and one where all are done.
    pub epoch: usize,
    /// Steps done in it.
    pub index: usize,
    /// Its batches, as indices of pictures; empty before its first step.
    pub batches: Vec<Vec<usize>>,
    /// Steps done in all epochs.
    pub done: u64,
    /// Steps of the first epoch, which the schedule counts with.
    pub steps_per_epoch: usize,
    /// Number of steps in the sums of the epoch, and the figures' names.
    pub totals: (u64, Vec<String>),
    /// The plateau schedule, if there is one.
    pub plateau: Option<Plateau>,
    /// The bits of the base learning rate.
    pub lr: u64,
    /// Loss and scores of the epochs so far, the untouched start first.
    pub history: Vec<(Option<u64>, SavedScores)>,
    /// The epoch of the best model.
    pub best_epoch: usize,
    /// What the log's files held.
    pub log: LogPosition,
    /// What it ran on.
    pub environment: Environment,
}

/// [`Scores`] to the bit: JSON has no NaN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedScores {
    values: Vec<(String, u64)>,
    rank: Vec<u64>,
    criterion: String,
    headline: String,
}

impl From<&Scores> for SavedScores {
    fn from(scores: &Scores) -> Self {
        let values = scores.values.iter();
        Self {
            values: values.map(|(name, value)| ((*name).to_owned(), value.to_bits())).collect(),
            rank: scores.rank.iter().map(|value| value.to_bits()).collect(),
            criterion: scores.criterion.to_owned(),
            headline: scores.headline.clone(),
        }
    }
}

impl From<&SavedScores> for Scores {
    fn from(saved: &SavedScores) -> Self {
        let values = saved.values.iter();
        Self {
            values: values.map(|(name, bits)| (forever(name), f64::from_bits(*bits))).collect(),
            rank: saved.rank.iter().map(|bits| f64::from_bits(*bits)).collect(),
            criterion: forever(&saved.criterion),
            headline: saved.headline.clone(),
        }
    }
}

/// A figure's name as the tasks have them; a process reads a dozen at most, once.
pub fn forever(name: &str) -> &'static str {
    name.to_owned().leak()
}

/// Tensors with a prefix to their names.
pub fn prefixed(
    prefix: &str,
    tensors: Vec<(String, Tensor)>,
) -> impl Iterator<Item = (String, Tensor)> {
    tensors.into_iter().map(move |(name, tensor)| (format!("{prefix}.{name}"), tensor))
}

/// A checkpoint in memory.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where the training stood.
    pub state: State,
    tensors: BTreeMap<String, Tensor>,
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
        let state = serde_json::from_str(text)
            .map_err(|error| fail(&format!("the state cannot be read: {error}")))?;
        Ok(Self { state, tensors: file.tensors })
    }

    /// The tensors of one part, without its prefix.
    pub fn part(&self, part: &str) -> Vec<(String, Tensor)> {
        let own = self.tensors.iter().filter_map(|(name, tensor)| {
            let name = name.strip_prefix(part)?.strip_prefix('/')?;
            Some((name.to_owned(), tensor.shallow_clone()))
        });
        own.collect()
    }

    /// Copies the tensors of a part into those that a training goes on with.
    ///
    /// # Errors
    /// Lists what is missing, unknown or of another shape; nothing is changed then.
    pub fn copy_to(&self, part: &str, live: &[(String, Tensor)]) -> Result<()> {
        let mut saved: BTreeMap<_, _> = self.part(part).into_iter().collect();
        let (mut wrong, mut copies) = (Vec::new(), Vec::new());
        for (name, tensor) in live {
            match saved.remove(name) {
                Some(new) if new.size() == tensor.size() && new.kind() == tensor.kind() => {
                    copies.push((tensor.shallow_clone(), new));
                }
                Some(new) => wrong.push(format!(
                    "{name}: {:?} {:?}, expected {:?} {:?}",
                    new.kind(),
                    new.size(),
                    tensor.kind(),
                    tensor.size()
                )),
                None => wrong.push(format!("{name}: missing")),
            }
        }
        wrong.extend(saved.keys().map(|name| format!("{name}: not part of this training")));
        if !wrong.is_empty() {
            let wrong = wrong.join("\n  ");
            return Err(Error::Config(format!("the checkpoint does not fit:\n  {wrong}")));
        }
        no_grad(|| copies.into_iter().for_each(|(mut tensor, new)| tensor.copy_(&new)));
        Ok(())
    }

    fn write(&self, run: &Path) -> Result<()> {
        let state =
            serde_json::to_string(&self.state).map_err(|error| Error::Config(error.to_string()))?;
        let sum = sum(&state, &self.tensors)?;
        let tensors =
            self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        let metadata = BTreeMap::from([(STATE.to_owned(), state), (SUM.to_owned(), sum)]);
        let [next, newest, previous] = [NEXT, NEWEST, PREVIOUS].map(|name| run.join(name));
        TensorFile { tensors: tensors.collect(), metadata }.write(&next)?;
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
    /// Goes false with the first that cannot be written.
    is_on: bool,
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
            is_on: true,
        }
    }

    /// Whether one is due after `done` steps.
    pub fn is_due(&self, done: u64) -> bool {
        let (since, before) = self.last;
        self.is_on
            && match self.interval {
                Interval::Steps(steps) => done - before >= steps,
                Interval::Milliseconds(time) => since.elapsed() >= Duration::from_millis(time),
            }
    }

    /// Whether one at the end of an epoch is due: always, unless it would slow the training down.
    pub fn is_due_after_epoch(&self, done: u64) -> bool {
        self.is_due(done) || (self.is_on && self.last.0.elapsed() >= self.cost * SHARE)
    }

    /// Copies the tensors and has them written. A checkpoint that cannot be written (a full disk) ends
    /// no training: the first gives a warning, and there are no more.
    pub fn save(
        &mut self,
        state: State,
        parts: Vec<(&str, Vec<(String, Tensor)>)>,
    ) -> Option<String> {
        let since = Instant::now();
        let warning = self.wait();
        if !self.is_on {
            return warning;
        }
        let tensors = parts.into_iter().flat_map(|(part, tensors)| {
            let named = move |(name, tensor): (String, Tensor)| {
                (format!("{part}/{name}"), tensor.detach().to_device(Device::Cpu).copy())
            };
            tensors.into_iter().map(named)
        });
        self.last = (since, state.done);
        let (checkpoint, run) =
            (Checkpoint { state, tensors: tensors.collect() }, self.run.clone());
        self.writing = Some(std::thread::spawn(move || checkpoint.write(&run)));
        self.cost = since.elapsed();
        warning
    }

    /// Waits until the last one is on the disk; a warning if it could not be written.
    pub fn wait(&mut self) -> Option<String> {
        let outcome = self.writing.take()?.join();
        let outcome = outcome.unwrap_or_else(|_| Err(Error::Config("the writer panicked".into())));
        let error = outcome.err()?;
        self.is_on = false;
        Some(format!("no more checkpoints, this run cannot be resumed from here on: {error}"))
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
    use super::*;

    fn state(done: u64) -> State {
        let scores = Scores {
            values: vec![("knn", 0.1 + 0.2), ("auc", f64::NAN)],
            rank: vec![f64::NEG_INFINITY],
            criterion: "auc",
            headline: "so far".into(),
        };
        State {
            epoch: 2,
            index: 1,
            batches: vec![vec![3, 1], vec![2]],
            done,
            steps_per_epoch: 2,
            totals: (1, vec!["loss".into()]),
            plateau: None,
            lr: 0.1f64.to_bits(),
            history: vec![(None, (&scores).into()), (Some(f64::NAN.to_bits()), (&scores).into())],
            best_epoch: 0,
            log: LogPosition::default(),
            environment: Environment::here(Device::Cpu),
        }
    }

    fn save(run: &Path, done: u64, value: f32) {
        let mut saver = Checkpoints::new(run, Interval::Steps(1), 0);
        let tensor = Tensor::from_slice(&[value, 2.0]);
        assert_eq!(saver.save(state(done), vec![("model", vec![("w".into(), tensor)])]), None);
        assert_eq!(saver.wait(), None);
    }

    #[test]
    fn a_damaged_checkpoint_gives_way_to_the_one_before_it() {
        let run = tempfile::tempdir().unwrap();
        assert!(Checkpoint::find(run.path()).unwrap().is_none());
        save(run.path(), 1, 1.0);
        save(run.path(), 2, 5.0);
        let found = Checkpoint::find(run.path()).unwrap().unwrap();
        assert_eq!(found.state, state(2));
        let live = Tensor::zeros([2], (tch::Kind::Float, Device::Cpu));
        found.copy_to("model", &[("w".into(), live.shallow_clone())]).unwrap();
        assert_eq!(live.double_value(&[0]), 5.0);
        let other = [("v".to_owned(), live.shallow_clone())];
        let error = found.copy_to("model", &other).unwrap_err().to_string();
        assert!(error.contains("v: missing") && error.contains("w: not part"), "{error}");

        let newest = run.path().join(NEWEST);
        let whole = std::fs::read(&newest).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&whole[..whole.len() / 2], &[], &flipped] {
            std::fs::write(&newest, damaged).unwrap();
            assert_eq!(Checkpoint::find(run.path()).unwrap().unwrap().state, state(1));
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
        assert_eq!(saver.save(state(1), Vec::new()), None);
        assert!(saver.wait().unwrap().contains("cannot be resumed"));
        assert_eq!((saver.save(state(2), Vec::new()), saver.is_due(9)), (None, false));
        std::fs::remove_dir_all(run.parent().unwrap()).unwrap();
    }

    #[test]
    fn intervals_are_steps_or_times() {
        for (text, interval) in [
            ("200", Interval::Steps(200)),
            ("2s", Interval::Milliseconds(2000)),
            ("0.5s", Interval::Milliseconds(500)),
            ("5m", Interval::default()),
            ("1h", Interval::Milliseconds(3_600_000)),
        ] {
            assert_eq!(text.parse(), Ok(interval), "{text}");
            assert_eq!(interval.to_string().parse(), Ok(interval), "{text}");
        }
        for text in ["", "0", "-1s", "2.5", "3d", "s", "nan", "infs"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }
}
