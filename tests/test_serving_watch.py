"""Nothing that stands in Redis ends the watch: what cannot be read is said, and looked at again."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from lockstep.doctor_online import examine_online
from lockstep.errors import OnlineError
from lockstep.serving.client import Client
from lockstep.stores.server import EmbeddedServer
from tests.served_views import ACTIVITY, CATALOG, FOOTFALL, NOW, PROFILE, Both, Shelf
from tests.servers import Place, open_store
from tests.serving_world import make_catalog, new_namespace, push_all, running

UNREADABLE = "[" * 100_000
PATIENCE = 20.0


@pytest.fixture
def shelf(shared_place: Place, raw: "redis.Redis") -> Shelf:
    made = Shelf(raw, f"test:{uuid4().hex}")
    made.seal(ACTIVITY, PROFILE, FOOTFALL)
    return made


@pytest.fixture
def both(shared_place: Place, shelf: Shelf) -> Iterator[Both]:
    made = Both(shared_place.url, shelf.namespace, poll=0.0)
    yield made
    made.close()


def tend(both: Both) -> None:
    """A tick of both clients' watches."""
    both.sync._tend()
    both.runner.run(both.other._tend())


def problems(both: Both) -> list[str | None]:
    return [both.sync.watch.problem, both.other.watch.problem]


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives once it gives something."""
    ends = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < ends, "it never came true"
    return found


@pytest.mark.parametrize("text", ["x", "", "4.0", " 4", "\xff" * 100])
def test_a_number_of_buckets_that_is_none_makes_its_views_not_ready(
    both: Both, shelf: Shelf, text: str
) -> None:
    shelf.raw.hset(shelf.names.entity_meta("user"), "buckets", text.encode("latin-1"))

    tend(both)

    assert [None, None] == problems(both)
    assert "buckets online and 4 declared" in both.sync.readiness["activity"]
    assert both.sync.readiness == both.other.readiness
    assert "footfall" not in both.sync.readiness


def test_a_tick_that_fails_is_logged_and_the_next_one_looks_again(
    both: Both, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    tend(both)
    assert [None, None] == problems(both)
    name = shelf.names.bucket_key("user", 0)
    before = shelf.raw.hget(name, "activity")
    shelf.raw.hset(name, "activity", UNREADABLE)
    both.clock += 3

    tend(both)

    assert all("recursion" in str(problem) for problem in problems(both))
    assert [3.0, 3.0] == [both.sync.last_look, both.other.last_look]
    assert 2 == caplog.text.count("RecursionError")
    shelf.raw.hset(name, "activity", before)
    tend(both)
    assert [None, None] == problems(both)
    assert [0.0, 0.0] == [both.sync.last_look, both.other.last_look]


def test_a_store_that_is_lost_is_logged_once_and_so_is_its_return(
    own_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lockstep.serving")
    client = Client(CATALOG, own_server.url, namespace="test:nobody", poll=0.0)
    client._tend()
    own_server.stop()
    for _ in range(3):
        client._tend()
    own_server.start()
    for _ in range(3):
        client._tend()
    client.close()

    assert [
        ("WARNING", "The online store is lost."),
        ("INFO", "The online store answers again."),
    ] == [
        (record.levelname, f"{record.getMessage().partition('.')[0]}.") for record in caplog.records
    ]
    assert "cannot be used: " in caplog.records[0].getMessage()


def test_before_the_first_look_there_was_none(shared_place: Place) -> None:
    client = Client(CATALOG, shared_place.url, namespace="test:nobody")

    assert math.inf == client.last_look
    client.close()


def test_a_service_that_cannot_read_its_seals_says_so_and_recovers(
    redis_url: str, tmp_path: Path
) -> None:
    namespace = new_namespace()
    push_all(redis_url, namespace, make_catalog())
    store = open_store(redis_url, namespace=namespace)
    name = store.names.bucket_key("user", 0)
    store.close()
    with (
        redis.Redis.from_url(redis_url) as raw,
        running(redis_url, namespace, tmp_path) as served,
    ):

        def told(metric: str) -> float:
            lines = served.get("/metrics").body.decode().splitlines()
            return float(next(line for line in lines if line.startswith(f"{metric} ")).split()[1])

        ready = served.get("/readyz").status, told("lockstep_ready")
        before = raw.hget(name, "spend")
        raw.hset(name, "spend", UNREADABLE)
        until(lambda: served.get("/readyz").status == 503)
        reason = served.get("/readyz").json["reason"]
        not_ready = told("lockstep_ready")
        age = told("lockstep_last_look_seconds")
        until(lambda: told("lockstep_last_look_seconds") > age)
        raw.hset(name, "spend", before)
        until(lambda: served.get("/readyz").status == 200)

        assert (200, 1.0) == ready
        assert ("the last look at the online store failed", 0.0) == (reason, not_ready)
        assert 1.0 == told("lockstep_ready")
        assert told("lockstep_last_look_seconds") < math.inf


def test_a_service_starts_on_a_number_of_buckets_that_is_none(
    redis_url: str, tmp_path: Path
) -> None:
    namespace = new_namespace()
    push_all(redis_url, namespace, make_catalog())
    store = open_store(redis_url, namespace=namespace)
    meta = store.names.entity_meta("user")
    store.close()
    with redis.Redis.from_url(redis_url) as raw:
        raw.hset(meta, "buckets", "x")

    with running(redis_url, namespace, tmp_path) as served:
        document = served.features(["spend:amount"], [1, 8]).json

    assert [["present", "error"]] == document["statuses"]
    assert "x buckets online" in document["not_ready"]["spend"]


def test_who_pushes_and_the_doctor_are_told_in_words(shared_place: Place, shelf: Shelf) -> None:
    shelf.raw.hset(shelf.names.entity_meta("user"), "buckets", "x")
    store = open_store(shared_place.url, namespace=shelf.namespace)

    with pytest.raises(OnlineError, match=r"buckets of entity 'user' in Redis is no number"):
        store.declare_entity("user", 4)
    with pytest.raises(OnlineError, match=r"Got b'x'"):
        store.declared_buckets("user")
    said = {
        each.code: each
        for each in examine_online(store, shared_place.url, [ACTIVITY], now=lambda: NOW)
    }
    store.close()

    assert "broken" == said["buckets"].level
    assert "no number" in said["buckets"].sentence
    assert "seals" in said
