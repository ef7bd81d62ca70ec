//! `metrics.csv`: one row per epoch, one column per metric.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{off_warning, still_there};
use crate::files::{create_folder, write_atomically};
use crate::{Error, Result};

/// A table that grows by one row at a time and is readable after each.
///
/// The first row's keys become the header, in their order. A later row may lack a key (its cell is
/// empty) or bring a new one (the file is rewritten with one more column, in one step, to the left of the
/// next known key in the row, or last). Like
/// [`super::EventWriter`] it never fails: the first error turns it off with one warning, and the
/// rows already written stay whole.
pub struct MetricsCsv {
    path: PathBuf,
    table: Option<Table>,
    warning: Option<String>,
}

/// The content of a table, in a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// What is in the file now.
struct Table {
    file: File,
    /// Bytes of whole rows.
    length: u64,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl MetricsCsv {
    /// Starts an empty table at `path`, creating its folder and replacing an older table.
    pub fn create(path: &Path) -> Self {
        let started = path.parent().map_or(Ok(()), create_folder).and_then(|()| {
            let file = File::create(path).map_err(|source| Error::io(path, source))?;
            Ok(Table { file, length: 0, columns: Vec::new(), rows: Vec::new() })
        });
        let mut csv = Self { path: path.to_path_buf(), table: None, warning: None };
        match started {
            Ok(table) => csv.table = Some(table),
            Err(error) => csv.turn_off(error),
        }
        csv
    }

    /// Goes on with a table as it was; later rows are cut off.
    pub fn resume(path: &Path, rows: Rows) -> Self {
        let mut csv = Self::create(path);
        if let Some(table) = &mut csv.table {
            let Rows { columns, rows } = rows;
            (table.columns, table.rows) = (columns, rows);
            if let Err(error) = table.rewrite(path) {
                csv.turn_off(error);
            }
        }
        csv
    }

    /// The rows so far; none once it is off.
    pub fn rows(&self) -> Rows {
        self.table.as_ref().map_or_else(Rows::default, |table| Rows {
            columns: table.columns.clone(),
            rows: table.rows.clone(),
        })
    }

    /// Whether rows are still written.
    pub fn is_on(&self) -> bool {
        self.table.is_some()
    }

    /// Why the table was disabled; returned once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// Appends a row and hands it to the operating system. An empty row is not written; of a key
    /// given twice the last value counts. NaN is written as `NaN`, infinities as `inf` and `-inf`.
    pub fn row(&mut self, values: &[(&str, f64)]) {
        let Some(table) = &mut self.table else { return };
        if let Err(error) = table.append(&self.path, values) {
            self.turn_off(error);
        }
    }

    fn turn_off(&mut self, error: Error) {
        self.table = None;
        self.warning = Some(match error {
            Error::Io { path, source } => off_warning(&path, &source),
            other => off_warning(&self.path, &io::Error::other(other)),
        });
    }
}

impl Table {
    fn append(&mut self, path: &Path, values: &[(&str, f64)]) -> Result<()> {
        let known = self.columns.len();
        let mut row = vec![String::new(); known];
        for (number, &(key, value)) in values.iter().enumerate() {
            let place = |key| self.columns.iter().position(|column| column == key);
            let mut later = values[number..].iter().map(|&(later, _)| place(later));
            let (is_known, at) = match later.next().flatten() {
                Some(at) => (true, at),
                None => (false, later.flatten().next().unwrap_or(self.columns.len())),
            };
            if !is_known {
                self.columns.insert(at, key.to_owned());
                let rows = self.rows.iter_mut().chain([&mut row]);
                rows.for_each(|row| row.insert(at, String::new()));
            }
            row[at] = cell(value);
        }
        if row.is_empty() {
            return Ok(());
        }
        let widened = self.columns.len() > known;
        self.rows.push(row);
        if widened && self.rows.len() > 1 {
            return self.rewrite(path);
        }
        let from = self.rows.len() - 1;
        let bytes = self.encoded(from, widened).map_err(|source| Error::io(path, source))?;
        let written = self.file.write_all(&bytes).and_then(|()| still_there(path));
        if let Err(source) = written {
            // Half a row is worse than none; a device that cannot be cut has nothing to keep.
            let _ = self.file.set_len(self.length);
            return Err(Error::io(path, source));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Replaces the file by one with all columns and continues at its end.
    fn rewrite(&mut self, path: &Path) -> Result<()> {
        let fail = |source| Error::io(path, source);
        let bytes = self.encoded(0, !self.columns.is_empty()).map_err(fail)?;
        write_atomically(path, |out| out.write_all(&bytes))?;
        self.file = File::options().append(true).open(path).map_err(fail)?;
        self.length = bytes.len() as u64;
        Ok(())
    }

    /// The rows from `from` on as CSV, after the header if asked for.
    fn encoded(&self, from: usize, header: bool) -> io::Result<Vec<u8>> {
        let mut out = csv::Writer::from_writer(Vec::new());
        if header {
            out.write_record(&self.columns)?;
        }
        for row in &self.rows[from..] {
            out.write_record(row)?;
        }
        out.into_inner().map_err(|error| error.into_error())
    }
}

/// The shortest text that reads back as the same number, without hundreds of zeros.
fn cell(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && size.is_finite() && !(1e-5..1e16).contains(&size) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
        let cells = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect();
        let mut reader = csv::Reader::from_path(path).unwrap();
        let header = cells(reader.headers().unwrap());
        (header, reader.records().map(|record| cells(&record.unwrap())).collect())
    }

    #[test]
    fn a_row_is_readable_as_soon_as_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run").join("metrics.csv");
        let mut csv = MetricsCsv::create(&path);
        csv.row(&[("epoch", 0.0), ("loss", 0.1 + 0.2), ("a, \"b\"", -1e-300)]);
        let (header, rows) = read(&path);
        assert_eq!(header, ["epoch", "loss", "a, \"b\""]);
        assert_eq!(rows, [["0", "0.30000000000000004", "-1e-300"]]);
        csv.row(&[("loss", f64::NAN), ("epoch", 1.0)]);
        assert_eq!(read(&path).1[1], ["1", "NaN", ""]);
        assert_eq!(csv.take_warning(), None);
    }

