//! Face detection and alignment.
//!
//! ```text
//! photo -> Detector::detect -> Face { bounds, probability, landmarks }
//!    five landmarks -> Similarity onto a Template -> aligned crop
//!    bounds -> face_with_margin -> FaceNet's crop
//! ```
//!
//! The networks and their weights are facenet-pytorch 2.6.0's MTCNN (Zhang et al., "Joint Face
//! Detection and Alignment Using Multitask Cascaded Convolutional Networks", 2016).

pub mod align;
mod boxes;
mod close_up;
pub mod crop_record;
mod detector;
pub mod framing;
mod nets;
mod options;
mod pyramid;
mod quality;
mod resample;

pub use align::{Crop, Similarity, Template};
pub use close_up::CloseUp;
pub use detector::{Detector, Face, similar_faces};
pub use framing::Framing;
pub use options::{DetectOptions, MinFace};
pub use quality::sharpness;
