//! Readers and writers of tensor files, and the report of what fitted.
