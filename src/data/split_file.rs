//! Split files: CSV with `path,identity,part`, paths relative to the data folder.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::{FaceFolder, Part, Split};
use crate::files::write_atomically;
use crate::words::{cell, cell_text, count, enumerate};
use crate::{Error, Result};

const HEADER: [&str; 3] = ["path", "identity", "part"];

impl Split {
    /// Writes the split of `folder`, one row per picture.
    ///
    /// # Errors
    /// The file cannot be written, or the split does not belong to this folder.
    pub fn write_csv(&self, path: &Path, folder: &FaceFolder) -> Result<()> {
        let table = self.csv(folder)?;
        write_atomically(path, |out| out.write_all(&table))
    }

    /// What [`write_csv`](Self::write_csv) writes.
    ///
    /// # Errors
    /// The split does not belong to this folder.
    pub fn csv(&self, folder: &FaceFolder) -> Result<Vec<u8>> {
        if self.parts.len() != folder.pictures.len() {
            let (parts, pictures) = (self.parts.len(), folder.pictures.len());
            return Err(Error::Data(format!("a split of {parts} pictures for {pictures}")));
        }
        let fill = || {
            let mut table = csv::Writer::from_writer(Vec::new());
            table.write_record(HEADER)?;
            for (face, part) in folder.pictures.iter().zip(&self.parts) {
                let identity = folder.identities[face.identity].as_str();
                let name = folder.relative(&face.path);
                table.write_record([&cell(&name), &cell(identity), part.name()])?;
            }
            table.into_inner().map_err(|error| error.into_error().into())
        };
        fill().map_err(|error: csv::Error| Error::Data(format!("the split: {error}")))
    }

    /// Reads the split of `folder`, also if the data set was moved.
    ///
    /// Rows of unreadable pictures are ignored.
    ///
    /// # Errors
    /// Names the file and the invalid line, or the pictures that are only in the file or only in the
    /// folder.
    pub fn read_csv(path: &Path, folder: &FaceFolder) -> Result<Self> {
        let content = std::fs::read(path).map_err(|source| Error::io(path, source))?;
        let wrong = |what: String| Error::Data(format!("{}: {what}", path.display()));
        let mut rows = read_rows(&content).map_err(wrong)?;

        let (mut parts, mut new) = (Vec::new(), Vec::new());
        for face in &folder.pictures {
            let name = folder.relative(&face.path);
            let identity = &folder.identities[face.identity];
            match rows.remove(&name) {
                Some(row) if row.identity != *identity => {
                    return Err(wrong(format!(
                        "line {}: the identity of {name} is {identity}, not {}",
                        row.line, row.identity
                    )));
                }
                Some(row) => parts.push(row.part),
                None => new.push(name),
            }
        }
        for (unreadable, _) in &folder.unreadable {
            rows.remove(&folder.relative(unreadable));
        }

        let root = folder.root.display();
        let mut wrongs = Vec::new();
        if !rows.is_empty() {
            let names: Vec<&str> = rows.keys().map(String::as_str).collect();
            let which = count(names.len(), "picture");
            wrongs.push(format!("{which} not in {root}: {}", enumerate(&names)));
        }
        if !new.is_empty() {
            let names: Vec<&str> = new.iter().map(String::as_str).collect();
            let which = count(names.len(), "picture");
            wrongs.push(format!("{which} of {root} not in the file: {}", enumerate(&names)));
        }
        if !wrongs.is_empty() {
            let fix = "use the --data it was written for, correct its rows, or leave --split out \
                       to draw a new one";
            return Err(wrong(format!("not a split of this data: {}; {fix}", wrongs.join("; "))));
        }
        Ok(Self { parts, notes: Vec::new() })
    }
}

/// A split for pictures that may have changed since it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedOver {
    /// The split of the current pictures.
    pub split: Split,
    /// Number of pictures that are not in the file.
    pub new: usize,
}

