"""The rows: ten mixed features per entity and view, the same for every contender."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl

SEED = 20261122
DAY = date(2025, 1, 1)
EVENT = datetime(2025, 1, 2, tzinfo=UTC)
"""The end of the day, when the rows become valid."""
TTL_DAYS = 3650
NULLS = 0.02

FEATURES: dict[str, pl.DataType] = {
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
PUSHED = "pushed"
"""The view of the push: its own entity, as many rows as asked."""
READ = ("txn_7d", "txn_30d", "txn_90d")
"""The views that are read together; they share an entity."""
ENTITIES = {PUSHED: "shopper", **dict.fromkeys(READ, "customer")}


def key_of(view: str) -> str:
    """The key column of a view's entity."""
    return f"{ENTITIES[view]}_id"


def rows(view: str, entities: int) -> pl.DataFrame:
    """Key and features of entities 0 to `entities` - 1, in order."""
    random = np.random.default_rng([SEED, list(ENTITIES).index(view)])
    count = random.poisson(7, entities)
    total = np.round(random.gamma(2.0, 60.0, entities) * np.maximum(count, 1), 2)
    mean = np.round(total / np.maximum(count, 1), 4)
    today = random.poisson(1, entities)
    cells: dict[str, Any] = {
        "cnt_7d": count,
        "sum_7d": total,
        "mean_7d": mean,
        "max_7d": np.round(mean * random.uniform(1, 4, entities), 2),
        "min_7d": np.round(mean * random.uniform(0, 1, entities), 2),
        "std_7d": random.gamma(2.0, 20.0, entities),
        "ncat_7d": random.integers(0, 11, entities),
        "days_since": random.integers(0, 8, entities),
        "cnt_1d": today,
        "sum_1d": np.round(random.gamma(2.0, 60.0, entities) * today, 2),
    }
    known = pl.Series(random.random(entities) >= NULLS)
    return pl.DataFrame({key_of(view): np.arange(entities), **cells}).with_columns(
        *(pl.col(name).cast(dtype) for name, dtype in FEATURES.items() if name != "mean_7d"),
        mean_7d=pl.when(known).then("mean_7d"),
    )


def asked(entities: int, size: int, count: int) -> list[list[int]]:
    """`count` requests for `size` entities each, at random."""
    random = np.random.default_rng([SEED, size])
    found: list[list[int]] = random.integers(0, entities, (count, size)).tolist()
    return found
