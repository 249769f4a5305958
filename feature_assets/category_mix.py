"""What kind of things a household buys."""

from datetime import timedelta

import polars as pl

from feature_assets.entities import HOUSEHOLD
from feature_assets.sources import PRODUCTS, TRANSACTIONS
from lockstep import Feature, Features, feature_view


class CategoryMix(
    Features, entity=HOUSEHOLD, owner="team:growth", ttl=timedelta(days=3), when_absent="empty"
):
    """How a household's spend of thirty days is spread over departments and brands."""

    grocery_share_30d = Feature(
        pl.Float64, "Groceries' share of spend.", at_least=0, at_most=1, empty=None, max_psi=0.2
    )
    private_label_share_30d = Feature(
        pl.Float64, "Private labels' share of spend.", at_least=0, at_most=1, empty=None
    )
    departments_30d = Feature(pl.Int64, "Different departments.", at_least=0, empty=0)
    top_department_30d = Feature(pl.String, "Department with the largest spend.", empty=None)


@feature_view(CategoryMix, inputs=[TRANSACTIONS.trailing(days=30), PRODUCTS.latest()])
def category_mix(transactions: pl.LazyFrame, products: pl.LazyFrame) -> pl.LazyFrame:
    named = products.select("product_id", "department", "brand")
    bought = transactions.join(named, on="product_id", how="left", maintain_order="left")
    spend = pl.col("sales_value")
    share = lambda condition: pl.when(spend.sum() > 0).then(  # noqa: E731
        spend.filter(condition).sum() / spend.sum()
    )
    by_department = (
        bought.drop_nulls("department")
        .group_by("household_id", "department")
        .agg(spend.sum())
        .sort("household_id", "sales_value", "department", descending=[False, True, False])
        .unique("household_id", keep="first", maintain_order=True)
        .select("household_id", top_department_30d="department")
    )
    return (
        bought.group_by("household_id")
        .agg(
            grocery_share_30d=share(pl.col("department") == "GROCERY"),
            private_label_share_30d=share(pl.col("brand") == "Private"),
            departments_30d=pl.col("department").drop_nulls().n_unique().cast(pl.Int64),
        )
        .join(by_department, on="household_id", how="left")
    )
