"""A quarter of shopping: the level that churn is measured against."""

from datetime import timedelta

import polars as pl

from feature_assets.entities import HOUSEHOLD
from feature_assets.sources import TRANSACTIONS
from lockstep import Feature, Features, feature_view


class Txn90d(
    Features, entity=HOUSEHOLD, owner="team:growth", ttl=timedelta(days=3), when_absent="empty"
):
    """How a household shopped in the trailing ninety days, as of the end of the day."""

    sum_amt_90d = Feature(
        pl.Float64, "Spend.", unit="USD", at_least=0, empty=0.0, fill_rate=0.99, max_psi=0.2
    )
    count_90d = Feature(pl.Int64, "Baskets.", at_least=0, empty=0, fill_rate=0.99)
    stores_90d = Feature(pl.Int64, "Different stores.", at_least=0, empty=0)
    products_90d = Feature(pl.Int64, "Different products.", at_least=0, empty=0)


@feature_view(Txn90d, inputs=[TRANSACTIONS.trailing(days=90)])
def txn_90d(transactions: pl.LazyFrame) -> pl.LazyFrame:
    return transactions.group_by("household_id").agg(
        sum_amt_90d=pl.col("sales_value").sum(),
        count_90d=pl.col("basket_id").n_unique().cast(pl.Int64),
        stores_90d=pl.col("store_id").n_unique().cast(pl.Int64),
        products_90d=pl.col("product_id").n_unique().cast(pl.Int64),
    )
