//! The files of TensorBoard's embedding projector: points, their labels and their pictures.

use std::borrow::Borrow;
use std::fmt::Write as _;
use std::io::{Cursor, Write as _};
use std::path::Path;

use image::imageops::thumbnail;
use image::{ImageFormat, RgbImage};

use crate::files::write_atomically;
use crate::{Error, Result};

/// The largest side of a sprite sheet that browsers take as a texture, in pixels.
const LARGEST_SHEET: u32 = 8192;

/// Embeddings with the labels and thumbnails that the projector shows.
#[derive(Debug, Clone, Copy)]
pub struct Projector<'a> {
    /// `rows x dim` numbers, row by row.
    pub embeddings: &'a [f32],
    /// Numbers in one embedding.
    pub dim: usize,
    /// Named columns of labels, one label a row each (name, part, path); may be empty.
    pub columns: &'a [(&'a str, &'a [String])],
    /// Small pictures of the rows, in their order.
    pub sprite: Option<&'a Sprite>,
}

/// One picture that holds a thumbnail of every row, line by line from the top left.
#[derive(Debug, Clone)]
pub struct Sprite {
    /// The thumbnails, side by side; what is left of the last line is unused.
    pub sheet: RgbImage,
    /// Width and height of one thumbnail in pixels.
    pub thumb: (u32, u32),
}

impl Sprite {
    /// Scales `pictures` to `thumb` (width, height) and lays them out in a square grid. Thumbnails
    /// shrink where the sheet would be larger than 8192 pixels, the projector's limit.
    pub fn tile<P: Borrow<RgbImage>>(
        pictures: impl IntoIterator<Item = P, IntoIter: ExactSizeIterator>,
        thumb: (u32, u32),
    ) -> Self {
        let pictures = pictures.into_iter();
        let count = pictures.len();
        let columns = u32::try_from(count.isqrt()).unwrap_or(LARGEST_SHEET);
        let columns = if (columns as usize).pow(2) < count { columns + 1 } else { columns };
        let columns = columns.clamp(1, LARGEST_SHEET);
        let lines = u32::try_from(count).unwrap_or(u32::MAX).div_ceil(columns).max(1);
        let fitting = |side: u32| side.clamp(1, (LARGEST_SHEET / columns).max(1));
        let (width, height) = (fitting(thumb.0), fitting(thumb.1));
        let mut sheet = RgbImage::new(columns * width, lines.min(LARGEST_SHEET) * height);
        for (index, picture) in (0_u32..).zip(pictures) {
            let picture = picture.borrow();
            if picture.width() == 0 || picture.height() == 0 {
                continue;
            }
            let small = thumbnail(picture, width, height);
            let (left, top) = (index % columns * width, index / columns * height);
            image::imageops::replace(&mut sheet, &small, left.into(), top.into());
        }
        Self { sheet, thumb: (width, height) }
    }
}

/// Writes `tensors.tsv`, `metadata.tsv`, `sprite.png` and, last, the `projector_config.pbtxt` that
/// names them into `folder`; each file is whole or not there.
///
/// TensorBoard opens them when it is started on `folder`, and in any folder with an event file
/// below the one it is started on.
///
/// # Errors
/// [`Error::Data`] when the sizes do not fit together or a number is not finite;
/// [`Error::Io`] names the file that could not be written.
pub fn write_projector(folder: &Path, projector: &Projector) -> Result<()> {
    let rows = rows_of(projector)?;
    write_points(folder, projector.embeddings, projector.dim)?;
    if !projector.columns.is_empty() {
        write_atomically(&folder.join("metadata.tsv"), |out| {
            out.write_all(metadata(projector.columns, rows).as_bytes())
        })?;
    }
    if let Some(sprite) = projector.sprite {
        let path = folder.join("sprite.png");
        let mut png = Cursor::new(Vec::new());
        sprite
            .sheet
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|error| Error::Picture { path: path.clone(), reason: error.to_string() })?;
        write_atomically(&path, |out| out.write_all(png.get_ref()))?;
    }
    write_atomically(&folder.join("projector_config.pbtxt"), |out| {
        out.write_all(config(projector, rows).as_bytes())
    })
}

