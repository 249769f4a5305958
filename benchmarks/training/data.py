"""The rows and the spine: the same in every run, for every contender."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from benchmarks import ten_features
from benchmarks.training.shapes import Shape, ViewShape

SEED = 20261122
KEY = "customer_id"
FIRST = date(2025, 1, 1)
BEGIN = datetime(2025, 1, 2, tzinfo=UTC)
"""The end of the first day, when its rows become valid."""
INSTANT = pl.Datetime("us", "UTC")
CERTIFIED = timedelta(hours=1)
"""After the end of a day: when its first revision is committed."""
CORRECTED = timedelta(hours=30)
"""After the end of a day: when late corrections arrive."""
LATE = 0.005
"""Share of the rows that late corrections replace: the same event_timestamp, another value."""
GAPS = 0.05
"""Share of the customers without rows for six days, so that a ttl of three matters."""
GAP_DAYS = 6
UNKNOWN = 0.02
"""Spine rows of customers whom no view knows, as a share of the customers."""

NUMBERS = ten_features.TYPES
PROFILE: dict[str, pl.DataType] = {
    "segment": pl.String(),
    "country": pl.String(),
    "age": pl.Int64(),
    "credit_limit": pl.Float64(),
    "email_domain": pl.String(),
}
KINDS = {"numbers": NUMBERS, "profile": PROFILE, "few": dict(list(NUMBERS.items())[:5])}
SEGMENTS = pl.Series(["mass", "plus", "premium", "private", "new"])
COUNTRIES = pl.Series([f"C{number:02}" for number in range(50)])
DOMAINS = pl.Series([*(f"mail{number}.example" for number in range(30)), None])


def features_of(view: ViewShape) -> dict[str, pl.DataType]:
    """Feature → type."""
    return KINDS[view.kind]


def asked(shape: Shape, views: int | None = None) -> list[str]:
    """`view:feature` of the first views (all, if not said)."""
    return [f"{of.name}:{name}" for of in shape.views[:views] for name in features_of(of)]


def day_of(number: int) -> date:
    """The date of a day."""
    return FIRST + timedelta(days=number)


def end_of(number: int) -> datetime:
    """The event_timestamp of all rows of a day."""
    return BEGIN + timedelta(days=number)


def day_rows(view: ViewShape, number: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One day's rows as they were at first, and the late corrections; both sorted by key."""
    random = np.random.default_rng([SEED, *view.name.encode(), number])
    keys = _present(view, number, random)
    late = np.sort(random.choice(len(keys), int(len(keys) * LATE), replace=False))
    return _frame(view, keys, random), _frame(view, keys[late], random)


def corrected(rows: pl.DataFrame, late: pl.DataFrame) -> pl.DataFrame:
    """The rows with the late ones in the place of those they replace."""
    rest = rows.join(late.select(KEY), on=KEY, how="anti", maintain_order="left")
    return pl.concat([rest, late]).sort(KEY)


def _present(view: ViewShape, number: int, random: np.random.Generator) -> np.ndarray:
    keys = np.arange(view.customers, dtype=np.int64)
    if view.share < 1:
        return keys[random.random(view.customers) < view.share]
    once = np.random.default_rng([SEED, *view.name.encode()])
    starts = once.integers(min(2, view.days), max(3, view.days - 10), view.customers)
    gap = (once.random(view.customers) < GAPS) & (number >= starts) & (number < starts + GAP_DAYS)
    return keys[~gap]


def _frame(view: ViewShape, keys: np.ndarray, random: np.random.Generator) -> pl.DataFrame:
    cells = (_profile if view.kind == "profile" else ten_features.values)(len(keys), random)
    types = features_of(view)
    frame = pl.DataFrame({KEY: keys, **{name: cells[name] for name in types}})
    frame = frame.with_columns(pl.col(name).cast(dtype) for name, dtype in types.items())
    return ten_features.with_missing(frame, random) if "mean_7d" in types else frame


def _profile(count: int, random: np.random.Generator) -> dict[str, Any]:
    return {
        "segment": SEGMENTS.gather(random.integers(0, len(SEGMENTS), count)),
        "country": COUNTRIES.gather(random.integers(0, len(COUNTRIES), count)),
        "age": random.integers(18, 95, count),
        "credit_limit": np.round(random.gamma(2.0, 2000.0, count), 2),
        "email_domain": DOMAINS.gather(random.integers(0, len(DOMAINS), count)),
    }


def spine(shape: Shape) -> pl.DataFrame:
    """Rows in no order: an id, a customer, an instant within the days, and a label."""
    random = np.random.default_rng([SEED, 4])
    of, count = shape.first, shape.spine
    microseconds = int(timedelta(days=of.days) / timedelta(microseconds=1))
    begin = int(BEGIN.timestamp()) * 1_000_000
    return pl.DataFrame(
        {
            "spine_id": np.arange(count),
            KEY: random.integers(0, int(of.customers * (1 + UNKNOWN)), count),
            "event_timestamp": random.integers(begin, begin + microseconds, count),
            "label": random.integers(0, 2, count),
        }
    ).with_columns(pl.col("event_timestamp").cast(INSTANT))
