//! The loop on tasks small enough to know what it must do.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tch::{Device, Tensor};

use super::*;
use crate::metric::Named;
use crate::metric::losses::LossKind;
use crate::metric::miners::Miner;
use crate::progress::tests::Page;
use crate::train::interrupt::Interrupt;
use crate::train::interval::Interval;
use crate::train::log::METRICS;
use crate::train::named::prefixed;
use crate::train::objective::Objective;
use crate::train::optim::{OptimizerConfig, OptimizerKind};
use crate::train::schedule::ScheduleKind;
use crate::train::settings::TripletSettings;
use crate::train::step::Forward;

/// A task whose scores are written down beforehand; its loss is half the square of one weight.
struct Scripted {
    weight: Tensor,
    /// `auc` of epoch 0, 1, ...
    auc: Vec<f64>,
    /// The loss of a larger weight is NaN.
    limit: f64,
    steps: usize,
    saved: RefCell<Vec<String>>,
}

impl Scripted {
    fn new(auc: &[f64]) -> Self {
        let weight = Tensor::from(1.0f32).set_requires_grad(true);
        Self { weight, auc: auc.into(), limit: f64::INFINITY, steps: 0, saved: RefCell::default() }
    }
}

impl Task for Scripted {
    fn batches(&mut self, _: usize) -> Result<Vec<Vec<usize>>> {
        Ok(vec![vec![0, 1]; 4])
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        vec![("weight".to_owned(), self.weight.shallow_clone())]
    }

