"""The online store when its server restarts, forgets, fills up, hangs, or the writer is killed."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
import redis

from lockstep.crash import CrashPoint
from lockstep.errors import ConfigError, ConflictError, OnlineError, PushFailedError
from lockstep.layout import Receipt
from lockstep.serving.client import Client
from lockstep.stores.redis import OnlineStore
from lockstep.stores.server import EmbeddedServer
from tests.online_rows import (
    BUCKETS,
    CODEC,
    ENTITY,
    IDS,
    VIEW,
    keys_of,
    packed,
    push,
    push_rows,
    seals_of,
    versions,
)
from tests.servers import open_store
from tests.serving_world import make_catalog

ROOT = Path(__file__).parent.parent
PASSWORD = "s3cr3t/canary"  # noqa: S105


def test_functions_lost_in_mid_life_are_loaded_again(own_server: EmbeddedServer) -> None:
    store = open_store(own_server.url)
    store.ensure_ready()
    push(store, 7)
    with redis.Redis.from_url(own_server.url) as raw:
        raw.function_flush()

    receipt = push(store, 8)

    assert receipt.written == len(IDS)
    assert versions(store) == {8}
    store.close()


def test_functions_are_loaded_by_whoever_pushes_first(own_server: EmbeddedServer) -> None:
    store = open_store(own_server.url)

    push(store, 7)
    store.ensure_ready()

    with redis.Redis.from_url(own_server.url) as raw:
        assert len(raw.function_list()) == 1
    store.close()


def until_written(server: EmbeddedServer) -> None:
    """Wait until the kernel has the log: while an fsync is slow, Redis holds it back up to 2 s."""
    with redis.Redis.from_url(server.url) as raw:
        while raw.info("persistence")["aof_buffer_length"]:
            pass


def test_acknowledged_rows_and_seals_survive_a_killed_server(own_server: EmbeddedServer) -> None:
    store = open_store(own_server.url, namespace="kept")
    push(store, 7)
    until_written(own_server)
    own_server.kill()

    again = open_store(own_server.start(), namespace="kept")

    assert versions(again) == {7}
    assert again.seals(ENTITY, VIEW, BUCKETS) == seals_of(7)
    push(again, 8)
    assert versions(again) == {8}
    again.close()
    store.close()


def test_a_server_that_came_back_empty_has_no_seals_and_takes_the_push_again(
    own_server: EmbeddedServer,
) -> None:
    store = open_store(own_server.url)
    store.declare_entity(ENTITY, BUCKETS)
    push(store, 7)
    with redis.Redis.from_url(own_server.url) as raw:
        raw.flushall()
        raw.function_flush()

    assert store.seals(ENTITY, VIEW, BUCKETS) == dict.fromkeys(range(BUCKETS))
    store.declare_entity(ENTITY, BUCKETS)
    push(store, 7)

    assert versions(store) == {7}
    store.close()


def test_a_full_server_fails_the_push_loudly_and_seals_nothing(own_server: EmbeddedServer) -> None:
    store = open_store(own_server.url)
    ids = range(20_000)
    rows = push_rows(keys_of(ids), packed(7, ids))
    with redis.Redis.from_url(own_server.url) as raw:
        store.ensure_ready()
        raw.config_set("maxmemory", store.info().used_memory + 400_000)

        with pytest.raises(OnlineError, match="out of memory") as refused:
            store.push(ENTITY, VIEW, BUCKETS, rows, seals=seals_of(7), started_from={})

        seals = store.seals(ENTITY, VIEW, BUCKETS)
        stored = dict(store.scan(ENTITY, VIEW))
        raw.config_set("maxmemory", 0)
    assert "what is sealed is complete" in str(refused.value)
    assert isinstance(refused.value, PushFailedError)
    assert isinstance(refused.value.receipt, Receipt)
    assert refused.value.receipt.written <= len(stored)
    assert None in seals.values()
    assert 0 < len(stored) < len(ids)
    assert {CODEC.decode(value).header.version for value in stored.values()} == {7}
    store.push(ENTITY, VIEW, BUCKETS, rows, seals=seals_of(7), started_from=seals)
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(7)
    store.close()


def test_a_full_server_can_still_be_wiped(own_server: EmbeddedServer) -> None:
    store = open_store(own_server.url)
    push(store, 7)
    with redis.Redis.from_url(own_server.url) as raw:
        raw.config_set("maxmemory", 1)

        removed = store.wipe(ENTITY, VIEW, BUCKETS, table_id=None)

    assert removed == len(IDS)
    store.close()


def test_a_server_that_evicts_rows_is_refused_unless_allowed(own_server: EmbeddedServer) -> None:
    store = open_store(own_server.url)
    with redis.Redis.from_url(own_server.url) as raw:
        raw.config_set("maxmemory", 100_000_000)
        store.ensure_ready()
        raw.config_set("maxmemory-policy", "allkeys-lru")

        with pytest.raises(OnlineError, match=r"Expected maxmemory-policy noeviction, got allkeys"):
            store.ensure_ready()

    allowed = OnlineStore(own_server.url, namespace="test", allow_eviction=True)
    assert allowed.ensure_ready().maxmemory_policy == "allkeys-lru"
    allowed.close()
    store.close()


def test_a_server_that_hangs_costs_the_timeout_once_and_the_late_write_converges(
    own_server: EmbeddedServer,
) -> None:
    patient = open_store(own_server.url, namespace="hangs")
    push(patient, 7)
    pid = own_server.process_id
    assert pid is not None
    hasty = open_store(own_server.url, namespace="hangs", socket_timeout=0.2)
    start = hasty.seals(ENTITY, VIEW, BUCKETS)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(OnlineError, match=r"did not answer within 0\.2 s") as refused:
            push(hasty, 8, started_from=start)
        with pytest.raises(OnlineError, match="did not answer"):
            hasty.fetch(ENTITY, keys_of(), [VIEW], BUCKETS)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert "unknown" in str(refused.value)
    push(patient, 8)
    assert versions(patient) == {8}
    patient.close()
    hasty.close()


def test_an_interrupted_wipe_keeps_pushes_out_until_a_wipe_finishes(
    own_server: EmbeddedServer,
) -> None:
    store = open_store(own_server.url)
    push(store, 7)
    with redis.Redis.from_url(own_server.url) as raw:
        for bucket in range(BUCKETS):
            name = store.names.bucket_key(ENTITY, bucket)
            raw.hset(name, f"table:{VIEW}", "wiping table-b")

    assert store.table_ids(ENTITY, VIEW, BUCKETS) == {"wiping table-b"}
    with pytest.raises(ConflictError, match="belongs to table wiping table-b"):
        push(store, 1, table="table-b")

    store.wipe(ENTITY, VIEW, BUCKETS, table_id="table-b")
    push(store, 1, table="table-b")
    assert versions(store) == {1}
    store.close()


KILLED = """
import sys
from tests.online_rows import push
from tests.servers import open_store

