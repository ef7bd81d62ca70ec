//! What the curves are, for the (i) beside them in TensorBoard.

/// The description of a tag, by its last part: `val/auc` is described as `auc` is.
pub(super) fn describe(tag: &str) -> Option<&'static str> {
    Some(match tag.rsplit('/').next().unwrap_or_default() {
        "loss" => "Training loss: the mean over the steps of an epoch, or that of one step",
        "active" => "Share of the triplets (or other tuples) whose loss is above zero",
        "positive_distance" => "Mean distance of two pictures of one person in a batch",
        "negative_distance" => "Mean distance of pictures of two persons in a batch",
        "grad_norm" => "Norm of the gradients of all parameters together, before clipping",
        "data_wait" => "Share of the epoch's time spent waiting for pictures",
        "loss_scale" => "Factor on the loss, in float16",
        "skipped_steps" => "Steps skipped so far because gradients overflowed in float16",
        "lr" => "Learning rate",
        "knn" => "Accuracy of the nearest other picture, within the validation part",
        "knn_gallery" => "Accuracy of the nearest training picture, for validation pictures",
        "centroid" => "Accuracy of the nearest mean embedding, leave-one-out",
        "verification" => "Balanced accuracy on validation pairs, at a threshold from other pairs",
        "auc" => "Area under the ROC curve of the validation pairs",
        "f1" => "F1 score of the validation pairs at the best threshold",
        "map_at_r" => {
            "Mean average precision at R (Musgrave et al. 2020), within the validation part"
        }
        "r_precision" => {
            "Share of a person's pictures among the R nearest, where R is their number"
        }
        "threshold" => "Decision threshold found in validation",
        "accuracy" => "Share of right answers",
        "nll" => "Negative log-likelihood of the right answer",
        "named" => "Share of validation pictures that are not called UNKNOWN",
        "ece" => "Expected calibration error, 15 bins",
        "temperature" => "Temperature of the calibrated softmax",
        "same" => "Distances of pairs of one person",
        "different" => "Distances of pairs of two persons",
        "hardest_triplets" => "Anchor, farthest positive and nearest negative of the training part",
        _ => return None,
    })
}
