"""A view whose keys exploded is refused before it fills the memory of the others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep.errors import OnlineError
from lockstep.room import projected_bytes, require_room
from tests.test_g8_parity import DAYS, USERS, History, begin


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


@pytest.fixture(autouse=True)
def _unlimited_afterwards(history: History) -> Iterator[None]:
    yield
    history.made.store.online_store.ask("CONFIG", "SET", "maxmemory", 0)


def test_keys_that_exploded_are_refused_and_what_was_served_stays(history: History) -> None:
    explode(history)
    before = history.served()
    limited(history, 100_000)

    with pytest.raises(OnlineError, match=r"1,999 entities, 4 before.*Nothing was pushed"):
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

    assert require_room(
        history.view,
        history.made.store.lake.table(history.view).head(),
        [DAYS[2]],
        0,
        online.nodes(),
    ) == projected_bytes(history.view, 4)