/// Replaces only the points of a projector: `tensors.tsv`, with the same shape as before.
///
/// # Errors
/// As for [`write_projector`].
pub fn write_points(folder: &Path, embeddings: &[f32], dim: usize) -> Result<()> {
    rows_of(&Projector { embeddings, dim, columns: &[], sprite: None })?;
    write_atomically(&folder.join("tensors.tsv"), |out| {
        for row in embeddings.chunks_exact(dim) {
            for (index, value) in row.iter().enumerate() {
                let gap = if index == 0 { "" } else { "\t" };
                write!(out, "{gap}{value:?}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    })
}

/// How many rows there are, once everything is known to have as many.
fn rows_of(projector: &Projector) -> Result<usize> {
    let Projector { embeddings, dim, columns, sprite } = *projector;
    let wrong = |what: String| Err(Error::Data(format!("embedding projector: {what}")));
    if dim == 0 || embeddings.is_empty() || embeddings.len() % dim != 0 {
        let numbers = embeddings.len();
        return wrong(format!("{numbers} numbers are not rows of {dim} dimensions"));
    }
    let rows = embeddings.len() / dim;
    if let Some(index) = embeddings.iter().position(|value| !value.is_finite()) {
        return wrong(format!("the embedding of row {} is not finite", index / dim));
    }
    if let Some((name, labels)) = columns.iter().find(|(_, labels)| labels.len() != rows) {
        return wrong(format!("column {name:?} has {} labels for {rows} rows", labels.len()));
    }
    if let Some(Sprite { sheet, thumb: (width, height) }) = sprite {
        let columns = sheet.width().checked_div(*width).unwrap_or(0);
        let lines = sheet.height().checked_div(*height).unwrap_or(0);
        if u64::from(columns) * u64::from(lines) < rows as u64 {
            return wrong(format!(
                "a sprite sheet of {columns} x {lines} pictures for {rows} rows"
            ));
        }
        if sheet.width().max(sheet.height()) > LARGEST_SHEET {
            return wrong(format!("a sprite sheet larger than {LARGEST_SHEET} pixels"));
        }
    }
    Ok(rows)
}

/// The label table. A single column has no header, or the projector would take it for a label.
fn metadata(columns: &[(&str, &[String])], rows: usize) -> String {
    let mut table = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        for (index, text) in cells.enumerate() {
            table.push_str(if index == 0 { "" } else { "\t" });
            table.push_str(&cell(text));
        }
        table.push('\n');
    };
    if columns.len() > 1 {
        line(&mut columns.iter().map(|&(name, _)| name));
    }
    for row in 0..rows {
        line(&mut columns.iter().map(|(_, labels)| labels[row].as_str()));
    }
    table
}

/// A label without the characters that end a cell or a row. A blank cell becomes a dash, because
/// the projector skips blank lines and would shift the labels below.
fn cell(text: &str) -> String {
    if text.trim().is_empty() {
        return "-".to_owned();
    }
    text.replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

/// The configuration, a `ProjectorConfig` message in text form.
fn config(projector: &Projector, rows: usize) -> String {
    let mut text = format!(
        "embeddings {{\n  tensor_name: \"embeddings\"\n  tensor_shape: {rows}\n  \
         tensor_shape: {}\n  tensor_path: \"tensors.tsv\"\n",
        projector.dim
    );
    if !projector.columns.is_empty() {
        text.push_str("  metadata_path: \"metadata.tsv\"\n");
    }
    if let Some(Sprite { thumb: (width, height), .. }) = projector.sprite {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "  sprite {{\n    image_path: \"sprite.png\"\n    single_image_dim: {width}\n    \
             single_image_dim: {height}\n  }}\n"
        );
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn numbers_are_exact_and_labels_stay_in_their_cell() {
        let folder = tempfile::tempdir().unwrap();
        let embeddings = [0.1_f32, -0.0, 1e-30, f32::MAX];
        let names = labels(&["tab\there", "line\nbreak\r"]);
        let parts = labels(&["train", " "]);
        let columns: [(&str, &[String]); 2] = [("name", &names), ("part", &parts)];
        let projector =
            Projector { embeddings: &embeddings, dim: 2, columns: &columns, sprite: None };
        write_projector(folder.path(), &projector).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let back: Vec<f32> =
            read("tensors.tsv").split_whitespace().map(|value| value.parse().unwrap()).collect();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&embeddings));
        assert_eq!(read("metadata.tsv"), "name\tpart\ntab\\there\ttrain\nline\\nbreak\\r\t-\n");
        assert_eq!(metadata(&columns[..1], 2), "tab\\there\nline\\nbreak\\r\n");
    }

    #[test]
    fn a_sheet_shows_row_i_at_line_i_over_columns() {
        let shade = |value: u8| RgbImage::from_pixel(40, 20, image::Rgb([value, 0, 0]));
        let pictures: Vec<RgbImage> = (1..=5).map(|index| shade(index * 10)).collect();
        let Sprite { sheet, thumb } = Sprite::tile(&pictures, (8, 6));
        assert_eq!((sheet.dimensions(), thumb), ((24, 12), (8, 6)));
        for (index, value) in [(0, 10), (1, 20), (2, 30), (3, 40), (4, 50), (5, 0)] {
            let (left, top) = (index % 3 * 8, index / 3 * 6);
            assert_eq!(sheet.get_pixel(left + 7, top + 5).0, [value, 0, 0], "{index}");
        }
        let many = vec![RgbImage::new(1, 1); 130 * 130];
        let Sprite { sheet, thumb } = Sprite::tile(&many, (96, 96));
        assert_eq!((sheet.dimensions(), thumb), ((63 * 130, 63 * 130), (63, 63)));
        assert_eq!(Sprite::tile::<RgbImage>([], (4, 4)).sheet.dimensions(), (4, 4));
    }

    #[test]
    fn what_does_not_fit_together_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let one = labels(&["only"]);
        let columns: [(&str, &[String]); 1] = [("name", &one)];
        let small = Sprite { sheet: RgbImage::new(4, 4), thumb: (4, 4) };
        let none = Sprite { sheet: RgbImage::new(4, 4), thumb: (0, 0) };
        let fine = Projector { embeddings: &[0.0; 4], dim: 2, columns: &[], sprite: None };
        for (projector, reason) in [
            (Projector { dim: 3, ..fine }, "rows of 3"),
            (Projector { dim: 0, ..fine }, "rows of 0"),
            (Projector { embeddings: &[], ..fine }, "0 numbers"),
            (Projector { embeddings: &[0.0, 0.0, f32::NAN, 0.0], ..fine }, "row 1"),
            (Projector { columns: &columns, ..fine }, "\"name\" has 1 labels for 2 rows"),
            (Projector { sprite: Some(&small), ..fine }, "1 x 1 pictures"),
            (Projector { sprite: Some(&none), ..fine }, "0 x 0 pictures"),
        ] {
            let error = write_projector(folder.path(), &projector).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
