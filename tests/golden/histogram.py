"""Makes histogram.json: numpy.histogram(values, 30) of 1000 deterministic float32 values."""

import json
import pathlib

import numpy as np

# Rounded to multiples of 1/64, so that the values are exact in JSON and float32 alike.
values = np.round(np.random.default_rng(2026).gamma(2.0, 0.5, 1000) * 64) / 64
counts, edges = np.histogram(values, 30)
golden = {
    "values": values.tolist(),
    "counts": counts.tolist(),
    "edges": edges.tolist(),
    "sum": float(values.sum()),
    "sum_squares": float((values**2).sum()),
}
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(golden) + "\n")
