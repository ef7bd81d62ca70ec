//! What the training loop reports: the epoch's line, rows of `metrics.csv`, TensorBoard's curves.

use tch::{Kind, Tensor};

use super::fit_result::Scores;
use super::log::RunLog;
use super::scoring::is_internal;
use super::step::Step;
use super::world::Exchange;

/// The share of an epoch's steps that went into waiting for pictures.
pub const DATA_WAIT: &str = "data_wait";

/// Waiting below this fraction of the time is not reported.
const NOTICEABLE: f64 = 0.01;

/// The epoch's line: the loss and what goes with it, then the validation figures.
pub fn headline(means: &[(&'static str, f64)], wait: Option<f64>, scores: &Scores) -> String {
    let wait = wait.filter(|share| *share >= NOTICEABLE).map(|share| (DATA_WAIT, share));
    let means = means.iter().filter(|(name, _)| *name != "lr").chain(&wait);
    let means = means.map(|(name, mean)| match *name {
        "loss" => format!("loss {mean:.4}"),
        "positive_distance" => format!("d(+) {mean:.2}"),
        "negative_distance" => format!("d(-) {mean:.2}"),
        "grad_norm" => format!("gradient {mean:.2}"),
        "loss_scale" => format!("loss scale {mean:.0}"),
        DATA_WAIT => format!("waited {:.0} % for data", 100.0 * mean),
        "skipped_steps" => format!("{mean:.0} steps skipped"),
        share => format!("{share} {:.0} %", 100.0 * mean),
    });
    format!("{}; {}", means.collect::<Vec<_>>().join(", "), scores.headline)
}

/// One row of metrics.csv and one point of every TensorBoard curve. The row has the number of
/// `rollbacks` so far once there are any.
pub fn record(
    log: &mut RunLog,
    epoch: usize,
    rollbacks: u32,
    means: &[(&'static str, f64)],
    scores: &Scores,
) {
    let train: Vec<_> =
        means.iter().map(|(name, value)| (format!("train/{name}"), *value)).collect();
    let figures = || scores.values.iter().filter(|(name, _)| !is_internal(name));
    let val = figures().map(|(name, value)| (format!("val/{name}"), *value));
    let all: Vec<_> = train.into_iter().chain(val).collect();
    let tags: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    log.scalars(epoch as u64, &tags);
    let mut row = vec![("epoch", epoch as f64)];
    row.extend(means.iter().copied());
    row.extend(figures().copied());
    row.extend((rollbacks > 0).then_some(("rollbacks", f64::from(rollbacks))));
    log.epoch_row(&row);
}

/// What differs between two runs of a seed, in files of its own.
pub fn record_time(
    log: &mut RunLog,
    epoch: usize,
    seconds: f64,
    wait: Option<f64>,
    exchange: Option<Exchange>,
) {
    let mut row = vec![("epoch", epoch as f64), ("seconds", seconds)];
    row.extend(wait.map(|share| (DATA_WAIT, share)));
    if let Some(Exchange { gather, gathered, reduce, reduced }) = exchange {
        row.push(("gather_seconds", gather.as_secs_f64()));
        row.push(("reduce_seconds", reduce.as_secs_f64()));
        row.push(("gather_mb", gathered as f64 / 1e6));
        row.push(("reduce_mb", reduced as f64 / 1e6));
    }
    log.timing_row(&row);
    if let Some(share) = wait {
        log.scalars(epoch as u64, &[("train/data_wait", share)]);
    }
}

/// The figures of one step, in one copy from the device. Steps that overflowed in float16 have none.
pub fn record_step(log: &mut RunLog, done: u64, lr: f64, step: &Step) {
    let loss = step.figures.first().map(|(_, loss)| ("train/step/loss", loss));
    let norm = step.grad_norm.as_ref().map(|norm| ("train/step/grad_norm", norm));
    let (tags, values): (Vec<_>, Vec<_>) =
        loss.into_iter().chain(norm).map(|(tag, value)| (tag, value.to_kind(Kind::Double))).unzip();
    let values = Vec::<f64>::try_from(Tensor::stack(&values, 0)).unwrap_or_default();
    let mut points = vec![("train/step/lr", lr)];
    points.extend(tags.into_iter().zip(values).filter(|(_, value)| value.is_finite()));
    log.scalars(done, &points);
    log.flush();
}
