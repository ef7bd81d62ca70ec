//! Pictures of results: scatter plots, confusion matrices, strips of faces.
