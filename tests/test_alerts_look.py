"""Which problems a look finds in a real lake and a real Redis, and what their texts leave out."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis

from lockstep.alerts.deliver import Ticked
from lockstep.alerts.lake import look_at_lake
from lockstep.alerts.look import look, told
from lockstep.alerts.problem import KINDS, Problem
from lockstep.alerts.runbooks import index
from lockstep.alerts.state import States
from lockstep.catalog import discover
from lockstep.quarantine import Quarantine
from lockstep.release import release_frame
from lockstep.stores.files import open_place
from tests.source_tree import ROOT
from tests.tiny_project import CUSTOMERS, DAYS, VIEW_DAYS, TinyProject, orders

PAGES = ROOT / "docs" / "runbooks"


def found(project: TinyProject) -> dict[str, Problem]:
    """Return key → problem as they are seen now."""
    return {each.key: each for each in look(project.store).problems}


def kinds(project: TinyProject) -> list[str]:
    return sorted(each.kind for each in look(project.store).problems)


def build(project: TinyProject, name: str = "spend_2d") -> None:
    """Build and push one view, which is quicker than all of them."""
    project.ingest()
    project.materialize(name)
    project.push(name)


def tick(project: TinyProject) -> Ticked:
    return told(project.store, look(project.store), project.store.now())


@pytest.fixture
def later(built: TinyProject, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """The built project a week after its newest day."""
    at = built.store.now() + timedelta(days=7)
    monkeypatch.setattr(built.store, "now", lambda: at)
    return built


def test_a_platform_that_is_well_has_no_problem(built: TinyProject) -> None:
    seen = look(built.store)

    assert [] == list(seen.problems)
    assert {} == seen.unknown


def test_nothing_was_built_so_nothing_is_wrong(tiny: TinyProject) -> None:
    assert {} == found(tiny)


def test_a_view_that_grows_old_is_stale(later: TinyProject) -> None:
    old = found(later)["stale:spend_2d"]

    assert ("page", "team:shop", "docs/runbooks/stale.md") == (old.severity, old.owner, old.runbook)
    assert "over its limit" in old.sentence
    assert old.since < later.store.now()
    assert "lockstep materialize orders spend_2d --days 2025-03-12..2025-03-18" == old.fix


def test_a_day_in_quarantine_is_one_problem_until_it_is_released(tiny: TinyProject) -> None:
    build(tiny)
    tiny.land_orders("bad", orders(DAYS[-1], [-500, -600], first_id=900))
    tiny.ingest([DAYS[-1]])
    for _ in range(2):
        tiny.materialize("spend_2d", [DAYS[-1]])

    (bad,) = [each for each in found(tiny).values() if each.kind == "quarantined"]
    assert (f"quarantined:spend_2d:{DAYS[-1]}", f"spend_2d {DAYS[-1]}") == (bad.key, bad.subject)
    assert bad.fix.startswith(f"lockstep quarantine show spend_2d {DAYS[-1]}")
    assert "at least 0 (" in bad.sentence

    store = tiny.store
    (item,) = Quarantine(store.lake.quarantine).open_items()
    view = store.catalog.view("spend_2d")
    release_frame(store.lake, view, item, "a refund", store.reader(), now=store.now)
    assert "quarantined" not in kinds(tiny)


def test_a_refused_file_is_held_and_its_days_are_not_late_too(tiny: TinyProject) -> None:
    build(tiny)
    tiny.land_orders("2025-03-05_again", orders(DAYS[2], [1.0]).rename({"amount": "sum"}))
    tiny.ingest([DAYS[2]])

    (held,) = found(tiny).values()
    assert ("held_file", "team:shop") == (held.kind, held.owner)
    assert "breaks its schema: " in held.sentence
    assert "column 'amount' is missing" in held.sentence


def test_files_for_a_committed_day_that_nobody_ingests_are_late(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tiny)
    tiny.land_orders("late", orders(DAYS[4], [7.0], first_id=7_000))
    assert {} == found(tiny)

    # A file's age is that of the disk, so "an hour later" is counted from there.
    path = Path(tiny.store.project.landing) / "orders" / "late.parquet"
    at = datetime.fromtimestamp(path.stat().st_mtime, UTC) + timedelta(hours=2)
    seen = {
        each.key: each
        for each in look_at_lake(tiny.store.lake, tiny.store.catalog, at, "o").problems
    }
    late = seen["late_data:orders"]
    assert f"1 committed days of orders ({DAYS[4]})" in late.sentence
    assert f"lockstep materialize orders --days {DAYS[4]}..{DAYS[4]}" == late.fix


def test_a_contract_that_changed_is_told(tiny: TinyProject) -> None:
    build(tiny, "orders_1d")
    file = tiny.view_file("orders_1d")
    file.write_text(file.read_text("utf-8").replace("Int64", "Float64"), encoding="utf-8")
    del sys.modules[f"{tiny.views}.orders_1d"], sys.modules[f"{tiny.views}.sets"]
    tiny.store.__dict__["catalog"] = discover(tiny.store.project)

    changed = found(tiny)["contract_changed:orders_1d"]
    assert "lockstep materialize orders_1d --rebuild" == changed.fix
    assert "what was committed is served" in changed.sentence


def test_days_of_other_code_are_told_while_they_count_and_until_they_are_computed_again(
    tiny: TinyProject,
) -> None:
    # The window is that of ttl=3 days on the afternoon of the 12th; the view without ttl has 8.
    build(tiny)
    build(tiny, "orders_1d")
    views = {name: replace(view, partial_windows=True) for name, view in tiny.store.views.items()}
    tiny.store.__dict__["catalog"] = replace(tiny.store.catalog, views=views)

    seen = found(tiny)
    assert {"code_changed:spend_2d", "code_changed:orders_1d"} == seen.keys()
    changed = seen["code_changed:spend_2d"]
    assert f"lockstep materialize spend_2d --days {DAYS[-3]}..{DAYS[-1]}" == changed.fix
    assert "3 of the 3 days that count now" in changed.sentence
    assert "8 of the 8 days" in seen["code_changed:orders_1d"].sentence

    tiny.materialize(views["spend_2d"], DAYS[-2:])  # the same values: nothing is committed
    assert "1 of the 3 days" in found(tiny)["code_changed:spend_2d"].sentence
    tiny.materialize(views["spend_2d"], DAYS[-3:-2])
    assert {"code_changed:orders_1d"} == found(tiny).keys()


def test_what_hand_written_checks_warn_of_is_told_of_every_day_of_a_run(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = tiny.view_file("spend_2d").with_name("spend_2d.soda.yml")
    beside.write_text(
        "columns:\n  - name: spend\n    checks:\n      - aggregate:\n          name: most\n"
        "          function: max\n          threshold: {must_be_less_than: 500, level: warn}\n"
    )
    tiny.land_orders("much", orders(DAYS[4], [900], first_id=900))
    build(tiny)

    warned = found(tiny)["soda:spend_2d"]
    days = f"{DAYS[4]}..{DAYS[5]}"
    assert ("ticket", "team:shop", "docs/runbooks/soda.md") == (
        warned.severity, warned.owner, warned.runbook,
    )  # fmt: skip
    assert "most" in warned.sentence
    assert f"So it is on 2 days: {days}. What it warns of is committed" in warned.sentence
    assert days == warned.details["days"]
    assert f"lockstep preview spend_2d --day {DAYS[5]}" == warned.fix

    at = tiny.store.now()
    monkeypatch.setattr(tiny.store, "now", lambda: at + timedelta(hours=25))
    assert "soda:spend_2d" not in found(tiny)


def test_a_day_in_the_middle_with_unusually_many_new_entities_is_told(tiny: TinyProject) -> None:
    file = tiny.view_file("spend_2d")
    text = file.read_text("utf-8")
    file.write_text(text.replace("owner=", "max_new_entities=0.2, owner=", 1), "utf-8")
    crowd = orders(DAYS[3], [1.0] * 40, first_id=900).with_columns(
        customer=pl.Series([f"c{number}" for number in range(40)])
    )
    tiny.land_orders("crowd", crowd)
    build(tiny)

    crowded = found(tiny)["cardinality:spend_2d"]

    assert f"spend_2d of {DAYS[3]}: " in crowded.sentence
    assert "max_new_entities" in crowded.sentence
    assert str(DAYS[3]) == crowded.details["days"]


def test_a_view_that_is_marked_is_not_ready(tiny: TinyProject) -> None:
    build(tiny)
    mark = {"reason": "3 keys were evicted.", "at_us": 1_741_700_000_000_000}
    tiny.store.online_store.note("unready", "spend_2d", json.dumps(mark))

    marked = found(tiny)["not_ready:spend_2d"]

    assert "spend_2d is not ready: 3 keys were evicted." in marked.sentence
    assert 1_741_700_000 == marked.since.timestamp()


def test_committed_days_that_nobody_pushes_are_told_after_half_an_hour(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.ingest()
    tiny.materialize("spend_2d")
    assert {} == found(tiny)

    at = tiny.store.now() + timedelta(minutes=31)
    monkeypatch.setattr(tiny.store, "now", lambda: at)
    behind = found(tiny)["parity:seals:spend_2d"]
    assert "8 committed days of spend_2d" in behind.sentence
    assert "lockstep push spend_2d" == behind.fix


def test_days_that_are_committed_one_after_the_other_are_waited_for_from_the_last_one(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.ingest()
    start = tiny.store.now()

    def at(minutes: int) -> None:
        monkeypatch.setattr(tiny.store, "now", lambda: start + timedelta(minutes=minutes))

    tiny.materialize("spend_2d", VIEW_DAYS[:4])
    at(25)
    tiny.materialize("spend_2d", VIEW_DAYS[4:])
    at(50)
    assert {} == found(tiny)

    at(56)
    assert "8 committed days of spend_2d" in found(tiny)["parity:seals:spend_2d"].sentence


def test_buckets_that_lost_their_seal_are_told_as_such_and_from_now_on(tiny: TinyProject) -> None:
    build(tiny)
    with redis.Redis.from_url(str(tiny.store.project.redis_url)) as server:
        seals = list(server.scan_iter(f"{tiny.store.online_store.names.namespace}:*!seal"))
        server.delete(seals[0])
    before = tiny.store.now()

    lost = found(tiny)["parity:seals:spend_2d"]

    assert 1 < len(seals)
    assert "of spend_2d have no seal" in lost.sentence
    assert before < lost.since < tiny.store.now()
    assert "lockstep reconcile spend_2d" == lost.fix


def test_a_redis_that_is_silent_hides_nothing_and_ends_nothing(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tiny)
    tiny.store.online_store.note("unready", "spend_2d", "{}")
    start = tiny.store.now()
    monkeypatch.setattr(tiny.store, "now", lambda: start)
    tick(tiny)
    monkeypatch.setattr(tiny.store, "now", lambda: start + timedelta(minutes=6))
    tick(tiny)
    del tiny.store.__dict__["online_store"]
    object.__setattr__(tiny.store.project, "redis_url", "redis://127.0.0.1:1/0")

    seen = look(tiny.store)
    told(tiny.store, seen, start + timedelta(minutes=7))
    after = told(tiny.store, seen, start + timedelta(minutes=13)).state

    open_now = {ep.problem.key for ep in after.episodes.values() if ep.healed is None}
    assert {"not_ready:online store", "not_ready:spend_2d"} == open_now
    assert {"not_ready", "parity:seals"} == seen.unknown.keys()


def test_a_view_file_that_breaks_is_told_and_ends_none_of_its_problems(
    tiny: TinyProject,
) -> None:
    build(tiny)
    broken = tiny.view_file("spend_2d")
    tiny.store.__dict__["catalog"] = type(tiny.store.catalog)(
        **{**vars(tiny.store.catalog), "views": {}, "broken": {broken: "line 1: invalid syntax"}}
    )

    seen = look_at_lake(tiny.store.lake, tiny.store.catalog, tiny.store.now(), "team:platform")

    assert ["run_failed:broken:spend_2d"] == [each.key for each in seen.problems]
    assert not seen.over("stale:spend_2d")
    assert seen.over("stale:orders_1d")


def test_one_part_that_breaks_is_unknown_and_hides_nothing(
    later: TinyProject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*_: object) -> None:
        message = "customer_7"
        raise TypeError(message)

    monkeypatch.setattr("lockstep.alerts.lake.late_and_duplicate", breaks)
    monkeypatch.setattr("lockstep.alerts.online.unsealed_days", breaks)

    seen = look(later.store)

    assert "stale:spend_2d" in {each.key for each in seen.problems}
    assert "TypeError" == seen.unknown["late_data:orders:unusual"]
    assert not seen.over("parity:seals:spend_2d")
    assert "late_data:orders:unusual could not be looked at: TypeError at " in caplog.text
    assert "customer_7" not in f"{seen} {caplog.text}"


def test_no_text_of_a_problem_names_an_entity(tiny: TinyProject) -> None:
    build(tiny)
    bad = orders(DAYS[-1], [-500, float("nan"), -7], first_id=900)
    tiny.land_orders("bad", bad)
    null = orders(DAYS[3], [1.0] * 3, first_id=950).with_columns(
        order_id=pl.lit(None, pl.Int64), customer=pl.col("customer")
    )
    tiny.land_orders("2025-03-06_null", null)
    tiny.ingest([DAYS[3], DAYS[-1]])
    tiny.materialize("spend_2d", [DAYS[-1]])

    texts = str([vars(each) for each in look(tiny.store).problems])

    assert {"held_file", "quarantined"} <= set(kinds(tiny))
    assert [] == [name for name in CUSTOMERS if f"'{name}'" in texts or f" {name} " in texts]
    assert "example.com" not in texts


def test_what_a_look_found_is_told_once_by_all_processes(tiny: TinyProject) -> None:
    build(tiny)
    at = tiny.store.now() + timedelta(days=7)
    seen = look_at_lake(tiny.store.lake, tiny.store.catalog, at, "team:platform")

    for minute in range(2):
        told(tiny.store, seen, at + minute * timedelta(minutes=1))

    state = States(open_place(tiny.store.project.root)).newest()
    assert {each.key for each in seen.problems} == {
        ep.problem.key for ep in state.episodes.values()
    }
    assert 1 == state.number


def test_the_index_of_the_runbooks_is_up_to_date() -> None:
    assert index(PAGES) == (PAGES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_says_what_is_served_how_to_look_how_to_mend_and_when_it_is_over(
    kind: str,
) -> None:
    text = (PAGES / f"{kind}.md").read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]

    assert [
        "## What is still served",
        "## How to look",
        "## How to mend it",
        "## How it resolves",
    ] == headings
    assert "\nlockstep " in text
