//! Mining a large batch and its loss take the memory of some anchors' distances, never that of all.
//!
//! One test alone in its process, because it watches the process's memory.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

#[path = "common/memory.rs"]
mod memory;

use memory::growth;
use tch::{Device, Kind, Tensor};
use visage::metric::losses::{Loss, TripletMarginLoss};
use visage::metric::miners::BATCH_HARD;
use visage::metric::{BatchStats, DistanceKind, Tuples, normalise};

const MEGABYTES: usize = 1 << 20;

/// `size` embeddings of length one, four of each identity.
fn batch(size: i64) -> (Tensor, Tensor) {
    tch::manual_seed(6);
    let x = normalise(&Tensor::randn([size, 32], (Kind::Float, Device::Cpu)));
    let labels = Tensor::arange(size, (Kind::Int64, Device::Cpu)).remainder(size / 4);
    (x.set_requires_grad(true), labels)
}

#[test]
fn a_large_batch_is_mined_in_little_memory() {
    let loss = TripletMarginLoss::default();
    // libtorch's code comes into memory when it first runs; that is not the miner's memory.
    let (x, labels) = batch(64);
    let tuples = BATCH_HARD.mine_embeddings(&x, &labels, DistanceKind::Squared, 0.2, 0, None);
    loss.forward(&x, &labels, &tuples).loss.backward();
    // All distances of 16,384 embeddings would be 1 GB.
    let (x, labels) = batch(16_384);
    let hardest = || {
        let mut stats = BatchStats::new(Some(loss.margin));
        let stats_of = Some(&mut stats);
        let tuples =
            BATCH_HARD.mine_embeddings(&x, &labels, DistanceKind::Squared, 0.2, 0, stats_of);
        let Tuples::Triplets(listed) = &tuples else { panic!("not a list") };
        assert_eq!(listed.len(), 16_384);
        // The first one, looked for among all.
        let of = |place: &Tensor| x.detach().index_select(0, &place.narrow(0, 0, 1));
        let to_all = DistanceKind::Squared.between(&of(&listed.anchor), &x.detach());
        let others = to_all.masked_fill(&labels.eq_tensor(&labels.get(0)), f64::INFINITY);
        let wanted = others.argmin(None, false).int64_value(&[]);
        assert_eq!(listed.negative.int64_value(&[0]), wanted);
        loss.forward(&x, &labels, &tuples).loss.backward();
        assert!(x.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);
        // Random directions: about the root of two from each other.
        assert!((stats.negative_distance().double_value(&[]) - 1.4).abs() < 0.05);
    };
    let Some(mined) = growth(hardest) else {
        eprintln!("skipped: this system does not tell a process's peak memory");
        return;
    };
    assert!(mined < 300 * MEGABYTES, "mining took {mined} bytes");
    // All distances of 4,096 would be 64 MB, and a graph of them and their weights ten times that.
    let (x, labels) = batch(4096);
    let all = growth(|| {
        let output = loss.forward(&x, &labels, &Tuples::All);
        assert_eq!(output.tuples.int64_value(&[]), 4096 * 3 * 4092);
        output.loss.backward();
        assert!(x.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);
    });
    let all = all.unwrap();
    assert!(all < 200 * MEGABYTES, "every triplet took {all} bytes");
}
