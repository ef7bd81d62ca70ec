//! The versions of libtorch that this program was built for and runs with.
//!
//! Nothing here calls libtorch, so [`check`] works with any version: libtorch's functions are bound on
//! the first call (`-z lazy`, see build.rs), and only then does a missing one end the program.

use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

unsafe extern "C" {
    fn visage_built_for() -> *const c_char;
    fn visage_runs_on() -> u32;
    fn visage_libtorch_file() -> *const c_char;
}

/// The version of libtorch that this program was compiled against, such as `2.13.0`.
pub fn built_for() -> &'static str {
    // SAFETY: a string literal of the shim.
    unsafe { CStr::from_ptr(visage_built_for()) }.to_str().unwrap_or("unknown")
}

/// The version of the loaded libtorch, such as `[2, 13, 0]`; `None` before 2.9.
pub fn runs_on() -> Option<[u32; 3]> {
    // SAFETY: calls the symbol only if it exists.
    let version = unsafe { visage_runs_on() };
    (version != 0).then_some([version >> 16, (version >> 8) & 0xff, version & 0xff])
}

/// The same as text.
pub fn runs_on_text() -> String {
    runs_on().map_or_else(|| "of an unknown version".into(), |v| v.map(|n| n.to_string()).join("."))
}

/// The folder of the loaded libtorch; if unknown, of the one it was built with.
pub fn folder() -> PathBuf {
    // SAFETY: null, or a text that lives as long as the library is loaded.
    let file = unsafe {
        let file = visage_libtorch_file();
        (!file.is_null()).then(|| CStr::from_ptr(file).to_string_lossy().into_owned())
    };
    let folder = file.and_then(|file| Path::new(&file).parent().map(Path::to_owned));
    folder.unwrap_or_else(|| env!("VISAGE_LIBTORCH_LIB").into())
}

/// Refuses another version of libtorch than this program was built for; the patch number may differ.
///
/// # Errors
/// Names both versions, the library, and what to do.
pub fn check() -> Result<()> {
    compare(built_for(), runs_on())
}

fn compare(built_for: &str, runs_on: Option<[u32; 3]>) -> Result<()> {
    let mut wanted = built_for.split('.').map(|number| number.parse::<u32>().ok());
    let wanted = [wanted.next().flatten(), wanted.next().flatten()];
    let found = runs_on.map(|[major, minor, _]| [Some(major), Some(minor)]);
    if found == Some(wanted) {
        return Ok(());
    }
    Err(Error::Device(format!(
        "this program was built for libtorch {built_for}, but the loader gave it libtorch {} ({}); \
         point LD_LIBRARY_PATH to the `lib` folder of a libtorch or PyTorch {built_for}, or build again \
         with `make TORCH=VERSION build`",
        runs_on_text(),
        folder().display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaded_library_is_the_one_built_for() {
        check().unwrap();
        assert_eq!(built_for(), runs_on_text());
        assert!(folder().join("libtorch_cpu.so").exists(), "{}", folder().display());
    }

    #[test]
    fn another_version_is_refused_by_both_names() {
        compare("2.13.0", Some([2, 13, 1])).unwrap();
        for (built_for, runs_on) in [
            ("2.13.0", Some([2, 11, 0])),
            ("2.11.0", Some([2, 13, 0])),
            ("2.13.0", Some([3, 13, 0])),
            ("2.13.0", None),
        ] {
            let text = compare(built_for, runs_on).unwrap_err().to_string();
            assert!(text.contains(built_for) && text.contains("make TORCH="), "{text}");
        }
    }
}