push(open_store(sys.argv[1], namespace="killed"), 8)
"""


@pytest.mark.parametrize(("point", "rows_at_8"), [("mid_push", "some"), ("pushed", "all")])
def test_a_killed_push_is_completed_by_a_rerun_alone(
    own_server: EmbeddedServer, point: CrashPoint, rows_at_8: str
) -> None:
    store = open_store(own_server.url, namespace="killed")
    push(store, 7)
    environment = {**os.environ, "LOCKSTEP_TESTING": "1", "LOCKSTEP_CRASH": point}

    child = subprocess.run(
        [sys.executable, "-c", KILLED, own_server.url], cwd=ROOT, env=environment, check=False
    )

    assert child.returncode == -signal.SIGKILL
    assert versions(store) == ({7, 8} if rows_at_8 == "some" else {8})
    assert store.seals(ENTITY, VIEW, BUCKETS) != seals_of(8)
    push(store, 8)
    assert versions(store) == {8}
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(8)
    assert store.fetch(ENTITY, keys_of(), [VIEW], BUCKETS) == [[value] for value in packed(8)]
    store.close()


def test_nobody_listening_is_said_with_the_address_and_without_the_password() -> None:
    store = OnlineStore(f"redis://bob:{PASSWORD.replace('/', '%2F')}@127.0.0.1:1/3", namespace="x")

    with pytest.raises(OnlineError, match=r"127\.0\.0\.1:1/3 cannot be used") as refused:
        store.ping()

    assert PASSWORD not in everything_said(refused.value)
    store.close()


@pytest.mark.parametrize("place", ["redis://127.0.0.1:1/3", "unix:///nobody/there.sock"])
def test_a_call_that_was_never_sent_is_said_to_have_changed_nothing(place: str) -> None:
    store = OnlineStore(place, namespace="x")
    reader = Client(make_catalog(), place, namespace="x", outage="raise")
    said = []
    for call in (store.ping, store.nodes, lambda: store.notes("unready")):
        with pytest.raises(OnlineError) as refused:
            call()
        said.append(refused.value)
    with pytest.raises(OnlineError) as unread:
        reader.fetch(["spend:amount"], {"user_id": [1]})

    assert {"The last call was not sent, so it changed nothing."} == {e.effect for e in said}
    assert {unread.value.culprit} == {error.culprit for error in said}
    assert "Error" not in unread.value.culprit
    store.close()
    reader.close()


def test_a_server_that_goes_away_after_the_call_leaves_it_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        store = OnlineStore(f"redis://127.0.0.1:{listening.getsockname()[1]}", namespace="x")

        def hang_up() -> None:
            taken, _ = listening.accept()
            taken.close()

        gone = Thread(target=hang_up)
        gone.start()
        with pytest.raises(OnlineError, match="carried out is unknown"):
            store.ping()
        gone.join()
    store.close()


def test_a_wrong_password_is_refused_without_repeating_it(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as raw:
        raw.execute_command("ACL", "SETUSER", "bob", "on", ">right", "+@all", "~*")
    address = own_server.url.removeprefix("redis://")
    store = OnlineStore(f"redis://bob:{PASSWORD.replace('/', '%2F')}@{address}", namespace="x")

    with pytest.raises(OnlineError, match="does not allow this user") as refused:
        store.fetch(ENTITY, keys_of(), [VIEW], BUCKETS)

    assert PASSWORD not in everything_said(refused.value)
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        f"redis://bob:{PASSWORD}@127.0.0.1:6379/0",
        f"http://bob:{PASSWORD}@127.0.0.1",
        f"redis://bob:{PASSWORD}@127.0.0.1:port",
        f"redis://[bob:{PASSWORD}",
        "",
    ],
)
def test_a_url_that_cannot_be_read_is_never_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match="URL cannot be read") as refused:
        OnlineStore(url, namespace="x")

    assert "s3cr3t" not in everything_said(refused.value)


def everything_said(error: BaseException | None) -> str:
    """The message with those of its causes and context, as a log would keep them."""
    said = []
    while error is not None:
        said.append(repr(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(said)
