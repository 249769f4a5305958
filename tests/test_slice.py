"""The vertical slice: landed file → bronze → audited day → Redis → vector and training set."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from lockstep.errors import NotCertifiedError
from tests.scenario import PEOPLE, SPRING, World, event, instant, make_views, world

D1, D2, D3, D4, D5 = (date(2026, 3, 1) + timedelta(days=n) for n in range(5))


@pytest.fixture
def built(tmp_path: Path, redis_url: str) -> World:
    """Five days with two users: user 1 on the first day only, user 2 on every day."""
    made = world(tmp_path, redis_url=redis_url)
    made.clock.now = instant(date(2026, 3, 6), 3)
    days = [D1, D2, D3, D4, D5]
    events = [event(f"b{n}", 2, day, float(n + 1)) for n, day in enumerate(days)]
    made.land("events", [event("a", 1, D1, 10.0), *events], "all.parquet")
    made.land(
        "people", [{"user_id": 1, "country": "NZ"}, {"user_id": 2, "country": None}], "p.parquet"
    )
    made.ingest(D1, D5)
    made.ingest_people()
    for view in made.views.all:
        made.build(view, D3, D5)
        made.push(view)
    return made


def test_a_window_holds_exactly_its_days(built: World) -> None:
    expected = {1: (10.0, 1), 2: (6.0, 3)}

    rows = built.rows(built.views.spend_3d, D3)

    assert expected == {u: (a, n) for u, _, a, n in rows.rows()}


def test_an_entity_that_leaves_the_window_gets_one_closing_row(built: World) -> None:
    on_d4 = built.rows(built.views.spend_3d, D4)
    on_d5 = built.rows(built.views.spend_3d, D5)

    assert (0.0, 0) == on_d4.filter(user_id=1).select("amount_3d", "events_3d").row(0)
    assert [2] == on_d5["user_id"].to_list()


def test_vectors_say_present_null_and_missing(built: World) -> None:
    wanted = ["spend_3d:amount_3d", "profile:country", "pace:per_event"]

    vectors = built.store.online(wanted, [{"user_id": 2}, {"user_id": 1}, {"user_id": 3}])

    assert [12.0, None, 4.0] == vectors.values[0]
    assert ["present", "null", "present"] == vectors.statuses[0]
    assert [0.0, "NZ", None] == vectors.values[1]
    assert ["missing"] * 3 == vectors.statuses[2]


def test_a_value_expires_after_its_ttl_and_not_before(built: World) -> None:
    wanted = ["spend_3d:amount_3d"]
    valid_until = instant(date(2026, 3, 6)) + timedelta(days=2)

    built.clock.now = valid_until
    at_the_bound = built.store.online(wanted, [{"user_id": 2}]).statuses
    built.clock.now = valid_until + timedelta(microseconds=1)
    after_it = built.store.online(wanted, [{"user_id": 2}]).statuses

    assert [["present"]] == at_the_bound
    assert [["expired"]] == after_it


def test_online_equals_offline_for_every_entity(built: World) -> None:
    assert [True, True, True] == [found.holds for found in built.store.parity()]


def test_parity_finds_a_row_that_was_lost_and_one_that_was_changed(built: World) -> None:
    online, view = built.store.online_store, built.views.spend_3d
    names = dict(online.scan("user", "spend_3d"))
    built.clock.now += timedelta(minutes=1)
    other = make_views()
    online.wipe("user", "spend_3d", 4, table_id=None)

    (found,) = built.store.parity("spend_3d")

    assert len(names) == 2
    assert not found.holds
    assert 2 == found.missing
    assert [D3, D4, D5] == list(found.unsealed)
    assert other.spend_3d.name == view.name


def test_a_training_set_keeps_every_row_and_its_order(built: World) -> None:
    spine = pl.DataFrame(
        {
            "user_id": [2, 1, 2, 9, 2],
            "at": [instant(d, 9) for d in (D5, D4, D4, D4, D5)],
            "label": [1, 0, 1, 0, 1],
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )

    found = built.store.training_set(spine, ["spend_3d:amount_3d"], timestamp="at").frame

    assert spine.rows() == found.select(spine.columns).rows()
    assert [9.0, 10.0, 6.0, None, 9.0] == found["spend_3d:amount_3d"].to_list()


def test_a_view_that_reads_a_view_sees_the_same_day(built: World) -> None:
    assert {1: None, 2: 3.0} == dict(
        built.rows(built.views.pace, D4).select("user_id", "per_event").rows()
    )


def test_a_day_that_is_not_certified_is_not_pushed(built: World) -> None:
    with pytest.raises(NotCertifiedError, match="spend_3d 2026-03-02 is not certified"):
        built.push(built.views.spend_3d, [D2])


def test_a_snapshot_is_one_day_for_ever(built: World) -> None:
    table = built.store.lake.table(PEOPLE)

    again = built.ingest_people()

    assert "unchanged" == again.status
    assert [1] == [record.revision for record in table.head().days.values()]


def test_a_day_of_23_hours_holds_its_rows(tmp_path: Path) -> None:
    made = world(tmp_path)
    late = [event("x", 1, SPRING, hour=23), event("y", 1, SPRING, hour=0)]
    made.land("events", late, "f.parquet")

    (day,) = made.ingest(SPRING, SPRING)

    assert 2 == day.rows
