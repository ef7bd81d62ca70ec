//! The command line: flags, help texts and their validated form.
