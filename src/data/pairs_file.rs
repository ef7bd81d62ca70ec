//! Lists of labelled pairs for verification: LFW's `pairs.txt`, and tables.
//!
//! ```text
//! 1100 LFW View 1: number of same lines, followed by as many different ones
//! 10 300 LFW View 2: 10 folds of 300 same and 300 different lines
//! Abel_Pacheco 1 4 same person, pictures 1 and 4
//! Abdel_Madi 1 Dean_Cain 3 different people
//!
//! a,b,same a table (.csv, .tsv): paths below the picture folder, and
//! ann/1.png,bob/2.png,0 1/0, true/false, yes/no or same/different; optionally a column `fold`
//! ```
//!
//! LFW's format: Huang et al., Labeled Faces in the Wild, 2007.

use std::path::{Component, Path, PathBuf};

use super::mounted;
use crate::verdict::Verdict;
use crate::words::count;
use crate::{Error, Result};

/// File extensions tried for `NAME/NAME_0001`, in order.
const ENDINGS: [&str; 4] = ["jpg", "png", "jpeg", "JPG"];

/// A labelled pair of picture files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPair {
    /// A picture.
    pub a: PathBuf,
    /// Another picture.
    pub b: PathBuf,
    /// Whether they show the same person.
    pub label: Verdict,
    /// Fold, from 0.
    pub fold: usize,
    /// Line in the file.
    pub line: u64,
}

/// A pair that was skipped because a picture is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedPair {
    /// Line in the file.
    pub line: u64,
    /// The missing picture.
    pub missing: PathBuf,
}

/// The pairs of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairList {
    /// The pairs, in the order of the file.
    pub pairs: Vec<ListedPair>,
    /// Number of folds; 1 if the file has none.
    pub folds: usize,
    /// The skipped pairs.
    pub skipped: Vec<SkippedPair>,
}

/// A line of the file.
struct PairRow {
    a: PathBuf,
    b: PathBuf,
    label: Verdict,
    fold: usize,
    line: u64,
}

impl PairList {
    /// Reads a list of pairs of pictures below `root`; the content decides between a
    /// table and LFW's format. Pairs with a missing picture are [`skipped`](Self::skipped).
    ///
    /// # Errors
    /// A line cannot be parsed or leads out of `root`, the number of lines is not the header's, or no
    /// pair is complete. Names the file, the line and the fix.
    pub fn read(file: &Path, root: &Path) -> Result<Self> {
        let content = std::fs::read(file).map_err(|source| Error::io(file, source))?;
        let text = String::from_utf8_lossy(&content);
        let text = text.trim_start_matches('\u{feff}');
        let separator = table_separator(text);
        let rows = match separator {
            Some(separator) => read_table(text, separator),
            None => read_lfw(text),
        };
        let rows = rows.map_err(|what| Error::Data(format!("{}: {what}", file.display())))?;
        let folds = rows.iter().map(|row| row.fold + 1).max().unwrap_or(1);
        let (mut pairs, mut skipped) = (Vec::new(), Vec::new());
        for PairRow { a, b, label, fold, line } in rows {
            let find = |name: &Path| match separator {
                Some(_) => Some(root.join(name)).filter(|path| mounted::exists(path)),
                None => official(root, name),
            };
            match (find(&a), find(&b)) {
                (Some(a), Some(b)) => pairs.push(ListedPair { a, b, label, fold, line }),
                (Some(_), None) => skipped.push(SkippedPair { line, missing: b }),
                _ => skipped.push(SkippedPair { line, missing: a }),
            }
        }
        let list = Self { pairs, folds, skipped };
        if list.pairs.is_empty() {
            let what = list.describe_skipped(3).unwrap_or_else(|| "it has no pairs".into());
            return Err(Error::Data(format!(
                "{}: no complete pair: {what}; paths are relative to {}",
                file.display(),
                root.display()
            )));
        }
        Ok(list)
    }

