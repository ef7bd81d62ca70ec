//! The `visage` command.
fn main() {}
