//! A data set as a table: picture files and their labels.
//!
//! ```text
//! path,label         columns in any order; others are ignored
//! ann/1.jpg,ann      paths are relative to the table
//! bob/1.jpg,bob      labels are names or numbers
//! ```

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::dataset::{FileList, Record};
use super::pairs_file::below;
use crate::words::cell_text;
use crate::{Error, Result};

/// Reads a table. Identities are in the order of their labels, by number if all are whole numbers; the
/// pictures of an identity in the order of their paths.
///
/// # Errors
/// Names the file and the line that cannot be read, leads out of the folder of the table, or repeats a
/// picture. No picture is looked for.
pub fn open(path: &Path) -> Result<FileList> {
    let content = std::fs::read(path).map_err(|source| Error::io(path, source))?;
    let rows = read(&content).map_err(|what| Error::Data(format!("{}: {what}", path.display())))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let root = folder.unwrap_or(Path::new(".")).to_path_buf();
    let labels: BTreeSet<&str> = rows.iter().map(|(_, label)| label.as_str()).collect();
    let mut labels: Vec<&str> = labels.into_iter().collect();
    let numbers: Option<Vec<u64>> = labels.iter().map(|label| label.parse().ok()).collect();
    if numbers.is_some() {
        labels.sort_by_key(|label| label.parse::<u64>().unwrap_or(u64::MAX));
    }
    let place: HashMap<&str, usize> = labels.iter().copied().zip(0..).collect();
    let mut records: Vec<Record> = rows
        .iter()
        .map(|(below, label)| Record {
            path: root.join(below),
            identity: place[label.as_str()],
            part: None,
        })
        .collect();
    records.sort_by(|a, b| (a.identity, &a.path).cmp(&(b.identity, &b.path)));
    let identities = labels.into_iter().map(str::to_owned).collect();
    Ok(FileList { root, identities, records, notes: Vec::new() })
}

/// The rows: path and label.
fn read(content: &[u8]) -> Result<Vec<(PathBuf, String)>, String> {
    let text = String::from_utf8_lossy(content);
    let mut table = csv::ReaderBuilder::new()
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let headers = table.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| headers.iter().position(|own| own.eq_ignore_ascii_case(name));
    let (Some(path), Some(label)) = (column("path"), column("label")) else {
        return Err("line 1: the columns path and label are needed".into());
    };
    let mut rows = Vec::new();
    let mut lines: HashMap<PathBuf, u64> = HashMap::new();
    for record in table.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |place: usize, name: &str| match record.get(place) {
            Some(value) if !value.is_empty() => Ok(cell_text(value)),
            _ => Err(format!("line {line}: column {name} is empty")),
        };
        let (name, label) = (field(path, "path")?, field(label, "label")?);
        let file = below(name).ok_or_else(|| {
            let what = "leads out of the folder of the table; paths are relative to it";
            format!("line {line}: `{name}` {what}")
        })?;
        if let Some(first) = lines.insert(file.clone(), line) {
            return Err(format!("line {line}: {name} is already in line {first}"));
        }
        rows.push((file, label.to_owned()));
    }
    match rows.is_empty() {
        true => Err("contains no pictures".into()),
        false => Ok(rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_text(text: &str) -> Result<FileList> {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("list.csv");
        std::fs::write(&path, text).unwrap();
        open(&path)
    }

    #[test]
    fn rows_are_sorted_as_folders_are() {
        let list =
            open_text("label,x,Path\nzoe,,b/1.png\nann,,b/2.png\n'=ann,,a.png\nann,,b/10.png\n")
                .unwrap();
        assert_eq!(list.identities, ["=ann", "ann", "zoe"]);
        let owners: Vec<_> = list.records.iter().map(|record| record.identity).collect();
        assert_eq!(owners, [0, 1, 1, 2]);
        assert!(list.records[1].path.ends_with("b/10.png"));
        let numbered = open_text("path,label\na.png,10\nb.png,9\n").unwrap();
        assert_eq!(numbered.identities, ["9", "10"]);
        assert!(numbered.records[0].path.ends_with("b.png"));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_line() {
        for (text, parts) in [
            ("a.png,1\n", ["line 1", "columns path and label"]),
            ("path,label\n", ["list.csv", "contains no pictures"]),
            ("path,label\na.png,\n", ["line 2", "column label is empty"]),
            ("path,label\na.png,1\n../b.png,1\n", ["line 3", "leads out of the folder"]),
            ("path,label\n/b.png,1\n", ["line 2", "leads out of the folder"]),
            ("path,label\na.png,1\na.png,2\n", ["line 3", "already in line 2"]),
        ] {
            let error = open_text(text).unwrap_err().to_string();
            for part in parts.iter().chain(&["list.csv"]) {
                assert!(error.contains(part), "{part} in {error}");
            }
        }
    }
}
