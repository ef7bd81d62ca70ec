//! Pickle, as far as tensor files use it, read without ever running what it says.
//!
//! Python's pickle is a program for a stack machine whose `GLOBAL` and `REDUCE` instructions call
//! any function of the interpreter. [`machine`] runs the instructions that build plain values;
//! [`globals`] is the list of the names it knows, each answered by a few lines of Rust. A name
//! that is not in the list ends the reading with an error that says which.
//!
//! Values live in an arena ([`Heap`]) and point to each other by number, so that sharing, cycles
//! and nesting without end cost nothing and cannot overflow a stack. Texts borrow from the input.

mod globals;
mod machine;
mod value;

pub(super) use machine::{Pickle, run};
pub(super) use value::{Heap, Id, Value};
