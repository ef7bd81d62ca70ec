//! Decoding and resizing of pictures.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, imageops};
use walkdir::WalkDir;

use super::{jpeg, mounted, resize};
use crate::{Error, Result};

/// Extensions of picture files.
pub const EXTENSIONS: [&str; 7] = ["png", "jpg", "jpeg", "bmp", "webp", "pgm", "ppm"];

/// Extensions of unsupported picture files, which are counted.
const UNSUPPORTED: [&str; 10] =
    ["gif", "tif", "tiff", "heic", "heif", "avif", "jxl", "jfif", "jp2", "tga"];

/// Pixels of the largest picture that is decoded by default: a small file can hold a large picture.
pub const MAX_PIXELS: u64 = 50_000_000;

/// What a decoder may always allocate: its tables and buffers, however small the pictures.
const DECODER_BYTES: u64 = 64 << 20;

static LIMIT: AtomicU64 = AtomicU64::new(MAX_PIXELS);

/// Sets the pixels of the largest picture that this process decodes; by default [`MAX_PIXELS`].
pub fn set_max_pixels(pixels: u64) {
    LIMIT.store(pixels, Ordering::Relaxed);
}

/// Pixels of the largest picture that this process decodes.
pub fn max_pixels() -> u64 {
    LIMIT.load(Ordering::Relaxed)
}

/// Width and height of a picture in memory, from its header; `None` where it has none that can be read.
pub fn size(content: &[u8]) -> Option<(u32, u32)> {
    let reader = ImageReader::new(Cursor::new(content)).with_guessed_format().ok()?;
    reader.into_dimensions().ok()
}

/// Decodes a picture file to 8-bit RGB.
///
/// The format is found from the content: PNG, JPEG (but in CMYK to the bit as Pillow), BMP, WebP or PNM (PGM). EXIF
/// orientation is applied. Grey pictures are converted to three channels, 16 bits to 8, and an alpha channel is
/// dropped, as in Pillow's `convert("RGB")`.
///
/// # Errors
/// Names the file and the problem.
pub fn decode(path: &Path) -> Result<RgbImage> {
    decode_bytes(path, &read(path)?)
}

/// The content of a picture file, or of a picture in a data set that is one file and was
/// [opened](super::formats::open): `faces.rec/NAME/1.jpg`.
///
/// # Errors
/// Names the path.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    mounted::read(path)
}

/// Width and height from the header of a picture at a path, as [`read`] takes it.
pub(super) fn dimensions(path: &Path) -> Option<(u32, u32)> {
    if mounted::is_inside(path) {
        let content = Cursor::new(mounted::read(path).ok()?);
        return ImageReader::new(content).with_guessed_format().ok()?.into_dimensions().ok();
    }
    ImageReader::open(path).ok()?.with_guessed_format().ok()?.into_dimensions().ok()
}

/// Like [`decode`], from memory; `path` is for error messages.
///
/// # Errors
/// Names `path` and the problem.
pub fn decode_bytes(path: &Path, content: &[u8]) -> Result<RgbImage> {
    let fail = |reason: String| Error::Picture { path: path.to_path_buf(), reason };
    if content.is_empty() {
        return Err(fail("the file is empty".into()));
    }
    upright(content).map(DynamicImage::into_rgb8).map_err(fail)
}

fn upright(content: &[u8]) -> Result<DynamicImage, String> {
    let mut reader = ImageReader::new(Cursor::new(content))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    let Some(format) = reader.format() else {
        return Err("its content is neither PNG, JPEG, BMP, WebP nor PGM".into());
    };
    let max_pixels = LIMIT.load(Ordering::Relaxed);
    let max_bytes = max_pixels.saturating_mul(8); // RGBA, 16 bits
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_bytes.max(DECODER_BYTES));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(format!("it has no pixels ({width}x{height})"));
    }
    if pixels > max_pixels || decoder.total_bytes() > max_bytes {
        return Err(format!(
            "{width}x{height} is more than {max_pixels} pixels; make it smaller, or raise --max-pixels"
        ));
    }
    if format == ImageFormat::Jpeg {
        jpeg::check(content)?;
    }
    // Damaged EXIF data is ignored, as in viewers.
    let orientation = decoder.orientation().ok();
    let jpeg = match format {
        ImageFormat::Jpeg => jpeg::decode(content, (width, height))?,
        _ => None,
    };
    let mut picture = match jpeg {
        Some(pixels) => pixels.into(),
        None => DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?,
    };
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(picture)
}

