//! The rooms import each other one way only, and siblings not at all. The table of rooms is read from
//! `src/lib.rs`, and the `crate::` paths of every file are held against it.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The rows of the table of rooms in a text, without links. A room may import itself and rooms of the
/// rows above its own.
fn table(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.trim_start_matches("//! "));
    let rows = lines.skip_while(|line| !line.starts_with("| module |")).skip(2);
    rows.take_while(|line| line.starts_with('|')).map(|row| row.replace(['[', ']'], "")).collect()
}

/// The rooms of a row: the words in backticks of its first cell.
fn rooms(row: &str) -> Vec<String> {
    let cell = row.split('|').nth(1).unwrap_or_default();
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
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
    let steps: Vec<_> = table(&read("src/lib.rs")).iter().map(|row| rooms(row)).collect();
    assert!(steps.len() > 5 && steps.iter().all(|rooms| !rooms.is_empty()), "{steps:?}");
    let step = |room: &str| steps.iter().position(|rooms| rooms.iter().any(|own| own == room));
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
        let own = step(&room).unwrap_or_else(|| panic!("{room} is not in src/lib.rs's table"));
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
fn the_design_page_has_the_same_table() {
    assert_eq!(table(&read("docs/design.md")), table(&read("src/lib.rs")));
}

#[test]
fn lists_and_nested_lists_are_read() {
    let text = "use crate::{Error, a::{b, c}, d}; crate::e::f(); pub(in crate::g) x";
    assert_eq!(imports(text), ["Error", "a", "d", "e", "g"]);
}

/// A module's name, such as `train/fit` for src/train/fit.rs and `train` for src/train/mod.rs.
fn module(place: &Path) -> String {
    let name = place.with_extension("").to_string_lossy().replace('\\', "/");
    name.strip_suffix("/mod").unwrap_or(&name).to_owned()
}

/// Every path of a `use` tree: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn paths_of(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, list)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let list = list.trim_end().strip_suffix('}').unwrap_or(list);
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| paths_of(&format!("{before}{}", part.trim()))).collect()
}

/// A source text up to its module of tests.
fn without_tests(text: &str) -> &str {
    let starts = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at);
    let is_module =
        |at: &usize| text[*at..].lines().nth(1).is_some_and(|line| line.ends_with("mod tests {"));
    &text[..starts.into_iter().find(is_module).unwrap_or(text.len())]
}

/// Every path of a source text outside its `use` statements that starts with a module: `a::b(`.
fn used_paths(text: &str) -> Vec<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let words = code.flat_map(|line| line.split(|c| !is_word(c)));
    words.filter(|word| word.contains("::") && !word.starts_with(':')).map(str::to_owned).collect()
}

