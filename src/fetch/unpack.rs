//! Unpacking of untrusted archives into a folder.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use zip::ZipArchive;

use crate::files::create_folder;
use crate::{Error, Result};

/// Limits of an archive.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    /// Total size of all files.
    pub bytes: u64,
    /// Number of files and folders.
    pub entries: usize,
}

impl UnpackLimits {
    /// Limits for an archive of this size: pictures hardly compress, so that a factor of 200 is a
    /// decompression bomb.
    pub fn of_archive(bytes: u64) -> Self {
        let most = 256 << 30;
        Self {
            bytes: bytes.saturating_mul(200).saturating_add(64 << 20).min(most),
            entries: 3_000_000,
        }
    }
}

/// Archive formats, detected by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// zip
    Zip,
    /// tar
    Tar,
    /// tar, compressed with gzip
    TarGz,
}

/// The format of an archive; `None` for other files.
///
/// # Errors
/// The file cannot be read.
pub fn kind(path: &Path) -> Result<Option<ArchiveKind>> {
    let fail = |source| Error::io(path, source);
    let mut start = Vec::new();
    File::open(path).map_err(fail)?.take(512).read_to_end(&mut start).map_err(fail)?;
    Ok(match start.as_slice() {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(ArchiveKind::Zip),
        [0x1f, 0x8b, ..] => Some(ArchiveKind::TarGz),
        head if head.get(257..262) == Some(b"ustar") => Some(ArchiveKind::Tar),
        _ => None,
    })
}

/// Unpacks an archive into the existing folder `into`, and returns the number of files.
///
/// Skips hidden macOS files (`__MACOSX`, `._NAME`).
///
/// # Errors
/// The archive is damaged, encrypted, of another format or over the limits; an entry leads out of the
/// folder, is a link or device, or occurs twice. Files unpacked before the error stay in `into`: use a
/// temporary folder.
pub fn unpack(archive: &Path, into: &Path, limits: UnpackLimits) -> Result<usize> {
    let file = File::open(archive).map_err(|source| Error::io(archive, source))?;
    let refuse =
        |what: String| Error::Data(format!("{}: {what}; nothing was unpacked", archive.display()));
    let mut target = Target { into, limits, files: 0, entries: 0, bytes: 0 };
    match kind(archive)? {
        Some(ArchiveKind::Zip) => zip(file, &mut target),
        Some(ArchiveKind::Tar) => tar(file, &mut target),
        Some(ArchiveKind::TarGz) => tar(MultiGzDecoder::new(file), &mut target),
        None => Err("is neither a zip nor a tar archive (.tar, .tar.gz, .tgz)".into()),
    }
    .map_err(refuse)?;
    if target.files == 0 {
        return Err(refuse("holds no file".into()));
    }
    Ok(target.files)
}

/// The target folder, and the totals so far.
struct Target<'a> {
    into: &'a Path,
    limits: UnpackLimits,
    files: usize,
    entries: usize,
    bytes: u64,
}

impl Target<'_> {
    /// The path of an entry; `None` to skip it.
    fn place(&mut self, name: &str) -> Result<Option<PathBuf>, String> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(format!("holds more than {} entries", self.limits.entries));
        }
        // Old zip programs for Windows wrote backslashes.
        let name = name.replace('\\', "/");
        let outside = || format!("its entry `{}` leads out of the folder", name.escape_default());
        if name.contains('\0') || name.contains(':') {
            return Err(outside());
        }
        let mut place = self.into.to_path_buf();
        for part in Path::new(&name).components() {
            match part {
                Component::Normal(part) => place.push(part),
                Component::CurDir => {}
                _ => return Err(outside()),
            }
        }
        let hidden = name.split('/').any(|part| part == "__MACOSX" || part.starts_with("._"));
        Ok((!hidden).then_some(place))
    }

    /// Writes an entry's content to its path, within the limit whatever size it claims.
    fn fill(&mut self, place: &Path, name: &str, content: impl Read) -> Result<(), String> {
        let fail =
            |error: std::io::Error| format!("its entry `{}`: {error}", name.escape_default());
        let parent = place.parent().unwrap_or(self.into);
        create_folder(parent).map_err(|error| error.to_string())?;
        // Fails if the file exists, also as another entry's folder or in another case.
        let mut file = File::options().write(true).create_new(true).open(place).map_err(fail)?;
        let room = self.limits.bytes - self.bytes;
        let copied = std::io::copy(&mut content.take(room + 1), &mut file).map_err(fail)?;
        file.flush().map_err(fail)?;
        self.bytes += copied.min(room);
        if copied > room {
            return Err(format!("unpacks to more than {} MB", self.limits.bytes >> 20));
        }
        self.files += 1;
        Ok(())
    }
}

