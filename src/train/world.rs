//! The processes of a training: each embeds its share of every batch, all see all embeddings.
//!
//! The loss is that of one process over the whole batch: embeddings are gathered in the order of ranks,
//! every process mines among all of them and gets the gradient of its own, and the gradients of the
//! parameters are summed. What follows (clipping, the step, the next batch) is then the same everywhere,
//! and nothing has to be agreed on but what only one process knows: signals, and what the disk did.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor, no_grad};

use super::optim::Optimizer;
use crate::native::group::{GradientSum, Meeting, ProcessGroup, SharedStatistics};
use crate::{Error, Result};

/// How long one process waits for another: longer than the slowest writes a checkpoint or validates.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The names that launchers give to rank, number of processes and rank on this machine: torchrun, Open MPI,
/// Slurm, MPICH.
const LAUNCHERS: [[&str; 3]; 4] = [
    ["RANK", "WORLD_SIZE", "LOCAL_RANK"],
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"],
    ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"],
    ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"],
];

/// The place of a process among those that train together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 0.
    pub rank: usize,
    /// How many they are.
    pub size: usize,
    /// Its number on this machine.
    pub local_rank: usize,
    /// How often torchrun has started them again.
    pub restarts: usize,
    meeting: Meeting,
}

impl Place {
    /// What a launcher has put in the environment; none if it started one process only, or there is none.
    ///
    /// # Errors
    /// Names the variable that is missing or wrong.
    pub fn from_environment() -> Result<Option<Self>> {
        Self::of(&|name| std::env::var(name).ok())
    }

    fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str| -> Result<Option<usize>> {
            let Some(text) = variable(name) else { return Ok(None) };
            let wrong = || Error::Config(format!("{name}={text}: expected a number"));
            text.parse().map(Some).map_err(|_| wrong())
        };
        for [rank, size, local] in LAUNCHERS {
            // Slurm sets its names in every job: only those of several tasks mean anything.
            let Some(count) = number(size)?.filter(|count| *count > 1) else { continue };
            let Some(own) = number(rank)? else { continue };
            if own >= count {
                let text =
                    format!("{rank}={own} with {size}={count}: ranks are 0 to {}", count - 1);
                return Err(Error::Config(text));
            }
            let needed = |name: &str| {
                variable(name).filter(|value| !value.is_empty()).ok_or_else(|| {
                    Error::Config(format!(
                        "{size}={count}, but {name} is not set: set it to where process 0 runs (torchrun sets it)"
                    ))
                })
            };
            let (host, port) = (needed("MASTER_ADDR")?, needed("MASTER_PORT")?);
            let wrong =
                || Error::Config(format!("MASTER_PORT={port}: expected a port, 1 to 65535"));
            let restarts = number("TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0);
            let is_kept =
                variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|kept| kept == "True");
            let meeting = Meeting {
                port: port.parse().map_err(|_| wrong())?,
                host,
                rank: own,
                size: count,
                serves: own == 0 && !is_kept,
                prefix: format!("visage/{restarts}"),
                interface: variable("GLOO_SOCKET_IFNAME").unwrap_or_default(),
                timeout: TIMEOUT,
            };
            let local_rank = number(local)?.unwrap_or(own);
            return Ok(Some(Self { rank: own, size: count, local_rank, restarts, meeting }));
        }
        Ok(None)
    }
}

/// What was exchanged with other processes, and the time for it; waiting for the slowest of them is a part of that.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Exchange {
    /// Gathering embeddings.
    pub gather: Duration,
    /// Bytes of this process's embeddings.
    pub gathered: u64,
    /// Summing gradients, as far as it was not over with the backward pass.
    pub reduce: Duration,
    /// Bytes of the gradients.
    pub reduced: u64,
}

/// All processes of a training, as one of them sees them.
#[derive(Debug)]
pub struct World {
    rank: usize,
    size: usize,
    group: Option<Rc<ProcessGroup>>,
    exchange: Cell<Exchange>,
}

impl Default for World {
    /// One process.
    fn default() -> Self {
        Self { rank: 0, size: 1, group: None, exchange: Cell::default() }
    }
}