/// The largest central square of a picture, resized to `size` x `size` pixels.
///
/// Bilinear with antialiasing, bit-identical to Pillow's `BILINEAR`. A square of the right size is not
/// resampled.
pub fn fit(picture: &RgbImage, size: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let side = width.min(height);
    if size == 0 || side == 0 {
        return RgbImage::new(size, size);
    }
    let (left, top) = ((width - side) / 2, (height - side) / 2);
    let square = imageops::crop_imm(picture, left, top, side, side).to_image();
    if side == size {
        return square;
    }
    resize::resize(&square, size, size)
}

/// Resizes to `width` x `height`, bilinear with antialiasing, bit-identical to Pillow's `BILINEAR`. An
/// empty picture gives a black one.
pub fn resize(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    if picture.is_empty() || width == 0 || height == 0 {
        return RgbImage::new(width, height);
    }
    resize::resize(picture, width, height)
}

/// The central square of at most `side` pixels.
pub fn centre_crop(picture: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let side = side.min(width).min(height);
    let (left, top) = ((width - side) / 2, (height - side) / 2);
    imageops::crop_imm(picture, left, top, side, side).to_image()
}

/// Whether a file name has the extension of a picture.
pub fn is_picture(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| EXTENSIONS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// The pictures at `path`: the file itself, or all pictures below a folder, sorted by path. Those of a data
/// set that is one file and was opened are in its order.
///
/// Hidden files and folders are skipped, links are followed. Broken links are listed, so that they are
/// reported when read.
///
/// # Errors
/// `path` does not exist, or a folder cannot be read.
pub fn walk(path: &Path) -> Result<Vec<PathBuf>> {
    walk_counting(path, &mut Walk::default())
}

/// Like [`walk`]; adds the ignored files to those of `ignored`.
pub(super) fn walk_counting(path: &Path, ignored: &mut Walk) -> Result<Vec<PathBuf>> {
    let mut found = walk_on(path);
    for (ending, count) in found.passed_over {
        *ignored.passed_over.entry(ending).or_default() += count;
    }
    if found.troubles.is_empty() { Ok(found.pictures) } else { Err(found.troubles.swap_remove(0)) }
}

/// The result of [`walk_on`].
#[derive(Debug, Default)]
pub struct Walk {
    /// The pictures, sorted by path.
    pub pictures: Vec<PathBuf>,
    /// Files and folders that cannot be read.
    pub troubles: Vec<Error>,
    /// Number of ignored files by extension, in lower case: unsupported formats, and files without
    /// extension (``).
    pub passed_over: BTreeMap<String, usize>,
}

impl Walk {
    /// Counts a file that is no readable picture, if it looks like one.
    pub(super) fn pass_over(&mut self, file: &Path) {
        let ending = file.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if ending.is_empty() || UNSUPPORTED.contains(&ending.as_str()) {
            *self.passed_over.entry(ending).or_default() += 1;
        }
    }

    /// A sentence about the ignored files below `root`; `None` if there are none.
    pub fn note(&self, root: &Path) -> Option<String> {
        let kind = |(ending, count): (&String, &usize)| match ending.as_str() {
            "" => format!("{count} without extension"),
            ending => format!("{count} .{ending}"),
        };
        let kinds: Vec<String> = self.passed_over.iter().map(kind).collect();
        let formats = "only PNG, JPEG, BMP, WebP and PGM are read";
        let (root, kinds) = (root.display(), (!kinds.is_empty()).then(|| kinds.join(", "))?);
        Some(format!("{root}: files ignored: {kinds} ({formats})"))
    }
}

/// Like [`walk`], but continues after errors.
pub fn walk_on(path: &Path) -> Walk {
    let mut found = Walk::default();
    if let Some(pictures) = mounted::list(path) {
        return Walk { pictures, ..found };
    }
    match std::fs::metadata(path) {
        Err(source) => found.troubles.push(Error::io(path, source)),
        Ok(kind) if !kind.is_dir() => found.pictures.push(path.to_path_buf()),
        Ok(_) => walk_folder(path, &mut found),
    }
    found
}

fn walk_folder(path: &Path, found: &mut Walk) {
    let entries = WalkDir::new(path)
        .follow_links(true)
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !hidden(entry.file_name()));
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_type().is_file() && is_picture(entry.path()) => {
                let below = entry.path().strip_prefix(path).unwrap_or(entry.path());
                match below.to_str() {
                    Some(_) => found.pictures.push(entry.into_path()),
                    // Two such names may read the same.
                    None => {
                        let what = std::io::Error::other("its name is not UTF-8: rename it");
                        found.troubles.push(Error::io(entry.path(), what));
                    }
                }
            }
            Ok(entry) if entry.file_type().is_file() => found.pass_over(entry.path()),
            Ok(_) => {}
            Err(error) => match error.path() {
                Some(broken) if is_picture(broken) => found.pictures.push(broken.to_path_buf()),
                at => {
                    let at = at.unwrap_or(path).to_path_buf();
                    let source = error.into_io_error();
                    let looping = || std::io::Error::other("a link that leads back to itself");
                    found.troubles.push(Error::io(at, source.unwrap_or_else(looping)));
                }
            },
        }
    }
    found.pictures.sort();
}