impl Split {
    /// Reads a split file for a folder that may have changed: known pictures keep their part, a new one
    /// gets the part of a near-duplicate (`groups`), otherwise training. `None` if the file has less
    /// than half of the pictures.
    ///
    /// # Errors
    /// Names the file and the invalid line.
    pub fn carry_over(
        path: &Path,
        folder: &FaceFolder,
        groups: impl FnOnce() -> Vec<usize>,
    ) -> Result<Option<CarriedOver>> {
        let content = std::fs::read(path).map_err(|source| Error::io(path, source))?;
        let wrong = |what: String| Error::Data(format!("{}: {what}", path.display()));
        let rows = read_rows(&content).map_err(wrong)?;
        let known: Vec<Option<Part>> = folder
            .pictures
            .iter()
            .map(|face| {
                let row = rows.get(&folder.relative(&face.path))?;
                (folder.identities[face.identity] == row.identity).then_some(row.part)
            })
            .collect();
        let new = known.iter().filter(|part| part.is_none()).count();
        if 2 * new > known.len() {
            return Ok(None);
        }
        let mut of_group = BTreeMap::new();
        let groups = if new > 0 { groups() } else { vec![0; known.len()] };
        for (part, group) in known.iter().zip(&groups) {
            if let Some(part) = part {
                of_group.entry(*group).or_insert(*part);
            }
        }
        let part = |(part, group): (&Option<Part>, &usize)| {
            part.or_else(|| of_group.get(group).copied()).unwrap_or(Part::Train)
        };
        let parts = known.iter().zip(&groups).map(part).collect();
        Ok(Some(CarriedOver { split: Self { parts, notes: Vec::new() }, new }))
    }
}

/// The parts of all pictures in a split file, by relative path.
///
/// # Errors
/// Names the file and the invalid line.
pub fn read_parts(path: &Path) -> Result<BTreeMap<String, Part>> {
    let content = std::fs::read(path).map_err(|source| Error::io(path, source))?;
    let wrong = |what: String| Error::Data(format!("{}: {what}", path.display()));
    let rows = read_rows(&content).map_err(wrong)?;
    Ok(rows.into_iter().map(|(name, row)| (name, row.part)).collect())
}

/// A row of the file.
struct SplitRow {
    line: u64,
    identity: String,
    part: Part,
}

