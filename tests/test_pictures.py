"""The small pictures of a column: well formed, and short enough to be shown without a click."""

from xml.etree import ElementTree as ET

import polars as pl
import pytest

from lockstep import Feature
from lockstep.picture import data_uri, histogram_svg

SHOWN_IN_PLACE = 1000
"""Characters of markdown that Dagster's UI shows in a row; longer ones need a click."""


@pytest.mark.parametrize(
    "values",
    [
        pl.Series("x", [(n * 7919 % 104729) * 1.2345e-7 - 6e-3 for n in range(5000)]),
        pl.Series("x", [5.0] * 9),
        pl.Series("x", [float("nan"), None, float("inf"), -0.0, 1e300]),
        pl.Series("x", ["plain", 'Zoë\n"[red]} \x1b[31m', "<&>", *map(str, range(40))]),
        pl.Series("x", [True, None, False]),
    ],
    ids=["many", "one value", "odd numbers", "hostile strings", "booleans"],
)
def test_a_picture_is_well_formed_and_shown_in_place(values: pl.Series) -> None:
    svg = histogram_svg(values, Feature(values.dtype, "Something."))

    assert svg is not None
    assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314 (our own picture)
    assert len(f"![histogram]({data_uri(svg)})") < SHOWN_IN_PLACE


@pytest.mark.parametrize("values", [pl.Series("x", [None], dtype=pl.Float64), pl.Series("x", [""])])
def test_there_is_no_picture_of_nothing_or_of_a_person(values: pl.Series) -> None:
    feature = Feature(values.dtype, "Something.", pii=values.dtype == pl.String)

    assert histogram_svg(values, feature) is None
