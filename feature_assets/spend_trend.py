"""Whether a household slows down: a view that reads other views."""

from datetime import timedelta

import polars as pl

from feature_assets.entities import HOUSEHOLD
from feature_assets.txn_7d import txn_7d
from feature_assets.txn_30d import txn_30d
from lockstep import Feature, Features, feature_view


class SpendTrend(Features, entity=HOUSEHOLD, owner="team:growth", ttl=timedelta(days=3)):
    """This week's pace of spending against the month's, as of the end of the day."""

    pace_7d_over_30d = Feature(
        pl.Float64, "Daily spend of 7 days over that of 30; 1 is steady.", at_least=0, max_psi=0.2
    )
    baskets_7d_minus_usual = Feature(pl.Float64, "Baskets this week above the month's usual week.")


@feature_view(SpendTrend, inputs=[txn_7d.same_day(name="week"), txn_30d.same_day(name="month")])
def spend_trend(week: pl.LazyFrame, month: pl.LazyFrame) -> pl.LazyFrame:
    both = month.join(week, on="household_id", how="left")
    spend_7d, baskets_7d = pl.col("sum_amt_7d").fill_null(0), pl.col("count_7d").fill_null(0)
    return both.select(
        "household_id",
        pace_7d_over_30d=pl.when(pl.col("sum_amt_30d") > 0).then(
            (spend_7d / 7) / (pl.col("sum_amt_30d") / 30)
        ),
        baskets_7d_minus_usual=baskets_7d - pl.col("count_30d") * 7 / 30,
    )
