"""The small pictures of a column: well formed, and short enough to be shown without a click."""

import random
from xml.etree import ElementTree as ET

import polars as pl
import pytest

from lockstep import Feature
from lockstep.drift import Bin
from lockstep.picture import bins_svg, data_uri, histogram_svg

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


def test_the_bins_of_any_feature_are_drawn_in_pairs_and_shown_in_place() -> None:
    chance = random.Random(7)
    for count in (1, 2, 5, 10, 11, 12, 53):
        labels = [f'<value "{n}">\x1b&' for n in range(count - 1)] + ["missing"]
        bins = [Bin(label, chance.random(), chance.random(), 0.1) for label in labels]

        svg = bins_svg(bins)

        assert svg is not None
        expected, actual, words = ET.fromstring(svg)  # noqa: S314 (our own picture)
        drawn = min(count, 11)
        assert [drawn, drawn] == [part.get("d", "").count("M") for part in (expected, actual)]
        assert words[0].text == labels[0][:12].replace("\x1b", "·")
        picture = f"![grey: the reference, blue: this day]({data_uri(svg)})"
        assert len(picture) < SHOWN_IN_PLACE


def test_a_bar_is_as_high_as_its_share_of_the_tallest() -> None:
    bins = [Bin("≤ 1", 0.5, 0.25, 0.0), Bin("> 1", 0.5, 0.75, 0.0), Bin("missing", 0.0, 0.0, 0.0)]

    svg = bins_svg(bins)

    assert svg is not None
    expected, actual, words = ET.fromstring(svg)  # noqa: S314 (our own picture)
    assert ["M0 48v-32h95V48M96 48v-32h95V48"] == [expected.get("d")]
    assert ["M24 48v-16h47V48M120 48v-48h47V48"] == [actual.get("d")]
    assert ["≤ 1", "> 1"] == [word.text for word in words]


def test_there_are_no_bars_without_bins() -> None:
    assert bins_svg([]) is None
    assert bins_svg([Bin("missing", 0.0, 0.0, 0.0)]) is None
