"""What a push says of a view online decides nothing, and comes back when it is lost or damaged."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis

from feature_assets._metadata import view_day
from lockstep.facts import facts
from lockstep.newcomers import Newcomers
from lockstep.push import push
from lockstep.stores.server import EmbeddedServer
from tests.lost_redis import FIRST, LAST, Lost, lost, restate
from tests.scenario import START, event
from tests.small_world import USERS, small_world

DAMAGED = [
    "{}",
    "[]",
    "7",
    '{"rows":"x"}',
    '{"rows":-1}',
    '{"rows":null}',
    "{",
    "[" * 9999,
    b"\xff",
]


@pytest.fixture
def found(own_server: EmbeddedServer, tmp_path: Path) -> Lost:
    return lost(tmp_path / "project", own_server.url)


def kept(found: Lost) -> dict[str, Any]:
    """View → what is said of it, without when it was said."""
    said = found.made.store.online_store.notes("facts")
    return {view: {**json.loads(text), "at_us": 0} for view, text in said.items()}


def right(found: Lost) -> dict[str, Any]:
    store = found.made.store
    right = {}
    for view in found.views:
        seals = store.online_store.seals("user", view.name, 4)
        said = facts(store.lake, view, store.lake.table(view).head(), seals, found.made.clock())
        right[view.name] = {**said, "at_us": 0}
    return right


def damage(found: Lost, text: str | bytes | None) -> None:
    name = found.made.store.online_store.names.notes("facts")
    with found.raw() as client:
        if text is None:
            client.hdel(name, "spend_3d")
        else:
            client.hset(name, "spend_3d", text)


@pytest.mark.parametrize("text", [None, *DAMAGED])
def test_facts_that_are_lost_or_damaged_stop_no_push_and_no_rebuild(
    found: Lost, text: str | bytes | None
) -> None:
    store, view = found.made.store, found.made.views.spend_3d
    before = kept(found)
    damage(found, text)

    nothing = found.made.push(view)
    restored = kept(found)
    damage(found, text)
    rebuilt = push(store.lake, store.online_store, view, now=found.made.clock, rebuild=True)

    assert ([], len(rebuilt.receipt.sealed)) == (nothing.days, 4)
    assert before == restored == kept(found) == right(found)
    assert found.is_whole()


@pytest.mark.parametrize("text", [None, "{}", b"\xff"])
def test_facts_that_are_lost_or_damaged_are_noticed_and_said_again(
    found: Lost, text: str | bytes | None
) -> None:
    before = kept(found)
    damage(found, text)

    noticed = found.looked()
    still = found.made.store.online_store.notes("facts").get("spend_3d")
    repaired = found.reconcile()

    assert ([], []) == (noticed.findings, repaired)
    assert ["What is said online about spend_3d was lost or is old."] == noticed.notes
    assert still == (
        text if text is None else bytes(text, "ascii").decode() if text == "{}" else "\ufffd"
    )
    assert before == kept(found)
    assert not found.looked().notes


def test_facts_of_before_are_replaced_though_everything_is_sealed(found: Lost) -> None:
    """As a push leaves them that ends between its seal and the publication."""
    view, online = found.made.views.spend_3d, found.made.store.online_store
    old = online.notes("facts")["spend_3d"]
    restate(found, view, LAST)
    found.made.push(view)
    newer = kept(found)
    online.note("facts", "spend_3d", old)

    assert [] == found.made.push(view).days
    assert newer == kept(found)
    online.note("facts", "spend_3d", old)
    found.reconcile()

    assert newer == kept(found) == right(found)


def test_facts_that_are_right_are_not_written_again(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    made = small_world(tmp_path, own_server.url)
    with redis.Redis.from_url(own_server.url, protocol=2) as client:
        client.config_resetstat()

        made.push(made.views.profile)

        assert "cmdstat_hset" not in client.info("commandstats")


def test_the_share_of_new_entities_is_measured_against_the_day_before(found: Lost) -> None:
    made, view = found.made, found.made.views.spend_3d
    next_day = LAST.replace(day=LAST.day + 1)
    newly = [event(f"new {user}", user, next_day) for user in range(101, 111)]
    made.land("events", newly, "new.parquet")
    found.wait(24 * 3600)
    made.ingest(next_day, next_day)
    before, (outcome,) = set(users(found, LAST)), made.build(view, next_day)
    now = users(found, next_day)
    made.push(view)

    rate = len(set(now) - before) / len(now)
    assert 0 < rate < 1
    assert rate == kept(found)["spend_3d"]["new_entity_rate"]
    assert rate == pytest.approx(view_day(view, outcome, pictures=False)["new_entity_rate"])
    assert all(verdict.passed for verdict in outcome.verdicts)


def users(found: Lost, day: Any) -> list[int]:
    return found.made.rows(found.made.views.spend_3d, day)["user_id"].to_list()


def test_days_of_one_run_and_days_one_by_one_have_the_same_share_of_new_entities(
    found: Lost, tmp_path: Path, own_server: EmbeddedServer
) -> None:
    made, view = found.made, found.made.views.spend_3d
    other = lost(tmp_path / "other", own_server.url)
    together = [rate_of(made, day) for day in found_days(found)]

    again = {outcome.day: outcome for outcome in made.build(view, FIRST, LAST)}
    single = [other.made.build(view, day)[0] for day in found_days(found)]

    assert together[0] is None
    assert all(rate is not None for rate in together[1:])
    assert together == [rate_in(each) for each in single]
    assert together == [rate_in(again[day]) for day in found_days(found)]


def found_days(found: Lost) -> list[Any]:
    return sorted(found.made.store.committed(found.made.views.spend_3d))


def rate_of(made: Any, day: Any) -> float | None:
    verdicts = made.store.committed(made.views.spend_3d)[day].note["verdicts"]
    return {k: v for verdict in verdicts for k, v in verdict["numbers"].items()}.get(
        "new_entity_rate"
    )


def rate_in(outcome: Any) -> float | None:
    numbers = {k: v for verdict in outcome.verdicts for k, v in verdict.numbers.items()}
    return numbers.get("new_entity_rate")


def test_a_day_before_that_cannot_be_read_leaves_the_share_out(
    tmp_path: Path, redis_url: str
) -> None:
    made = small_world(tmp_path, redis_url)
    view = made.views.profile
    table = made.store.lake.table(view)
    frame = pl.DataFrame({"user_id": [1, 2, 999]})
    day = START.replace(day=START.day + 1)
    whole = Newcomers(view, table, table.head()).rate(day, frame)
    for file in Path(table.uri).rglob("*.parquet"):
        file.unlink()

    assert whole == pytest.approx(1 / 3)
    assert Newcomers(view, table, table.head()).rate(day, frame) is None
    assert Newcomers(view, table, None).rate(day, frame) is None
    assert Newcomers(view, table, table.head()).rate(day, frame.clear()) is None
    assert len(USERS) > 2
