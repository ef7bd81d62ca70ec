//! Pure functions over embeddings: k-NN, verification, calibration, t-SNE.
