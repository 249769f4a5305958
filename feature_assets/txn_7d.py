"""What a household spent lately."""

from datetime import timedelta

import polars as pl

from feature_assets.entities import HOUSEHOLD
from feature_assets.sources import TRANSACTIONS
from lockstep import Feature, Features, feature_view


class Txn7d(
    Features, entity=HOUSEHOLD, owner="team:growth", ttl=timedelta(days=3), when_absent="empty"
):
    """What a household spent in the trailing seven days, as of the end of the day."""

    sum_amt_7d = Feature(
        pl.Float64, "Spend.", unit="USD", at_least=0, empty=0.0, fill_rate=0.99, max_psi=0.2
    )
    count_7d = Feature(pl.Int64, "Baskets.", at_least=0, empty=0, fill_rate=0.99, max_psi=0.2)
    avg_basket_size_7d = Feature(
        pl.Float64, "Mean spend per basket.", unit="USD", at_least=0, empty=None, max_psi=0.2
    )


@feature_view(Txn7d, inputs=[TRANSACTIONS.trailing(days=7)])
def txn_7d(transactions: pl.LazyFrame) -> pl.LazyFrame:
    spend, baskets = pl.col("sales_value").sum(), pl.col("basket_id").n_unique().cast(pl.Int64)
    return transactions.group_by("household_id").agg(
        sum_amt_7d=spend, count_7d=baskets, avg_basket_size_7d=spend / baskets
    )
