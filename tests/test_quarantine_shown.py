"""What `lockstep quarantine show` tells of a frame: its profile beside what was certified."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from math import isnan
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lockstep import Feature, Features, FeatureView, feature_view
from lockstep.beside import Beside, beside, compared
from lockstep.cli import app
from lockstep.profile import ColumnProfile, profile
from lockstep.quarantine import Quarantine
from tests.scenario import EVENTS, START, USER, World, catalog_of, event, instant, world

DAYS = [START + timedelta(days=n) for n in range(9)]
BAD = DAYS[-1]
USERS = range(1, 41)


class Bought(Features, entity=USER, owner="team:tests", ttl=timedelta(days=3)):
    """What somebody bought on one day."""

    steady = Feature(pl.Float64, "The same every day.", max_psi=0.2)
    amount = Feature(pl.Float64, "Spend.", at_least=0, fill_rate=0.9, max_psi=0.2)
    events = Feature(pl.Int64, "Events.")
    name = Feature(pl.String, "What somebody is called.", pii=True)
    kind = Feature(pl.String, "What was done.", max_psi=0.2)


@feature_view(Bought, inputs=[EVENTS.trailing(days=1)])
def bought(events: pl.LazyFrame) -> pl.LazyFrame:
    key = pl.col("user_id")
    return events.group_by("user_id").agg(
        steady=key.first().cast(pl.Float64),
        amount=pl.col("amount").sum(),
        events=pl.len().cast(pl.Int64),
        name=pl.lit("Zora ") + key.first().cast(pl.String),
        kind=pl.col("kind").first(),
    )


def bought_view() -> FeatureView:
    return FeatureView("bought", bought.contract, bought.inputs, bought.function)


def purchases(day: date, *, bad: bool = False) -> list[dict[str, Any]]:
    """Return an event per user; on a bad day half of them spend a negative amount elsewhere."""
    found = []
    for user in USERS:
        spoiled = bad and user % 2
        made = event(f"{day}/{user}", user, day, -100.0 - user if spoiled else float(user))
        found.append(made | ({"kind": "return"} if spoiled else {}))
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Eight days that are certified, and one that is in quarantine."""
    opened = world(tmp_path_factory.mktemp("world"))
    opened.store.__dict__["catalog"] = catalog_of([bought_view()])
    opened.clock.now = instant(BAD + timedelta(days=1), 3)
    for day in DAYS:
        opened.land("events", purchases(day, bad=day == BAD), f"{day}.parquet")
    opened.ingest(DAYS[0], BAD)
    opened.build(opened.store.views["bought"], DAYS[0], BAD)
    return opened


def found_of(made: World) -> dict[str, Beside]:
    (item,) = Quarantine(made.store.lake.quarantine).items("bought")
    return {one.feature: one for one in beside(made.store.lake, made.store.views["bought"], item)}


def lockstep(made: World, patch: pytest.MonkeyPatch, *arguments: str) -> str:
    patch.setattr("lockstep.store.open_store", lambda: made.store)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_breaks_a_promise_comes_first_then_what_moved_furthest(made: World) -> None:
    found = found_of(made)

    assert ["amount", "kind"] == list(found)[:2]
    first, second, *others = found["amount"].differs
    assert "least value -139 below the promised 0" == first
    assert second.startswith("PSI ")
    assert second.endswith("(limit 0.2) against 8 earlier days")
    assert others[0].startswith("mean -49.5, was 20.5")
    assert "(limit 0.2) against 8 earlier days" in found["kind"].differs[0]
    assert [] == [*found["steady"].differs, *found["events"].differs, *found["name"].differs]


def test_a_feature_stands_beside_the_last_certified_day_and_the_reference(made: World) -> None:
    sides = found_of(made)["amount"].sides

    labels = ["quarantined", f"{DAYS[-2]}, revision 1", "8 earlier days"]
    assert labels == [side.of for side in sides]
    assert [(40, 1.0), (40, 1.0), (40, 1.0)] == [(side.rows, side.fill_rate) for side in sides]
    assert [(-139, 40), (1, 40), (1, 40)] == [(side.minimum, side.maximum) for side in sides]
    assert [-49.5, 20.5, 20.5] == [side.mean for side in sides]
    assert [40, 40, 40] == [side.distinct for side in sides]
    assert -100 > sides[0].quantiles["p25"] > sides[0].minimum
    assert {"buy": 0.5, "return": 0.5} == found_of(made)["kind"].sides[0].top


def test_a_fix_stands_beside_the_certified_revision_of_its_own_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = world(tmp_path)
    opened.store.__dict__["catalog"] = catalog_of([bought_view()])
    opened.clock.now = instant(START + timedelta(days=1), 3)
    for bad in (False, True):
        opened.land("events", purchases(START, bad=bad), "day.parquet")
        opened.ingest(START, START)
        opened.build(opened.store.views["bought"], START)

    shown = lockstep(opened, monkeypatch, "quarantine", "show", "bought", str(START))

    labels = [side.of for side in found_of(opened)["amount"].sides]
    assert ["quarantined", f"{START}, revision 1"] == labels
    assert "There is no reference yet" in shown


