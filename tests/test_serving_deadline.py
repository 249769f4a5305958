"""Both clients when the server hangs, dies, comes back, refuses, or is not what it should be."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import pytest
import redis
import uvloop

from lockstep.errors import MissingFeatureError, OnlineError
from lockstep.online import Vectors
from lockstep.serving.aclient import AsyncClient
from lockstep.serving.client import Client
from lockstep.stores import reading
from lockstep.stores.server import EmbeddedServer
from tests.secured_servers import NAMESPACE, GuardedServer, TlsServer
from tests.served_views import ACTIVITY, CATALOG, CODECS, NOW, PATIENT, PROFILE, Both, Shelf, packed
from tests.servers import KINDS, Place, server

Runner: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
HASTY = 0.2
TRIES = 200
USERS = 50


@pytest.fixture
def shelf(own_server: EmbeddedServer) -> Iterator[Shelf]:
    """Fifty users, each with its own number."""
    with redis.Redis.from_url(own_server.url, protocol=2) as raw:
        yield filled(Shelf(raw, "test"))


def filled(shelf: Shelf) -> Shelf:
    for user in range(USERS):
        shelf.put(ACTIVITY, [user], packed(CODECS["activity"], {"n": user}))
    shelf.seal(ACTIVITY, PROFILE)
    return shelf


@pytest.fixture
def both(own_server: EmbeddedServer, shelf: Shelf) -> Iterator[Both]:
    made = Both(own_server.url, shelf.namespace)
    made.look()
    yield made
    made.close()


@pytest.fixture
def hasty(own_server: EmbeddedServer, shelf: Shelf) -> Iterator[Both]:
    made = Both(own_server.url, shelf.namespace, deadline=HASTY)
    until(lambda: healthy(made))
    yield made
    made.close()


@contextmanager
def stopped(own_server: EmbeddedServer) -> Iterator[None]:
    """A server that takes connections and answers nothing."""
    pid = own_server.process_id
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def until(holds: Callable[[], bool]) -> None:
    """Try again as often as a busy machine may need."""
    assert any(holds() for _ in range(TRIES))


def healthy(both: Both) -> bool:
    """Whether both clients answer and their breakers are closed."""
    both.clock += 1
    outages = [
        both.sync.fetch(["activity:n"], {"user_id": [1]}).outage,
        both.runner.run(both.other.fetch(["activity:n"], {"user_id": [1]})).outage,
    ]
    return outages == [None, None]


def numbers(vectors: Vectors) -> list[int | None]:
    return vectors.columns[0]


def test_a_server_that_hangs_costs_the_deadline_then_nothing_and_comes_back(
    own_server: EmbeddedServer, hasty: Both
) -> None:
    with stopped(own_server):
        late = [hasty.fetch(["activity:n"], {"user_id": [1, 2]}) for _ in range(5)]
        spared = hasty.fetch(["activity:n"], {"user_id": [1, 2]}, deadline=PATIENT * 100)
        states = (hasty.sync.breaker.state, hasty.other.breaker.state)

    assert [[["error", "error"]]] * 5 == [each.cells for each in late]
    assert {True} == {"did not answer within 200 ms" in str(each.outage) for each in late}
    assert "is not asked: 5 calls in a row failed" in str(spared.outage)
    assert ("open", "open") == states
    until(lambda: healthy(hasty))
    assert ("closed", "closed") == (hasty.sync.breaker.state, hasty.other.breaker.state)
    assert [7] == numbers(hasty.sync.fetch(["activity:n"], {"user_id": [7]}, deadline=PATIENT))


def test_what_every_cell_gets_while_the_server_hangs_is_as_declared(
    own_server: EmbeddedServer, hasty: Both
) -> None:
    features = ["activity:score", "activity:name", "activity:n"]
    with stopped(own_server):
        declared = hasty.fetch(features, {"user_id": [1]})
        filled_ = hasty.fetch(features, {"user_id": [1]}, on_missing="default")
        with pytest.raises(OnlineError, match="did not answer within 200 ms"):
            hasty.fetch(features, {"user_id": [1]}, on_missing="fail")
        with pytest.raises(OnlineError, match="did not answer"):
            hasty.fetch(["activity:n", "profile:country"], {"user_id": [1]})

    assert [[-1.0, "nobody", None]] == declared.values
    assert [[-1.0, "nobody", 0]] == filled_.values
    assert [["error"] * 3] == declared.statuses
    assert {"activity": [None]} == declared.event_us


def test_the_background_finds_a_store_that_is_back_so_that_no_caller_has_to(
    own_server: EmbeddedServer, hasty: Both
) -> None:
    with stopped(own_server):
        for _ in range(5):
            hasty.fetch(["activity:n"], {"user_id": [1]})

    def closed() -> bool:
        hasty.clock += 1
        hasty.sync._tend()
        hasty.runner.run(hasty.other._tend())
        return {"closed"} == {hasty.sync.breaker.state, hasty.other.breaker.state}

    until(closed)


def test_what_was_known_before_stays_while_looks_fail(
    own_server: EmbeddedServer, both: Both
) -> None:
    own_server.kill()

    with pytest.raises(OnlineError, match="cannot be used"):
        both.sync.look()

    assert "activity" not in both.sync.readiness
    assert "cannot be used" in str(both.sync.watch.problem)
    own_server.start()
    both.sync.look()
    assert both.sync.watch.problem is None


def test_a_killed_server_is_told_and_used_again_when_it_is_back(
    own_server: EmbeddedServer, both: Both
) -> None:
    assert [3] == numbers(both.fetch(["activity:n"], {"user_id": [3]}))
    own_server.kill()

    dead = [both.sync.fetch(["activity:n"], {"user_id": [3]})]
    dead += [both.runner.run(both.other.fetch(["activity:n"], {"user_id": [3]}))]
    own_server.start()

    assert [[["error"]]] * 2 == [each.cells for each in dead]
    assert ["cannot be used: Connection re"] * 2 == [
        str(each.outage)[str(each.outage).index("cannot") :][:29] for each in dead
    ]
    assert [3] == numbers(both.fetch(["activity:n"], {"user_id": [3]}))


def test_connections_that_went_stale_cost_one_retry_and_no_answer(
    own_server: EmbeddedServer, both: Both
) -> None:
    both.fetch(["activity:n"], {"user_id": [3]})
    own_server.kill()
    own_server.start()

    assert [4] == numbers(both.fetch(["activity:n"], {"user_id": [4]}))


def test_connections_that_the_server_closed_are_replaced(both: Both, shelf: Shelf) -> None:
    for user in range(5):
        for client in shelf.raw.client_list():
            if client["name"] == "lockstep":
                shelf.raw.client_kill_filter(_id=client["id"])
        assert [user] == numbers(both.fetch(["activity:n"], {"user_id": [user]}))


def test_eight_threads_share_three_connections(own_server: EmbeddedServer, shelf: Shelf) -> None:
    client = Client(
        CATALOG, own_server.url, namespace="test", connections=3, deadline=PATIENT, now=lambda: NOW
    )
    client.look()

    def work(seed: int) -> bool:
        users = [[(seed + n) % USERS, (seed * n) % USERS] for n in range(100)]
        return all(
            asked == numbers(client.fetch(["activity:n"], {"user_id": asked})) for asked in users
        )

    with ThreadPoolExecutor(8) as pool:
        assert [True] * 8 == list(pool.map(work, range(8)))

    mine = [found for found in shelf.raw.client_list() if found["name"] == "lockstep"]
    assert len(mine) <= 3
    client.close()


def test_waiting_for_a_connection_is_part_of_the_deadline(
    own_server: EmbeddedServer, shelf: Shelf
) -> None:
    client = Client(
        CATALOG, own_server.url, namespace="test", connections=1, deadline=HASTY, now=lambda: NOW
    )
    with stopped(own_server):
        patient = threading.Thread(
            target=client.fetch,
            args=(["activity:n"], {"user_id": [1]}),
            kwargs={"deadline": PATIENT},
        )
        patient.start()
        late = client.fetch(["activity:n"], {"user_id": [1]})
    patient.join()

    assert "did not answer within 200 ms" in str(late.outage)
    client.close()


def test_a_forked_child_does_not_speak_on_its_parents_connections(
    both: Both, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    both.sync.fetch(["activity:n"], {"user_id": [1]})
    before = {each["id"] for each in shelf.raw.client_list() if each["name"] == "lockstep"}
    parents = both.sync._reading._home
    monkeypatch.setattr(reading.os, "getpid", lambda: -1)

    found = both.sync.fetch(["activity:n"], {"user_id": [2]})

    after = {each["id"] for each in shelf.raw.client_list() if each["name"] == "lockstep"}
    assert [2] == numbers(found)
    assert before < after
    parents.clear()


@LOOPS
def test_a_cancelled_fetch_leaves_the_others_their_own_answers(
    own_server: EmbeddedServer, shelf: Shelf, run: Runner
) -> None:
    async def main() -> None:
        client = AsyncClient(
            CATALOG,
            own_server.url,
            namespace="test",
            deadline=PATIENT,
            connections=1,
            now=lambda: NOW,
        )
        await client.look()
        for _ in range(20):
            with stopped(own_server):
                tasks = [
                    asyncio.create_task(client.fetch(["activity:n"], {"user_id": [user]}))
                    for user in range(USERS)
                ]
                await ticks()
                for task in tasks[::3]:
                    task.cancel()
                await ticks()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            for user, each in enumerate(found):
                if user % 3 == 0:
                    assert isinstance(each, asyncio.CancelledError)
                else:
                    assert isinstance(each, Vectors)
                    assert [user] == numbers(each)
        mine = [each for each in shelf.raw.client_list() if each["name"] == "lockstep"]
        assert 1 == len(mine)
        await client.close()

    run(main())


@LOOPS
def test_a_fetch_that_ran_out_of_time_harms_no_other_on_its_connection(
    own_server: EmbeddedServer, shelf: Shelf, run: Runner
) -> None:
    async def main() -> None:
        client = AsyncClient(
            CATALOG,
            own_server.url,
            namespace="test",
            deadline=PATIENT,
            connections=1,
            now=lambda: NOW,
        )
        await client.look()
        with stopped(own_server):
            patient = asyncio.create_task(client.fetch(["activity:n"], {"user_id": [5]}))
            await ticks()
            late = await client.fetch(["activity:n"], {"user_id": [6]}, deadline=0.05)
        answered = await patient
        assert "did not answer within 50 ms" in str(late.outage)
        assert [5] == numbers(answered)
        assert [7] == numbers(await client.fetch(["activity:n"], {"user_id": [7]}))
        await client.close()

    run(main())


@LOOPS
def test_an_answer_that_came_while_the_loop_was_busy_is_not_late(
    own_server: EmbeddedServer, shelf: Shelf, run: Runner
) -> None:
    def be_busy(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    async def main() -> None:
        client = AsyncClient(
            CATALOG, own_server.url, namespace="test", deadline=HASTY, now=lambda: NOW
        )
        await client.look()
        for user in range(3):
            fetch = asyncio.create_task(client.fetch(["activity:n"], {"user_id": [user]}))
            await asyncio.sleep(0)
            be_busy(2 * HASTY)
            assert [user] == numbers(await fetch)
        await client.close()

    run(main())


async def ticks() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@LOOPS
def test_many_fetches_share_few_connections(
    own_server: EmbeddedServer, shelf: Shelf, run: Runner
) -> None:
    async def main() -> None:
        async with AsyncClient(
            CATALOG, own_server.url, namespace="test", deadline=PATIENT, now=lambda: NOW
        ) as client:
            fetches = (client.fetch(["activity:n"], {"user_id": [n % USERS]}) for n in range(500))
            found = await asyncio.gather(*fetches)
            assert [[n % USERS] for n in range(500)] == [numbers(each) for each in found]
            mine = [each for each in shelf.raw.client_list() if each["name"] == "lockstep"]
            assert len(mine) <= 2

    run(main())


def test_a_started_client_stops_and_starts_again(own_server: EmbeddedServer, shelf: Shelf) -> None:
    client = Client(CATALOG, own_server.url, namespace="test", deadline=PATIENT, now=lambda: NOW)
    for _ in range(2):
        with client:
            assert {} == {k: v for k, v in client.readiness.items() if k != "footfall"}
            assert [1] == numbers(client.fetch(["activity:n"], {"user_id": [1]}))


# Refusals.


def test_a_user_that_may_not_read_rows_is_told_so(own_server: EmbeddedServer, shelf: Shelf) -> None:
    shelf.raw.acl_setuser(
        "blind", enabled=True, passwords=["+canary"], keys=["*"], commands=["+hgetall", "+hget"]
    )
    url = own_server.url.replace("redis://", "redis://blind:canary@")
    both = Both(url, "test")

    found = both.fetch(["activity:n"], {"user_id": [1]})
    with pytest.raises(OnlineError, match="does not let its seals be read: NOPERM"):
        both.sync.look()

    assert [["error"]] == found.cells
    assert "refused to read: NOPERM" in str(found.outage)
    both.close()


@pytest.mark.parametrize("login", ["lockstep:canary@", ":canary@"])
def test_a_wrong_password_is_told_and_not_shown(
    own_server: EmbeddedServer, shelf: Shelf, login: str
) -> None:
    shelf.raw.acl_setuser("lockstep", enabled=True, passwords=["+right"], keys=["*"])
    shelf.raw.acl_setuser("default", passwords=["+right"], nopass=False)
    both = Both(own_server.url.replace("redis://", f"redis://{login}"), "test")

    with pytest.raises(OnlineError, match="does not allow this user") as refused:
        both.fetch(["profile:country"], {"user_id": [1]})

    assert "canary" not in str(refused.value)
    shelf.raw.acl_setuser("default", nopass=True)
    both.close()


def test_the_reading_role_suffices(acl_server: GuardedServer) -> None:
    port = acl_server.server.port
    with redis.Redis(port=port, username="test", protocol=2) as raw:
        filled(Shelf(raw, NAMESPACE))
    both = Both(acl_server.url("service"), NAMESPACE)
    both.look()

    assert [7] == numbers(both.fetch(["activity:n"], {"user_id": [7]}))
    both.close()


def test_tls_is_verified(tls_server: TlsServer) -> None:
    with tls_server.server.client() as raw:
        filled(Shelf(raw, "test"))
    both = Both(tls_server.url(), "test")
    both.look()

    assert [7] == numbers(both.fetch(["activity:n"], {"user_id": [7]}))
    both.close()
    for url in (tls_server.url(query=""), tls_server.url(host="127.0.0.1")):
        strange = Both(url, "test")
        with pytest.raises(OnlineError, match="certificate that cannot be verified"):
            strange.fetch(["profile:country"], {"user_id": [7]})
        strange.close()


def test_a_plain_client_of_a_tls_port_is_told_something(tls_server: TlsServer) -> None:
    both = Both(f"redis://localhost:{tls_server.server.port}", "test")

    for fetch in (
        lambda: both.sync.fetch(["activity:n"], {"user_id": [1]}),
        lambda: both.runner.run(both.other.fetch(["activity:n"], {"user_id": [1]})),
    ):
        assert "cannot be used" in str(fetch().outage)
    both.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_unix_socket_is_as_good(kind: str, tmp_path: Path) -> None:
    place = Path("/tmp") / f"lockstep-{uuid4().hex[:8]}.sock"  # noqa: S108 - the path must be short
    started = server(kind, tmp_path / "server", {"unixsocket": str(place)})
    started.start()
    with redis.Redis.from_url(started.url, protocol=2) as raw:
        filled(Shelf(raw, "test"))
    both = Both(f"unix://{place}", "test")
    both.look()

    assert [7] == numbers(both.fetch(["activity:n"], {"user_id": [7]}))
    both.close()
    started.stop()


def test_a_name_and_another_database_are_as_good(own_server: EmbeddedServer) -> None:
    url = own_server.url.replace("127.0.0.1", "localhost").replace("/0", "/3")
    with redis.Redis.from_url(url, protocol=2) as raw:
        filled(Shelf(raw, "test"))
    both = Both(url, "test")
    both.look()

    assert [7] == numbers(both.fetch(["activity:n"], {"user_id": [7]}))
    both.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
        b"+OK\r\n+OK\r\n+OK\r\n",
        b"$100000000000000000000\r\n",
        b"-ERR unknown command 'HELLO'\r\n",
    ],
)
def test_what_is_no_redis_is_told_so(answer: bytes) -> None:
    with impostor(answer) as port:
        both = Both(f"redis://127.0.0.1:{port}", "test")
        found = [
            both.sync.fetch(["activity:n"], {"user_id": [1]}),
            both.runner.run(both.other.fetch(["activity:n"], {"user_id": [1]})),
        ]
        both.close()

    assert [[["error"]]] * 2 == [each.cells for each in found]
    assert all(f"127.0.0.1:{port}/0" in str(each.outage) for each in found)


@contextmanager
def impostor(answer: bytes) -> Iterator[int]:
    """Something that answers the same to everybody, and closes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connected, _ = listening.accept()
            except OSError:
                return
            with connected:
                connected.recv(1000)
                connected.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def test_a_missing_cell_is_no_outage(both: Both) -> None:
    for _ in range(10):
        with pytest.raises(MissingFeatureError):
            both.fetch(["profile:country"], {"user_id": [1]})

    assert ("closed", 0) == (both.sync.breaker.state, both.sync.breaker.failures)


def test_a_key_of_another_kind_does_not_open_the_breaker(both: Both, shelf: Shelf) -> None:
    shelf.raw.set(shelf.name_of(ACTIVITY, [1000]), "no hash")

    for _ in range(10):
        assert [["error"]] == both.fetch(["activity:n"], {"user_id": [1000]}).cells

    assert ("closed", 0) == (both.sync.breaker.state, both.sync.breaker.failures)


def test_the_cluster_is_read_in_one_go(shared_place: Place, raw: "redis.Redis") -> None:
    shelf = filled(Shelf(raw, f"test:{uuid4().hex}"))
    both = Both(shared_place.url, shelf.namespace)
    both.look()

    found = both.fetch(["activity:n"], {"user_id": list(range(USERS))})

    assert list(range(USERS)) == numbers(found)
    assert {"footfall"} == set(both.sync.readiness)
    both.close()