fn read_rows(content: &[u8]) -> Result<BTreeMap<String, SplitRow>, String> {
    let mut table = csv::ReaderBuilder::new().flexible(true).from_reader(content);
    let header = table.headers().map_err(|error| error.to_string())?;
    if header != HEADER.as_slice() {
        let found = header.iter().collect::<Vec<_>>().join(",");
        return Err(format!("line 1: the header is `{found}`, not `{}`", HEADER.join(",")));
    }
    let mut rows = BTreeMap::new();
    for record in table.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let fields: Vec<&str> = record.iter().map(cell_text).collect();
        let &[name, identity, part] = fields.as_slice() else {
            return Err(format!("line {line}: {} instead of 3", count(fields.len(), "field")));
        };
        let part = [Part::Train, Part::Validation]
            .into_iter()
            .find(|known| known.name() == part)
            .ok_or_else(|| {
            format!("line {line}: the part is `{part}`, not train or validation")
        })?;
        let row = SplitRow { line, identity: identity.to_string(), part };
        if let Some(first) = rows.insert(name.to_string(), row) {
            return Err(format!("line {line}: {name} is already in line {}", first.line));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use super::super::testing::face_folder;
    use super::*;

    fn open(root: &Path) -> FaceFolder {
        FaceFolder::open(root, false, 8, &|_, _| {}).unwrap()
    }

    #[test]
    fn a_split_is_carried_over_to_a_folder_that_has_grown() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 4), ("bob", 4)]);
        let old = open(root.path());
        let parts = [Part::Train, Part::Validation].repeat(4);
        let file = root.path().join("split.csv");
        Split { parts: parts.clone(), notes: vec![] }.write_csv(&file, &old).unwrap();
        let same = Split::carry_over(&file, &old, || panic!("nothing is new")).unwrap().unwrap();
        assert_eq!((same.split.parts, same.new), (parts.clone(), 0));

        // Two more of bob's: one in the group of a validation picture, one alone.
        face_folder(root.path(), &[("bob", 6)]);
        let grown = open(root.path());
        assert_eq!(grown.pictures.len(), 10);
        let groups = || vec![0, 1, 2, 3, 4, 5, 6, 7, 5, 9];
        let carried = Split::carry_over(&file, &grown, groups).unwrap().unwrap();
        assert_eq!(carried.new, 2);
        assert_eq!(carried.split.parts[..8], parts);
        assert_eq!(carried.split.parts[8..], [Part::Validation, Part::Train]);

        let other = tempfile::tempdir().unwrap();
        face_folder(other.path(), &[("cid", 4), ("dan", 4)]);
        let other = Split::carry_over(&file, &open(other.path()), || vec![0; 8]).unwrap();
        assert_eq!(other, None);
    }

    #[test]
    fn a_split_comes_back_also_for_a_copy_of_the_data() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for root in [&one, &two] {
            face_folder(root.path(), &[("ann, \"the\" first", 5), ("bob", 4)]);
            write(root.path().join("bob/broken.png"), "").unwrap();
        }
        let (folder, copy) = (open(one.path()), open(two.path()));
        let alone: Vec<usize> = (0..9).collect();
        let split = Split::stratified(&folder, &alone, 0.3, 1).unwrap();
        assert_eq!((split.count(Part::Train), split.count(Part::Validation)), (6, 3));
        let file = one.path().join("run/split.csv");
        split.write_csv(&file, &folder).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("path,identity,part\n\"ann, \"\"the\"\" first/0.png\","),
            "{text}"
        );
        assert_eq!(Split::read_csv(&file, &copy).unwrap().parts, split.parts);
    }

    #[test]
    fn a_row_of_a_picture_that_broke_since_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 3), ("bob", 3)]);
        let file = root.path().join("split.csv");
        let folder = open(root.path());
        let split = Split::stratified(&folder, &[0, 1, 2, 3, 4, 5], 0.3, 1).unwrap();
        split.write_csv(&file, &folder).unwrap();
        write(root.path().join("ann/0.png"), "").unwrap();
        assert_eq!(Split::read_csv(&file, &open(root.path())).unwrap().parts, split.parts[1..]);
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 1), ("bob", 1)]);
        let folder = open(root.path());
        let file = root.path().join("split.csv");
        let cases = [
            ("", "line 1: the header is ``"),
            ("a,b\n", "line 1: the header is `a,b`, not `path,identity,part`"),
            ("path,identity,part\nann/0.png,ann,test\n", "line 2: the part is `test`"),
            ("path,identity,part\nann/0.png\n", "line 2: 1 field instead of 3"),
            (
                "path,identity,part\nann/0.png,ann,train\nann/0.png,ann,train\n",
                "line 3: ann/0.png is already in line 2",
            ),
            (
                "path,identity,part\nann/0.png,bob,train\nbob/0.png,bob,train\n",
                "line 2: the identity of ann/0.png is ann, not bob",
            ),
            ("path,identity,part\nann/0.png,ann,train\n", "not in the file: bob/0.png"),
            (
                "path,identity,part\nann/0.png,ann,train\nbob/0.png,bob,train\nbob/1.png,bob,train\n",
                "1 picture not in",
            ),
        ];
        for (content, fault) in cases {
            write(&file, content).unwrap();
            let error = Split::read_csv(&file, &folder).unwrap_err().to_string();
            assert!(error.contains("split.csv") && error.contains(fault), "{fault} in {error}");
        }
    }

    #[test]
    fn an_impossible_fraction_is_refused_by_its_flag() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 2), ("bob", 2)]);
        let folder = open(root.path());
        for fraction in [-0.1, 1.0, f64::NAN] {
            let error = Split::stratified(&folder, &[0, 1, 2, 3], fraction, 0).unwrap_err();
            assert!(error.to_string().contains("--val-fraction"), "{error}");
        }
        let split = Split::stratified(&folder, &[0, 1, 2, 3], 0.5, 0).unwrap();
        assert!(
            split.notes[0].contains("2 identities without validation pictures"),
            "{:?}",
            split.notes
        );
    }
}
