//! What each route does.

mod gallery;
mod look;
pub mod people;
pub mod pictures;
pub mod server;
