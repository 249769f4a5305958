"""A source, a view of ten mixed features, and days of fixed, made-up purchases."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from lockstep import Entity, Feature, Features, Source, feature_view

SEED = 20_261_122
FIRST = date(2026, 1, 1)
CHANNELS = tuple(f"channel {number:02d}" for number in range(12))
MERCHANTS = 5_000
_COLUMNS = {
    "purchase_id": pl.Int64,
    "customer_id": pl.Int64,
    "amount": pl.Float64,
    "items": pl.Int32,
    "channel": pl.String,
    "merchant": pl.String,
    "at_home": pl.Boolean,
    "score": pl.Float64,
    "at": pl.Datetime("us", "UTC"),
}
CUSTOMER = Entity("customer", {"customer_id": pl.Int64}, "Somebody who buys.")
PURCHASES = Source(
    "purchases",
    _COLUMNS,
    event_time="at",
    unique_by=["purchase_id"],
    start=FIRST,
    owner="team:bench",
)


class Habits(Features, entity=CUSTOMER, owner="team:bench", ttl=None, max_growth=None):
    """What a customer bought in a day."""

    spend = Feature(pl.Float64, "Spend.", at_least=0, fill_rate=0.9, max_psi=0.2)
    mean = Feature(pl.Float64, "Mean purchase.", at_least=0, fill_rate=0.8, max_psi=0.2)
    largest = Feature(pl.Float64, "Largest purchase.", at_least=0, max_psi=0.2)
    purchases = Feature(pl.Int64, "Purchases.", at_least=1, nullable=False, max_psi=0.2)
    items = Feature(pl.Int64, "Items.", at_least=0, fill_rate=0.99, max_psi=0.2)
    most_items = Feature(pl.Int32, "Items of one purchase.", at_least=0, max_psi=0.2)
    channel = Feature(pl.String, "A channel.", one_of=CHANNELS, max_psi=0.2)
    merchant = Feature(pl.String, "A merchant.", fill_rate=0.99, max_psi=0.2)
    at_home = Feature(pl.Boolean, "Whether anything was bought at home.", max_psi=0.2)
    score = Feature(pl.Float64, "Mean score.", at_least=-10, max_kl=0.5)


@feature_view(Habits, inputs=[PURCHASES.trailing(days=1)])
def habits(purchases: pl.LazyFrame) -> pl.LazyFrame:
    """Aggregate one day's purchases."""
    amount, items = pl.col("amount"), pl.col("items")
    return purchases.group_by("customer_id").agg(
        spend=amount.sum(),
        mean=amount.mean(),
        largest=amount.max(),
        purchases=pl.len().cast(pl.Int64),
        items=items.cast(pl.Int64).sum(),
        most_items=items.max(),
        channel=pl.col("channel").max(),
        merchant=pl.col("merchant").min(),
        at_home=pl.col("at_home").any(),
        score=pl.col("score").mean(),
    )


def day_of(number: int) -> date:
    """The day with that number."""
    return FIRST + timedelta(days=number)


def land(landing: Path, number: int, customers: int) -> None:
    """Write the purchases of a day: two per customer, 5 % of amounts null and 2 % of scores NaN."""
    folder = landing / PURCHASES.name
    folder.mkdir(parents=True, exist_ok=True)
    purchases_of(number, customers).write_parquet(folder / f"{day_of(number)}.parquet")


def purchases_of(number: int, customers: int) -> pl.DataFrame:
    """The purchases of a day, the same in every run."""
    draw = np.random.default_rng((SEED, number))
    rows = 2 * customers
    start = datetime.combine(day_of(number), datetime.min.time(), UTC)
    seconds = draw.integers(0, 86_400, rows)
    amounts = pl.Series(draw.lognormal(3, 1, rows).round(2))
    scores = np.where(draw.random(rows) < 0.02, np.nan, draw.normal(0, 1, rows).clip(-10, 10))  # noqa: PLR2004
    merchants = pl.Series([f"merchant {at:04d}" for at in range(MERCHANTS)])
    return pl.DataFrame(
        {
            "purchase_id": np.arange(rows, dtype=np.int64) + number * 10**8,
            "customer_id": draw.permutation(np.arange(rows, dtype=np.int64) // 2),
            "amount": amounts.set(pl.Series(draw.random(rows) < 0.05), None),  # noqa: PLR2004
            "items": draw.poisson(4, rows).astype(np.int32),
            "channel": pl.Series(CHANNELS).gather(draw.integers(0, len(CHANNELS), rows)),
            "merchant": merchants.gather(draw.zipf(1.3, rows) % MERCHANTS),
            "at_home": draw.random(rows) < 0.3,  # noqa: PLR2004
            "score": scores,
            "at": pl.Series(seconds * 1_000_000).cast(pl.Duration("us")) + start,
        },
        schema=_COLUMNS,
    )