/// File types of a Unix mode other than file and folder.
fn is_special(mode: u32) -> bool {
    const KIND: u32 = 0o170_000;
    !matches!(mode & KIND, 0 | 0o100_000 | 0o040_000)
}

fn zip(file: File, target: &mut Target) -> Result<(), String> {
    let damaged =
        |error: zip::result::ZipError| format!("cannot be read as a zip archive: {error}");
    let mut archive = ZipArchive::new(file).map_err(damaged)?;
    for index in 0..archive.len() {
        // Not `by_index`, which panics if an entry has AES's extra field without being encrypted.
        let Ok(entry) = archive.by_index_decrypt(index, b"").map_err(damaged)? else {
            return Err(format!("its entry {} is encrypted", index + 1));
        };
        let name = entry.name().to_owned();
        if entry.unix_mode().is_some_and(is_special) {
            return Err(format!("its entry `{}` is a link or device", name.escape_default()));
        }
        let Some(place) = target.place(&name)? else { continue };
        match entry.is_dir() {
            true => create_folder(&place).map_err(|error| error.to_string())?,
            false => target.fill(&place, &name, entry)?,
        }
    }
    Ok(())
}

fn tar(content: impl Read, target: &mut Target) -> Result<(), String> {
    let damaged = |error: std::io::Error| format!("cannot be read as a tar archive: {error}");
    let mut archive = tar::Archive::new(content);
    for entry in archive.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        if !(kind.is_file() || kind.is_dir() || kind.is_contiguous()) {
            return Err(format!("its entry `{}` is a link or device", name.escape_default()));
        }
        let Some(place) = target.place(&name)? else { continue };
        match kind.is_dir() {
            true => create_folder(&place).map_err(|error| error.to_string())?,
            false => target.fill(&place, &name, entry)?,
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use zip::write::FileOptions;

    use super::*;

    /// A zip archive of these files.
    pub(in crate::fetch) fn zip_of(path: &Path, files: &[(&str, &[u8])]) {
        let mut archive = zip::ZipWriter::new(File::create(path).unwrap());
        for (name, content) in files {
            archive.start_file(*name, FileOptions::default()).unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap();
    }

    /// A tar archive of entries whose names are written as they are, `..` and all.
    fn tar_of(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            let link = kind.is_symlink() || kind.is_hard_link();
            if link {
                header.set_link_name("/etc/passwd").unwrap();
            }
            let content = if link { "" } else { content };
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    const WIDE: UnpackLimits = UnpackLimits { bytes: 1 << 20, entries: 100 };

    fn refused(content: &[u8], limits: UnpackLimits, part: &str) {
        let root = tempfile::tempdir().unwrap();
        let archive = root.path().join("archive");
        std::fs::write(&archive, content).unwrap();
        let into = root.path().join("deep/er");
        create_folder(&into).unwrap();
        let error = unpack(&archive, &into, limits).unwrap_err().to_string();
        assert!(error.contains("archive: ") && error.contains(part), "{part} in {error}");
        let outside = std::fs::read_dir(root.path()).unwrap().count();
        assert_eq!(outside, 2, "something outside the folder");
        assert_eq!(std::fs::read_dir(root.path().join("deep")).unwrap().count(), 1);
    }

    fn zip_bytes(files: &[(&str, &[u8])]) -> Vec<u8> {
        let root = tempfile::tempdir().unwrap();
        zip_of(&root.path().join("x"), files);
        std::fs::read(root.path().join("x")).unwrap()
    }

    /// A zip archive of one stored file, with this flag and this extra field.
    fn odd_zip(flags: u16, extra: &[u8]) -> Vec<u8> {
        let content = b"content that is long enough";
        let common = |offset: &[u8]| {
            let mut header = vec![20, 0];
            header.extend(flags.to_le_bytes());
            header.extend([0; 6]); // stored, no time
            header.extend(crc32fast::hash(content).to_le_bytes());
            header.extend([content.len() as u8, 0, 0, 0].repeat(2));
            header.extend([1, 0, extra.len() as u8, 0]);
            header.extend(offset);
            header.push(b'a');
            header.extend(extra);
            header
        };
        let mut bytes = [b"PK\x03\x04".to_vec(), common(&[]), content.to_vec()].concat();
        let start = bytes.len() as u32;
        let central = [b"PK\x01\x02\x14\0".to_vec(), common(&[0; 14])].concat();
        bytes.extend(&central);
        bytes.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
        bytes.extend((central.len() as u32).to_le_bytes());
        bytes.extend(start.to_le_bytes());
        bytes.extend([0; 2]);
        bytes
    }

    /// Version 2 of AES with 256 bits, over a stored file.
    const AES: &[u8] = b"\x01\x99\x07\0\x02\0AE\x03\0\0";

    #[test]
    fn encrypted_entries_are_refused_even_if_they_do_not_say_so() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("plain"), odd_zip(0, b"")).unwrap();
        assert_eq!(unpack(&root.path().join("plain"), root.path(), WIDE).unwrap(), 1);
        refused(&odd_zip(1, b""), WIDE, "encrypted");
        refused(&odd_zip(1, AES), WIDE, "encrypted");
        refused(&odd_zip(0, AES), WIDE, "encrypted");
    }

    #[test]
    fn a_damaged_archive_never_panics() {
        let whole = [odd_zip(0, b""), zip_bytes(&[("a", b"some content"), ("b/c", b"more")])];
        for whole in whole {
            for at in 0..whole.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut damaged = whole.clone();
                    damaged[at] = value;
                    let into = tempfile::tempdir().unwrap();
                    let archive = into.path().join("archive");
                    std::fs::write(&archive, damaged).unwrap();
                    let _ = unpack(&archive, &into.path().join("into"), WIDE);
                }
            }
        }
    }

    #[test]
    fn every_kind_of_archive_is_unpacked() {
        use tar::EntryType::{Directory, Regular};
        let tarred = tar_of(&[
            ("set/", Directory, ""),
            ("./set/ann/1.txt", Regular, "one"),
            ("set/._1.txt", Regular, "finder"),
        ]);
        let zipped = zip_bytes(&[("set/ann\\1.txt", b"one"), ("__MACOSX/x", b"finder")]);
        for content in [tarred.clone(), gzip(&tarred), zipped] {
            let root = tempfile::tempdir().unwrap();
            let (archive, into) = (root.path().join("archive"), root.path().join("into"));
            std::fs::write(&archive, content).unwrap();
            create_folder(&into).unwrap();
            assert_eq!(unpack(&archive, &into, WIDE).unwrap(), 1);
            assert_eq!(std::fs::read(into.join("set/ann/1.txt")).unwrap(), b"one");
            assert_eq!(std::fs::read_dir(&into).unwrap().count(), 1);
        }
    }

    #[test]
    fn paths_out_of_the_folder_are_refused() {
        for name in ["../evil", "a/../../evil", "/evil", "..\\evil", "C:\\evil"] {
            refused(&zip_bytes(&[("fine", b""), (name, b"x")]), WIDE, "leads out of the folder");
            let tarred = tar_of(&[(name, tar::EntryType::Regular, "x")]);
            refused(&tarred, WIDE, "leads out of the folder");
            refused(&gzip(&tarred), WIDE, "leads out of the folder");
        }
    }

    #[test]
    fn links_and_devices_are_refused() {
        use tar::EntryType;
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Fifo, EntryType::Block] {
            refused(&tar_of(&[("a", kind, "")]), WIDE, "link or device");
        }
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        archive.add_symlink("a", "/etc/passwd", FileOptions::default()).unwrap();
        archive.finish().unwrap();
        refused(&std::fs::read(path).unwrap(), WIDE, "link or device");
    }

    #[test]
    fn absurd_sizes_are_refused_before_the_disk_is_full() {
        let zeros = vec![0; 100_000];
        let bomb = zip_bytes(&[("a", &zeros), ("b", &zeros)]);
        assert!(bomb.len() < 2_000);
        refused(&bomb, UnpackLimits { bytes: 150_000, entries: 9 }, "unpacks to more than");
        refused(&bomb, UnpackLimits { bytes: 1 << 20, entries: 1 }, "more than 1 entries");
        let most = UnpackLimits::of_archive(1000);
        assert!(most.bytes < 100 << 20 && UnpackLimits::of_archive(u64::MAX).bytes <= 256 << 30);
    }

    #[test]
    fn damaged_empty_doubled_and_other_files_are_refused() {
        let fine = zip_bytes(&[("a", b"some content that is long enough")]);
        refused(&fine[..fine.len() - 30], WIDE, "zip archive");
        refused(b"plain text", WIDE, "is neither a zip nor a tar");
        refused(b"", WIDE, "is neither");
        refused(&zip_bytes(&[]), WIDE, "holds no file");
        refused(&gzip(b"no tar at all"), WIDE, "tar archive");
        let cut = gzip(&tar_of(&[("a", tar::EntryType::Regular, &"x".repeat(5000))]));
        refused(&cut[..cut.len() - 20], WIDE, "a`");
        let twice =
            tar_of(&[("a", tar::EntryType::Regular, "1"), ("./a", tar::EntryType::Regular, "2")]);
        refused(&twice, WIDE, "exists");
    }
}
