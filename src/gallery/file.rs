//! The SQLite file: its tables, and changes that happen whole or not at all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::{Error, Result};

/// `PRAGMA application_id`, by which `file` and others know the format: "Visg".
const APPLICATION: i32 = 0x5669_7367;
/// `PRAGMA user_version`: the version of the tables below.
const VERSION: i32 = 1;

/// Deleting a person or an unknown group takes along all that belongs to them.
const TABLES: &str = "
CREATE TABLE gallery (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    architecture TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dim INTEGER NOT NULL,
    source TEXT NOT NULL,
    fpir REAL,
    revision INTEGER NOT NULL
) STRICT;
CREATE TABLE people (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    added INTEGER NOT NULL
) STRICT;
CREATE TABLE unknown (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL
) STRICT;
CREATE TABLE faces (
    id INTEGER PRIMARY KEY,
    person INTEGER REFERENCES people ON DELETE CASCADE,
    unknown INTEGER REFERENCES unknown ON DELETE CASCADE,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
    detection REAL,
    sharpness REAL,
    added INTEGER NOT NULL,
    CHECK ((person IS NULL) <> (unknown IS NULL))
) STRICT;
CREATE INDEX faces_of_person ON faces (person);
CREATE INDEX faces_of_unknown ON faces (unknown);
CREATE INDEX faces_by_content ON faces (sha256);
CREATE TABLE vectors (
    face INTEGER PRIMARY KEY REFERENCES faces ON DELETE CASCADE,
    vector BLOB NOT NULL
) STRICT;
CREATE TABLE thumbnails (
    face INTEGER PRIMARY KEY REFERENCES faces ON DELETE CASCADE,
    png BLOB NOT NULL
) STRICT;
CREATE TABLE negatives (
    id INTEGER PRIMARY KEY,
    person INTEGER NOT NULL REFERENCES people ON DELETE CASCADE,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    vector BLOB NOT NULL
) STRICT;
CREATE INDEX negatives_of_person ON negatives (person);
CREATE TABLE look_alikes (
    person INTEGER NOT NULL REFERENCES people ON DELETE CASCADE,
    other INTEGER NOT NULL REFERENCES people ON DELETE CASCADE,
    distance REAL NOT NULL,
    PRIMARY KEY (person, other)
) STRICT, WITHOUT ROWID;
CREATE INDEX look_alikes_of_other ON look_alikes (other);
CREATE TABLE strangers (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    people INTEGER NOT NULL,
    source TEXT NOT NULL,
    vectors BLOB NOT NULL
) STRICT;
CREATE TABLE stranger_distances (
    view INTEGER PRIMARY KEY,
    nearest BLOB NOT NULL
) STRICT;
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    what TEXT NOT NULL
) STRICT;
";

/// An open gallery file.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    pub connection: Connection,
}