/// The identity of a picture: that of an opened data set that lists it; or else the first folder below `root`, or for pictures in `root` itself the
/// folder they are in.
pub fn owner(root: &Path, picture: &Path) -> String {
    if let Some(owner) = mounted::owner(picture) {
        return owner;
    }
    let below = picture.strip_prefix(root).unwrap_or(Path::new(""));
    let mut parts = below.components();
    let first = parts.next().filter(|_| parts.next().is_some());
    let name = match first {
        Some(folder) => Some(folder.as_os_str().to_owned()),
        None => {
            let folder = picture.canonicalize().ok();
            let folder = folder.as_deref().and_then(Path::parent).and_then(Path::file_name);
            folder.map(std::ffi::OsStr::to_owned)
        }
    };
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether a file or folder is hidden, such as `._NAME.png` of macOS.
pub(super) fn hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::{ExtendedColorType, GrayImage, ImageEncoder, ImageFormat, Luma, Rgb, Rgba};

    use super::super::resize::tests::source;
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_not_utf_8_is_reported() {
        use std::os::unix::ffi::OsStrExt;

        let folder = tempfile::tempdir().unwrap();
        let person = folder.path().join(std::ffi::OsStr::from_bytes(b"ann\xff"));
        std::fs::create_dir(&person).unwrap();
        std::fs::write(person.join("1.png"), []).unwrap();
        std::fs::write(folder.path().join("2.png"), []).unwrap();
        let walk = walk_on(folder.path());
        assert_eq!(walk.pictures, [folder.path().join("2.png")]);
        let trouble = walk.troubles[0].to_string();
        assert!(trouble.contains("its name is not UTF-8: rename it"), "{trouble}");
    }

    fn encode(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn decoded(content: &[u8]) -> RgbImage {
        decode_bytes(Path::new("face"), content).unwrap()
    }

    #[test]
    fn every_format_is_known_by_its_content() {
        let picture = source(9, 5);
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Pnm] {
            assert_eq!(decoded(&encode(picture.clone(), format)), picture, "{format:?}");
        }
        let flat = RgbImage::from_pixel(16, 16, Rgb([200, 30, 90]));
        let jpeg = decoded(&encode(flat, ImageFormat::Jpeg));
        for (value, wanted) in jpeg.get_pixel(8, 8).0.into_iter().zip([200_i32, 30, 90]) {
            assert!((i32::from(value) - wanted).abs() <= 2, "{value} for {wanted}");
        }
        let pgm = decoded(b"P5\n2 1\n255\n\x07\xc8");
        assert_eq!(pgm.as_raw(), &[7, 7, 7, 200, 200, 200]);
    }

    #[test]
    fn grey_deep_and_transparent_pictures_become_rgb() {
        let grey = GrayImage::from_pixel(2, 2, Luma([77]));
        assert_eq!(decoded(&encode(grey, ImageFormat::Png)).get_pixel(1, 1).0, [77; 3]);
        let deep = image::ImageBuffer::from_pixel(2, 2, Rgb([0u16, 257 * 100, 65535]));
        assert_eq!(decoded(&encode(deep, ImageFormat::Png)).get_pixel(0, 1).0, [0, 100, 255]);
        let clear = image::RgbaImage::from_pixel(2, 2, Rgba([10, 20, 30, 0]));
        assert_eq!(decoded(&encode(clear, ImageFormat::Png)).get_pixel(1, 0).0, [10, 20, 30]);
    }

    #[test]
    fn the_centre_is_cut_out_and_never_more_than_there_is() {
        let picture = source(9, 6);
        let cut = centre_crop(&picture, 4);
        assert_eq!(cut.dimensions(), (4, 4));
        assert_eq!(cut.get_pixel(0, 0), picture.get_pixel(2, 1));
        assert_eq!(cut.get_pixel(3, 3), picture.get_pixel(5, 4));
        assert_eq!(centre_crop(&picture, 100).dimensions(), (6, 6));
    }

    #[test]
    fn the_exif_orientation_turns_the_picture_upright() {
        // A little-endian TIFF block with one entry: tag 0x0112, SHORT, 1 value, 6 = turn right.
        let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let mut content = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut content, 95);
        encoder.set_exif_metadata(exif.to_vec()).unwrap();
        // Stored lying: the left half is white, so upright the upper half is.
        let lying = RgbImage::from_fn(32, 16, |x, _| Rgb([if x < 16 { 255 } else { 0 }; 3]));
        encoder.write_image(lying.as_raw(), 32, 16, ExtendedColorType::Rgb8).unwrap();
        let upright = decoded(&content);
        assert_eq!(upright.dimensions(), (16, 32));
        assert!(upright.get_pixel(8, 4)[0] > 240 && upright.get_pixel(8, 28)[0] < 15);
    }

    #[test]
    fn broken_pictures_are_named_with_the_reason() {
        let cut = &encode(source(40, 40), ImageFormat::Png)[..200];
        let cases: [(&[u8], &str); 5] = [
            (b"", "the file is empty"),
            (b"not a picture at all", "its content is neither"),
            (cut, "cannot be read as a picture"),
            (b"P5\n60000 60000\n255\n\0", "60000x60000 is more than 50000000 pixels"),
            (b"P5\n5001 10000\n255\n\0", "raise --max-pixels"),
        ];
        for (content, reason) in cases {
            let error = decode_bytes(Path::new("who/face.png"), content).unwrap_err().to_string();
            assert!(error.contains("who/face.png") && error.contains(reason), "{error}");
        }
        assert!(decode(Path::new("nowhere.png")).unwrap_err().to_string().contains("nowhere.png"));
    }

    #[test]
    fn a_picture_of_the_right_size_keeps_its_pixels() {
        let picture = source(20, 20);
        assert_eq!(fit(&picture, 20), picture);
        let wide = source(24, 20);
        assert_eq!(fit(&wide, 20), imageops::crop_imm(&wide, 2, 0, 20, 20).to_image());
    }

    #[test]
    fn a_walk_is_sorted_and_skips_what_is_no_picture() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b/2.PNG", "b/10.jpeg", "a.webp", ".hidden/x.png", "b/._2.PNG", "notes.txt"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = walk(folder.path()).unwrap();
        let wanted = ["a.webp", "b/10.jpeg", "b/2.PNG"].map(|name| folder.path().join(name));
        assert_eq!(found, wanted);
        assert!(walk_on(folder.path()).note(folder.path()).is_none());
        for name in ["b/1.GIF", "b/2.gif", "scan.tiff", "face", ".hidden/y.gif", ".DS_Store"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let note = walk_on(folder.path()).note(Path::new("faces")).unwrap();
        let wanted = "faces: files ignored: 1 without extension, 2 .gif, 1 .tiff (only PNG";
        assert!(note.starts_with(wanted), "{note}");
        let file = folder.path().join("notes.txt");
        assert_eq!(walk(&file).unwrap(), [file]);
        assert!(walk(&folder.path().join("gone")).is_err());
    }
}
