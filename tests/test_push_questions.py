"""What a push asks the server besides writing: each question once, and no guard less for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from lockstep import push as pushing
from lockstep.layout import ServerInfo
from lockstep.stores.server import EmbeddedServer
from tests.scenario import START, World
from tests.small_world import USERS, built_world


@pytest.fixture
def client(own_server: EmbeddedServer) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(own_server.url, protocol=2) as opened:
        yield opened


@pytest.fixture
def restated(own_server: EmbeddedServer, tmp_path: Path) -> World:
    """A view that was pushed, and a newer revision of its day that was not."""
    made = built_world(tmp_path / "project", own_server.url)
    made.push(made.views.profile)
    people = [{"user_id": user, "country": f"D{user}"} for user in USERS]
    made.land("people", people, "newer.parquet")
    made.ingest_people()
    made.build(made.views.profile, START)
    return made


def asked(client: "redis.Redis") -> dict[str, int]:
    """Command → how often it was called since the last reset."""
    stats: dict[str, Any] = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): found["calls"] for name, found in stats.items()}


def test_functions_and_facts_are_asked_for_once_per_push(
    restated: World, client: "redis.Redis"
) -> None:
    client.config_resetstat()

    done = restated.push(restated.views.profile)

    calls = asked(client)
    assert done.receipt.written == len(USERS)
    assert calls["info"] == 1
    assert calls["function|list"] == 1
    assert "function|load" not in calls


def test_functions_that_vanish_after_the_look_are_loaded_by_the_next_attempt(
    restated: World, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pushing.require_room
    times = []

    def flushed_first(*args: Any) -> int:
        if not times:
            client.function_flush()
        times.append(args)
        return real(*args)

    monkeypatch.setattr(pushing, "require_room", flushed_first)

    done = restated.push(restated.views.profile)

    assert (2, len(USERS)) == (len(times), done.receipt.written)
    assert all(found.holds for found in restated.store.parity("profile"))


def test_room_is_judged_by_what_a_wipe_has_left(
    restated: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[ServerInfo] = []
    store = restated.store.online_store
    real = store.nodes

    def nodes() -> dict[str, ServerInfo]:
        found = real()
        asked_for.extend(found.values())
        return found

    judged: list[ServerInfo] = []
    monkeypatch.setattr(store, "nodes", nodes)
    monkeypatch.setattr(
        pushing, "require_room", lambda *args: judged.extend(args[-1].values()) or 0
    )

    pushing.push(
        restated.store.lake, store, restated.views.profile, now=restated.clock, rebuild=True
    )

    assert [asked_for[-1]] == judged
    assert len(asked_for) == 2