/// What ends a change.
#[derive(Debug)]
pub enum Failure {
    Sql(rusqlite::Error),
    Own(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

impl File {
    /// Opens a gallery, or creates one where there is none.
    ///
    /// # Errors
    /// The file cannot be opened, is no gallery, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self> {
        let missing = OpenFlags::SQLITE_OPEN_CREATE;
        Self::with(path, OpenFlags::SQLITE_OPEN_READ_WRITE | missing).and_then(Self::prepared)
    }

    /// Opens a gallery that there is.
    ///
    /// # Errors
    /// As [`File::open`], or there is no such file.
    pub fn open_existing(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(Error::Config(format!(
                "--db {}: there is no such gallery; `visage gallery enrol` makes one",
                path.display()
            )));
        }
        Self::with(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(Self::prepared)
    }

    fn with(path: &Path, flags: OpenFlags) -> Result<Self> {
        let fail = |error| failed(path, Failure::Sql(error));
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(fail)?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Checks the format, or writes the tables of a new file.
    fn prepared(mut self) -> Result<Self> {
        let connection = &self.connection;
        let set_up = || -> Result<(i32, i32, i64), Failure> {
            connection.busy_timeout(Duration::from_secs(10))?;
            // Rollback journal, flushed at each commit; what is deleted is overwritten with zeros, and
            // nothing is written to the folder of temporary files.
            connection.execute_batch(
                "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
                 PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;",
            )?;
            let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0));
            let tables = "SELECT count(*) FROM sqlite_schema";
            let tables = connection.query_row(tables, [], |row| row.get(0))?;
            Ok((pragma("application_id")?, pragma("user_version")?, tables))
        };
        let (application, version, tables) = set_up().map_err(|error| self.fail(error))?;
        match (application, version) {
            (APPLICATION, VERSION) => {}
            (0, 0) if tables == 0 => {
                self.change(|change| {
                    // Another process may have been faster.
                    let tables = "SELECT count(*) FROM sqlite_schema";
                    if change.query_row(tables, [], |row| row.get::<_, i64>(0))? == 0 {
                        change.execute_batch(TABLES)?;
                        change.pragma_update(None, "application_id", APPLICATION)?;
                        change.pragma_update(None, "user_version", VERSION)?;
                    }
                    Ok(())
                })?;
            }
            (APPLICATION, _) => {
                let text = format!("version {version} of the format; this Visage reads {VERSION}");
                return Err(self.fail(Error::Data(text).into()));
            }
            _ => {
                let text = "an SQLite file, but not a gallery of Visage".to_owned();
                return Err(self.fail(Error::Data(text).into()));
            }
        }
        Ok(self)
    }

    /// Changes the file: all that `body` does, on the disk when this returns, or nothing of it.
    ///
    /// # Errors
    /// What `body` returns; the file is in use for more than ten seconds, or the disk is full.
    pub fn change<T>(
        &mut self,
        body: impl FnOnce(&Transaction) -> Result<T, Failure>,
    ) -> Result<T> {
        let path = &self.path;
        let whole = |connection: &mut Connection| {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = body(&change)?;
            change.execute("UPDATE gallery SET revision = revision + 1", [])?;
            change.commit()?;
            Ok(result)
        };
        whole(&mut self.connection).map_err(|error| failed(path, error))
    }

    /// Reads the file as it is at one moment.
    ///
    /// # Errors
    /// As [`File::change`].
    pub fn read<T>(&self, body: impl FnOnce(&Transaction) -> Result<T, Failure>) -> Result<T> {
        let whole = || body(&self.connection.unchecked_transaction()?);
        whole().map_err(|error| self.fail(error))
    }

    /// Gives the space of what was deleted back, and leaves no trace of it.
    ///
    /// # Errors
    /// The file is in use, or there is no room for the copy that SQLite makes.
    pub fn vacuum(&self) -> Result<()> {
        self.connection.execute_batch("VACUUM").map_err(|error| self.fail(error.into()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn fail(&self, error: Failure) -> Error {
        failed(&self.path, error)
    }
}

/// Names the file, and what can be done.
fn failed(path: &Path, error: Failure) -> Error {
    let error = match error {
        Failure::Own(Error::Data(text)) => {
            return Error::Data(format!("{}: {text}", path.display()));
        }
        Failure::Own(error) => return error,
        Failure::Sql(error) => error,
    };
    let reason = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "not a gallery of Visage".to_owned(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "in use by another process; try again".to_owned()
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            format!("damaged ({error}); `visage gallery check` says more")
        }
        Some(ErrorCode::DiskFull) => "the disk is full; nothing was changed".to_owned(),
        Some(ErrorCode::CannotOpen) => "cannot be opened; does its folder exist?".to_owned(),
        Some(ErrorCode::ReadOnly) => "cannot be written".to_owned(),
        _ => error.to_string(),
    };
    Error::Data(format!("{}: {reason}", path.display()))
}

/// An embedding as it is stored: float32, little-endian.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The values of a stored embedding.
pub fn to_values(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}
