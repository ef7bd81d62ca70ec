//! What most programs import: `use visage::prelude::*;`.

pub use tch::Device;

pub use crate::data::{FaceFolder, Part, PkSampler, Split, near_duplicates, picture};
pub use crate::detect::{DetectOptions, Detector};
pub use crate::device::{DeviceChoice, Precision};
pub use crate::eval::Embeddings;
pub use crate::eval::distance::euclidean;
pub use crate::metric::losses::Loss;
pub use crate::metric::miners::BATCH_HARD;
pub use crate::models::{Architecture, Backbone, Mode};
pub use crate::progress::Reporter;
pub use crate::recognise::{FaceSearch, ModelCard, Recogniser, Viewer};
pub use crate::train::fit::fit;
pub use crate::train::optim::{Optimizer, OptimizerConfig, OptimizerKind};
pub use crate::train::settings::TripletSettings;
pub use crate::train::train_triplet;
pub use crate::verdict::Verdict;
pub use crate::weights::{Source, TensorFile};
