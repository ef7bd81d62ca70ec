//! JPEG pixels as Pillow decodes them. The format leaves rounding and the enlarging of colour open, and the
//! decoder of the `image` crate is up to 10 of 255 levels away from libjpeg-turbo, which Pillow and OpenCV
//! use; mozjpeg is libjpeg-turbo's decoder with another encoder.
//!
//! And: which files a broken download or copy has cut off. Decoders fill up what is missing with grey.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::RgbImage;
use mozjpeg::{ColorSpace, Decompress};

/// Scans of the longest progressive file that is decoded: each is a pass over the whole picture, and a small
/// file can hold very many.
const MAX_SCANS: usize = 100;

/// Decodes a file of this `size` to RGB; none for one in CMYK, which libjpeg does not convert.
///
/// # Errors
/// libjpeg finds another size, which the limit of pixels does not know; or what it says of a file that is
/// damaged. Like Pillow, it goes on over damaged compressed data.
pub(super) fn decode(content: &[u8], size: (u32, u32)) -> Result<Option<RgbImage>, String> {
    let decode = || -> std::io::Result<Option<RgbImage>> {
        let file = Decompress::new_mem(content)?;
        if file.size() != (size.0 as usize, size.1 as usize) {
            return Err(std::io::Error::other("its header is ambiguous: it has two sizes"));
        }
        if matches!(file.color_space(), ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK) {
            return Ok(None);
        }
        let mut rows = file.rgb()?;
        let pixels = rows.read_scanlines()?;
        rows.finish()?;
        let picture = RgbImage::from_raw(size.0, size.1, pixels);
        picture.map(Some).ok_or_else(|| std::io::Error::other("rows are missing"))
    };
    // The crate hands libjpeg's fatal errors on as a panic with a text, which is not printed.
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(decoded) => decoded.map_err(|error| error.to_string()),
        Err(panic) => Err(match panic.downcast::<String>() {
            Ok(text) => text.replace("libjpeg fatal error: ", ""),
            Err(_) => "it cannot be decoded".into(),
        }),
    }
}

/// Refuses a JPEG that ends before its end-of-image marker (bytes behind the marker are no fault), and one of
/// too many scans.
///
/// # Errors
/// Says what is wrong.
pub(super) fn check(content: &[u8]) -> Result<(), String> {
    match scans(content) {
        None => Err("the JPEG is cut off: it ends before its end-of-image marker".into()),
        Some(scans) if scans > MAX_SCANS => {
            Err(format!("the JPEG has {scans} scans, more than {MAX_SCANS}"))
        }
        Some(_) => Ok(()),
    }
}

/// The scans before the end-of-image marker; none where there is no such marker.
fn scans(content: &[u8]) -> Option<usize> {
    let (mut at, mut scans) = (0, 0);
    loop {
        // A marker is 0xFF and a byte. Between 0xFF and the byte may be more 0xFF; 0xFF00 is a value of
        // the compressed data. What else lies between markers is compressed data, or skipped.
        at += content.get(at..)?.iter().position(|&byte| byte == 0xff)? + 1;
        let marker = *content.get(at)?;
        scans += usize::from(marker == 0xda);
        match marker {
            0xd9 => return Some(scans),
            0xff => {}
            // Alone: values, TEM, restarts, start of image.
            0x00 | 0x01 | 0xd0..=0xd8 => at += 1,
            // Followed by a segment, whose length includes its own two bytes.
            _ => {
                let &[high, low] = content.get(at + 1..at + 3)? else { return None };
                at += 1 + usize::from(u16::from_be_bytes([high, low])).max(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use image::codecs::jpeg::JpegEncoder;
    use image::{ExtendedColorType, ImageEncoder};
    use sha2::{Digest, Sha256};

    use super::super::picture::{decode, decode_bytes};
    use super::super::resize::tests::source;

    /// A JPEG whose EXIF block holds a small one, as cameras write them.
    fn picture() -> Vec<u8> {
        let encode = |exif: Vec<u8>, side| {
            let mut content = Vec::new();
            let mut encoder = JpegEncoder::new_with_quality(&mut content, 90);
            encoder.set_exif_metadata(exif).unwrap();
            let picture = source(side, side);
            encoder.write_image(picture.as_raw(), side, side, ExtendedColorType::Rgb8).unwrap();
            content
        };
        encode([&b"II*\0\0\0\0\0"[..], &encode(vec![0], 16)].concat(), 96)
    }

    #[test]
    fn a_jpeg_is_refused_at_every_length_but_its_own() {
        let whole = picture();
        let decode = |content: &[u8]| decode_bytes(Path::new("face.jpg"), content);
        for percent in 10..100 {
            let error = decode(&whole[..whole.len() * percent / 100]).unwrap_err().to_string();
            assert!(error.contains("face.jpg: cannot be read as a picture"), "{error}");
        }
        let error = decode(&whole[..whole.len() - 1]).unwrap_err().to_string();
        assert!(error.contains("cut off"), "{error}");
        let picture = decode(&whole).unwrap();
        // Bytes behind the end and fill bytes before it are no fault.
        let mut longer = whole;
        longer.insert(longer.len() - 2, 0xff);
        longer.extend(b"\0\xff\xd8 more");
        assert_eq!(decode(&longer).unwrap(), picture);
    }

    /// `tests/golden/jpeg.py` drew the files and had Pillow decode them.
    #[test]
    fn pixels_are_those_of_pillow() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let text = std::fs::read_to_string(golden.join("jpeg.json")).unwrap();
        let digests: serde_json::Value = serde_json::from_str(&text).unwrap();
        let digests = digests["sha256"].as_object().unwrap();
        assert_eq!(digests.len(), 9);
        for (name, digest) in digests {
            let pixels = decode(&golden.join(format!("jpeg/{name}.jpg"))).unwrap();
            assert_eq!(
                hex::encode(Sha256::digest(pixels.as_raw())),
                digest.as_str().unwrap(),
                "{name}"
            );
        }
    }

    /// The limits on pixels and time must hold for what libjpeg reads.
    #[test]
    fn two_sizes_and_endless_scans_are_refused() {
        let whole = picture();
        let refused = |content: &[u8], word: &str| {
            let error = decode_bytes(Path::new("face.jpg"), content).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        assert!(super::decode(&whole, (96, 96)).unwrap().is_some());
        assert!(super::decode(&whole, (95, 96)).unwrap_err().contains("two sizes"));
        let start = whole.windows(2).rposition(|marker| marker == [0xff, 0xda]).unwrap();
        let scan = &whole[start..whole.len() - 2];
        refused(&[&whole[..start], &scan.repeat(101), b"\xff\xd9"].concat(), "101 scans");
    }

    #[test]
    fn damage_is_an_error_or_goes_unseen_but_never_ends_the_process() {
        let whole = picture();
        for at in (0..whole.len()).step_by(7) {
            for bit in [0, 3, 7] {
                let mut content = whole.clone();
                content[at] ^= 1 << bit;
                if let Err(error) = decode_bytes(Path::new("face.jpg"), &content) {
                    assert!(error.to_string().starts_with("face.jpg: "), "{error}");
                }
            }
        }
    }

    #[test]
    fn cutting_never_panics() {
        let whole = picture();
        for length in 0..whole.len() {
            assert_eq!(super::scans(&whole[..length]), None, "{length}");
        }
        assert_eq!(super::scans(&whole), Some(1));
    }
}
