"""Ten mixed features of an entity: what the online side and training sets are both measured on."""

from typing import Any

import numpy as np
import polars as pl

NULLS = 0.02
"""Share of the rows without a mean."""
TYPES: dict[str, pl.DataType] = {
    "cnt_7d": pl.Int64(),
    "sum_7d": pl.Float64(),
    "mean_7d": pl.Float64(),
    "max_7d": pl.Float64(),
    "min_7d": pl.Float64(),
    "std_7d": pl.Float32(),
    "ncat_7d": pl.Int32(),
    "days_since": pl.Int32(),
    "cnt_1d": pl.Int64(),
    "sum_1d": pl.Float64(),
}


def values(count: int, random: np.random.Generator) -> dict[str, Any]:
    """Feature → so many values, not yet of its type; none is missing."""
    week = random.poisson(7, count)
    total = np.round(random.gamma(2.0, 60.0, count) * np.maximum(week, 1), 2)
    mean = np.round(total / np.maximum(week, 1), 4)
    today = random.poisson(1, count)
    return {
        "cnt_7d": week,
        "sum_7d": total,
        "mean_7d": mean,
        "max_7d": np.round(mean * random.uniform(1, 4, count), 2),
        "min_7d": np.round(mean * random.uniform(0, 1, count), 2),
        "std_7d": random.gamma(2.0, 20.0, count),
        "ncat_7d": random.integers(0, 11, count),
        "days_since": random.integers(0, 8, count),
        "cnt_1d": today,
        "sum_1d": np.round(random.gamma(2.0, 60.0, count) * today, 2),
    }


def with_missing(frame: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """The frame with a few of its means missing."""
    known = pl.Series(random.random(frame.height) >= NULLS)
    return frame.with_columns(mean_7d=pl.when(known).then("mean_7d"))
