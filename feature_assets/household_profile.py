"""Who a household is, as far as it told."""

import polars as pl

from feature_assets.entities import HOUSEHOLD
from feature_assets.sources import DEMOGRAPHICS
from lockstep import Feature, Features, feature_view


class HouseholdProfile(Features, entity=HOUSEHOLD, owner="team:privacy", ttl=None):
    """What a household told about itself; only some did."""

    age_band = Feature(pl.String, "Age of the head.", unit="years", pii=True, fill_rate=0.95)
    income_band = Feature(pl.String, "Yearly income.", unit="USD", pii=True, fill_rate=0.95)
    home_ownership = Feature(pl.String, "Owner or renter.", pii=True)
    household_size = Feature(pl.String, "Persons.", one_of=("1", "2", "3", "4", "5+"))
    has_kids = Feature(pl.Boolean, "Whether children live in it.")


@feature_view(HouseholdProfile, inputs=[DEMOGRAPHICS.latest()])
def household_profile(demographics: pl.LazyFrame) -> pl.LazyFrame:
    return demographics.select(
        "household_id",
        age_band="age",
        income_band="income",
        home_ownership="home_ownership",
        household_size="household_size",
        has_kids=pl.col("kids_count") != "0",
    )