impl World {
    /// Waits for the other processes.
    ///
    /// # Errors
    /// They cannot be reached, or do not come within half an hour.
    pub fn join(place: &Place) -> Result<Self> {
        let Place { rank, size, meeting, .. } = place;
        let join = || {
            let group = ProcessGroup::join(meeting)?;
            // All have joined before one goes on: who then ends with an error tells that error, and the others do
            // not fail to join.
            group.sum(&Tensor::f_zeros([1], (Kind::Float, Device::Cpu))?)?;
            Ok(group)
        };
        let group = join().map_err(|error: Error| {
            let Meeting { host, port, .. } = meeting;
            Error::Config(format!(
                "process {rank} of {size} cannot join the others at {host}:{port} (MASTER_ADDR, MASTER_PORT): \
                 {error}"
            ))
        })?;
        Ok(Self {
            rank: *rank,
            size: *size,
            group: Some(Rc::new(group)),
            exchange: Cell::default(),
        })
    }

    /// What was exchanged since the last call; none where there is one process.
    pub fn take_exchange(&self) -> Option<Exchange> {
        self.group.as_ref().map(|_| self.exchange.take())
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this process is the one that writes and reports.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// This process's share of `count` items in a row.
    pub fn share(&self, count: usize) -> Range<usize> {
        share(self.rank, self.size, count)
    }

    /// The rows of all processes in order, `[count, D]`, from each one's [`share`](Self::share) of them; with the
    /// gradient of its own.
    ///
    /// # Errors
    /// Another process has gone.
    pub fn gather(&self, own: &Tensor, count: usize) -> Result<Tensor> {
        let Some(group) = &self.group else { return Ok(own.shallow_clone()) };
        let since = Instant::now();
        let most = share(0, self.size, count).len() as i64;
        let others = no_grad(|| {
            let rows = own.detach().to_device(Device::Cpu);
            let mut shape = rows.size();
            shape[0] = most - shape[0];
            // All give as many rows as the first.
            let padding = Tensor::f_zeros(shape, (rows.kind(), Device::Cpu))?;
            let rows = Tensor::f_cat(&[rows, padding], 0)?;
            let all = group.gather(&rows).map_err(gone)?;
            let Exchange { gather, gathered, .. } = self.exchange.get();
            let gathered = gathered + (rows.numel() * rows.kind().elt_size_in_bytes()) as u64;
            let gather = gather + since.elapsed();
            self.exchange.set(Exchange { gather, gathered, ..self.exchange.get() });
            Ok::<_, Error>(all.to_device(own.device()))
        })?;
        let parts: Vec<Tensor> = (0..self.size)
            .map(|rank| match rank == self.rank {
                true => own.shallow_clone(),
                false => {
                    let rows = share(rank, self.size, count).len() as i64;
                    others.get(rank as i64).narrow(0, 0, rows)
                }
            })
            .collect();
        Ok(Tensor::f_cat(&parts, 0)?)
    }

    /// What `forward` makes while batch statistics are those of the batch of all processes.
    ///
    /// # Errors
    /// Another process has gone.
    pub fn share_statistics<T>(&self, forward: impl FnOnce() -> T) -> Result<T> {
        let shared = self.group.as_ref().map(SharedStatistics::of);
        let made = forward();
        shared.map(SharedStatistics::end).transpose().map_err(gone)?;
        Ok(made)
    }

    /// Adds up the gradients that each process has of the whole loss by way of its own embeddings: until
    /// [`Summing::end`], those of a backward pass in between while that goes on. Those of parameters for which
    /// `is_shared` says so are whole in every process.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn sum_gradients(
        &self,
        optimizer: &Optimizer,
        is_shared: impl Fn(&str) -> bool,
    ) -> Result<Summing<'_>> {
        let Some(group) = &self.group else {
            return Ok(Summing { exchange: &self.exchange, sum: None });
        };
        let trained = optimizer.parameters().filter(|(_, parameter)| parameter.requires_grad());
        let own: Vec<&Tensor> =
            trained.filter(|(name, _)| !is_shared(name)).map(|(_, parameter)| parameter).collect();
        let bytes = own.iter().map(|parameter| 4 * parameter.numel() as u64).sum();
        let sum = GradientSum::of(group, &own)?;
        Ok(Summing { exchange: &self.exchange, sum: Some((sum, bytes)) })
    }

    /// The result of a pass in which batch statistics may have been exchanged.
    ///
    /// # Errors
    /// That of the pass; of several processes another one has gone.
    pub fn check<T>(&self, pass: Result<T>) -> Result<T> {
        pass.map_err(|error| match self.group.is_some() && error.to_string().contains("gloo") {
            true => gone(error),
            false => error,
        })
    }

    /// The signal that some process got.
    ///
    /// # Errors
    /// Another process has gone.
    pub fn signal(&self, own: Option<u8>) -> Result<Option<u8>> {
        let Some(group) = &self.group else { return Ok(own) };
        let signals = group.gather(&Tensor::from_slice(&[own.unwrap_or(0)])).map_err(gone)?;
        Ok(Vec::<u8>::try_from(signals.view([-1]))?.into_iter().max().filter(|signal| *signal > 0))
    }

    /// What the first process makes of `make`, which only it runs.
    ///
    /// # Errors
    /// The error of `make`, in the first process; another process has gone.
    pub fn agree<T: Serialize + DeserializeOwned>(
        &self,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(group) = &self.group else { return make() };
        let wrong = |error: serde_json::Error| Error::Config(error.to_string());
        let own = self.is_first().then(make).transpose()?;
        let text = own.as_ref().map(serde_json::to_vec).transpose().map_err(wrong)?;
        let length = Tensor::from_slice(&[text.as_ref().map_or(0, Vec::len) as i64]);
        group.broadcast(&length).map_err(gone)?;
        let bytes = match &text {
            Some(text) => Tensor::f_from_slice(text)?,
            None => Tensor::f_zeros([length.int64_value(&[0])], (Kind::Uint8, Device::Cpu))?,
        };
        group.broadcast(&bytes).map_err(gone)?;
        match own {
            Some(own) => Ok(own),
            None => serde_json::from_slice(&Vec::<u8>::try_from(bytes)?).map_err(wrong),
        }
    }

    /// Gives all processes the first one's values of these tensors.
    ///
    /// # Errors
    /// Another process has gone.
    pub fn level(&self, tensors: &[(String, Tensor)]) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        no_grad(|| {
            for (_, tensor) in tensors {
                let values = tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?.copy();
                group.broadcast(&values).map_err(gone)?;
                tensor.detach().f_copy_(&values)?;
            }
            Ok(())
        })
    }
}