    /// A sentence about the skipped pairs with the first `shown` lines; `None` if there are none.
    pub fn describe_skipped(&self, shown: usize) -> Option<String> {
        if self.skipped.is_empty() {
            return None;
        }
        let first: Vec<String> = self
            .skipped
            .iter()
            .take(shown)
            .map(|skipped| format!("line {}: {}", skipped.line, skipped.missing.display()))
            .collect();
        let more = match self.skipped.len().saturating_sub(shown) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let which = count(self.skipped.len(), "pair");
        Some(format!("{which} without their pictures ({}{more})", first.join(", ")))
    }

    /// Number of pairs with this label.
    pub fn count(&self, label: Verdict) -> usize {
        self.pairs.iter().filter(|pair| pair.label == label).count()
    }
}

/// `NAME/NAME_0001` with the first extension that exists.
fn official(root: &Path, name: &Path) -> Option<PathBuf> {
    let with = |ending: &&str| {
        let mut path = root.join(name).into_os_string();
        path.push(".");
        path.push(ending);
        PathBuf::from(path)
    };
    ENDINGS.iter().map(with).find(|path| mounted::exists(path))
}

/// The separator of a table with the columns a, b and same; `None` if it is no such table.
fn table_separator(text: &str) -> Option<u8> {
    let heading = text.lines().next()?.to_ascii_lowercase();
    [b',', b'\t', b';'].into_iter().find(|&separator| {
        let columns: Vec<&str> =
            heading.split(char::from(separator)).map(|c| c.trim().trim_matches('"')).collect();
        ["a", "b", "same"].iter().all(|column| columns.contains(column))
    })
}

fn read_table(text: &str, separator: u8) -> Result<Vec<PairRow>, String> {
    let mut table = csv::ReaderBuilder::new()
        .delimiter(separator)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let headers = table.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| headers.iter().position(|own| own.eq_ignore_ascii_case(name));
    let places = (column("a"), column("b"), column("same"), column("fold"));
    let (Some(a), Some(b), Some(same), fold) = places else {
        return Err("line 1: the columns a, b and same are needed".into());
    };
    let mut rows = Vec::new();
    for record in table.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |what: String| format!("line {line}: {what}");
        let field = |place: usize, name: &str| match record.get(place) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(wrong(format!("column {name} is empty"))),
        };
        let path = |place, name| {
            let value = field(place, name)?;
            below(value).ok_or_else(|| {
                wrong(format!("`{value}` in column {name} leads out of the picture folder"))
            })
        };
        let label = match field(same, "same")?.to_ascii_lowercase().as_str() {
            "1" | "1.0" | "true" | "yes" | "same" => Verdict::Same,
            "0" | "0.0" | "false" | "no" | "different" => Verdict::Different,
            other => {
                let known = "1, true, yes or same; 0, false, no or different";
                return Err(wrong(format!("`{other}` in column same: expected {known}")));
            }
        };
        let fold = match fold.and_then(|place| record.get(place)) {
            None => 0,
            Some(value) => {
                value.parse().ok().filter(|&fold| fold < MAX_FOLDS).ok_or_else(|| {
                    wrong(format!("`{value}` in column fold; number folds from 0"))
                })?
            }
        };
        rows.push(PairRow { a: path(a, "a")?, b: path(b, "b")?, label, fold, line });
    }
    Ok(rows)
}

/// Upper bound of fold numbers, against typos.
const MAX_FOLDS: usize = 1000;

/// The header of an LFW list.
struct Heading {
    folds: usize,
    per_label: usize,
}

