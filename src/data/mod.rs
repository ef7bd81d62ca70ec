//! Pictures and labels: decoding, data sets, splits, samplers, augmentation.
//!
//! ```text
//! formats::open -> FaceFolder::decode -> near_duplicates::groups -> Split::stratified
//!    PkSampler::epoch -> Feed::next -> Augment::apply                           (batches)
//!    PairSampler::epoch                                                         (pairs)
//! People::scan -> strip_folder::build -> TripletSet::open -> TripletSet::batches (triplets)
//! PairList::read                                                                 (pairs to measure)
//! ```

mod align;
pub mod augment;
pub mod celeba;
pub mod dataset;
pub mod disjoint;
pub mod feed;
pub mod folder;
pub mod formats;
pub mod identity_folders;
mod jpeg;
pub mod manifest;
mod mounted;
pub mod near_duplicates;
pub mod pack;
pub mod pairs;
pub mod pairs_file;
pub mod people;
pub mod picture;
pub mod picture_list;
pub mod prefetch;
mod random;
pub mod record_file;
mod record_index;
mod record_io;
mod resize;
pub mod sampler;
pub mod shards;
pub mod source;
pub mod split;
pub mod split_file;
pub mod store;
pub mod strip_folder;
pub mod strips;
mod tar_members;
#[cfg(test)]
pub(crate) mod testing;
pub mod triplets;

pub use augment::Augment;
pub use dataset::{Dataset, FileList, Part, Record};
pub use folder::{Face, FaceFolder, Progress};
pub use pairs::{Pair, PairSampler};
pub use pairs_file::PairList;
pub use sampler::PkSampler;
pub use source::Source;
pub use split::Split;
pub use store::{Fitting, PictureStore};
pub use triplets::TripletSet;
