//! TensorBoard event files.
//!
//! A file is a row of records (length, its CRC-32C, an `Event` message, its CRC-32C). The first
//! record names the format's version. The second says that a session starts at step 0, which makes
//! TensorBoard drop what an earlier run left in the same folder instead of drawing both.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use image::RgbImage;
use protobuf::Message;
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::summary::Summary;
use tensorboard_rs::record_writer::RecordWriter;

use super::descriptions::describe;
use super::hparams;
use super::{off_warning, still_there, summary};

/// Writes one event file; the first thing that goes wrong turns it off for good.
///
/// A training run must outlive its log: no method fails. After an error (a full or read-only disk,
/// a deleted folder) [`EventWriter::take_warning`] hands out one sentence, once, and every later
/// call returns at once. Records reach the disk at [`EventWriter::flush`] or when a small buffer
/// is full.
pub struct EventWriter {
    path: PathBuf,
    records: Option<RecordWriter<BufWriter<Box<dyn Write + Send>>>>,
    /// The tags whose description is written.
    described: BTreeSet<String>,
    warning: Option<String>,
}

impl EventWriter {
    /// Starts `folder/events.out.tfevents.<seconds>.<host>.<process>.<n>`, creating the folder.
    pub fn create(folder: &Path) -> Self {
        match new_file(folder) {
            Ok((path, file)) => Self::start(path, Box::new(file)),
            Err(error) => {
                let warning = Some(off_warning(folder, &error));
                Self {
                    path: folder.to_path_buf(),
                    records: None,
                    described: BTreeSet::new(),
                    warning,
                }
            }
        }
    }

    /// Goes on with the file `folder/name` as it was when it had `length` bytes; what follows is cut off.
    /// Where that is impossible, starts a new file.
    pub fn resume(folder: &Path, (name, length): (&str, u64)) -> Self {
        let path = folder.join(name);
        let cut = || {
            let mut file = File::options().write(true).open(&path)?;
            if file.metadata()?.len() < length {
                return Err(io::Error::from(ErrorKind::UnexpectedEof));
            }
            file.set_len(length)?;
            file.seek(io::SeekFrom::End(0))?;
            Ok(file)
        };
        let Ok(file) = cut() else { return Self::create(folder) };
        let out: Box<dyn Write + Send> = Box::new(file);
        let records = Some(RecordWriter::new(BufWriter::new(out)));
        Self { path, records, described: BTreeSet::new(), warning: None }
    }

    /// The file and its bytes so far, for [`resume`](Self::resume).
    pub fn position(&mut self) -> Option<(String, u64)> {
        self.flush();
        self.records.as_ref()?;
        let length = self.path.metadata().ok()?.len();
        Some((self.path.file_name()?.to_str()?.to_owned(), length))
    }

    /// Writes the two opening records to `out`, which is the file at `path`.
    fn start(path: PathBuf, out: Box<dyn Write + Send>) -> Self {
        let records = Some(RecordWriter::new(BufWriter::new(out)));
        let mut writer = Self { path, records, described: BTreeSet::new(), warning: None };
        let mut version = event_at(0);
        version.set_file_version("brain.Event:2".to_owned());
        writer.record(&version);
        let mut session = SessionLog::new();
        session.set_status(SessionLog_SessionStatus::START);
        let mut start = event_at(0);
        start.set_session_log(session);
        writer.record(&start);
        writer.flush();
        writer
    }

    /// The event file, or the folder it could not be created in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anything is still written.
    pub fn is_on(&self) -> bool {
        self.records.is_some()
    }

    /// Why the writer was disabled; returned once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// A number at a step, kept in single precision; NaN and infinities are shown as such.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) {
        if self.is_on() {
            self.summary(step, summary::scalar(tag, value));
        }
    }

    /// The distribution of the finite `values` at a step; nothing when there is none.
    pub fn histogram(&mut self, tag: &str, step: u64, values: &[f32]) {
        if !self.is_on() {
            return;
        }
        if let Some(summary) = summary::histogram(tag, values) {
            self.summary(step, summary);
        }
    }

    /// A picture at a step; nothing for a picture without pixels.
    pub fn image(&mut self, tag: &str, step: u64, picture: &RgbImage) {
        if !self.is_on() {
            return;
        }
        match summary::image(tag, picture) {
            Ok(Some(summary)) => self.summary(step, summary),
            Ok(None) => {}
            Err(error) => self.turn_off(&error),
        }
    }

    /// A note in Markdown at a step.
    pub fn text(&mut self, tag: &str, step: u64, note: &str) {
        if self.is_on() {
            self.summary(step, summary::text(tag, note));
        }
    }

    /// Precision against recall of `scores` in `[0, 1]`, where `positive` holds the truth.
    pub fn pr_curve(&mut self, tag: &str, step: u64, positive: &[bool], scores: &[f32]) {
        if !self.is_on() {
            return;
        }
        if let Some(summary) = summary::pr_curve(tag, positive, scores) {
            self.summary(step, summary);
        }
    }

    /// Hands everything written so far to the operating system, where TensorBoard sees it.
    pub fn flush(&mut self) {
        let Some(records) = &mut self.records else { return };
        if let Err(error) = records.flush().and_then(|()| still_there(&self.path)) {
            self.turn_off(&error);
        }
    }

    /// The settings of the run and the scalars to compare it with others by, for the HPARAMS tab:
    /// written once, at the end of a run that began at `started`.
    pub fn hparams(
        &mut self,
        settings: &serde_json::Value,
        metrics: &[String],
        started: SystemTime,
    ) {
        if self.is_on() {
            let session = hparams::session(&hparams::settings(settings), metrics, started);
            session.into_iter().for_each(|summary| self.summary(0, summary));
        }
    }

    fn summary(&mut self, step: u64, mut summary: Summary) {
        for value in summary.mut_value().iter_mut() {
            let Some(text) = describe(value.get_tag()) else { continue };
            if self.described.insert(value.get_tag().to_owned()) {
                value.mut_metadata().set_summary_description(text.to_owned());
            }
        }
        let mut event = event_at(step);
        event.set_summary(summary);
        self.record(&event);
    }

    fn record(&mut self, event: &Event) {
        let Some(records) = &mut self.records else { return };
        let bytes = event.write_to_bytes().map_err(io::Error::other);
        if let Err(error) = bytes.and_then(|bytes| records.write(&bytes)) {
            self.turn_off(&error);
        }
    }

    fn turn_off(&mut self, error: &io::Error) {
        self.warning = Some(off_warning(&self.path, error));
        self.records = None;
    }
}

