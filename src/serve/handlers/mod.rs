//! What each route does.

mod gallery_error;
mod look;
pub mod people;
pub mod pictures;
pub mod server;
