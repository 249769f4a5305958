"""Whether a household answers to campaigns."""

from datetime import timedelta

import polars as pl

from feature_assets.entities import HOUSEHOLD
from feature_assets.sources import CAMPAIGN_MAILINGS, COUPON_REDEMPTIONS
from lockstep import Feature, Features, feature_view


class Promotions(
    Features, entity=HOUSEHOLD, owner="team:marketing", ttl=timedelta(days=3), when_absent="empty"
):
    """Campaigns mailed to a household in ninety days, and the coupons it used."""

    campaigns_90d = Feature(pl.Int64, "Campaigns mailed.", at_least=0, empty=0)
    redemptions_90d = Feature(pl.Int64, "Coupons used.", at_least=0, empty=0)
    redeemed_campaigns_90d = Feature(pl.Int64, "Campaigns of those coupons.", at_least=0, empty=0)


@feature_view(
    Promotions,
    inputs=[CAMPAIGN_MAILINGS.trailing(days=90), COUPON_REDEMPTIONS.trailing(days=90)],
)
def promotions(campaign_mailings: pl.LazyFrame, coupon_redemptions: pl.LazyFrame) -> pl.LazyFrame:
    mailed = campaign_mailings.group_by("household_id").agg(
        campaigns_90d=pl.col("campaign_id").n_unique().cast(pl.Int64)
    )
    used = coupon_redemptions.group_by("household_id").agg(
        redemptions_90d=pl.len().cast(pl.Int64),
        redeemed_campaigns_90d=pl.col("campaign_id").n_unique().cast(pl.Int64),
    )
    return mailed.join(used, on="household_id", how="full", coalesce=True).with_columns(
        pl.col("campaigns_90d", "redemptions_90d", "redeemed_campaigns_90d").fill_null(0)
    )
