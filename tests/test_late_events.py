"""Late and duplicate events are counted per day, and more than usual of them is said."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from lockstep.hashing import content_hash
from lockstep.late import LateAndDuplicate, late_and_duplicate
from lockstep.stores.proposal import Proposal
from tests.scenario import EVENTS, World, event, instant, world

FIRST = date(2026, 3, 3)
DAYS = [FIRST + timedelta(days=n) for n in range(12)]


def usual(day: date, rows: int = 20) -> list[dict[str, Any]]:
    return [event(f"{day}/{n}", n, day, 1.0, hour=n % 24) for n in range(rows)]


@pytest.fixture
def shop(tmp_path: Path) -> World:
    made = world(tmp_path)
    for day in DAYS:
        made.land("events", usual(day), f"{day}.parquet")
        made.clock.now = instant(day + timedelta(days=1), 4)
        made.ingest(day, day)
    return made


def look(made: World, *, reading: bool = False) -> LateAndDuplicate:
    views = [made.views.spend_3d, made.views.pace] if reading else []
    found = late_and_duplicate(
        made.store.lake, EVENTS, made.clock.now, views, made.store.reader() if reading else None
    )
    assert found is not None
    return found


def test_without_late_rows_nothing_is_said(shop: World) -> None:
    found = look(shop)

    assert found.holds
    assert (0, 0, 140) == (found.late, found.duplicates, found.rows)
    assert "0 rows came late within a week, 0 of the last 7 days" in found.sentence


def test_rows_for_a_closed_day_are_late_and_counted_once(shop: World) -> None:
    day = DAYS[-3]
    shop.land("events", [event(f"late {n}", n, day) for n in range(15)], "late.parquet")
    shop.clock.now += timedelta(hours=1)
    (outcome,) = shop.ingest(day, day)

    note = shop.store.committed(EVENTS)[day].note
    found = look(shop)

    assert 15 == outcome.counts["late_rows"] == note["late"]
    assert (15, [day]) == (found.late, found.late_days)
    assert not found.holds
    assert f"15 rows came late to {day} within a week" in found.sentence
    assert "more than usual" in found.sentence

    shop.land("events", [event("later", 1, day)], "later.parquet")
    shop.clock.now += timedelta(hours=1)
    shop.ingest(day, day)
    assert 16 == look(shop).late

    shop.clock.now += timedelta(days=8)
    assert (0, 4.0) == (look(shop).late, look(shop).usual_late)


def test_rows_of_a_day_that_is_still_open_are_not_late(tmp_path: Path) -> None:
    made = world(tmp_path)
    made.land("events", usual(FIRST), "one.parquet")
    made.land("events", [event("another file", 1, FIRST)], "two.parquet")
    made.clock.now = instant(FIRST + timedelta(days=1), 4)

    (outcome,) = made.ingest(FIRST, FIRST)

    assert (21, 0) == (outcome.rows, outcome.counts["late_rows"])
    assert 0 == look(made).late


def test_a_file_that_is_delivered_twice_changes_nothing_and_is_counted(shop: World) -> None:
    shop.land("events", usual(DAYS[-1]), "again.parquet")
    shop.clock.now += timedelta(hours=1)
    (outcome,) = shop.ingest(DAYS[-1], DAYS[-1])

    found = look(shop)

    assert "unchanged" == outcome.status
    assert (20, 0) == (found.duplicates, found.late)
    assert not found.holds
    assert found.much_duplicated
    assert "20 of the last 7 days were delivered again: more than usual" in found.sentence


def test_views_that_have_not_read_the_late_rows_are_named_until_they_have(shop: World) -> None:
    late = DAYS[5]
    shop.build(shop.views.spend_3d, DAYS[0], DAYS[8])
    shop.land("events", [event(f"late {n}", n, late) for n in range(3)], "late.parquet")
    shop.clock.now += timedelta(hours=1)
    shop.ingest(late, late)

    before = look(shop, reading=True)
    shop.build(shop.views.spend_3d, DAYS[0], DAYS[8])
    after = look(shop, reading=True)

    days = [late + timedelta(days=n) for n in range(4)][: len(before.stale["spend_3d"])]
    assert days == list(before.stale["spend_3d"])
    assert len(days) >= 3
    assert "Not computed with them yet: spend_3d" in before.sentence
    assert {} == after.stale
    assert 3 == after.late


def test_what_is_usual_is_no_alarm() -> None:
    found = LateAndDuplicate("events", 1_000, 40, [FIRST], 20.0, 30, 11.0)

    assert found.holds
    assert not replace(found, late=61).holds
    assert not replace(found, duplicates=34).holds
    assert replace(found, rows=100_000, usual_late=0.0, late=900).holds


def test_a_source_that_was_never_ingested_has_no_answer(tmp_path: Path) -> None:
    made = world(tmp_path)

    assert late_and_duplicate(made.store.lake, EVENTS, made.clock.now) is None


def test_a_second_look_at_old_days_makes_no_old_row_late_again(shop: World) -> None:
    shop.land("events", [event(f"late {n}", n, DAYS[0]) for n in range(15)], "late.parquet")
    shop.clock.now += timedelta(hours=1)
    shop.ingest(DAYS[0], DAYS[0])
    shop.clock.now += timedelta(days=10)
    before = look(shop)

    outcomes = shop.ingest(DAYS[0], DAYS[-1])
    after = look(shop)

    assert {"unchanged"} == {outcome.status for outcome in outcomes}
    assert (0, 15 / 4) == (before.late, before.usual_late)
    assert before == after

    shop.clock.now += timedelta(days=60)
    shop.ingest(DAYS[0], DAYS[-1])
    assert (0, 0.0) == (look(shop).late, look(shop).usual_late)
    assert look(shop).holds


def test_a_row_that_is_late_today_brings_no_older_one_back(shop: World) -> None:
    shop.land("events", [event(f"late {n}", n, DAYS[0]) for n in range(15)], "late.parquet")
    shop.clock.now += timedelta(hours=1)
    shop.ingest(DAYS[0], DAYS[0])
    shop.clock.now += timedelta(days=20)
    shop.land("events", [event("last", 1, DAYS[0])], "last.parquet")
    shop.ingest(DAYS[0], DAYS[0])

    found = look(shop)

    assert (1, [DAYS[0]], 15 / 4) == (found.late, found.late_days, found.usual_late)
    assert 16 == shop.store.committed(EVENTS)[DAYS[0]].note["late"]

    shop.clock.now += timedelta(days=50)
    shop.land("events", [event("last", 1, DAYS[0], 2.0)], "restated.parquet")
    (restated,) = shop.ingest(DAYS[0], DAYS[0])
    assert ("committed", 16) == (restated.status, restated.counts["late_rows"])
    assert (0, 0.0) == (look(shop).late, look(shop).usual_late)

    shop.land("events", [event("very last", 1, DAYS[0])], "very last.parquet")
    shop.ingest(DAYS[0], DAYS[0])
    assert 1 == len(shop.store.committed(EVENTS)[DAYS[0]].note["late_came"])
    assert (1, 0.0) == (look(shop).late, look(shop).usual_late)


def test_late_rows_of_which_only_the_number_was_kept_came_with_the_last_commit(
    shop: World,
) -> None:
    day = DAYS[-2]
    table = shop.store.lake.table(EVENTS)
    frame = table.read_day(day).drop("known_at", "day").head(19)
    noted = {"late": 7}
    table.commit([Proposal(day, frame, content_hash(frame), noted)], now=shop.clock)

    assert (7, [day]) == (look(shop).late, look(shop).late_days)

    shop.clock.now += timedelta(days=9)
    assert (0, 7 / 4) == (look(shop).late, look(shop).usual_late)
    shop.land("events", [event("later", 1, day)], "later.parquet")
    shop.ingest(day, day)
    assert (2, 7 / 4) == (look(shop).late, look(shop).usual_late)
