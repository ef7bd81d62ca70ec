//! Finds libtorch, compiles the C++ shim in `native/` and gives every binary an rpath to libtorch.
//!
//! `torch-sys` has a build script of its own that wants the same library. This one depends on
//! nothing but `cc`, so it runs first, and a missing libtorch ends the build with a sentence
//! instead of a page of C++ errors.

use std::path::{Path, PathBuf};

const TORCH_VERSION: &str = "2.13.0";

// A build script has nowhere else to say what is wrong.
#[allow(clippy::print_stderr)]
fn main() {
    for variable in ["LIBTORCH", "LIBTORCH_BYPASS_VERSION_CHECK", "LIBTORCH_CXX11_ABI"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed=native");
    match find_libtorch() {
        Ok(root) => build(&root),
        Err(sentence) => {
            eprintln!("\nvisage: {sentence}\n");
            std::process::exit(1);
        }
    }
}

fn build(root: &Path) {
    let lib = root.join("lib");
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    let mut shim = cc::Build::new();
    shim.cpp(true)
        .std("c++20")
        .warnings(false)
        // Loops over pixels want vector instructions however the rest is built.
        .opt_level(3)
        .flag_if_supported("-fno-math-errno");
    // Clang's OpenMP is another library than the one libtorch runs on: with it, the shim's loops keep
    // to one thread.
    let has_openmp = !shim.get_compiler().is_like_clang();
    if has_openmp {
        shim.flag_if_supported("-fopenmp");
        link_openmp(&lib);
    }
    shim.include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .file("native/visage_shim.cpp")
        .file("native/visage_fused.cpp")
        .file("native/visage_lrn.cpp")
        .file("native/visage_pool.cpp")
        .file("native/visage_profile.cpp")
        .file("native/visage_trace.cpp")
        .compile("visage_shim");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo:rustc-env=VISAGE_LIBTORCH_LIB={}", lib.display());
}

/// The shim's loops run on libtorch's own threads, so it is linked to the OpenMP library that lies
/// beside libtorch (wheels bring one, some under a name with a hash), else to the system's: a second
/// library would start threads of its own.
fn link_openmp(lib: &Path) {
    let own = std::fs::read_dir(lib).ok().into_iter().flatten().flatten();
    let own = own.map(|entry| entry.file_name().to_string_lossy().into_owned());
    match own.filter(|name| name.starts_with("libgomp")).min() {
        Some(name) => {
            println!("cargo:rustc-link-search=native={}", lib.display());
            println!("cargo:rustc-link-lib=dylib:+verbatim={name}");
        }
        None => println!("cargo:rustc-link-lib=dylib=gomp"),
    }
}

fn find_libtorch() -> Result<PathBuf, String> {
    let how = format!(
        "run `make libtorch` (installs libtorch {TORCH_VERSION} from wheels into ./libtorch), \
         or set LIBTORCH to the folder of a libtorch or PyTorch {TORCH_VERSION} (the one that holds \
         `lib` and `include`)"
    );
    let root = match std::env::var_os("LIBTORCH") {
        // Made absolute, because it becomes the rpath of every binary.
        Some(root) => PathBuf::from(&root).canonicalize().unwrap_or_else(|_| root.into()),
        None => return Err(format!("libtorch was not found: LIBTORCH is not set; {how}.")),
    };
    for needed in ["lib/libtorch_cpu.so", "include/torch/csrc/api/include/torch/torch.h"] {
        if !root.join(needed).exists() {
            return Err(format!(
                "libtorch was not found: LIBTORCH is {}, which has no {needed}; {how}.",
                root.display()
            ));
        }
    }
    if std::env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some() {
        return Ok(root);
    }
    match version_of(&root) {
        Some(found) if found != TORCH_VERSION => Err(format!(
            "LIBTORCH is {}, which is version {found}; Visage is built against {TORCH_VERSION}; {how}. \
             LIBTORCH_BYPASS_VERSION_CHECK=1 tries all the same.",
            root.display()
        )),
        _ => Ok(root),
    }
}

/// The version in `build-version` (libtorch archives) or `version.py` (wheels), without `+cu130`.
fn version_of(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join("build-version"))
        .or_else(|_| {
            let python = std::fs::read_to_string(root.join("version.py"))?;
            let line = python.lines().find(|line| line.starts_with("__version__ ="));
            let quoted = line.and_then(|line| line.split('\'').nth(1));
            Ok::<_, std::io::Error>(quoted.unwrap_or_default().to_owned())
        })
        .ok()?;
    let version = text.trim().split('+').next()?.to_owned();
    (!version.is_empty()).then_some(version)
}
