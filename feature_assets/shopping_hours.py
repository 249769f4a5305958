"""When a household shops, by the clock on the store's wall."""

from datetime import timedelta

import polars as pl

from feature_assets.entities import HOUSEHOLD
from feature_assets.sources import TRANSACTIONS
from lockstep import Feature, Features, feature_view, local


class ShoppingHours(
    Features, entity=HOUSEHOLD, owner="team:growth", ttl=timedelta(days=3), when_absent="empty"
):
    """At which local hours a household's baskets of thirty days were paid."""

    mean_hour_30d = Feature(
        pl.Float64, "Mean local hour.", unit="h", at_least=0, at_most=23, empty=None, max_psi=0.2
    )
    evening_share_30d = Feature(
        pl.Float64, "Share of baskets from 17:00.", at_least=0, at_most=1, empty=None, max_psi=0.2
    )
    weekend_share_30d = Feature(
        pl.Float64, "Share of baskets on weekends.", at_least=0, at_most=1, empty=None
    )


@feature_view(ShoppingHours, inputs=[TRANSACTIONS.trailing(days=30)])
def shopping_hours(transactions: pl.LazyFrame) -> pl.LazyFrame:
    baskets = transactions.unique("basket_id", keep="first", maintain_order=True)
    hour = local("event_time").dt.hour().cast(pl.Int64)
    weekday = local("event_time").dt.weekday()
    return baskets.group_by("household_id").agg(
        mean_hour_30d=hour.mean(),
        evening_share_30d=(hour >= 17).mean(),  # noqa: PLR2004 - five o'clock
        weekend_share_30d=(weekday >= 6).mean(),  # noqa: PLR2004 - Saturday and Sunday
    )