    fn forward(&mut self, _: usize, _: usize, _: &[usize]) -> Result<Forward<'_>> {
        let is_beyond = self.weight.double_value(&[]).abs() > self.limit;
        Ok((self.weight.square() * if is_beyond { f64::NAN } else { 0.5 }).into())
    }

    fn stepped(&mut self) {
        self.steps += 1;
    }

    fn validate(&mut self, epoch: usize, _: &mut RunLog) -> Result<Scores> {
        let auc = self.auc[epoch];
        Ok(Scores {
            values: vec![("auc", auc), ("nll", auc), ("same_bias", 1.0)],
            rank: vec![auc],
            criterion: "mean",
            headline: format!("auc {auc}"),
        })
    }

    fn show_best(&mut self, _: &mut RunLog) {
        self.saved.borrow_mut().push("best follows".into());
    }

    fn write(&self, path: &Path, epoch: usize, _: &[(&'static str, f64)]) -> Result<()> {
        let name = path.file_stem().unwrap().to_string_lossy();
        self.saved.borrow_mut().push(format!("{name} {epoch}"));
        Ok(())
    }
}

fn config(epochs: usize, lr: f64) -> FitConfig {
    FitConfig {
        epochs,
        lr,
        schedule: ScheduleKind::Constant,
        warmup: 0.0,
        cycle: 4.0,
        clip: None,
        scale_loss: false,
        patience: 0,
        monitor: None,
        log_interval: 3,
        max_bad: 2,
        strict_numerics: false,
        keep_last: false,
        report_every: 1,
        checkpoint_every: Interval::Steps(1),
        interrupt: Interrupt::default(),
        world: Rc::default(),
    }
}

/// What a run gave, said and logged.
struct Ran {
    result: FitResult,
    said: Vec<String>,
    /// The rows of metrics.csv, the header first.
    table: Vec<Vec<String>>,
    /// The text of the event file, as far as it is text.
    events: String,
}

fn sgd(params: Vec<(String, Tensor)>, lr: f64) -> Optimizer {
    let config = OptimizerConfig { lr, ..OptimizerConfig::new(OptimizerKind::Sgd) };
    Optimizer::new(config, params).unwrap()
}

fn run(task: &mut dyn Task, params: Vec<(String, Tensor)>, plan: &FitConfig) -> Result<Ran> {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(&folder.path().join("run"), "test", &toml::Table::new()).unwrap();
    let (page, mut log) = (Page::default(), RunLog::create(run.path()));
    let say = page.reporter(true, Duration::from_secs(9));
    let result = fit(task, &mut sgd(params, plan.lr), plan, &run, &mut log, &say)?;
    assert_eq!(log.take_warnings(), Vec::<String>::new());
    log.flush();
    let table = std::fs::read_to_string(run.path().join(METRICS)).unwrap();
    let cells = |line: &str| line.split(',').map(str::to_owned).collect();
    let board = std::fs::read_dir(run.path().join("tensorboard")).unwrap().next().unwrap().unwrap();
    let events = String::from_utf8_lossy(&std::fs::read(board.path()).unwrap()).into_owned();
    Ok(Ran { result, said: page.lines(), table: table.lines().map(cells).collect(), events })
}

fn scripted(auc: &[f64], plan: &FitConfig) -> (Scripted, Ran) {
    let mut task = Scripted::new(auc);
    let params = vec![("weight".to_owned(), task.weight.shallow_clone())];
    let ran = run(&mut task, params, plan).unwrap();
    (task, ran)
}

#[test]
fn the_best_and_the_last_model_are_kept_and_every_row_is_written() {
    let (task, ran) = scripted(&[0.5, 0.7, 0.6], &config(2, 0.1));
    assert_eq!((ran.result.best_epoch, ran.result.epochs, task.steps), (1, 2, 8));
    let saved = task.saved.into_inner();
    assert_eq!(saved, ["best 0", "best follows", "best 1", "best follows", "last 2"]);
    assert!(ran.said[1].ends_with("auc 0.7  (best mean)"), "{:?}", ran.said);
    assert!(ran.said[2].ends_with("auc 0.6"), "{:?}", ran.said);
    // Epoch 0 has no training figures, and none that only model files need.
    assert_eq!(ran.table[0], ["epoch", "loss", "lr", "auc", "nll"]);
    assert_eq!(ran.table[1], ["0", "", "", "0.5", "0.5"]);
    assert_eq!(ran.table.len(), 4);
    assert!(ran.events.contains("val/auc") && !ran.events.contains("same_bias"));
}

#[test]
fn epoch_0_is_logged_before_the_first_epoch_is_trained() {
    struct Stops(Scripted);
    impl Task for Stops {
        fn batches(&mut self, _: usize) -> Result<Vec<Vec<usize>>> {
            Err(Error::Data("no batch".into()))
        }
        fn tensors(&self) -> Vec<(String, Tensor)> {
            self.0.tensors()
        }
        fn forward(&mut self, epoch: usize, at: usize, batch: &[usize]) -> Result<Forward<'_>> {
            self.0.forward(epoch, at, batch)
        }
        fn validate(&mut self, epoch: usize, log: &mut RunLog) -> Result<Scores> {
            self.0.validate(epoch, log)
        }
        fn write(&self, path: &Path, epoch: usize, figures: &[(&'static str, f64)]) -> Result<()> {
            self.0.write(path, epoch, figures)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(&folder.path().join("run"), "test", &toml::Table::new()).unwrap();
    let mut log = RunLog::create(run.path());
    let mut task = Stops(Scripted::new(&[0.5]));
    let params = vec![("weight".to_owned(), task.0.weight.shallow_clone())];
    let (mut optimizer, plan) = (sgd(params, 0.1), config(1, 0.1));
    let hidden = Reporter::hidden();
    assert!(fit(&mut task, &mut optimizer, &plan, &run, &mut log, &hidden).is_err());
    let table = std::fs::read_to_string(run.path().join(METRICS)).unwrap();
    assert_eq!(table, "epoch,auc,nll\n0,0.5,0.5\n");
}

#[test]
fn steps_are_logged_at_the_interval_with_their_gradient() {
    let (task, ran) = scripted(&[0.5, 0.7, 0.6], &config(2, 0.1));
    for tag in ["train/step/loss", "train/step/lr", "train/step/grad_norm"] {
        // Steps 3 and 6 of 8.
        assert_eq!(ran.events.matches(tag).count(), 2, "{tag}");
    }
    let (plain, none) =
        scripted(&[0.5, 0.7, 0.6], &FitConfig { log_interval: 0, ..config(2, 0.1) });
    assert!(!none.events.contains("train/step"));
    assert_eq!(plain.weight, task.weight, "a norm that is measured changes nothing");
}

#[test]
fn the_monitored_figure_decides_what_is_best() {
    let auc = [0.5, 0.7, 0.6, 0.4];
    let with = |name: &str| {
        let monitor = Some(name.to_owned());
        // Small steps, so that the loss falls in every one.
        scripted(&auc, &FitConfig { monitor, ..config(3, 0.001) }).1
    };
    for (name, best) in [("auc", 1), ("nll", 3), ("loss", 3)] {
        let ran = with(name);
        assert_eq!(ran.result.best_epoch, best, "{name}");
        let mark = format!("(best {name})");
        assert!(ran.said.iter().any(|line| line.ends_with(&mark)), "{name}: {:?}", ran.said);
    }
    let mut task = Scripted::new(&auc);
    let plan = FitConfig { monitor: Some("acc".into()), ..config(3, 0.1) };
    let error = run(&mut task, Vec::new(), &plan).err().unwrap().to_string();
    assert!(error.contains("--monitor acc") && error.contains("auc, nll, loss"), "{error}");
}

#[test]
fn patience_ends_a_run_that_gets_no_better() {
    let plan = FitConfig { patience: 2, ..config(9, 0.1) };
    let (_, ran) = scripted(&[0.5, 0.7, 0.6, 0.7, 0.9, 0.9], &plan);
    assert_eq!((ran.result.epochs, ran.result.best_epoch), (3, 1));
    assert_eq!(ran.said.last().unwrap(), "stopping: no better mean for 2 epochs");
}

#[test]
fn a_plateau_lowers_the_rate() {
    let rates = |monitor: Option<&str>, auc: &[f64]| -> Vec<f64> {
        let plan = FitConfig { schedule: ScheduleKind::Plateau, ..config(13, 0.1) };
        let (_, ran) = scripted(auc, &FitConfig { monitor: monitor.map(str::to_owned), ..plan });
        let lr = ran.table[0].iter().position(|name| name == "lr").unwrap();
        ran.table[2..].iter().map(|row| row[lr].parse().unwrap()).collect()
    };
    // Epoch 1 sets the mark; after eleven that do not pass it the rate is a tenth.
    let flat = rates(None, &[0.5; 14]);
    assert_eq!((flat[11], flat[12]), (0.1, 0.1 * 0.1));
    let falls: Vec<f64> = (0..14).map(|epoch| 0.9 - 0.01 * f64::from(epoch)).collect();
    assert_eq!(rates(Some("auc"), &falls)[12], 0.1 * 0.1);
    assert_eq!(rates(Some("nll"), &falls)[12], 0.1);
}

#[test]
fn a_huge_rate_ends_with_advice_and_keeps_the_best_model() {
    let (task, ran) = scripted(&[0.5; 10], &config(9, 1e9));
    assert!(ran.result.epochs < 9 && ran.result.best_epoch == 0, "{:?}", ran.result);
    assert_eq!(ran.result.rollbacks, 4);
    let tries = ran.said.iter().filter(|line| line.contains("starting the epoch again")).count();
    assert_eq!(tries, 3, "{:?}", ran.said);
    let last = ran.said.last().unwrap();
    assert!(last.starts_with("warning: stopping in epoch"), "{last}");
    assert!(
        last.contains("the loss is not finite") && last.contains("a lower --lr helps"),
        "{last}"
    );
    assert_eq!(task.saved.borrow()[0], "best 0");
    // What is left is the state before the epoch, not the ruins.
    assert!(task.weight.double_value(&[]).is_finite());
}

#[test]
fn an_epoch_that_goes_wrong_is_trained_again_at_a_lower_rate() {
    // The first step at a rate of 5 multiplies the weight by -4, at a tenth of it by 1/2.
    let with = |plan: &FitConfig, auc: &[f64]| {
        let mut task = Scripted { limit: 10.0, ..Scripted::new(auc) };
        let params = vec![("weight".to_owned(), task.weight.shallow_clone())];
        let ran = run(&mut task, params, plan).unwrap();
        (task.weight.double_value(&[]), ran)
    };
    let (weight, ran) = with(&config(2, 5.0), &[0.5, 0.7, 0.8]);
    assert!(weight.abs() < 1.0, "{weight}");
    assert_eq!((ran.result.rollbacks, ran.result.stopped, ran.result.epochs), (1, None, 2));
    let said = "warning: epoch 1: the loss is not finite; starting the epoch again with the learning rate \
                divided by 10 (try 1 of 3)";
    assert!(ran.said.iter().any(|line| line == said), "{:?}", ran.said);
    assert_eq!(ran.table.len(), 4, "what went wrong has no row");
    assert_eq!(ran.table[2][2], "0.5");
    assert_eq!(ran.table[0].last().unwrap(), "rollbacks");
    let rollbacks: Vec<_> = ran.table[1..].iter().map(|row| row.last().unwrap()).collect();
    assert_eq!(rollbacks, ["", "1", "1"]);
    assert_eq!(ran.events.matches("train/rollbacks").count(), 1);
    assert_eq!(ran.events.matches("train/step/loss").count(), 2, "steps 3 and 6, once each");

    // A collapse, which a lower rate cannot prevent here.
    let (weight, ran) = with(&config(3, 0.5), &[0.9, 0.92, 0.6, 0.6]);
    assert_eq!((ran.result.epochs, ran.result.rollbacks), (1, 4));
    assert_eq!(weight, with(&config(1, 0.5), &[0.9, 0.92]).0, "the weights of epoch 1");
    let cause = ran.result.stopped.unwrap();
    assert!(cause.starts_with("epoch 2: the embeddings collapsed"), "{cause}");

    let strict = FitConfig { strict_numerics: true, ..config(2, 5.0) };
    let (_, ran) = with(&strict, &[0.5; 3]);
    assert_eq!((ran.result.epochs, ran.result.best_epoch), (0, 0));
    assert_eq!(ran.result.stopped.unwrap(), "epoch 1: the loss is not finite");
}

#[test]
fn float16_that_always_overflows_stops_with_its_own_advice() {
    let plan = FitConfig { scale_loss: true, ..config(2, 0.1) };
    let mut task = Scripted { limit: 0.0, ..Scripted::new(&[0.5; 3]) };
    let params = vec![("weight".to_owned(), task.weight.shallow_clone())];
    let ran = run(&mut task, params, &plan).unwrap();
    assert_eq!(ran.result.stopped.unwrap(), "epoch 1: every step overflowed in float16");
    assert!(ran.said.last().unwrap().contains("--precision bf16 or f32 helps"), "{:?}", ran.said);
}

#[test]
fn a_picture_that_can_no_longer_be_read_is_left_out_and_the_epoch_starts_again() {
    /// Picture 1 is gone from the second epoch on.
    struct Fading(Scripted, BTreeSet<usize>, Vec<usize>);
    impl Task for Fading {
        fn batches(&mut self, _: usize) -> Result<Vec<Vec<usize>>> {
            Ok((0..4).filter(|picture| !self.1.contains(picture)).map(|one| vec![one]).collect())
        }
        fn tensors(&self) -> Vec<(String, Tensor)> {
            self.0.tensors()
        }
        fn unreadable(&self) -> Vec<(usize, Error)> {
            vec![(1, Error::Data("ada/1.png: gone".into()))]
        }
        fn exclude(&mut self, pictures: &BTreeSet<usize>) -> Result<()> {
            self.1 = pictures.clone();
            Ok(())
        }
        fn forward(&mut self, epoch: usize, at: usize, batch: &[usize]) -> Result<Forward<'_>> {
            if epoch == 2 && batch == [1] {
                return Err(Error::Data("ada/1.png: gone".into()));
            }
            self.2.extend(batch);
            self.0.forward(epoch, at, batch)
        }
        fn validate(&mut self, epoch: usize, log: &mut RunLog) -> Result<Scores> {
            self.0.validate(epoch, log)
        }
        fn write(&self, path: &Path, epoch: usize, figures: &[(&'static str, f64)]) -> Result<()> {
            self.0.write(path, epoch, figures)
        }
    }
    let with = |max_bad: usize| {
        let mut task = Fading(Scripted::new(&[0.5; 4]), BTreeSet::new(), Vec::new());
        let params = vec![("weight".to_owned(), task.0.weight.shallow_clone())];
        let ran = run(&mut task, params, &FitConfig { max_bad, ..config(3, 0.1) });
        (task, ran)
    };
    let (task, ran) = with(1);
    let ran = ran.unwrap();
    assert_eq!(task.2, [0, 1, 2, 3, 0, 0, 2, 3, 0, 2, 3]);
    assert_eq!((ran.result.epochs, ran.result.rollbacks), (3, 0));
    assert!(ran.said.iter().any(|line| line == "warning: left out from here on: ada/1.png: gone"));
    // The step of epoch 2 before the picture was missed does not count.
    let mut straight = Fading(Scripted::new(&[0.5; 4]), BTreeSet::new(), Vec::new());
    let params = vec![("weight".to_owned(), straight.0.weight.shallow_clone())];
    run(&mut straight, params, &config(1, 0.1)).unwrap();
    assert!(task.0.weight.double_value(&[]) < straight.0.weight.double_value(&[]));
    assert!(with(0).1.err().unwrap().to_string().contains("ada/1.png"));
}

/// Twelve points of three people through one linear layer, with the loss of the flags.
struct Small {
    weight: Tensor,
    pictures: Tensor,
    objective: Objective,
    /// The loss of weights with a larger norm is NaN.
    limit: f64,
    steps: usize,
    /// Stops itself after so many steps.
    stop: Option<(usize, Interrupt)>,
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: TripletSettings,
}

impl Small {
    fn new(flags: &[&str]) -> Self {
        let settings = Flags::parse_from([&["train"], flags].concat()).settings;
        settings.check().unwrap();
        // Other tests draw from libtorch's generator at the same time.
        let mut generator = StdRng::seed_from_u64(5);
        let mut noise = |rows: i64, columns: i64| {
            let mut normal = || (0..12).map(|_| generator.random::<f32>()).sum::<f32>() - 6.0;
            let values: Vec<f32> = (0..rows * columns).map(|_| normal()).collect();
            Tensor::from_slice(&values).view([rows, columns])
        };
        let pictures = noise(3, 6).repeat([4, 1]) + noise(12, 6) * 0.8;
        let weight = (noise(6, 4) * 0.4).set_requires_grad(true);
        let objective = Objective::new(&settings, 3, 4, Device::Cpu);
        for (_, mut drawn) in objective.parameters() {
            let size = drawn.size();
            tch::no_grad(|| drawn.copy_(&noise(size[0], size[1])));
        }
        Self { weight, pictures, objective, limit: f64::INFINITY, steps: 0, stop: None }
    }

    fn params(&self) -> Vec<(String, Tensor)> {
        let own = vec![("weight".to_owned(), self.weight.shallow_clone())];
        own.into_iter().chain(self.objective.parameters()).collect()
    }
}

impl Task for Small {
    fn batches(&mut self, _: usize) -> Result<Vec<Vec<usize>>> {
        Ok(vec![(0..12).collect(); 5])
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut tensors = vec![("weight".to_owned(), self.weight.shallow_clone())];
        tensors.extend(prefixed("objective", self.objective.tensors()));
        tensors
    }

    fn stepped(&mut self) {
        self.steps += 1;
        if let Some((at, interrupt)) = &self.stop
            && *at == self.steps
        {
            interrupt.send(15);
        }
    }

    fn forward(&mut self, epoch: usize, index: usize, batch: &[usize]) -> Result<Forward<'_>> {
        let embeddings = self.pictures.matmul(&self.weight);
        let norm = embeddings.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
        let labels: Vec<i64> = batch.iter().map(|at| (at % 3) as i64).collect();
        let seed = (10 * epoch + index) as u64;
        let (output, measures) =
            self.objective.loss(&(embeddings / norm), &Tensor::from_slice(&labels), seed);
        let is_beyond = self.weight.norm().double_value(&[]) > self.limit;
        let loss = if is_beyond { output.loss * f64::NAN } else { output.loss };
        Ok(Forward { measures, ..Forward::from(loss) })
    }

    fn validate(&mut self, epoch: usize, _: &mut RunLog) -> Result<Scores> {
        let rank = vec![epoch as f64];
        Ok(Scores { rank, criterion: "epoch", ..Scores::default() })
    }

    fn write(&self, _: &Path, _: usize, _: &[(&'static str, f64)]) -> Result<()> {
        Ok(())
    }
}

/// The mean loss of both epochs.
fn learn(flags: &[&str]) -> [f64; 2] {
    let mut task = Small::new(flags);
    let params = task.params();
    let ran = run(&mut task, params, &config(2, 0.05)).unwrap();
    let losses: Vec<f64> = ran.result.history.iter().filter_map(|(loss, _)| *loss).collect();
    losses.try_into().unwrap()
}

#[test]
fn every_loss_is_learnt_through_its_objective() {
    for loss in LossKind::ALL {
        for reduction in ["mean", "active"] {
            let [first, second] = learn(&["--loss", loss.name(), "--reduction", reduction]);
            assert!(first > 0.0 && second < first, "{loss} {reduction}: {first}, {second}");
        }
    }
}

#[test]
fn every_miner_and_hinge_is_learnt_from() {
    for miner in Miner::ALL {
        for hinge in ["hard", "soft"] {
            let flags = ["--miner", miner.name(), "--hinge", hinge, "--margin", "0.9"];
            let [first, second] = learn(&flags);
            assert!(second.is_finite() && second < first, "{miner} {hinge}: {first}, {second}");
        }
    }
}

/// The result of a run, the bits of all that it changed, and its table.
fn go_on(
    run: &RunFolder,
    task: &mut Small,
    plan: &FitConfig,
) -> Result<(FitResult, Vec<u8>, String)> {
    let mut log = match run.checkpoint() {
        Some(checkpoint) => RunLog::resume(run.path(), checkpoint.header.log.clone()),
        None => RunLog::create(run.path()),
    };
    let mut optimizer = sgd(task.params(), plan.lr);
    let result = fit(task, &mut optimizer, plan, run, &mut log, &Reporter::hidden())?;
    let changed = task.tensors().into_iter().chain(optimizer.state());
    let bits = changed.flat_map(|(_, tensor)| crate::weights::bytes_of(&tensor).unwrap()).collect();
    let table = std::fs::read_to_string(run.path().join(METRICS)).unwrap();
    // What the path of the folder is in.
    Ok((FitResult { model: "best".into(), ..result }, bits, table))
}

#[test]
fn a_run_that_is_stopped_after_any_step_ends_as_if_it_had_not_been() {
    let schedules = [ScheduleKind::WarmupCosine, ScheduleKind::Plateau, ScheduleKind::Triangular];
    for (flags, schedule) in [
        (&["--loss", "arcface"][..], schedules[0]),
        (&["--xbm", "30", "--xbm-start", "2", "--miner", "random"], schedules[1]),
        (&["--loss", "supcon"], schedules[2]),
    ] {
        let scale_loss = schedule == schedules[0];
        let plan = FitConfig { schedule, scale_loss, clip: Some(1.0), ..config(3, 0.05) };
        let folder = tempfile::tempdir().unwrap();
        let create = |name: &str| {
            RunFolder::create(&folder.path().join(name), "test", &toml::Table::new()).unwrap()
        };
        let wanted = go_on(&create("straight"), &mut Small::new(flags), &plan).unwrap();
        for stop in 1..=15 {
            let (interrupt, run) = (Interrupt::default(), create("stopped"));
            let path = run.path().to_owned();
            let mut task = Small::new(flags);
            task.stop = Some((stop, interrupt.clone()));
            let stopped = go_on(&run, &mut task, &FitConfig { interrupt, ..plan.clone() });
            let error = stopped.unwrap_err();
            assert!(matches!(error, Error::Interrupted { signal: 15, .. }), "{error}");
            assert!(error.to_string().contains("visage test --resume"), "{error}");
            drop(run);
            let run = RunFolder::resume(&path, "test", false).unwrap();
            assert_eq!(run.checkpoint().unwrap().header.state.done, stop as u64);
            let found = go_on(&run, &mut Small::new(flags), &plan).unwrap();
            assert_eq!((&found.0, &found.2), (&wanted.0, &wanted.2), "{flags:?} after step {stop}");
            assert!(found.1 == wanted.1, "{flags:?} stopped after step {stop}");
        }
    }
}

#[test]
fn a_run_that_recovers_does_so_in_the_same_way_after_any_stop() {
    let folder = tempfile::tempdir().unwrap();
    let create = |name: &str| {
        RunFolder::create(&folder.path().join(name), "test", &toml::Table::new()).unwrap()
    };
    let plan = config(3, 5.0);
    let fresh = || Small { limit: 8.0, ..Small::new(&[]) };
    let mut straight = fresh();
    let wanted = go_on(&create("straight"), &mut straight, &plan).unwrap();
    assert_eq!((wanted.0.epochs, wanted.0.stopped.is_none()), (3, true), "{:?}", wanted.0);
    assert!(wanted.0.rollbacks > 0);
    for stop in 1..straight.steps {
        let (interrupt, run) = (Interrupt::default(), create("stopped"));
        let path = run.path().to_owned();
        let mut task = Small { stop: Some((stop, interrupt.clone())), ..fresh() };
        let stopped = go_on(&run, &mut task, &FitConfig { interrupt, ..plan.clone() });
        let Err(Error::Interrupted { .. }) = stopped else { continue };
        drop(run);
        let run = RunFolder::resume(&path, "test", false).unwrap();
        let found = go_on(&run, &mut fresh(), &plan).unwrap();
        assert_eq!((&found.0, &found.2), (&wanted.0, &wanted.2), "after step {stop}");
        assert!(found.1 == wanted.1, "stopped after step {stop}");
    }
}

/// A copy of a folder, for a test to damage.
fn copy(from: &Path, to: &Path) {
    for file in walkdir::WalkDir::new(from).into_iter().map(Result::unwrap) {
        let target = to.join(file.path().strip_prefix(from).unwrap());
        match file.file_type().is_dir() {
            true => std::fs::create_dir_all(&target).unwrap(),
            false => drop(std::fs::copy(file.path(), &target).unwrap()),
        }
    }
}

/// Cut short, emptied, gone, or with one bit flipped.
fn damages(whole: &[u8]) -> Vec<Option<Vec<u8>>> {
    let flipped = (0..8).map(|part| {
        let mut bytes = whole.to_vec();
        let at = part * (whole.len() - 1) / 7;
        bytes[at] ^= 1 << part;
        Some(bytes)
    });
    [None, Some(Vec::new()), Some(whole[..whole.len() / 2].to_vec())]
        .into_iter()
        .chain(flipped)
        .collect()
}

#[test]
fn a_damaged_run_folder_gives_a_sentence_or_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let plan = config(3, 0.05);
    let run = RunFolder::create(&path, "test", &toml::Table::new()).unwrap();
    let wanted = {
        let straight = folder.path().join("straight");
        let run = RunFolder::create(&straight, "test", &toml::Table::new()).unwrap();
        go_on(&run, &mut Small::new(&[]), &plan).unwrap()
    };
    let interrupt = Interrupt::default();
    let mut task = Small { stop: Some((8, interrupt.clone())), ..Small::new(&[]) };
    go_on(&run, &mut task, &FitConfig { interrupt, ..plan.clone() }).unwrap_err();
    drop(run);
    let files: Vec<_> = walkdir::WalkDir::new(&path)
        .into_iter()
        .map(|file| file.unwrap().into_path())
        .filter(|file| file.is_file())
        .collect();
    let [mut went_on, mut refused] = [0, 0];
    for file in &files {
        let whole = std::fs::read(file).unwrap();
        for damage in damages(&whole).into_iter().filter(|_| !whole.is_empty()) {
            let damaged = tempfile::tempdir().unwrap();
            copy(&path, damaged.path());
            let name = file.strip_prefix(&path).unwrap();
            match damage {
                Some(bytes) => std::fs::write(damaged.path().join(name), bytes).unwrap(),
                None => std::fs::remove_file(damaged.path().join(name)).unwrap(),
            }
            let outcome = RunFolder::resume(damaged.path(), "test", false)
                .and_then(|run| go_on(&run, &mut Small::new(&[]), &plan));
            match outcome {
                Ok((_, bits, _)) => {
                    assert!(bits == wanted.1, "{} ends elsewhere", name.display());
                    went_on += 1;
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(&damaged.path().display().to_string()), "{text}");
                    refused += 1;
                }
            }
        }
    }
    assert!(went_on > 3 * refused && refused > 0, "{went_on} went on, {refused} were refused");
}

#[test]
fn a_run_goes_on_only_once_where_it_was_and_with_what_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let settings = toml::Table::new();
    let run = RunFolder::create(&folder.path().join("run"), "test", &settings).unwrap();
    let path = run.path().to_owned();
    let refused = |command: &str, word: &str| {
        let error = RunFolder::resume(&path, command, false).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused("test", "another process");
    let interrupt = Interrupt::default();
    let mut task = Small::new(&[]);
    task.stop = Some((7, interrupt.clone()));
    let plan = config(2, 0.05);
    let stopped = go_on(&run, &mut task, &FitConfig { interrupt, ..plan.clone() });
    assert!(stopped.is_err());
    drop(run);
    refused("other", "not a run of other");
    // Another network than that of the checkpoint.
    let run = RunFolder::resume(&path, "test", false).unwrap();
    let error =
        go_on(&run, &mut Small::new(&["--loss", "arcface"]), &plan).unwrap_err().to_string();
    assert!(error.contains("does not fit"), "{error}");
    let result = go_on(&run, &mut Small::new(&[]), &plan).unwrap().0;
    run.finish(&result).unwrap();
    drop(run);
    refused("test", "finished");
    let left = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.map(|name| name.to_string_lossy().into_owned()).collect();
    assert!(!left.iter().any(|name| name.contains("checkpoint")), "{left:?}");
}
