"""What a kept training set says to the drift check of the days that come after it."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from lockstep.quality import Verdict
from lockstep.time import as_of
from lockstep.training.kept_sets import KeptSets
from tests.scenario import ZONE
from tests.tiny_project import CUSTOMERS, VIEW_DAYS, TinyProject

BEFORE, DAY = VIEW_DAYS[-2:]


@pytest.fixture
def taught(tiny: TinyProject) -> TinyProject:
    tiny.ingest()
    tiny.materialize("orders_1d", VIEW_DAYS[:-1])
    return tiny


def learn(project: TinyProject, name: str, rows: int = 1_500, feature: str = "orders") -> None:
    """Keep a training set about the day before the last one; a third of its rows match nobody."""
    customers = [*CUSTOMERS, "nobody", "no one"]
    spine = pl.DataFrame({"customer": [customers[n % 5] for n in range(rows)]})
    spine = spine.with_columns(at=pl.lit(as_of(BEFORE, ZONE)))
    project.store.training_set(spine, [f"orders_1d:{feature}"], timestamp="at", name=name)


def drift(project: TinyProject) -> Verdict:
    (outcome,) = project.materialize("orders_1d", [DAY])
    (found,) = [verdict for verdict in outcome.verdicts if verdict.check == "drift"]
    return found


def test_the_profile_of_a_kept_set_is_the_reference_for_drift(taught: TinyProject) -> None:
    learn(taught, "churn_2026_11", 2_000)

    found = drift(taught)

    assert "Stable against the training set churn_2026_11." == found.message
    assert found.passed
    assert found.numbers["psi:orders"] < 1.0  # the rows that match nobody do not count


def test_a_set_that_was_removed_or_is_small_is_no_reference(taught: TinyProject) -> None:
    lake = taught.store.lake
    learn(taught, "small", 1_500)
    assert {} == lake.training_reference("orders_1d")  # 900 of the rows have a row of the view
    learn(taught, "first", 2_000)
    learn(taught, "second", 3_000)
    assert "second" == lake.training_reference("orders_1d")["orders"].name

    KeptSets(lake).remove("second")
    assert "first" == lake.training_reference("orders_1d")["orders"].name
    KeptSets(lake).remove("first")

    assert {} == lake.training_reference("orders_1d")
    assert "earlier days" in drift(taught).message
    Path(lake.place.path("training_sets/small/manifest.json")).write_text("[]")
    assert {} == lake.training_reference("orders_1d")


def test_a_set_of_the_same_name_does_not_bring_a_removed_one_back(taught: TinyProject) -> None:
    lake, now = taught.store.lake, taught.store.now
    learn(taught, "one", 2_000)
    KeptSets(lake).remove("one")
    taught.store.now = lambda: now() + timedelta(hours=1)

    learn(taught, "one", 10)

    assert {} == lake.training_reference("orders_1d")


def test_the_profile_that_is_kept_has_no_values_of_what_identifies_people(
    own: TinyProject,
) -> None:
    at = pl.lit(as_of(BEFORE, ZONE) + timedelta(days=1))
    spine = pl.DataFrame({"customer": list(CUSTOMERS)}).with_columns(at=at)
    spine = pl.concat([spine] * 400)

    kept = own.store.training_set(spine, ["contact:email"], timestamp="at", name="mail")

    lake = own.store.lake
    assert "@example.com" in str(kept.frame["contact:email"].to_list())
    sets = KeptSets(lake)
    assert b"@example" not in (sets.profile(sets.manifest("mail")) or b"")
    files = [*Path(lake.place.path("training_profiles")).rglob("*.parquet")]
    assert files
    assert not [file for file in files if "@example" in str(pl.read_parquet(file).rows())]
    found = kept.profile["contact:email"]
    assert 1_200 == found.rows
    assert (0.0, {}, ()) == (found.unmatched_share, found.values.counts, tuple(found.top))
    assert {} == lake.training_reference("contact")
    sets.remove("mail")
