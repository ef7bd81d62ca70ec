//! The rooms import each other one way only, and siblings not at all. The table is the one in
//! `src/lib.rs`; this test reads the `crate::` paths of every file and holds them against it.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

use std::path::{Path, PathBuf};

/// Rooms by step; a room may import rooms of lower steps and itself.
const STEPS: [&[&str]; 8] = [
    &["error", "verdict"],
    &["files", "native"],
    &["device", "data", "models", "metric"],
    &["weights", "eval", "figures", "fetch"],
    &["detect"],
    &["recognise", "audit"],
    &["train", "export"],
    &["cli", "commands"],
];

fn step(room: &str) -> Option<usize> {
    STEPS.iter().position(|rooms| rooms.contains(&room))
}

/// Siblings of one step that may import each other, with the reason.
fn is_allowed(from: &str, to: &str) -> bool {
    // Commands are run from what the command line parsed.
    (from, to) == ("commands", "cli")
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The room names behind every `crate::` in a source text: `crate::a::B` and `crate::{a, b::C}`.
fn imports(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => rooms.push(word(rest)),
            Some(list) => {
                let (mut depth, mut start) = (0, true);
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && c.is_ascii_alphabetic() => {
                            rooms.push(word(&list[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    rooms
}

#[test]
fn rooms_import_one_way() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    assert!(files.len() > 40, "only {} files found", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let place = file.strip_prefix(&source).unwrap();
        let first = place.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let room = first.trim_end_matches(".rs").to_owned();
        if room == "main" || room == "lib" {
            continue;
        }
        let own = step(&room).unwrap_or_else(|| panic!("{room} is not in the table of steps"));
        for import in imports(&std::fs::read_to_string(&file).unwrap()) {
            let Some(other) = step(&import) else { continue }; // Error, Result, ...
            if import != room && other >= own && !is_allowed(&room, &import) {
                wrong.push(format!("{} imports {import}", place.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the direction of the rooms:\n{}", wrong.join("\n"));
}

#[test]
fn lists_and_nested_lists_are_read() {
    let text = "use crate::{Error, a::{b, c}, d}; crate::e::f(); pub(in crate::g) x";
    assert_eq!(imports(text), ["Error", "a", "d", "e", "g"]);
}