    #[test]
    fn a_new_key_widens_the_rows_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let mut csv = MetricsCsv::create(&path);
        csv.row(&[]);
        csv.row(&[("epoch", 0.0)]);
        csv.row(&[("epoch", 1.0), ("accuracy", 0.5)]);
        csv.row(&[("epoch", 2.0)]);
        csv.row(&[("epoch", 3.0), ("loss", 0.25), ("accuracy", 0.75)]);
        let (header, rows) = read(&path);
        assert_eq!(header, ["epoch", "loss", "accuracy"]);
        let all = [["0", "", ""], ["1", "", "0.5"], ["2", "", ""], ["3", "0.25", "0.75"]];
        assert_eq!(rows, all);
        assert!(csv.is_on());
    }

    #[test]
    fn numbers_read_back_bit_for_bit() {
        for value in [0.0, -0.0, 1.0, 1e15, 1e16, 1e-5, 9.9e-6, f64::MAX, 5e-324, f64::INFINITY] {
            let text = cell(value);
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
            assert!(text.len() < 26, "{text}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_gives_one_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut csv = MetricsCsv::create(&path);
        csv.row(&[("epoch", 0.0)]);
        csv.row(&[("epoch", 1.0)]);
        let warning = csv.take_warning().unwrap();
        assert!(warning.contains("metrics.csv") && warning.contains("No space"), "{warning}");
        assert_eq!(csv.take_warning(), None);
        assert!(!csv.is_on());
    }

    #[test]
    fn a_folder_that_is_a_file_or_is_deleted_gives_one_warning() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut csv = MetricsCsv::create(&file.join("metrics.csv"));
        csv.row(&[("epoch", 0.0)]);
        assert!(csv.take_warning().unwrap().contains("file"));

        let path = folder.path().join("run").join("metrics.csv");
        let mut csv = MetricsCsv::create(&path);
        if std::fs::remove_dir_all(folder.path().join("run")).is_err() {
            return; // Some systems keep the folder of an open file.
        }
        csv.row(&[("epoch", 0.0)]);
        assert!(csv.take_warning().unwrap().contains("deleted"));
        assert_eq!(csv.take_warning(), None);
    }
}
