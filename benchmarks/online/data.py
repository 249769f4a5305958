"""The rows: ten mixed features per entity and view, the same for every contender."""

from datetime import UTC, date, datetime

import numpy as np
import polars as pl

from benchmarks import ten_features

SEED = 20261122
DAY = date(2025, 1, 1)
EVENT = datetime(2025, 1, 2, tzinfo=UTC)
"""The end of the day, when the rows become valid."""
TTL_DAYS = 3650
FEATURES = ten_features.TYPES
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
    values = ten_features.values(entities, random)
    frame = pl.DataFrame({key_of(view): np.arange(entities), **values})
    return ten_features.with_missing(frame.cast(FEATURES), random)  # type: ignore[arg-type]


def asked(entities: int, size: int, count: int) -> list[list[int]]:
    """`count` requests for `size` entities each, at random."""
    random = np.random.default_rng([SEED, size])
    found: list[list[int]] = random.integers(0, entities, (count, size)).tolist()
    return found