/// The modules that a file needs: those it imports from and those it names in its code. What its tests
/// need does not count, nor does `pub use`, with which a file only shows what others have.
fn dependencies(name: &str, text: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let text = without_tests(text);
    let (mut paths, mut code) = (Vec::new(), String::new());
    let mut rest = text;
    while let Some(at) = rest.find("use ") {
        let (before, statement) = rest.split_at(at);
        let line = before.rsplit('\n').next().unwrap_or_default();
        let Some((statement, after)) = statement.split_once(';') else { break };
        if line.trim().is_empty() {
            paths.extend(paths_of(&statement["use ".len()..].replace('\n', " ")));
        }
        let is_statement = line.trim().is_empty() || line.trim().starts_with("pub");
        code += before;
        // A word in a sentence that ends in "use" is no statement.
        rest = if is_statement { after } else { &rest[at + "use ".len()..] };
    }
    code += rest;
    paths.extend(used_paths(&code));
    let mut found = BTreeSet::new();
    for path in paths {
        let mut base: Vec<&str> = name.split('/').collect();
        let mut parts: Vec<&str> = path.split("::").map(str::trim).collect();
        let is_child = |part: &str| modules.contains(&format!("{name}/{part}"));
        match parts.first() {
            Some(&"crate") => base.clear(),
            Some(&"super") => {}
            Some(&"self") => drop(parts.remove(0)),
            Some(part) if is_child(part) => {}
            _ => continue,
        }
        while parts.first() == Some(&"super") {
            base.pop();
            parts.remove(0);
        }
        parts.retain(|part| *part != "crate");
        // The longest part of the path that is a file.
        let target = (0..=parts.len()).rev().find_map(|length| {
            let name = [&base[..], &parts[..length]].concat().join("/");
            modules.contains(&name).then_some(name)
        });
        found.extend(target.filter(|target| target != name));
    }
    found
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    let place = |file: &PathBuf| module(file.strip_prefix(&source).unwrap());
    let modules: BTreeSet<String> = files.iter().map(place).collect();
    let mut imports: BTreeMap<String, BTreeSet<String>> = files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            (place(file), dependencies(&place(file), &text, &modules))
        })
        .collect();
    assert!(imports["train/fit"].contains("train/step"), "imports are not read");
    // What imports nothing that is left cannot be part of a circle.
    loop {
        let left: BTreeSet<String> = imports.keys().cloned().collect();
        let before = imports.len();
        imports.retain(|_, targets| targets.iter().any(|target| left.contains(target)));
        if imports.len() == before {
            break;
        }
    }
    let left: BTreeSet<&String> = imports.keys().collect();
    let rows: Vec<String> = imports
        .iter()
        .map(|(name, targets)| {
            let targets: Vec<_> = targets.iter().filter(|target| left.contains(target)).collect();
            format!("{name} -> {targets:?}")
        })
        .collect();
    assert!(rows.is_empty(), "circles, and what imports them:\n{}", rows.join("\n"));
}

#[test]
fn use_trees_are_taken_apart() {
    assert_eq!(paths_of("a::{b, c::{d, e as f}}"), ["a::b", "a::c::d", "a::c::e"]);
    let modules = ["a", "a/b", "a/c", "d"].map(String::from).into();
    let text = "use super::c::X;\nuse crate::{d::Y, E};\n#[cfg(test)]\nmod tests {\n use crate::a;";
    assert_eq!(dependencies("a/b", text, &modules), ["a/c", "d"].map(String::from).into());
}

#[test]
fn children_count_unless_a_file_only_shows_what_they_have() {
    let modules = ["a", "a/b", "a/c"].map(String::from).into();
    let text = "pub use b::X;\n// b::f() would do\nfn f() { c::run(1) }";
    assert_eq!(dependencies("a", text, &modules), ["a/c".to_owned()].into());
    assert_eq!(dependencies("a", "use b::X;", &modules), ["a/b".to_owned()].into());
    let text = "fn f() -> super::Y { super::c::z() }";
    assert_eq!(dependencies("a/b", text, &modules), ["a", "a/c"].map(String::from).into());
}

/// The names of the types that a source text defines outside its tests, functions and `impl` blocks.
fn types(text: &str) -> Vec<String> {
    let text = without_tests(text);
    let named = |line: &str| {
        let line = line.strip_prefix("pub").unwrap_or(line);
        let line = if line.starts_with('(') { line.split_once(')')?.1 } else { line };
        let rest = ["struct ", "enum ", "trait ", "type "]
            .iter()
            .find_map(|word| line.trim_start().strip_prefix(word))?;
        Some(rest.chars().take_while(|c| c.is_ascii_alphanumeric()).collect())
    };
    text.lines().filter(|line| !line.starts_with(' ')).filter_map(named).collect()
}

#[test]
fn no_type_name_is_used_four_times() {
    let mut files = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut places: BTreeMap<String, Vec<&PathBuf>> = BTreeMap::new();
    for file in &files {
        for name in types(&std::fs::read_to_string(file).unwrap()) {
            places.entry(name).or_default().push(file);
        }
    }
    assert!(places.len() > 300, "only {} types found", places.len());
    places.retain(|_, files| files.len() > 3);
    assert!(places.is_empty(), "{places:#?}");
}