/// Gradients that are being summed over all processes.
#[derive(Debug)]
pub struct Summing<'a> {
    exchange: &'a Cell<Exchange>,
    /// Of several processes: the sum, and its bytes.
    sum: Option<(GradientSum, u64)>,
}

impl Summing<'_> {
    /// Waits for the sums; the gradients are these then.
    ///
    /// # Errors
    /// Another process has gone.
    pub fn end(self) -> Result<()> {
        let Some((sum, bytes)) = self.sum else { return Ok(()) };
        let since = Instant::now();
        sum.finish().map_err(gone)?;
        let Exchange { reduce, reduced, .. } = self.exchange.get();
        let (reduce, reduced) = (reduce + since.elapsed(), reduced + bytes);
        self.exchange.set(Exchange { reduce, reduced, ..self.exchange.get() });
        Ok(())
    }
}

/// The share of `rank` in `count` items: in order, and the first shares are one longer where they do not come out
/// even.
fn share(rank: usize, size: usize, count: usize) -> Range<usize> {
    let (each, more) = (count / size, count % size);
    let start = rank * each + rank.min(more);
    start..start + each + usize::from(rank < more)
}

/// What an error of the group means. The first sentence of libtorch's says enough.
fn gone(error: Error) -> Error {
    let text = error.to_string();
    let text = text.split(". ").next().unwrap_or_default();
    let text = text.rsplit("] ").next().unwrap_or_default();
    Error::Config(format!(
        "another process of the training has gone ({text}); --resume goes on from the last checkpoint"
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::metric::Named;
    use crate::metric::losses::LossKind;
    use crate::metric::miners::Miner;
    use crate::models::Params;
    use crate::models::layers::{BatchNorm, Mode};
    use crate::train::objective::Objective;
    use crate::train::optim::{OptimizerConfig, OptimizerKind};
    use crate::train::settings::TripletSettings;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        settings: TripletSettings,
    }

    fn place(rank: usize, size: usize, port: u16) -> Place {
        let (rank, size, port) = (rank.to_string(), size.to_string(), port.to_string());
        let variable = |name: &str| match name {
            "RANK" => Some(rank.clone()),
            "WORLD_SIZE" => Some(size.clone()),
            "MASTER_ADDR" => Some("127.0.0.1".into()),
            "MASTER_PORT" => Some(port.clone()),
            _ => None,
        };
        Place::of(&variable).unwrap().unwrap()
    }

    /// Runs `work` in `size` processes, which are threads here; what each of them gave.
    fn together<T: Send>(size: usize, work: impl Fn(&World) -> T + Sync) -> Vec<T> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = (0..size)
                .map(|rank| {
                    scope.spawn(move || work(&World::join(&place(rank, size, port)).unwrap()))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// Loss and gradients (of a linear trunk, and of the loss's own parameters) of three steps.
    fn train(world: &World, flags: &[&str], batch: usize) -> Vec<Vec<f32>> {
        let settings = Flags::parse_from([&["train"], flags].concat()).settings;
        settings.check().unwrap();
        // Other tests draw from libtorch's generator at the same time.
        let mut generator = StdRng::seed_from_u64(5);
        let mut noise = |rows: usize, columns: i64| {
            let mut normal = || (0..12).map(|_| generator.random::<f32>()).sum::<f32>() - 6.0;
            let values: Vec<f32> = (0..rows as i64 * columns).map(|_| normal()).collect();
            Tensor::from_slice(&values).view([rows as i64, columns])
        };
        let weight = (noise(6, 4) * 0.4).set_requires_grad(true);
        let objective = Objective::new(&settings, 3, 4, Device::Cpu);
        for (_, mut drawn) in objective.parameters() {
            let size = drawn.size();
            no_grad(|| drawn.copy_(&noise(size[0] as usize, size[1])));
        }
        let mut parameters = vec![("weight".to_owned(), weight.shallow_clone())];
        parameters.extend(objective.parameters());
        let names: Vec<String> = objective.parameters().into_iter().map(|(name, _)| name).collect();
        let mut optimizer =
            Optimizer::new(OptimizerConfig::new(OptimizerKind::Adam), parameters).unwrap();
        let labels: Vec<i64> = (0..batch as i64).map(|at| at % 3).collect();
        let labels = Tensor::from_slice(&labels);
        let mut rows = Vec::new();
        for step in 0..3 {
            let pictures = noise(batch, 6);
            let own = world.share(batch);
            let own = pictures.narrow(0, own.start as i64, own.len() as i64);
            optimizer.zero_grad().unwrap();
            let embeddings = own.matmul(&weight);
            let norm = embeddings.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
            let all = world.gather(&(embeddings / norm), batch).unwrap();
            let (output, _) = objective.loss(&all, &labels, step);
            let is_whole = |name: &str| names.iter().any(|own| own == name);
            let sum = || world.sum_gradients(&optimizer, is_whole).unwrap();
            // While the backward pass goes on, and after it.
            let during = (step == 0).then(sum);
            output.loss.backward();
            during.unwrap_or_else(sum).end().unwrap();
            let mut row = vec![output.loss.double_value(&[]) as f32];
            for (_, grad) in optimizer.gradients() {
                row.extend(Vec::<f32>::try_from(grad.reshape([-1])).unwrap());
            }
            rows.push(row);
        }
        rows
    }

    /// Loss, gradients and running statistics of two steps of a convolution with batch normalisation.
    fn normalised(world: &World, batch: usize) -> Vec<f32> {
        let mut generator = StdRng::seed_from_u64(8);
        let mut noise = |shape: &[i64]| {
            let count = shape.iter().product::<i64>();
            let values: Vec<f32> = (0..count).map(|_| generator.random::<f32>() - 0.3).collect();
            Tensor::from_slice(&values).view(shape)
        };
        let (norm, params) = Params::collect(Device::Cpu, |root| BatchNorm::new(root, 4));
        let weight = noise(&[4, 3, 3, 3]).set_requires_grad(true);
        let target = noise(&[batch as i64, 4]);
        let mut found = Vec::new();
        for _ in 0..2 {
            let pictures = noise(&[batch as i64, 3, 5, 5]);
            let own = world.share(batch);
            let own = pictures.narrow(0, own.start as i64, own.len() as i64);
            let forward = || {
                norm.forward(&own.conv2d(&weight, None::<&Tensor>, 1, 0, 1, 1), Mode::TRAIN).relu()
            };
            let map = world.share_statistics(forward).unwrap();
            let rows = map.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
            let all = world.gather(&rows, batch).unwrap();
            let loss = (all - &target).square().sum(Kind::Float);
            loss.backward();
            found.push(loss.double_value(&[]) as f32);
        }
        let sum = |tensor: Tensor| match &world.group {
            Some(group) => {
                group.sum(&tensor).unwrap();
                tensor
            }
            None => tensor,
        };
        let mut tensors = vec![sum(weight.grad())];
        for param in params.iter() {
            tensors.push(match param.is_parameter {
                true => sum(param.tensor.grad()),
                false => param.tensor.to_kind(Kind::Float),
            });
        }
        for tensor in tensors {
            found.extend(Vec::<f32>::try_from(tensor.reshape([-1])).unwrap());
        }
        found
    }

    #[test]
    fn batch_statistics_are_those_of_one_process() {
        for (batch, size) in [(6, 2), (7, 3), (4, 4)] {
            let alone = normalised(&World::default(), batch);
            for found in together(size, |world| normalised(world, batch)) {
                assert_eq!(found.len(), alone.len());
                for (at, (a, b)) in found.iter().zip(&alone).enumerate() {
                    assert!((a - b).abs() <= 1e-4 * b.abs().max(0.1), "{size}, {at}: {a}, {b}");
                }
            }
        }
    }

    #[test]
    fn every_loss_and_miner_has_the_gradient_of_one_process() {
        let mut cases: Vec<Vec<&str>> =
            LossKind::ALL.iter().map(|loss| vec!["--loss", loss.name()]).collect();
        cases.extend(Miner::ALL.iter().map(|miner| vec!["--miner", miner.name()]));
        cases.push(vec!["--xbm", "20"]);
        for flags in cases {
            for (batch, sizes) in [(12, [2, 4]), (13, [2, 4])] {
                let alone = train(&World::default(), &flags, batch);
                assert!(alone.iter().flatten().any(|value| *value != 0.0), "{flags:?}");
                for size in sizes {
                    let all = together(size, |world| train(world, &flags, batch));
                    for one in &all {
                        assert_eq!(one, &all[0], "{flags:?}, {size}: the processes differ");
                        for (row, wanted) in one.iter().zip(&alone) {
                            assert_eq!(row[0], wanted[0], "{flags:?}, {size}: another loss");
                            let scale = wanted.iter().map(|value| value.abs()).fold(0.0, f32::max);
                            let error = row.iter().zip(wanted).map(|(a, b)| (a - b).abs());
                            let error = error.fold(0.0, f32::max);
                            assert!(error <= 1e-6 * scale, "{flags:?}, {size}: {error} of {scale}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_process_decides_and_a_signal_reaches_all() {
        let found = together(3, |world| {
            let decided = world.agree(|| Ok(vec!["here".to_owned(), "there".into()])).unwrap();
            let values = Tensor::from_slice(&[f64::from(u8::from(world.is_first()))]);
            world.level(&[("value".into(), values.shallow_clone())]).unwrap();
            let own = (world.share(3) == (1..2)).then_some(15);
            let signals = [world.signal(None).unwrap(), world.signal(own).unwrap()];
            (decided, values.double_value(&[0]), signals)
        });
        let wanted = (vec!["here".to_owned(), "there".into()], 1.0, [None, Some(15)]);
        assert_eq!(found, vec![wanted; 3]);
    }

    #[test]
    fn a_process_that_has_gone_is_an_error_for_the_others() {
        let errors = together(2, |world| match world.is_first() {
            true => world.signal(None).unwrap_err().to_string(),
            false => String::new(),
        });
        assert!(errors[0].contains("another process of the training has gone"), "{}", errors[0]);
    }

    #[test]
    fn shares_are_in_order_and_even() {
        let shares =
            |size, count| (0..size).map(|rank| share(rank, size, count)).collect::<Vec<_>>();
        assert_eq!(shares(2, 8), [0..4, 4..8]);
        assert_eq!(shares(3, 8), [0..3, 3..6, 6..8]);
        assert_eq!(shares(3, 2), [0..1, 1..2, 2..2]);
    }

    #[test]
    fn launchers_are_understood() {
        let of = |variables: &[(&str, &str)]| {
            Place::of(&|name| {
                let found = variables.iter().find(|(own, _)| *own == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let at = [("MASTER_ADDR", "node7"), ("MASTER_PORT", "29500")];
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")]).unwrap(), None);
        for [rank, size, local] in LAUNCHERS {
            let found = of(&[&at[..], &[(rank, "3"), (size, "4"), (local, "1")]].concat());
            let found = found.unwrap().unwrap();
            assert_eq!((found.rank, found.size, found.local_rank), (3, 4, 1));
            assert_eq!((found.meeting.host.as_str(), found.meeting.port), ("node7", 29500));
        }
        let agent = [("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "2")];
        let ranks = [("RANK", "0"), ("WORLD_SIZE", "2")];
        let found = of(&[&at[..], &agent, &ranks].concat()).unwrap().unwrap();
        assert!(!found.meeting.serves && found.restarts == 2);
        for (variables, word) in [
            (&[("RANK", "0"), ("WORLD_SIZE", "2")][..], "MASTER_ADDR is not set"),
            (&[("RANK", "2"), ("WORLD_SIZE", "2"), at[0], at[1]], "RANK=2"),
            (&[("RANK", "x"), ("WORLD_SIZE", "2"), at[0], at[1]], "RANK=x"),
            (
                &[("RANK", "0"), ("WORLD_SIZE", "2"), at[0], ("MASTER_PORT", "0x5")],
                "MASTER_PORT=0x5",
            ),
        ] {
            let error = of(variables).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
