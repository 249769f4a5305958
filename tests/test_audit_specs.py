"""What Dagster is told of the audit: a check each, what it compares with, and whether it blocks."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from checks.audits import audit_specs
from lockstep import Feature, Features, FeatureView, feature_view
from lockstep.soda_file import SodaFile
from tests.scenario import EVENTS, USER

DAYS = dg.DailyPartitionsDefinition("2026-03-01")
ALWAYS = ["keys", "contract", "completeness", "cardinality", "drift"]


def specs(feature: Feature | None = None, **said: Any) -> dict[str, dg.AssetCheckSpec]:
    return {spec.name: spec for spec in audit_specs(view(feature, **said), DAYS)}


def view(feature: Feature | None = None, **said: Any) -> FeatureView:
    body = {"__doc__": "What somebody did.", "n": feature or Feature(pl.Int64, "A number.")}
    promise = {"entity": USER, "owner": "team:tests", **said}
    made = type(Features)("Did", (Features,), body, **promise)
    assert issubclass(made, Features)

    @feature_view(made, inputs=[EVENTS.trailing(days=1)])
    def did(events: pl.LazyFrame) -> pl.LazyFrame:
        return events

    return did


def test_a_view_has_five_checks_and_says_which_of_them_block() -> None:
    found = specs()

    assert ALWAYS == list(found)
    assert ["drift"] == [name for name, spec in found.items() if not spec.blocking]
    assert {"block": 4, "warn": 1} == {
        word: [spec.metadata["severity"] for spec in found.values()].count(word)
        for word in ("block", "warn")
    }


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("auto", "the newest kept training set, else of 28 calm days before"),
        ("training", "the newest kept training set"),
        ("trailing", "28 calm days before"),
        ("weekday", "the same weekday of the weeks before"),
    ],
)
def test_drift_names_its_reference_and_its_limits(reference: str, words: str) -> None:
    drift = specs(Feature(pl.Int64, "A number.", max_psi=0.2), reference=reference)["drift"]

    expected = f"The distribution is that of {words} (PSI, KL). Warns, never blocks."
    assert expected == drift.description
    assert {"severity", "owner", "reference", "limit:psi:n"} == drift.metadata.keys()
    assert 0.2 == drift.metadata["limit:psi:n"]


def test_drift_that_blocks_names_the_features() -> None:
    strict = specs(Feature(pl.Int64, "A number.", max_kl=0.1, drift="block"))["drift"]

    assert strict.blocking
    assert str(strict.description).endswith("Blocks for n; else warns.")


def test_cardinality_names_its_limits() -> None:
    usual = specs()["cardinality"]
    strict = specs(max_rows=1000, max_growth=2.5, max_shrink=None, max_new_entities=0.5)

    assert (
        "At most 10 times the rows of the days before. Warns below 1/3 of the usual rows. New and "
        "gone entities are counted."
    ) == usual.description
    assert (
        "At most 1,000 rows. At most 2.5 times the rows of the days before. Warns above 50.0% of "
        "new entities."
    ) == strict["cardinality"].description


def test_a_soda_file_is_a_check_of_its_own_and_is_shown() -> None:
    text = "checks:\n  - row_count: {threshold: {must_be: 1}}\n"
    file = SodaFile(Path("did.soda.yml"), text, "{}", ("row_count",))
    plain = view()
    known = FeatureView("did", plain.contract, plain.inputs, plain.function, soda=file)

    *_, soda = audit_specs(known, DAYS)

    assert "soda" == soda.name
    assert soda.blocking
    assert "What did.soda.yml says (Soda): row_count." == soda.description
    shown = soda.metadata["file"]
    assert isinstance(shown, dg.MarkdownMetadataValue)
    assert text in str(shown.value)
