//! A safe reader of pickles, as far as tensor files use them: it never executes Python code.
//!
//! A pickle is a program for a stack machine whose `GLOBAL` and `REDUCE` instructions can call any
//! Python function. [`machine`] runs the instructions that build plain values; [`globals`] is the
//! allow-list of names, each implemented in Rust. Any other name is an error.
//!
//! Values are in an arena ([`Heap`]) and refer to each other by index, so that sharing, cycles and
//! deep nesting are cheap and cannot overflow the stack. Texts borrow from the input.

mod globals;
mod machine;
mod value;

pub(super) use machine::{Pickle, run};
pub(super) use value::{Heap, Id, Value};
