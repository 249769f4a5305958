"""How long ago a household was last seen."""

from datetime import datetime, timedelta

import polars as pl

from feature_assets.entities import HOUSEHOLD
from feature_assets.sources import TRANSACTIONS
from lockstep import Feature, Features, feature_view


class Recency(
    Features, entity=HOUSEHOLD, owner="team:growth", ttl=timedelta(days=3), when_absent="empty"
):
    """When a household last bought, looking back ninety days, as of the end of the day."""

    days_since_last_basket = Feature(
        pl.Float64, "Elapsed since the last basket.", unit="days", at_least=0, empty=None
    )
    longest_gap_days_90d = Feature(
        pl.Float64, "Longest pause between baskets.", unit="days", at_least=0, empty=None
    )


@feature_view(Recency, inputs=[TRANSACTIONS.trailing(days=90)])
def recency(transactions: pl.LazyFrame, as_of: datetime) -> pl.LazyFrame:
    day_us = 24 * 60 * 60 * 1_000_000
    pause = pl.col("event_time").diff().max().dt.total_microseconds()
    since = (pl.lit(as_of) - pl.col("event_time").max()).dt.total_microseconds()
    return transactions.group_by("household_id").agg(
        days_since_last_basket=since / day_us, longest_gap_days_90d=pause / day_us
    )
