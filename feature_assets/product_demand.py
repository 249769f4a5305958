"""How well a product sells."""

from datetime import timedelta

import polars as pl

from feature_assets.entities import PRODUCT
from feature_assets.sources import TRANSACTIONS
from lockstep import Feature, Features, feature_view


class ProductDemand(
    Features, entity=PRODUCT, owner="team:merchandising", ttl=timedelta(days=3), when_absent="empty"
):
    """Demand for a product in the trailing seven days, as of the end of the day."""

    sales_7d = Feature(pl.Float64, "Sales.", unit="USD", at_least=0, empty=0.0, fill_rate=0.99)
    baskets_7d = Feature(pl.Int64, "Baskets with it.", at_least=0, empty=0, max_psi=0.2)
    households_7d = Feature(pl.Int64, "Households that bought it.", at_least=0, empty=0)


@feature_view(ProductDemand, inputs=[TRANSACTIONS.trailing(days=7)])
def product_demand(transactions: pl.LazyFrame) -> pl.LazyFrame:
    return transactions.group_by("product_id").agg(
        sales_7d=pl.col("sales_value").sum(),
        baskets_7d=pl.col("basket_id").n_unique().cast(pl.Int64),
        households_7d=pl.col("household_id").n_unique().cast(pl.Int64),
    )
