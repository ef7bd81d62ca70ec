//! The messages TensorBoard shows: one function for each kind of summary.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};
use protobuf::{Message, RepeatedField};
use tensorboard_proto::plugin_pr_curve::PrCurvePluginData;
use tensorboard_proto::summary::{
    Summary, Summary_Image, Summary_Value, SummaryMetadata, SummaryMetadata_PluginData,
};
use tensorboard_proto::tensor::TensorProto;
use tensorboard_proto::tensor_shape::{TensorShapeProto, TensorShapeProto_Dim};
use tensorboard_proto::types::DataType;

use super::histogram::Histogram;

/// How many thresholds a precision-recall curve has, evenly spaced over `[0, 1]`.
pub const THRESHOLDS: usize = 201;

/// One number. TensorBoard keeps scalars in single precision.
pub fn scalar(tag: &str, value: f64) -> Summary {
    tensorboard_rs::summary::scalar(tag, value as f32)
}

/// The distribution of `values`; `None` when none of them is finite.
pub fn histogram(tag: &str, values: &[f32]) -> Option<Summary> {
    let Histogram { min, max, sum, sum_squares, limits, counts } = Histogram::of(values)?;
    let number = counts.iter().sum();
    Some(tensorboard_rs::summary::histogram_raw(
        tag,
        min,
        max,
        number,
        sum,
        sum_squares,
        &limits,
        &counts,
    ))
}

/// A picture, as PNG; `None` for a picture without pixels.
///
/// # Errors
/// What the PNG encoder says.
pub fn image(tag: &str, picture: &RgbImage) -> std::io::Result<Option<Summary>> {
    let (width, height) = picture.dimensions();
    let (Ok(columns), Ok(rows)) = (i32::try_from(width), i32::try_from(height)) else {
        return Ok(None);
    };
    if columns == 0 || rows == 0 {
        return Ok(None);
    }
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).map_err(std::io::Error::other)?;
    let mut message = Summary_Image::new();
    message.set_width(columns);
    message.set_height(rows);
    message.set_colorspace(3);
    message.set_encoded_image_string(png.into_inner());
    let mut value = Summary_Value::new();
    value.set_tag(tag.to_owned());
    value.set_image(message);
    Ok(Some(summary_of(value)))
}

/// A note, which TensorBoard renders as Markdown.
pub fn text(tag: &str, note: &str) -> Summary {
    let mut tensor = tensor_of(DataType::DT_STRING, &[1]);
    tensor.set_string_val(RepeatedField::from_vec(vec![note.as_bytes().to_vec()]));
    // TextPluginData of version 0 is an empty message.
    plugin_summary(tag, "text", Vec::new(), tensor)
}

/// Precision against recall over [`THRESHOLDS`] thresholds; pairs past the shorter slice's end and
/// scores that are NaN are left out, scores outside `[0, 1]` are clamped. `None` when no pair is
/// left.
///
/// `positive[i]` says whether pair `i` really is positive, `scores[i]` how likely it was thought to
/// be. At threshold `t` a pair counts as called positive where `score >= t`.
pub fn pr_curve(tag: &str, positive: &[bool], scores: &[f32]) -> Option<Summary> {
    let last = THRESHOLDS - 1;
    // Pairs by the highest threshold they reach: [negative, positive].
    let mut reaching = [[0.0_f32; 2]; THRESHOLDS];
    let mut all = [0.0_f32; 2];
    for (&positive, &score) in positive.iter().zip(scores).filter(|(_, score)| !score.is_nan()) {
        let highest = (f64::from(score.clamp(0.0, 1.0)) * last as f64) as usize;
        reaching[highest.min(last)][usize::from(positive)] += 1.0;
        all[usize::from(positive)] += 1.0;
    }
    if all == [0.0, 0.0] {
        return None;
    }
    // Rows: true positives, false positives, true negatives, false negatives, precision, recall.
    let mut rows = vec![0.0_f32; 6 * THRESHOLDS];
    let [mut fp, mut tp] = [0.0_f32; 2];
    for threshold in (0..THRESHOLDS).rev() {
        fp += reaching[threshold][0];
        tp += reaching[threshold][1];
        let column =
            [tp, fp, all[0] - fp, all[1] - tp, tp / (tp + fp).max(1e-7), tp / all[1].max(1e-7)];
        for (row, value) in column.into_iter().enumerate() {
            rows[row * THRESHOLDS + threshold] = value;
        }
    }
    let mut settings = PrCurvePluginData::new();
    settings.set_num_thresholds(THRESHOLDS as u32);
    let mut tensor = tensor_of(DataType::DT_FLOAT, &[6, THRESHOLDS as i64]);
    tensor.set_float_val(rows);
    Some(plugin_summary(tag, "pr_curves", settings.write_to_bytes().ok()?, tensor))
}

