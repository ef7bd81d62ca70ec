//! Tells whole JPEG files from those that a broken download or copy has cut off. Decoders fill up what is
//! missing with grey.

/// Whether a JPEG ends before its end-of-image marker. Bytes behind the marker are no fault.
pub(super) fn is_cut_off(content: &[u8]) -> bool {
    let mut at = 0;
    loop {
        // A marker is 0xFF and a byte. Between 0xFF and the byte may be more 0xFF; 0xFF00 is a value of
        // the compressed data. What else lies between markers is compressed data, or skipped.
        let Some(next) = content.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xff))
        else {
            return true;
        };
        at += next + 1;
        match content.get(at) {
            None => return true,
            Some(0xd9) => return false,
            Some(0xff) => {}
            // Alone: values, TEM, restarts, start of image.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            // Followed by a segment, whose length includes its own two bytes.
            Some(_) => {
                let Some(&[high, low]) = content.get(at + 1..at + 3) else { return true };
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

    use super::super::picture::decode_bytes;
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

    #[test]
    fn cutting_never_panics() {
        let whole = picture();
        for length in 0..whole.len() {
            assert!(super::is_cut_off(&whole[..length]), "{length}");
        }
        assert!(!super::is_cut_off(&whole));
    }
}
