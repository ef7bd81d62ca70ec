//! Where pictures and labels come from: decoding, datasets, splits, samplers, augmentation.
