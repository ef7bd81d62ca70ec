//! Finds libtorch, compiles the C++ shim in `native/` and gives every binary an rpath to libtorch.
//!
//! `torch-sys` has a build script of its own that wants the same library. This one depends on
//! nothing but `cc`, so it runs first, and a missing libtorch ends the build with a sentence
//! instead of a page of C++ errors.

use std::path::{Path, PathBuf};

/// Every libtorch that a release of tch binds, with that release. Cargo.lock decides which tch is
/// built; `make TORCH=VERSION` makes a lock file for another one.
const PAIRS: [(&str, &str); 2] = [("2.11.0", "0.24"), ("2.13.0", "0.26")];

// A build script has nowhere else to say what is wrong.
#[allow(clippy::print_stderr)]
fn main() {
    for variable in ["LIBTORCH", "LIBTORCH_BYPASS_VERSION_CHECK", "LIBTORCH_CXX11_ABI", "DOCS_RS"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed=native");
    // Documentation is built where there is no libtorch: on docs.rs, and with our feature.
    if ["DOCS_RS", "CARGO_FEATURE_DOC_ONLY"].iter().any(|name| std::env::var_os(name).is_some()) {
        println!("cargo:rustc-env=VISAGE_LIBTORCH_LIB=");
        return;
    }
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
        // The little of gloo that libtorch's headers need and do not bring.
        .include("native")
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .file("native/visage_shim.cpp")
        .file("native/visage_device.cpp")
        .file("native/visage_distance.cpp")
        .file("native/visage_fused.cpp")
        .file("native/visage_group.cpp")
        .file("native/visage_lrn.cpp")
        .file("native/visage_norm.cpp")
        .file("native/visage_pool.cpp")
        .file("native/visage_profile.cpp")
        .file("native/visage_trace.cpp")
        .file("native/visage_version.cpp")
        .compile("visage_shim");
    if has_openmp && std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        let mut start = cc::Build::new();
        start.file("native/spin_count.c").cargo_metadata(false);
        for object in start.compile_intermediates() {
            println!("cargo:rustc-link-arg-bin=visage={}", object.display());
        }
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // Functions of libtorch are looked up when they are first called, so that a program that meets
    // another version can say so before it needs one that is not there.
    println!("cargo:rustc-link-arg=-Wl,-z,lazy");
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
    let locked = locked_tch().and_then(|tch| PAIRS.iter().find(|pair| tch.starts_with(pair.1)));
    let wanted = locked.map_or(PAIRS[PAIRS.len() - 1].0, |pair| pair.0);
    let how = format!(
        "run `make libtorch` (installs libtorch {wanted} from wheels into ./libtorch), or set LIBTORCH \
         to the folder of a libtorch or PyTorch {wanted} (the one that holds `lib` and `include`)"
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
    let Some(found) = version_of(&root) else { return Ok(root) };
    let here = format!("LIBTORCH is {}, which is version {found}", root.display());
    let bypass = "LIBTORCH_BYPASS_VERSION_CHECK=1 tries all the same";
    match (PAIRS.iter().find(|pair| pair.0 == found), locked) {
        (None, _) => {
            let list = PAIRS.map(|(torch, tch)| format!("{torch} (tch {tch})")).join(" and ");
            Err(format!("{here}; Visage can be built against libtorch {list}; {how}. {bypass}."))
        }
        (Some(pair), Some(locked)) if pair != locked => Err(format!(
            "{here} and needs tch {}, but Cargo.lock has tch {}, which needs libtorch {}; \
             `make TORCH={found} build` builds against {found}; otherwise {how}. {bypass}.",
            pair.1, locked.1, locked.0
        )),
        _ => Ok(root),
    }
}

/// The version of tch in Cargo.lock; none where Visage is a dependency of something else, whose lock
/// file is elsewhere (the build script of torch-sys then compares the versions).
fn locked_tch() -> Option<String> {
    let lock = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR")?).join("Cargo.lock");
    println!("cargo:rerun-if-changed={}", lock.display());
    let text = std::fs::read_to_string(lock).ok()?;
    let mut lines = text.lines().skip_while(|line| *line != "name = \"tch\"");
    let version = lines.nth(1)?.strip_prefix("version = \"")?;
    Some(version.trim_end_matches('"').to_owned())
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