fn read_lfw(text: &str) -> Result<Vec<PairRow>, String> {
    let mut heading: Option<Heading> = None;
    let mut rows: Vec<PairRow> = Vec::new();
    for (line, content) in (1_u64..).zip(text.lines()) {
        let fields: Vec<&str> = content
            .split(|c: char| c.is_whitespace() || c == ',')
            .filter(|field| !field.is_empty())
            .collect();
        if fields.is_empty() {
            continue;
        }
        if rows.is_empty() && heading.is_none() {
            if let Some(found) = read_heading(&fields) {
                heading = Some(found);
                continue;
            }
            if line == 1 && fields[0].eq_ignore_ascii_case("name") {
                continue; // the column names that tables made from the list begin with
            }
        }
        let (a, b, label) = read_pair(&fields).ok_or_else(|| {
            let shown: String = content.chars().take(60).collect();
            format!(
                "line {line}: `{shown}` is not a pair; expected `NAME I J` (same) or `NAME I NAME \
                 J` (different), with picture numbers from 1 (or a table headed a,b,same)"
            )
        })?;
        let fold = heading.as_ref().map_or(0, |heading| rows.len() / (2 * heading.per_label));
        rows.push(PairRow { a, b, label, fold, line });
    }
    match heading {
        Some(Heading { folds, per_label }) if rows.len() != 2 * folds * per_label => Err(format!(
            "line 1 announces {} ({folds} x {per_label} same and {per_label} different), but {} \
             follow; use the complete file, or correct the line",
            count(2 * folds * per_label, "pair"),
            rows.len()
        )),
        _ => Ok(rows),
    }
}

/// `1100` or `10 300`.
fn read_heading(fields: &[&str]) -> Option<Heading> {
    let number = |field: &str| {
        field.parse::<usize>().ok().filter(|number| (1..=10_000_000).contains(number))
    };
    match fields {
        [per_label] => Some(Heading { folds: 1, per_label: number(per_label)? }),
        [folds, per_label] => Some(Heading {
            folds: number(folds).filter(|&folds| folds < MAX_FOLDS)?,
            per_label: number(per_label)?,
        }),
        _ => None,
    }
}

fn read_pair(fields: &[&str]) -> Option<(PathBuf, PathBuf, Verdict)> {
    match fields {
        [name, i, j] if i != j => Some((picture(name, i)?, picture(name, j)?, Verdict::Same)),
        [one, i, other, j] if one != other => {
            Some((picture(one, i)?, picture(other, j)?, Verdict::Different))
        }
        _ => None,
    }
}

/// `NAME/NAME_0001`, without extension.
fn picture(name: &str, number: &str) -> Option<PathBuf> {
    let number: u32 = number.parse().ok().filter(|&number| number > 0)?;
    let folder = below(name).filter(|path| path.components().count() == 1)?;
    Some(folder.join(format!("{name}_{number:04}")))
}

