"""What lands: events by day, and slowly changing tables."""

from datetime import date

import polars as pl

from lockstep import Snapshot, Source

START = date(2026, 1, 1)

TRANSACTIONS = Source(
    "transactions",
    {
        "household_id": pl.Int64,
        "store_id": pl.Int64,
        "basket_id": pl.Int64,
        "product_id": pl.Int64,
        "quantity": pl.Int64,
        "sales_value": pl.Float64,
        "retail_disc": pl.Float64,
        "coupon_disc": pl.Float64,
        "coupon_match_disc": pl.Float64,
        "transaction_timestamp": pl.Datetime("us"),
    },
    event_time="transaction_timestamp",
    time_zone="UTC",
    unique_by=["household_id", "basket_id", "product_id"],
    start=START,
    description="One line of a basket: a product that a household bought, with its discounts.",
    owner="team:point-of-sale",
)

COUPON_REDEMPTIONS = Source(
    "coupon_redemptions",
    {
        "household_id": pl.Int64,
        "coupon_upc": pl.Int64,
        "campaign_id": pl.Int64,
        "redemption_date": pl.Datetime("us"),
    },
    event_time="redemption_date",
    time_zone="America/New_York",
    unique_by=["household_id", "coupon_upc", "campaign_id", "redemption_date"],
    start=START,
    may_be_empty=True,
    description="A coupon that a household used; known by its date only.",
    owner="team:point-of-sale",
)

CAMPAIGN_MAILINGS = Source(
    "campaign_mailings",
    {
        "campaign_id": pl.Int64,
        "household_id": pl.Int64,
        "campaign_type": pl.String,
        "start_date": pl.Datetime("us"),
        "end_date": pl.Date,
    },
    event_time="start_date",
    time_zone="America/New_York",
    unique_by=["campaign_id", "household_id"],
    start=START,
    may_be_empty=True,
    description="A campaign that a household was mailed, on the day on which it starts.",
    owner="team:marketing",
)

SERVED_FEATURES = Source(
    "served_features",
    {
        "served_at": pl.Datetime("us", "UTC"),
        "trace_id": pl.String,
        "feature_set": pl.String,
        "view": pl.String,
        "feature": pl.String,
        "entity": pl.String,
        "key": pl.String,
        "status": pl.String,
        "number": pl.Float64,
        "text": pl.String,
        "event_timestamp": pl.Datetime("us", "UTC"),
    },
    event_time="served_at",
    unique_by=["served_at", "trace_id", "view", "feature", "key"],
    start=START,
    may_be_empty=True,
    description="A cell that the feature service answered about an entity that its log follows.",
    owner="team:growth",
)

DEMOGRAPHICS = Snapshot(
    "demographics",
    {
        "household_id": pl.Int64,
        "age": pl.String,
        "income": pl.String,
        "home_ownership": pl.String,
        "marital_status": pl.String,
        "household_size": pl.String,
        "household_comp": pl.String,
        "kids_count": pl.String,
    },
    key="household_id",
    valid_from="always",
    description="What 801 of the households told about themselves.",
    owner="team:loyalty",
)

PRODUCTS = Snapshot(
    "products",
    {
        "product_id": pl.Int64,
        "manufacturer_id": pl.Int64,
        "department": pl.String,
        "brand": pl.String,
        "product_category": pl.String,
        "product_type": pl.String,
        "package_size": pl.String,
    },
    key="product_id",
    valid_from="always",
    description="The product catalogue.",
    owner="team:merchandising",
)