def test_no_value_that_identifies_people_is_shown_in_either_form(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [
        lockstep(made, monkeypatch, "quarantine", "show", "bought", str(BAD), *form)
        for form in ((), ("--json",))
    ]
    asked = lockstep(made, monkeypatch, "quarantine", "show", "bought", str(BAD), "--show-pii")

    assert ["Zora" in text for text in texts] == [False, False]
    assert "Zora 1" in asked
    assert texts[0].count("•••") >= 10


@pytest.mark.parametrize("renamed", [True, False])
def test_a_column_that_the_contract_no_longer_names_is_hidden_too(
    made: World, monkeypatch: pytest.MonkeyPatch, *, renamed: bool
) -> None:
    names = {"name": "full_name"} if renamed else {}
    features = {
        names.get(name, name): feature
        for name, feature in bought.contract.features.items()
        if renamed or name != "name"
    }
    contract = replace(bought.contract, features=features)
    later = FeatureView("bought", contract, bought.inputs, bought.function)
    monkeypatch.setitem(made.store.__dict__, "catalog", catalog_of([later]))

    show = ("quarantine", "show", "bought", str(BAD))
    texts = [lockstep(made, monkeypatch, *show, *form) for form in ((), ("--json",))]
    asked = lockstep(made, monkeypatch, *show, "--show-pii")

    assert ["Zora" in text for text in texts] == [False, False]
    assert "Zora 1" in asked
    head = json.loads(texts[1])["head"]
    assert {"•••"} == {row["name"] for row in head}
    assert "•••" not in {value for row in head for key, value in row.items() if key != "name"}


def test_the_page_says_why_what_differs_and_how_to_go_on(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (item,) = Quarantine(made.store.lake.quarantine).items("bought")

    shown = lockstep(made, monkeypatch, "quarantine", "show", "bought", item.item)

    order = ["reason", "what differs", "Profiles side by side", "most frequent values"]
    order += ["amount against 8 earlier days", "kind against 8 earlier days", "To certify it:"]
    places = [shown.index(text) for text in order]
    assert sorted(places) == places
    assert "40 entities: 0 new, 0 gone since the day before." in shown


def test_scripts_get_the_same_numbers(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads(
        lockstep(made, monkeypatch, "quarantine", "show", "bought", str(BAD), "--json")
    )

    first = told["beside"][0]
    assert ("amount", 1, False) == (first["feature"], first["broken"], first["pii"])
    assert ["quarantined", f"{DAYS[-2]}, revision 1", "8 earlier days"] == [
        side["of"] for side in first["sides"]
    ]
    assert first["drift"]["psi"] > 0.2
    assert 1 == pytest.approx(sum(one["actual"] for one in first["drift"]["bins"]))
    assert 10 == len(told["head"])
    assert "profile" not in told["details"]


def test_an_item_without_a_recorded_profile_is_profiled_from_its_rows(made: World) -> None:
    (item,) = Quarantine(made.store.lake.quarantine).items("bought")
    old = {key: value for key, value in item.details.items() if key != "profile"}
    view = made.store.views["bought"]

    found = beside(made.store.lake, view, type(item)(**{**vars(item), "details": old}))

    assert [one.feature for one in found] == list(found_of(made))
    assert found[0].sides == found_of(made)["amount"].sides


numbers = st.floats(-1e6, 1e6, width=32) | st.sampled_from([None, float("nan")])


@settings(max_examples=60)
@given(st.lists(st.lists(numbers, min_size=1, max_size=30), min_size=7, max_size=10))
def test_the_reference_side_is_that_of_all_its_rows_together(
    days: list[list[float | None]],
) -> None:
    known = {START + timedelta(days=at): {"steady": profiled(rows)} for at, rows in enumerate(days)}
    day = START + timedelta(days=len(days))

    found = compared(bought.contract, "steady", profiled([1.0]), day, known, {}, None, "", {})

    rows = [value for one in days for value in one]
    finite = [value for value in rows if value is not None and not isnan(value)]
    (_, side) = found.sides
    assert side.fill_rate == pytest.approx(len(finite) / len(rows))
    assert side.minimum == min(finite, default=None)
    assert side.maximum == max(finite, default=None)
    assert side.mean == (pytest.approx(sum(finite) / len(finite), abs=1e-6) if finite else None)
    for name, value in side.quantiles.items():
        share = int(name[1:]) / 100
        assert ranks(value, finite)[0] - 0.1 <= share <= ranks(value, finite)[1] + 0.1


def profiled(rows: Sequence[float | None]) -> ColumnProfile:
    frame = pl.DataFrame({"steady": rows}, schema={"steady": pl.Float64})
    others = {n: d for n, d in bought.contract.feature_types.items() if n != "steady"}
    filled = frame.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in others.items())
    return profile(filled, bought.contract)["steady"]


def ranks(value: float, among: Sequence[float]) -> tuple[float, float]:
    """Return the share of values below, and of those not above."""
    below = sum(one < value for one in among) / len(among)
    return below, sum(one <= value for one in among) / len(among)
