"""The reference project's views, each on a few rows worked out by hand."""

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from feature_assets import shopping_hours as shopping_hours_module
from feature_assets.category_mix import category_mix
from feature_assets.feature_sets import CHURN_V1
from feature_assets.household_profile import household_profile
from feature_assets.product_demand import product_demand
from feature_assets.promotions import promotions
from feature_assets.recency import recency
from feature_assets.shopping_hours import shopping_hours
from feature_assets.sources import CAMPAIGN_MAILINGS, COUPON_REDEMPTIONS, DEMOGRAPHICS, TRANSACTIONS
from feature_assets.spend_trend import spend_trend
from feature_assets.txn_7d import txn_7d
from feature_assets.txn_30d import txn_30d
from feature_assets.txn_90d import txn_90d
from lockstep.schema import Contract
from lockstep.view import FeatureView


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def line(
    household: int, at: str, basket: int, product: int, value: float, **more: Any
) -> dict[str, Any]:
    """One line of a basket."""
    plain = {"quantity": 1, "retail_disc": 0.0, "coupon_disc": 0.0, "coupon_match_disc": 0.0}
    return {
        "event_time": utc(at),
        "household_id": household,
        "store_id": 1,
        "basket_id": basket,
        "product_id": product,
        "sales_value": value,
        **plain,
        **more,
    }


LINES = pl.LazyFrame(
    [
        # Saturday 23:30 in New York, though already Sunday in UTC.
        line(1, "2026-11-08T04:30:00", 100, 7, 4.0, retail_disc=1.0),
        line(1, "2026-11-08T04:30:00", 100, 8, 6.0),
        # Monday noon.
        line(1, "2026-11-09T17:00:00", 101, 7, 10.0, store_id=2, coupon_disc=5.0),
        # Monday 17:00, a basket that was free.
        line(2, "2026-11-09T22:00:00", 200, 9, 0.0, quantity=0),
    ],
    schema=TRANSACTIONS.columns,
)


def outcome(view: FeatureView, frame: pl.LazyFrame) -> pl.DataFrame:
    """Collect a view's result in key order with the promised columns and types."""
    contract: Contract = view.contract
    found = frame.collect().sort(contract.keys)
    assert {**contract.entity.key_types, **contract.feature_types} == dict(found.schema)
    return found.select(*contract.keys, *contract.features)


def expected(view: FeatureView, *rows: tuple[Any, ...]) -> pl.DataFrame:
    types = {**view.contract.entity.key_types, **view.contract.feature_types}
    return pl.DataFrame(list(rows), schema=types, orient="row")


def test_txn_7d_sums_lines_and_counts_baskets() -> None:
    assert_frame_equal(
        outcome(txn_7d, txn_7d(LINES)), expected(txn_7d, (1, 20.0, 2, 10.0), (2, 0.0, 1, 0.0))
    )


def test_txn_30d_counts_local_days_and_relates_discounts_to_spend_before_them() -> None:
    assert_frame_equal(
        outcome(txn_30d, txn_30d(LINES)),
        expected(txn_30d, (1, 20.0, 2, 2, 6 / 26), (2, 0.0, 1, 1, None)),
    )


def test_txn_90d_counts_stores_and_products() -> None:
    assert_frame_equal(
        outcome(txn_90d, txn_90d(LINES)), expected(txn_90d, (1, 20.0, 2, 2, 2), (2, 0.0, 1, 1, 1))
    )


def test_recency_is_elapsed_time_to_the_end_of_the_day() -> None:
    as_of = utc("2026-11-10T05:00:00")

    assert_frame_equal(
        outcome(recency, recency(LINES, as_of=as_of)),
        expected(recency, (1, 0.5, 36.5 / 24), (2, 7 / 24, None)),
    )


