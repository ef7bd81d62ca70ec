//! Metric learning: distances (larger always means farther), losses, miners.
