"""The analyst's side of the demo: which households stopped buying, and when that was asked."""

from collections.abc import Sequence
from datetime import date, timedelta
from io import BytesIO

import polars as pl

from lockstep.store import Store
from lockstep.time import as_of

LOOK_BACK = timedelta(days=30)
LOOK_AHEAD = timedelta(days=14)


def churn_spine(store: Store, cuts: Sequence[date]) -> pl.DataFrame:
    """Return a row per household that bought in the 30 days before a cut.

    Columns: household_id, event_timestamp (UTC, nine hours after the cut day's end), churned (no
    basket in the 14 days after it). Ordered by time and household.
    """
    source = store.catalog.source("transactions")
    baskets = store.lake.table(source).scan().select("household_id", "event_time").collect()
    frames = []
    for cut in cuts:
        asked = as_of(cut, store.project.zone) + timedelta(hours=9)
        before = baskets.filter(pl.col("event_time").is_between(asked - LOOK_BACK, asked))
        after = baskets.filter(pl.col("event_time").is_between(asked, asked + LOOK_AHEAD))
        active = before.select("household_id").unique().sort("household_id")
        frames.append(
            active.select(
                "household_id",
                pl.lit(asked, dtype=pl.Datetime("us", "UTC")).alias("event_timestamp"),
                churned=pl.col("household_id").is_in(after["household_id"].implode()).not_(),
            )
        )
    return pl.concat(frames)


def keep_spine(store: Store, spine: pl.DataFrame) -> None:
    """Write the spine into the lake, where `training_requests/churn.yaml` expects it."""
    file = BytesIO()
    spine.write_parquet(file)
    store.lake.place.write("spines/churn.parquet", file.getvalue())
