"""A view whose keys exploded is refused before it fills the memory of the others."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from lockstep.errors import OnlineError
from lockstep.push import push
from lockstep.push_rows import RowsToPush
from lockstep.room import projected_bytes, require_room
from tests.lost_redis import LAST, commit_wide, lost_wide
from tests.redis_cluster import MASTERS
from tests.servers import running_cluster
from tests.test_g8_parity import DAYS, TTL, USERS, History, begin


@pytest.fixture
def history(tmp_path: Path, redis_url: str) -> History:
    made = begin(tmp_path, redis_url)
    made.commit(2, dict.fromkeys(USERS, 1.0))
    made.push()
    return made


def explode(history: History) -> None:
    history.commit(2, dict.fromkeys(range(1, 2000), 1.0))


def limited(history: History, room: int) -> None:
    """Give the server a limit that leaves so many bytes."""
    online = history.made.store.online_store
    online.ask("CONFIG", "SET", "maxmemory", online.info().used_memory + room)


def rows_of(history: History, *days: date) -> RowsToPush:
    """What a push of the days would carry if nothing were sealed."""
    store = history.made.store
    table = store.lake.table(history.view)
    changed, now = dict.fromkeys(days, 0), history.made.clock()
    return RowsToPush(history.view, table, table.head(), store.project.zone, changed, now)


def rebuild(history: History) -> None:
    store = history.made.store
    push(store.lake, store.online_store, history.view, now=history.made.clock, rebuild=True)


@pytest.fixture(autouse=True)
def _unlimited_afterwards(history: History) -> Iterator[None]:
    yield
    history.made.store.online_store.ask("CONFIG", "SET", "maxmemory", 0)


def test_keys_that_exploded_are_refused_and_what_was_served_stays(history: History) -> None:
    explode(history)
    before = history.served()
    limited(history, 100_000)

    with pytest.raises(
        OnlineError,
        match=r"2,000 entities to push, 4 online before.*about \d\.\d MB of room, got 0\.1 MB "
        r"below maxmemory.*Nothing was pushed",
    ):
        history.push()

    assert history.served() == before


def test_with_room_enough_they_are_pushed(history: History) -> None:
    explode(history)
    limited(history, 50_000_000)

    history.push()

    assert len(history.served()) == 1_999


def test_the_same_number_of_entities_always_fits(history: History) -> None:
    history.commit(2, dict.fromkeys(USERS, 2.0))
    limited(history, 2_000_000)

    history.push()

    assert {row[3][0] for row in history.served().values()} == {2.0}


def test_the_projection_is_not_far_from_what_the_server_takes(history: History) -> None:
    online = history.made.store.online_store
    explode(history)
    before = online.info().used_memory

    history.push()

    taken = online.info().used_memory - before
    assert 0.5 < projected_bytes(history.view, 1_999 - len(USERS)) / taken < 2.5


def test_a_server_without_limit_has_room(history: History) -> None:
    online = history.made.store.online_store

    wanted = require_room(online, rows_of(history, DAYS[2]), set(), online.nodes())

    assert wanted == projected_bytes(history.view, 4)


def test_different_entities_of_several_days_are_all_counted(history: History) -> None:
    for day in range(3):
        history.commit(day, dict.fromkeys(range(1 + 1000 * day, 1001 + 1000 * day), 1.0))
    before = history.served()
    limited(history, projected_bytes(history.view, 2_000))

    with pytest.raises(OnlineError, match=r"3,001 entities to push, 4 online before"):
        history.push()

    assert history.served() == before


def test_entities_that_come_every_day_are_counted_once(history: History) -> None:
    for day in range(3):
        history.commit(day, dict.fromkeys(range(1, 12_001), float(day)))
    limited(history, projected_bytes(history.view, 20_000))

    history.push()

    assert len(history.served()) == 12_000
    assert rows_of(history, *DAYS[:3]).most == 36_004  # also what day 2 had before


def test_days_past_their_ttl_need_no_room(tmp_path: Path, redis_url: str) -> None:
    history = begin(tmp_path / "with ttl", redis_url, TTL)
    for day in range(3):
        history.commit(day, {1: 1.0})
    all_three = rows_of(history, *DAYS[:3]).most
    history.advance(24)

    assert (all_three, rows_of(history, *DAYS[:3]).most) == (3, 2)


def test_entities_of_sealed_days_need_no_more_room(history: History) -> None:
    history.commit(1, dict.fromkeys(range(1, 100), 1.0))
    rows = rows_of(history, DAYS[1])

    assert rows.newcomers(set()) == 99
    assert rows.newcomers({DAYS[2]}) == 96


def test_rows_that_a_torn_push_has_left_are_not_counted_again(history: History) -> None:
    history.commit(2, dict.fromkeys(range(1, 40_001), 1.0))
    with pytest.raises(ZeroDivisionError):
        torn(history, after=30_000)
    limited(history, projected_bytes(history.view, 20_000))

    history.push()

    assert len(history.served()) == 40_000


def torn(history: History, after: int) -> None:
    """Push, and end after so many acknowledged rows."""
    seen = []

    def on_rows(rows: int) -> None:
        seen.append(rows)
        if sum(seen) >= after:
            raise ZeroDivisionError

    store = history.made.store
    push(store.lake, store.online_store, history.view, now=history.made.clock, on_rows=on_rows)


def test_a_rebuild_that_would_not_fit_wipes_nothing(history: History) -> None:
    explode(history)
    before = history.served()
    limited(history, 100_000)

    with pytest.raises(OnlineError, match=r"4 online before.*Nothing was removed or pushed"):
        rebuild(history)

    assert history.served() == before


def test_a_rebuild_uses_the_room_of_what_it_removes(history: History) -> None:
    history.commit(2, dict.fromkeys(range(1, 40_001), 1.0))
    history.push()
    limited(history, projected_bytes(history.view, 20_000))

    rebuild(history)

    assert len(history.served()) == 40_000


def test_a_master_without_room_is_not_helped_by_the_others(tmp_path: Path) -> None:
    with running_cluster("valkey", tmp_path / "cluster") as cluster:
        found = lost_wide(tmp_path / "project", cluster.url, users=10)
        online, view = found.made.store.online_store, found.views[0]
        commit_wide(found.made, view, LAST, {user: user for user in range(5_000)})
        before = found.served("wide")
        poor = cluster.owner(online.names.bucket_key("user", 0))
        for node in range(MASTERS):
            client = cluster.client(node)
            room = 100_000 if node == poor else 10**9
            client.config_set("maxmemory", client.info("memory")["used_memory"] + room)

        with pytest.raises(OnlineError, match=r"fit into the master .*: 5,000 entities"):
            found.made.push(view)

        assert found.served("wide") == before