def test_category_mix_takes_unknown_products_as_no_department() -> None:
    products = pl.LazyFrame(
        {"product_id": [7, 8], "department": ["GROCERY", "DELI"], "brand": ["Private", "National"]}
    )

    assert_frame_equal(
        outcome(category_mix, category_mix(LINES, products)),
        expected(category_mix, (1, 14 / 20, 14 / 20, 2, "GROCERY"), (2, None, None, 0, None)),
    )


def test_promotions_counts_mailed_and_used() -> None:
    mailed = pl.LazyFrame(
        [(utc("2026-11-01T04:00:00"), 26, 1, "Type A"), (utc("2026-11-01T04:00:00"), 27, 1, "B")],
        schema={"event_time": pl.Datetime("us", "UTC"), "campaign_id": pl.Int64}
        | {"household_id": pl.Int64, "campaign_type": pl.String},
        orient="row",
    )
    used = pl.LazyFrame(
        {"household_id": [1, 1, 3], "coupon_upc": [5, 6, 5], "campaign_id": [26, 26, 26]}
    )

    assert set(mailed.collect_schema()) <= CAMPAIGN_MAILINGS.columns.keys()
    assert set(used.collect_schema()) <= COUPON_REDEMPTIONS.columns.keys()
    assert_frame_equal(
        outcome(promotions, promotions(mailed, used)),
        expected(promotions, (1, 2, 2, 1), (3, 0, 1, 1)),
    )


HOURS = ((1, (23 + 12) / 2, 0.5, 0.5), (2, 17.0, 1.0, 0.0))


def test_shopping_hours_reads_the_clock_on_the_wall() -> None:
    assert_frame_equal(
        outcome(shopping_hours, shopping_hours(LINES)), expected(shopping_hours, *HOURS)
    )


def test_shopping_hours_is_wrong_when_the_zone_conversion_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shopping_hours_module, "local", pl.col)

    found = outcome(shopping_hours, shopping_hours(LINES))

    assert list(HOURS) != found.rows()
    assert [(1, (4 + 17) / 2, 0.5, 0.5), (2, 22.0, 1.0, 0.0)] == found.rows()


def test_household_profile_keeps_what_was_not_told_as_null() -> None:
    told = {"household_id": 1, "age": "65+", "income": "35-49K", "kids_count": "0"}
    rows = [
        {**told, "home_ownership": "Homeowner", "household_size": "2"},
        {
            **told,
            "household_id": 2,
            "home_ownership": None,
            "household_size": "5+",
            "kids_count": "3+",
        },
    ]
    frame = pl.LazyFrame(rows, schema=DEMOGRAPHICS.columns)

    assert_frame_equal(
        outcome(household_profile, household_profile(frame)),
        expected(
            household_profile,
            (1, "65+", "35-49K", "Homeowner", "2", False),
            (2, "65+", "35-49K", None, "5+", True),
        ),
    )


def test_product_demand_counts_buyers_not_units() -> None:
    assert_frame_equal(
        outcome(product_demand, product_demand(LINES)),
        expected(product_demand, (7, 14.0, 2, 1), (8, 6.0, 1, 1), (9, 0.0, 1, 1)),
    )


def test_spend_trend_relates_the_week_to_the_month() -> None:
    week = pl.LazyFrame({"household_id": [1], "sum_amt_7d": [70.0], "count_7d": [5]})
    month = pl.LazyFrame(
        {"household_id": [1, 2, 3], "sum_amt_30d": [150.0, 60.0, 0.0], "count_30d": [15, 30, 0]}
    )

    assert_frame_equal(
        outcome(spend_trend, spend_trend(week, month)),
        expected(spend_trend, (1, 2.0, 1.5), (2, 0.0, -7.0), (3, None, 0.0)),
    )


def test_churn_v1_names_ten_features_of_eight_views() -> None:
    assert 10 == len(CHURN_V1.names)
    assert 8 == len({name.partition(":")[0] for name in CHURN_V1.names})


def test_sources_start_on_one_day() -> None:
    assert {date(2026, 1, 1)} == {
        source.start for source in (TRANSACTIONS, CAMPAIGN_MAILINGS, COUPON_REDEMPTIONS)
    }
