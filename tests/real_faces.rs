//! The embedded trunk on real faces, where the folder `../shared/data` with them is there.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

use std::path::Path;

use visage::data::FaceFolder;
use visage::eval::centroid;
use visage::eval::retrieval::Retrieval;
use visage::models::{Architecture, Backbone};
use visage::recognise::embed_stored;
use visage::weights::Source;

#[test]
fn the_untouched_trunk_is_as_good_as_it_was_measured_to_be() {
    let avengers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/avengers");
    if !avengers.is_dir() {
        eprintln!("skipped: {} is not there", avengers.display());
        return;
    }
    let folder = FaceFolder::open(&avengers, true, 96, &|_, _| {}).unwrap();
    let backbone = Backbone::new(Architecture::OpenFace, tch::Device::Cpu);
    Source::resolve(None, Architecture::OpenFace).unwrap().load_into(&backbone).unwrap();
    let faces = &folder.fitted;
    let embeddings = embed_stored(&backbone, faces, &faces.all()).unwrap();
    // PyTorch with Pillow's resize measured 94.9 % on these pictures when the weights were made;
    // another decoder, resize or normalisation would cost points.
    let accuracy = Retrieval::within(&embeddings, &folder.labels()).unwrap().precision_at_1;
    assert!((accuracy - 0.949).abs() < 0.011, "leave-one-out 1-NN {accuracy}");
    let centroid = centroid::leave_one_out(&embeddings, &folder.labels()).unwrap();
    assert!(centroid > 0.85, "nearest centroid {centroid}");
}