/// An event of this moment.
fn event_at(step: u64) -> Event {
    let mut event = Event::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    event.set_wall_time(now.as_secs_f64());
    event.set_step(i64::try_from(step).unwrap_or(i64::MAX));
    event
}

/// Creates an event file that was not there before. TensorBoard reads a folder's files in the
/// order of their names, so the time comes first and the count last.
fn new_file(folder: &Path) -> io::Result<(PathBuf, File)> {
    std::fs::create_dir_all(folder)?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let stem = format!("events.out.tfevents.{seconds:010}.{}.{}", host(), std::process::id());
    let mut count = 0_u32;
    loop {
        let path = folder.join(format!("{stem}.{count}"));
        match File::create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && count < 1000 => count += 1,
            outcome => return outcome.map(|file| (path, file)),
        }
    }
}

/// This machine's name, reduced to what fits in a file name.
fn host() -> String {
    let name = std::env::var("HOSTNAME")
        .or_else(|_| std::env::var("COMPUTERNAME"))
        .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"))
        .unwrap_or_default();
    let name: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for a number of bytes.
    struct SmallDisk {
        left: usize,
    }

    impl Write for SmallDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.left == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.left);
            self.left -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn write_everything(writer: &mut EventWriter) {
        for step in 0..20 {
            writer.scalar("loss", step, 0.5);
            writer.histogram("distance", step, &[0.1, 0.2, f32::NAN]);
            writer.image("strip", step, &RgbImage::new(8, 4));
            writer.text("note", step, "hello");
            writer.pr_curve("pr", step, &[true, false], &[0.9, 0.2]);
            writer.flush();
        }
    }

    #[test]
    fn a_disk_that_fills_up_at_any_byte_gives_one_warning() {
        let there = tempfile::NamedTempFile::new().unwrap();
        for room in (0..4000).step_by(97) {
            let path = there.path().to_path_buf();
            let mut writer = EventWriter::start(path, Box::new(SmallDisk { left: room }));
            write_everything(&mut writer);
            let warning = writer.take_warning().unwrap();
            assert!(warning.contains(&*there.path().to_string_lossy()), "{warning}");
            assert!(!writer.is_on());
            write_everything(&mut writer);
            assert_eq!(writer.take_warning(), None);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_gives_one_warning() {
        let path = PathBuf::from("/dev/full");
        let file = File::options().write(true).open(&path).unwrap();
        let mut writer = EventWriter::start(path, Box::new(file));
        write_everything(&mut writer);
        let warning = writer.take_warning().unwrap();
        assert!(warning.contains("/dev/full") && warning.contains("No space left"), "{warning}");
        assert_eq!(writer.take_warning(), None);
    }

    #[test]
    fn a_folder_that_cannot_be_made_or_is_deleted_gives_one_warning() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut writer = EventWriter::create(&file.join("below"));
        write_everything(&mut writer);
        assert!(writer.take_warning().unwrap().contains("below"));
        assert_eq!(writer.take_warning(), None);

        let mut writer = EventWriter::create(&folder.path().join("run"));
        write_everything(&mut writer);
        assert_eq!(writer.take_warning(), None);
        if std::fs::remove_dir_all(folder.path().join("run")).is_err() {
            return; // Some systems keep the folder of an open file.
        }
        write_everything(&mut writer);
        assert!(writer.take_warning().unwrap().contains("deleted"));
        assert_eq!(writer.take_warning(), None);
    }

    #[test]
    #[cfg(unix)]
    fn a_read_only_folder_gives_one_warning() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = std::fs::Permissions::from_mode;
        std::fs::set_permissions(folder.path(), mode(0o555)).unwrap();
        if File::create(folder.path().join("probe")).is_ok() {
            println!("skipped: this user may write into a read-only folder");
            return;
        }
        let mut writer = EventWriter::create(folder.path());
        write_everything(&mut writer);
        assert!(writer.take_warning().unwrap().contains("denied"));
        assert_eq!(writer.take_warning(), None);
        std::fs::set_permissions(folder.path(), mode(0o755)).unwrap();
    }

    #[test]
    fn two_writers_of_one_second_have_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventWriter::create(folder.path());
        let second = EventWriter::create(folder.path());
        assert!(first.is_on() && second.is_on());
        assert!(first.path() < second.path(), "{:?} {:?}", first.path(), second.path());
    }
}
