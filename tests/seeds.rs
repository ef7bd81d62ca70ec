//! A seed decides the random weights. Alone in its program: libtorch's generator is shared by all
//! threads, so that tests beside this one would draw from it, too.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

use tch::Device;
use visage::models::{Architecture, Backbone};

fn named(name: &str) -> Architecture {
    Architecture::try_from(name.to_owned()).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_weights() {
    for name in ["vgg11-bn", "densenet121", "inception-v3", "facenet", "openface"] {
        let weights = |seed| {
            tch::manual_seed(seed);
            Backbone::new(named(name), Device::Cpu).params.snapshot()
        };
        let (first, again, other) = (weights(1), weights(1), weights(2));
        assert!(first.iter().zip(&again).all(|((_, a), (_, b))| a.equal(b)), "{name}");
        assert!(first.iter().zip(&other).any(|((_, a), (_, b))| !a.equal(b)), "{name}");
    }
}
