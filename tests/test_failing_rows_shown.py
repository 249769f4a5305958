"""Where the rows that failed a check are seen: in `quarantine show`, in a preview, in Dagster."""

import json
from datetime import timedelta

import dagster as dg
import polars as pl
import pytest
from typer.testing import CliRunner

from feature_assets._checked import ViewDays
from feature_assets._metadata import MASK
from lockstep import Feature, Features, FeatureView, feature_view
from lockstep.cli import app
from lockstep.outcome import DayOutcome
from lockstep.quarantine import Quarantine
from tests.scenario import EVENTS, START, USER, World, catalog_of, event, instant, world

USERS = range(1, 101)


class Bought(Features, entity=USER, owner="team:tests", ttl=timedelta(days=3)):
    """What somebody bought on one day."""

    amount = Feature(pl.Float64, "Spend.", fill_rate=0.99)
    name = Feature(pl.String, "What somebody is called.", pii=True)
    alias = Feature(pl.String, "What somebody is called, too.", pii=True, nullable=False)


def bought_view() -> FeatureView:
    """Return a view that fails three checks, each for the last users, none for the first."""

    @feature_view(Bought, inputs=[EVENTS.trailing(days=1)])
    def bought(events: pl.LazyFrame) -> pl.LazyFrame:
        user = pl.col("user_id")
        repeated = pl.when(user == 96).then(95).when(user == 100).then(None).otherwise(user)
        called = pl.lit("Zora ") + user.cast(pl.String)
        return events.select(
            user_id=repeated,
            amount=pl.when(user <= 97).then(user.cast(pl.Float64)).otherwise(float("nan")),
            name=called,
            alias=pl.when(user != 93).then(called),
        )

    return bought


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, DayOutcome]:
    """One day in quarantine."""
    opened = world(tmp_path_factory.mktemp("world"))
    opened.store.__dict__["catalog"] = catalog_of([bought_view()])
    opened.clock.now = instant(START + timedelta(days=1), 3)
    opened.land(
        "events", [event(f"{user}", user, START, float(user)) for user in USERS], "day.parquet"
    )
    opened.ingest(START, START)
    (outcome,) = opened.build(opened.store.views["bought"], START)
    return opened, outcome


Failed = tuple[World, DayOutcome]


def lockstep(failed: Failed, patch: pytest.MonkeyPatch, *arguments: str, status: int = 0) -> str:
    patch.setattr("lockstep.store.open_store", lambda: failed[0].store)
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code == status, result.output
    return result.stdout


def test_the_outcome_has_the_rows_of_each_check_that_failed_for_some(failed: Failed) -> None:
    found = failed[1].failing_rows

    assert ["keys", "contract", "completeness"] == list(found)
    # The first row of each rule, then the second; rows stand in the order of their keys.
    assert [95, None, 95] == found["keys"]["user_id"].to_list()
    assert [93, None] == found["contract"]["user_id"].to_list()
    assert [98, 99, None] == found["completeness"]["user_id"].to_list()


def test_the_page_of_an_item_shows_them_per_check_masked(
    failed: Failed, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = ("quarantine", "show", "bought", str(START))

    text, asked = (lockstep(failed, monkeypatch, *show, *more) for more in ((), ("--show-pii",)))

    for title in (
        "3 of 3 that fail the check keys, of 100 rows",
        "2 of 2 that fail the check contract, of 100 rows",
        "3 of 3 that fail the check completeness, of 100 rows",
    ):
        assert title in text
    assert "Zora" not in text
    assert ["Zora 95" in asked, "Zora 96" in asked, "Zora 98" in asked] == [True] * 3
    assert "Zora 1\n" not in asked  # a sound row is no example
    assert "alias: required (1 row)" in text


def test_scripts_get_the_same_rows(failed: Failed, monkeypatch: pytest.MonkeyPatch) -> None:
    show = ("quarantine", "show", "bought", str(START), "--json")

    told = json.loads(lockstep(failed, monkeypatch, *show, "--rows", "2"))

    rows = told["failing_rows"]
    assert {"keys": 2, "contract": 2, "completeness": 2} == {k: len(v) for k, v in rows.items()}
    assert [98, 99] == [row["user_id"] for row in rows["completeness"]]
    assert {MASK} == {row["name"] for each in rows.values() for row in each}
    assert [1, 2] == [row["user_id"] for row in told["head"]]


def test_an_item_that_failed_as_a_whole_shows_its_first_rows(
    failed: Failed, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarantine = Quarantine(failed[0].store.lake.quarantine)
    (item,) = quarantine.items("bought")
    verdicts = [{**v, "passed": v["check"] != "drift"} for v in item.details["verdicts"]]
    monkeypatch.setitem(item.details, "verdicts", verdicts)
    monkeypatch.setattr(Quarantine, "find", lambda *_: item)

    text = lockstep(failed, monkeypatch, "quarantine", "show", "bought", str(START))

    assert "10 of 100 rows" in text
    assert "that fail the check" not in text


def test_a_preview_shows_them_too(failed: Failed, monkeypatch: pytest.MonkeyPatch) -> None:
    text = lockstep(failed, monkeypatch, "preview", "bought", "--day", str(START), status=1)

    for check in ("keys", "contract", "completeness"):
        assert f"Rows that fail the check {check}" in text
    assert "Zora" not in text


def test_dagster_shows_them_per_check_with_keys_and_people_masked(failed: Failed) -> None:
    opened, outcome = failed
    days = ViewDays(opened.store.views["bought"], opened.store, frozenset())

    tables = {v.check: days.check(outcome, v).get("failing_rows") for v in outcome.verdicts}

    shown = {check: rows(table) for check, table in tables.items() if table is not None}
    assert ["keys", "contract", "completeness"] == list(shown)
    assert [MASK, "", MASK] == [row["user_id"] for row in shown["keys"]]  # a null key is seen
    assert ["", MASK] == [row["alias"] for row in shown["contract"]]
    assert ["nan"] * 3 == [row["amount"] for row in shown["completeness"]]
    assert "Zora" not in str(tables)


def rows(table: dg.TableMetadataValue) -> list[dict[str, object]]:
    return [dict(record.data) for record in table.records]
