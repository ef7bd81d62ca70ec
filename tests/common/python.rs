//! The Python that tests hold this program against.
#![allow(dead_code)] // not every test program asks
#![allow(clippy::print_stderr)] // a skipped test says so

use std::path::PathBuf;
use std::process::Command;

/// A Python that imports `modules` (`numpy, torch`): `VISAGE_PYTHON`, the one that `make tools`
/// sets up, or the system's; where none does, says that the test is skipped.
pub fn python(modules: &str) -> Option<PathBuf> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let chosen = std::env::var_os("VISAGE_PYTHON").map(PathBuf::from);
    let found = chosen.into_iter().chain([own, "python3".into()]).find(|python| {
        let imports = Command::new(python).args(["-c", &format!("import {modules}")]).output();
        imports.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        eprintln!("skipped: no Python imports {modules} (`make tools` installs it)");
    }
    found
}