/// A relative path that stays below its root.
pub(super) fn below(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    let inside =
        path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    (inside && !text.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::super::testing::shared;
    use super::*;

    const NAMES: [&str; 5] =
        ["Al/Al_0001.jpg", "Al/Al_0002.jpg", "Al/Al_0003.png", "Bo_B/Bo_B_0001.jpg", "x y/1.png"];

    fn read(name: &str, text: &str) -> Result<PairList> {
        let root = tempfile::tempdir().unwrap();
        for picture in NAMES {
            let path = root.path().join(picture);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let file = root.path().join(name);
        std::fs::write(&file, text).unwrap();
        let mut list = PairList::read(&file, root.path())?;
        for pair in &mut list.pairs {
            for path in [&mut pair.a, &mut pair.b] {
                *path = path.strip_prefix(root.path()).unwrap().to_path_buf();
            }
        }
        Ok(list)
    }

    fn pair(a: &str, b: &str, label: Verdict, fold: usize, line: u64) -> ListedPair {
        ListedPair { a: a.into(), b: b.into(), label, fold, line }
    }

    #[test]
    fn both_kinds_of_lines_with_tabs_or_spaces() {
        let wanted = [
            pair(NAMES[0], NAMES[1], Verdict::Same, 0, 2),
            pair(NAMES[2], NAMES[3], Verdict::Different, 0, 3),
        ];
        for text in ["1\nAl\t1\t2\nAl\t3\tBo_B\t1\n", "1\r\nAl 1  2\r\nAl 3 Bo_B 1\r\n"] {
            let list = read("pairs.txt", text).unwrap();
            assert_eq!((list.pairs.as_slice(), list.folds), (wanted.as_slice(), 1));
            assert_eq!(list.describe_skipped(3), None);
        }
        // As tables made from the list have it, and without any heading.
        for text in ["name,imagenum1,imagenum2,\nAl,1,2,\nAl,3,Bo_B,1\n", "\nAl 1 2\nAl 3 Bo_B 1"] {
            assert_eq!(read("pairs.csv", text).unwrap().pairs, wanted, "{text}");
        }
    }

    #[test]
    fn folds_are_kept_and_missing_pictures_are_skipped_by_name() {
        let text = "2\t1\nAl\t1\t2\nAl\t3\tBo_B\t1\nAl\t1\t9\nAl\t2\tNo_One\t1\n";
        let mut list = read("pairs.txt", text).unwrap();
        assert_eq!((list.folds, list.pairs.len(), list.skipped.len()), (2, 2, 2));
        assert_eq!(list.skipped[1], SkippedPair { line: 5, missing: "No_One/No_One_0001".into() });
        let said = list.describe_skipped(1).unwrap();
        assert_eq!(said, "2 pairs without their pictures (line 4: Al/Al_0009 and 1 more)");
        list.skipped.truncate(1);
        assert!(list.describe_skipped(1).unwrap().starts_with("1 pair without"));
        let text = text.replace("1\t9", "1\t3").replace("No_One", "Bo_B");
        let folds: Vec<usize> =
            read("pairs.txt", &text).unwrap().pairs.iter().map(|pair| pair.fold).collect();
        assert_eq!(folds, [0, 0, 1, 1]);
    }

    #[test]
    fn tables_name_paths_labels_and_perhaps_folds() {
        let table = "fold,a,b,same\n0,Al/Al_0001.jpg,x y/1.png,no\n3, Al/Al_0001.jpg ,Al/Al_0003.png,TRUE\n";
        let wanted = [
            pair(NAMES[0], NAMES[4], Verdict::Different, 0, 2),
            pair(NAMES[0], NAMES[2], Verdict::Same, 3, 3),
        ];
        for text in [table.to_owned(), table.replace(',', "\t"), table.replace(',', ";")] {
            let list = read("pairs.tsv", &text).unwrap();
            assert_eq!((list.pairs.as_slice(), list.folds), (wanted.as_slice(), 4));
            assert_eq!((list.count(Verdict::Same), list.count(Verdict::Different)), (1, 1));
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let says = |text: &str, part: &str| {
            let error = read("pairs.txt", text).unwrap_err().to_string();
            assert!(error.contains("pairs.txt") && error.contains(part), "{part} in {error}");
        };
        says("1\nAl 1 2\n", "line 1 announces 2 pairs");
        says("1\nAl 1 2\nAl 3\n", "line 3: `Al 3` is not a pair");
        says("Al 1 1\n", "line 1");
        says("Al 0 1\n", "line 1");
        says("Al 1 Al 2\n", "line 1");
        says(".. 1 2\n", "line 1");
        says("../x 1 2\n", "line 1");
        says("a,b,same\n../x.png,y.png,1\n", "line 2: `../x.png` in column a leads out");
        says("a,b,same\n/x.png,y.png,1\n", "leads out");
        says("a,b,same\nx.png,y.png,2\n", "`2` in column same");
        says("a,b,same\nx.png,y.png\n", "column same is empty");
        says("a,b,same,fold\nx.png,y.png,1,-1\n", "number folds from 0");
        says("", "it has no pairs");
        says("Al 1 8\n", "1 pair without their pictures (line 1: Al/Al_0008)");
    }

    #[test]
    fn the_real_view_1_list_is_found_whole() {
        let Some(root) = shared("lfw") else { return };
        let list = PairList::read(&root.with_file_name("lfw-pairsDevTrain.txt"), &root).unwrap();
        assert_eq!((list.folds, list.skipped.len()), (1, 0));
        assert_eq!(list.count(Verdict::Same), 1100);
        assert_eq!(list.count(Verdict::Different), 1100);
        assert!(list.pairs[0].b.ends_with("Aaron_Peirsol/Aaron_Peirsol_0002.jpg"));
    }
}
