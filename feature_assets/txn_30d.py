"""A month of shopping."""

from datetime import timedelta

import polars as pl

from feature_assets.entities import HOUSEHOLD
from feature_assets.sources import TRANSACTIONS
from lockstep import Feature, Features, feature_view, local


class Txn30d(
    Features, entity=HOUSEHOLD, owner="team:growth", ttl=timedelta(days=3), when_absent="empty"
):
    """How a household shopped in the trailing thirty days, as of the end of the day."""

    sum_amt_30d = Feature(
        pl.Float64, "Spend.", unit="USD", at_least=0, empty=0.0, fill_rate=0.99, max_psi=0.2
    )
    count_30d = Feature(pl.Int64, "Baskets.", at_least=0, empty=0, fill_rate=0.99, max_psi=0.2)
    active_days_30d = Feature(
        pl.Int64, "Local days with a basket.", unit="days", at_least=0, at_most=30, empty=0
    )
    discount_share_30d = Feature(
        pl.Float64, "Discounts as a share of spend before them.", at_least=0, at_most=1, empty=None
    )


@feature_view(Txn30d, inputs=[TRANSACTIONS.trailing(days=30)])
def txn_30d(transactions: pl.LazyFrame) -> pl.LazyFrame:
    discounts = pl.sum_horizontal("retail_disc", "coupon_disc", "coupon_match_disc").sum()
    before = pl.col("sales_value").sum() + discounts
    return transactions.group_by("household_id").agg(
        sum_amt_30d=pl.col("sales_value").sum(),
        count_30d=pl.col("basket_id").n_unique().cast(pl.Int64),
        active_days_30d=local("event_time").dt.date().n_unique().cast(pl.Int64),
        discount_share_30d=pl.when(before > 0).then((discounts / before).clip(0, 1)),
    )
