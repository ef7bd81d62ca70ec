//! Tests of all miners, against each other and against loops.

use tch::{Device, Kind, Tensor};

use super::*;
use crate::metric::distance::pairwise;
use crate::metric::distance_kind::DistanceKind;
use crate::metric::named::Named;
use crate::metric::testing::Batch;

/// The triplets as plain positions.
pub(super) fn listed(tuples: Tuples) -> Vec<[usize; 3]> {
    let Tuples::Triplets(triplets) = tuples else { panic!("not a list") };
    let column = |tensor: &Tensor| Vec::<i64>::try_from(tensor).unwrap();
    let (a, p, n) =
        (column(&triplets.anchor), column(&triplets.positive), column(&triplets.negative));
    assert_eq!(triplets.is_empty(), a.is_empty());
    (0..triplets.len()).map(|i| [a[i] as usize, p[i] as usize, n[i] as usize]).collect()
}

#[test]
fn listed_triplets_are_valid_and_need_no_order_of_labels() {
    for miner in Miner::ALL.iter().filter(|miner| **miner != BATCH_ALL) {
        for seed in 0..100 {
            let batch = Batch::random(seed);
            let valid = batch.every_triplet();
            let found = listed(miner.mine(&batch.distances(), &batch.labels, 0.7, seed));
            assert!(found.iter().all(|t| valid.contains(t)), "{miner}, seed {seed}");
        }
    }
}

#[test]
fn embeddings_are_mined_as_their_distances_are_by_chunks_of_any_size() {
    let mut triplets = 0;
    for seed in 0..200 {
        let batch = Batch::random(seed);
        // Mirrored about the origin, the centre is exact and so are all squared distances: ties
        // are ties to both. The others are in general position, with no tie at all.
        let mirrored = Tensor::cat(&[&batch.embeddings, &-&batch.embeddings], 0);
        let labels = Tensor::cat(&[&batch.labels, &batch.labels], 0);
        tch::manual_seed(seed as i64);
        let scattered = Tensor::randn_like(&mirrored.to_kind(Kind::Double));
        for &distance in DistanceKind::ALL {
            let is_exact = distance == DistanceKind::Squared;
            let x = if is_exact { &mirrored } else { &scattered };
            for x in [x, &scattered] {
                for miner in Miner::ALL.iter().filter(|miner| **miner != BATCH_ALL) {
                    let wanted = listed(miner.mine(&distance.pairwise(x), &labels, 0.5, seed));
                    let size = labels.numel() as i64;
                    let mine = |anchors, chunk| {
                        listed(
                            miner
                                .mine_chunks(anchors, x, &labels, distance, chunk, 0.5, seed, None),
                        )
                    };
                    for chunk in [1, 3 * size, 1 << 20] {
                        assert_eq!(mine(size, chunk), wanted, "{miner} {distance} {seed}");
                    }
                    if seed % 8 == 0 {
                        // Fewer anchors: the same triplets, as far as they have them.
                        let first = wanted.iter().filter(|triplet| triplet[0] < size as usize / 2);
                        let first: Vec<_> = first.copied().collect();
                        assert_eq!(mine(size / 2, 3 * size), first, "{miner} {distance} {seed}");
                    }
                    let found = miner.mine_embeddings(x, &labels, distance, 0.5, seed, None);
                    assert_eq!(listed(found), wanted, "{miner} {distance} {seed}");
                    triplets += wanted.len();
                }
            }
        }
    }
    assert!(triplets > 10_000, "the batches were too easy: {triplets}");
}

#[test]
fn large_identities_take_the_other_way_to_the_same_triplets() {
    // Sixty pictures of each of three: the semi-hard miner sorts.
    let labels = Tensor::arange(180, (Kind::Int64, Device::Cpu)).remainder(3);
    tch::manual_seed(1);
    let x = Tensor::randn([180, 4], (Kind::Double, Device::Cpu));
    let rows: Vec<Vec<f64>> = Vec::try_from(pairwise(&x)).unwrap();
    let mut wanted = Vec::new();
    for (a, row) in rows.iter().enumerate() {
        for p in (0..180).filter(|&p| p != a && p % 3 == a % 3) {
            let near = row[p];
            let farther = (0..180).filter(|&n| n % 3 != a % 3 && row[n] > near);
            let nearest = farther.min_by(|&i, &j| row[i].total_cmp(&row[j]));
            wanted.extend(nearest.filter(|&n| row[n] < near + 0.3).map(|n| [a, p, n]));
        }
    }
    let found = SEMI_HARD.mine_embeddings(&x, &labels, DistanceKind::Squared, 0.3, 0, None);
    assert_eq!(listed(found), wanted);
    assert!(wanted.len() > 5000);
}

#[test]
fn every_miner_is_found_by_its_name_and_explained() {
    for miner in Miner::ALL {
        assert_eq!(Miner::by_name(miner.name), Some(*miner));
        assert_eq!(serde_json::to_value(miner).unwrap(), miner.name);
        assert_eq!(serde_json::from_value::<Miner>(miner.name.into()).unwrap(), *miner);
        assert!(miner.help.len() > 20, "{miner}");
    }
    let error = serde_json::from_value::<Miner>("hardest".into()).unwrap_err().to_string();
    assert!(error.contains("`hardest`") && error.contains("batch-hard, semi-hard"), "{error}");
}
