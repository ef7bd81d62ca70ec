//! The only place that speaks to the C++ shim in `native/`.
