"""A sum of whole numbers that wraps around is told from every other number of a view."""

from dataclasses import replace

import polars as pl
import pytest

from lockstep import Feature, Features, FeatureView, Source, feature_view
from lockstep.overflow import overflows
from tests.scenario import START, USER

MOST = 2**62
WHOLE = {"user_id": pl.Int64, "wide": pl.Int64, "narrow": pl.Int32, "tag": pl.Int64}
SUMMED = Source(
    "summed",
    {**WHOLE, "at": pl.Datetime("us", "UTC")},
    event_time="at",
    unique_by=["tag"],
    start=START,
)
wide, narrow = pl.col("wide"), pl.col("narrow")
SUMS: dict[str, tuple[pl.Expr, pl.DataType, bool]] = {
    "64 bits": (wide.sum(), pl.Int64(), True),
    "32 bits, cast too late": (narrow.sum().cast(pl.Int64), pl.Int64(), True),
    "64 bits, cast to what it was": (wide.sum().cast(pl.Int64), pl.Int64(), True),
    "a share": (wide.sum() / wide.len(), pl.Float64(), True),
    "what was added before": (wide.cum_sum().last(), pl.Int64(), True),
    "some of the rows": (wide.filter(narrow > 0).sum(), pl.Int64(), True),
    "a comparison": (wide.sum() > 0, pl.Boolean(), True),
    "a float": (wide.cast(pl.Float64).sum(), pl.Float64(), False),
    "a decimal": (wide.cast(pl.Decimal(38, 0)).sum(), pl.Decimal(38, 0), False),
    "32 bits, cast in time": (narrow.cast(pl.Int64).sum(), pl.Int64(), False),
    "a mean": (wide.mean(), pl.Float64(), False),
    "a greatest value": (wide.max(), pl.Int64(), False),
    "numbers that name something": (pl.col("tag").n_unique().cast(pl.Int64), pl.Int64(), False),
}


def one_number(dtype: pl.DataType, expression: pl.Expr) -> FeatureView:
    class One(Features, entity=USER, owner="team:tests", ttl=None):
        """One number."""

        number = Feature(dtype, "A number.")

    @feature_view(One, inputs=[SUMMED.trailing(days=1)])
    def one(summed: pl.LazyFrame) -> pl.LazyFrame:
        return summed.group_by("user_id").agg(number=expression)

    return one


def computed(expression: pl.Expr, dtype: pl.DataType, rows: pl.DataFrame) -> list[str]:
    """Return the columns whose sums made a view wrong that has this one feature."""
    view, arguments = one_number(dtype, expression), {"summed": rows.lazy()}
    plan = view(**arguments)
    return [o.column for o in overflows(view, arguments, plan, plan.collect(engine="in-memory"))]


@pytest.mark.parametrize("story", list(SUMS))
def test_only_a_sum_that_left_its_type_is_called_wrapped(story: str) -> None:
    expression, dtype, wraps = SUMS[story]
    large = pl.DataFrame(
        {
            "user_id": [7, 7, 7, 8],
            "wide": [MOST, MOST, MOST, 1],
            "narrow": [2**30, 2**30, 2**30, 1],
            "tag": [2**63 - 1, 2**63 - 2, 2**63 - 3, 2**63 - 4],
        },
        schema=WHOLE,
    )
    small = large.with_columns(wide=pl.lit(5, pl.Int64), narrow=pl.lit(5, pl.Int32))

    found = computed(expression, dtype, large)

    assert wraps == bool(found)
    assert set(found) <= {"summed.wide", "summed.narrow"}
    assert [] == computed(expression, dtype, small)


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (None, ["summed.wide"]),
        (TypeError("whole numbers of 64 bits only"), []),
        (pl.exceptions.SchemaError("no join of these"), []),
    ],
)
def test_a_function_that_refuses_wider_numbers_is_not_judged_by_them(
    refusal: Exception | None, told: list[str]
) -> None:
    rows = pl.DataFrame({"user_id": [7, 7], "wide": [MOST, MOST], "tag": [1, 2]})
    others = pl.LazyFrame({"wide": [MOST], "other": [1]})

    def joined(summed: pl.LazyFrame) -> pl.LazyFrame:
        if refusal is not None and summed.collect_schema()["wide"] != pl.Int64:
            raise refusal
        found = summed.join(others, on="wide").group_by("user_id")
        return found.agg(number=pl.col("wide").sum())

    view = replace(one_number(pl.Int64(), wide), function=joined)
    arguments = {"summed": rows.lazy()}
    plan = view(**arguments)

    found = overflows(view, arguments, plan, plan.collect(engine="in-memory"))
    assert told == [overflow.column for overflow in found]
