//! The batches of a `train-triplet` run, for other programs that train on the same ones
//! (`benches/metric_learning.py`).
//!
//!     cargo run --release --example batches -- runs/triplet/split.csv 8 4 0 30
//!
//! Arguments: the run's split, P, K, the seed and the number of epochs. Prints a table: epoch, batch, path.
#![allow(clippy::print_stdout)] // it talks

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use visage::data::{Part, PkSampler, split_file};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [split, p, k, seed, epochs] = &arguments[..] else {
        bail!("give a split.csv, P, K, the seed and the number of epochs");
    };
    let parts = split_file::read_parts(Path::new(split))?;
    let train: Vec<String> =
        parts.into_iter().filter(|(_, part)| *part == Part::Train).map(|(path, _)| path).collect();
    let mut identities = BTreeMap::new();
    let mut labels = Vec::new();
    for path in &train {
        let (identity, _) = path.split_once('/').with_context(|| format!("{path}: no folder"))?;
        let next = identities.len();
        labels.push(*identities.entry(identity).or_insert(next));
    }
    let sampler = PkSampler::new(&labels, p.parse()?, k.parse()?, seed.parse()?)?;
    println!("epoch,batch,path");
    for epoch in 1..=epochs.parse()? {
        for (number, batch) in sampler.epoch(epoch).into_iter().enumerate() {
            batch.into_iter().for_each(|picture| println!("{epoch},{number},{}", train[picture]));
        }
    }
    Ok(())
}