/// An empty tensor of a type and shape.
pub(super) fn tensor_of(kind: DataType, sizes: &[i64]) -> TensorProto {
    let dimensions = sizes.iter().map(|&size| {
        let mut dimension = TensorShapeProto_Dim::new();
        dimension.set_size(size);
        dimension
    });
    let mut shape = TensorShapeProto::new();
    shape.set_dim(dimensions.collect());
    let mut tensor = TensorProto::new();
    tensor.set_dtype(kind);
    tensor.set_tensor_shape(shape);
    tensor
}

/// A tensor marked for one of TensorBoard's plugins, with that plugin's own settings.
pub(super) fn plugin_summary(
    tag: &str,
    plugin: &str,
    settings: Vec<u8>,
    tensor: TensorProto,
) -> Summary {
    let mut data = SummaryMetadata_PluginData::new();
    data.set_plugin_name(plugin.to_owned());
    data.set_content(settings);
    let mut metadata = SummaryMetadata::new();
    metadata.set_plugin_data(data);
    let mut value = Summary_Value::new();
    value.set_tag(tag.to_owned());
    value.set_metadata(metadata);
    value.set_tensor(tensor);
    summary_of(value)
}

fn summary_of(value: Summary_Value) -> Summary {
    let mut summary = Summary::new();
    summary.set_value(RepeatedField::from_vec(vec![value]));
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_keeps_width_and_height_apart() {
        let summary = image("strip", &RgbImage::new(7, 3)).unwrap().unwrap();
        let message = summary.get_value()[0].get_image();
        assert_eq!((message.get_width(), message.get_height()), (7, 3));
        let decoded = image::load_from_memory(message.get_encoded_image_string()).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (7, 3));
        assert!(image("none", &RgbImage::new(0, 3)).unwrap().is_none());
    }

    #[test]
    fn a_curve_counts_as_a_loop_over_the_thresholds_does() {
        let positive = [true, true, false, true, false, false, true];
        // Multiples of 1/200 lie exactly on thresholds in no rounding but the plugin's own.
        let scores = [1.0, 0.75, 0.5, 0.25, 0.125, -3.0, 2.0];
        let summary = pr_curve("pr", &positive, &scores).unwrap();
        let rows = summary.get_value()[0].get_tensor().get_float_val();
        for threshold in 0..THRESHOLDS {
            let limit = threshold as f32 / 200.0;
            let called = |truth: bool| {
                let pairs = positive.iter().zip(&scores);
                pairs.filter(|&(&p, &s)| p == truth && s.clamp(0.0, 1.0) >= limit).count() as f32
            };
            let (tp, fp) = (called(true), called(false));
            let expected = [tp, fp, 3.0 - fp, 4.0 - tp, tp / (tp + fp), tp / 4.0];
            for (row, expected) in expected.into_iter().enumerate() {
                assert_eq!(rows[row * THRESHOLDS + threshold], expected, "{row} at {limit}");
            }
        }
        assert!(pr_curve("pr", &[], &[]).is_none());
        assert!(pr_curve("pr", &[true], &[f32::NAN]).is_none());
    }
}
