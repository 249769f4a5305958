"""A slow or dead store costs at most the deadline; overload is shed; stopping drains."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from lockstep.serving.admission import Admission
from lockstep.stores.server import EmbeddedServer
from tests.serving_world import (
    Reply,
    Running,
    make_catalog,
    new_namespace,
    push_all,
    raw_connection,
    running,
)

DEADLINE_MS = 100
PATIENCE = 20.0


@pytest.fixture
def served(own_server: EmbeddedServer, tmp_path: Path) -> Iterator[Running]:
    namespace = new_namespace()
    push_all(own_server.url, namespace, make_catalog())
    with running(own_server.url, namespace, tmp_path, deadline_ms=DEADLINE_MS) as it:
        yield it


@contextmanager
def stopped(server: EmbeddedServer) -> Iterator[None]:
    """Redis hangs: it holds its connections and answers nothing."""
    process = server.process_id
    assert process is not None
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives once it gives something."""
    ends = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < ends, "it never came true"
    return found


def ask(served: Running, users: int = 1, **more: Any) -> Reply:
    return served.features(["spend:amount", "spend:visits"], list(range(1, users + 1)), **more)


def test_a_store_that_hangs_leaves_declared_fallbacks_and_says_error(
    served: Running, own_server: EmbeddedServer
) -> None:
    with stopped(own_server):
        document = ask(served).json
        refused = ask(served, on_missing="fail")
    healthy = until(lambda: (told := ask(served).json)["problem"] is None and told)

    assert [["error"], ["error"]] == document["statuses"]
    assert "The online store could not be read, so every cell is an error." == document["problem"]
    assert [["present"], ["present"]] == healthy["statuses"]
    assert [[None], [0]] == document["values"]
    assert [
        {"feature": name, "entities": [0], "statuses": ["error"]}
        for name in ("spend:amount", "spend:visits")
    ] == document["missing"]
    assert (503, "OnlineError", "1") == (
        refused.status,
        refused.error,
        refused.headers["retry-after"],
    )
    assert 2 == len(refused.json["missing"])


def test_the_breaker_opens_the_service_is_not_ready_and_both_recover(
    served: Running, own_server: EmbeddedServer
) -> None:
    with stopped(own_server):
        until(lambda: ask(served) and served.get("/readyz").status == 503)
        not_ready = served.get("/readyz").json
        metrics = served.get("/metrics").body
        spared = ask(served)
    until(lambda: ask(served).json["statuses"] == [["present"], ["present"]])
    until(lambda: served.get("/readyz").status == 200)

    assert "the online store does not answer" == not_ready["reason"]
    assert b'lockstep_breaker_state{state="closed"} 0.0' in metrics
    assert [["error"], ["error"]] == spared.json["statuses"]
    assert 200 == served.get("/healthz").status


def test_a_store_that_is_killed_and_comes_back_needs_no_restart_of_the_service(
    served: Running, own_server: EmbeddedServer
) -> None:
    own_server.kill()
    dead = ask(served)
    own_server.start()
    push_all(own_server.url, served.namespace, make_catalog()) if _empty(own_server, served) else ()

    back = until(lambda: ask(served).json["statuses"] == [["present"], ["present"]])

    assert [["error"], ["error"]] == dead.json["statuses"]
    assert back


def _empty(server: EmbeddedServer, served: Running) -> bool:
    import redis

    with redis.Redis.from_url(server.url, protocol=2) as client:
        return not client.exists(f"{served.namespace}!schemas")


def test_a_service_that_starts_before_its_store_becomes_ready_by_itself(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    namespace = new_namespace()
    push_all(own_server.url, namespace, make_catalog())
    with (
        stopped(own_server),
        running(own_server.url, namespace, tmp_path, deadline_ms=DEADLINE_MS) as early,
    ):
        first = early.get("/readyz").status
        os.kill(own_server.process_id or 0, signal.SIGCONT)
        until(lambda: early.get("/readyz").status == 200)
        document = ask(early).json

    assert 503 == first
    assert [["present"], ["present"]] == document["statuses"]


def test_beyond_places_and_queue_requests_are_shed_and_afterwards_served(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    namespace = new_namespace()
    push_all(own_server.url, namespace, make_catalog())
    settings = {"deadline_ms": 1000, "max_in_flight": 2, "max_queue": 3}
    with running(own_server.url, namespace, tmp_path, **settings) as served:
        with ThreadPoolExecutor(40) as pool:
            with stopped(own_server):
                asked = [pool.submit(ask, served) for _ in range(40)]
                until(lambda: sum(each.done() for each in asked) >= 35)
                health = served.get("/healthz").status
            answers = [each.result() for each in asked]
        after = [ask(served).status for _ in range(10)]
        metrics = served.get("/metrics").body.decode()

    shed = [answer for answer in answers if answer.status == 503]
    assert 200 == health
    assert 5 >= len(answers) - len(shed)
    assert {"Overloaded"} == {answer.error for answer in shed}
    assert {"1"} == {answer.headers["retry-after"] for answer in shed}
    assert [200] * 10 == after
    assert "lockstep_shed_requests_total" in metrics
    assert "lockstep_in_flight_requests 0.0" in metrics


def test_five_hundred_clients_at_once_are_all_answered_one_way_or_the_other(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    namespace = new_namespace()
    push_all(own_server.url, namespace, make_catalog())
    body = b'{"feature_set":"spending_v1","entities":{"user_id":[1,2,3]}}'
    head = (
        b"POST /v1/features HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )

    async def client(port: int, start: asyncio.Event) -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await start.wait()
        statuses = []
        for _ in range(3):
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            statuses.append(answer.split(b" ", 2)[1])
        writer.close()
        return statuses

    async def all_at_once(port: int) -> list[bytes]:
        start = asyncio.Event()
        clients = [asyncio.create_task(client(port, start)) for _ in range(500)]
        await asyncio.sleep(0)
        start.set()
        return [status for found in await asyncio.gather(*clients) for status in found]

    settings = {"max_in_flight": 8, "max_queue": 16}
    with running(own_server.url, namespace, tmp_path, **settings) as served:
        statuses = asyncio.run(all_at_once(served.port))
        after = ask(served).status

    assert 1500 == len(statuses)
    assert {b"200", b"503"} == set(statuses)
    assert 200 == after


def test_callers_that_go_away_leave_no_place_taken(
    served: Running, own_server: EmbeddedServer
) -> None:
    body = b'{"feature_set":"spending_v1","entities":{"user_id":[1]}}'
    head = b"POST /v1/features HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with stopped(own_server):
        for _ in range(20):
            with raw_connection(served.port) as connection:
                connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            with raw_connection(served.port) as connection:
                connection.sendall(head + b"Content-Length: 100\r\n\r\n{")

    until(lambda: b"lockstep_in_flight_requests 0.0" in served.get("/metrics").body)
    until(lambda: ask(served).json["statuses"] == [["present"], ["present"]])


def test_stopping_answers_what_was_begun_and_takes_nothing_new(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    namespace = new_namespace()
    push_all(own_server.url, namespace, make_catalog())
    served = running(own_server.url, namespace, tmp_path, deadline_ms=2000)
    answers: list[Reply] = []
    idle = HTTPConnection("127.0.0.1", served.port, timeout=10)
    idle.request("GET", "/healthz")
    idle.getresponse().read()
    with stopped(own_server):
        begun = [threading.Thread(target=lambda: answers.append(ask(served))) for _ in range(5)]
        for each in begun:
            each.start()
        until(lambda: b"lockstep_in_flight_requests 5.0" in served.get("/metrics").body)
        served.server.should_exit = True
        until(lambda: served.service.draining)
        idle.request("GET", "/readyz")
        last = idle.getresponse()
        last_said = last.read()
        until(lambda: not _listens(served.port))
    for each in begun:
        each.join()
    served.thread.join(10)

    assert [200] * 5 == [answer.status for answer in answers]
    assert {"present"} == {s for a in answers for column in a.json["statuses"] for s in column}
    assert (503, "close") == (last.status, last.headers["connection"])
    assert b"the service is stopping" in last_said
    assert not served.thread.is_alive()


def _listens(port: int) -> bool:
    try:
        with raw_connection(port):
            return True
    except ConnectionRefusedError:
        return False


def test_what_takes_longer_than_draining_may_take_is_cut_off(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    namespace = new_namespace()
    push_all(own_server.url, namespace, make_catalog())
    settings = {"deadline_ms": 60_000, "drain_seconds": 0.5}
    served = running(own_server.url, namespace, tmp_path, **settings)
    with stopped(own_server):
        asking = threading.Thread(target=lambda: _ignoring(lambda: ask(served)), daemon=True)
        asking.start()
        until(lambda: b"lockstep_in_flight_requests 1.0" in served.get("/metrics").body)
        served.stop()
        assert not served.thread.is_alive()


def _ignoring(asked: Callable[[], Any]) -> None:
    with suppress(OSError):
        asked()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_places_are_given_in_order_of_arrival() -> None:
    async def scenario() -> list[int]:
        admission = Admission(1, 10, 60, Clock())
        assert admission.enter_now()
        order: list[int] = []

        async def one(at: int) -> None:
            assert await admission.enter()
            order.append(at)
            admission.leave()

        waiting = [asyncio.create_task(one(at)) for at in range(5)]
        await asyncio.sleep(0)
        admission.leave()
        await asyncio.gather(*waiting)
        assert (0, 0) == (admission.in_flight, admission.queued)
        return order

    assert [0, 1, 2, 3, 4] == asyncio.run(scenario())


def test_who_would_wait_longer_than_allowed_is_shed_at_once() -> None:
    async def scenario() -> tuple[bool, dict[str, int]]:
        clock = Clock()
        admission = Admission(1, 100, 0.05, clock)
        admission.enter_now()
        for _ in range(100):  # a place is given back every 40 ms, and taken again
            clock.now += 0.04
            waiting = asyncio.create_task(admission.enter())
            await asyncio.sleep(0)
            admission.leave()
            assert await waiting
        first = asyncio.create_task(admission.enter())
        await asyncio.sleep(0)
        second = await admission.enter()
        first.cancel()
        return second, dict(admission.shed)

    second, shed = asyncio.run(scenario())
    assert (False, 1) == (second, shed["deadline"])


def test_who_waits_too_long_is_shed_although_nobody_leaves() -> None:
    async def scenario() -> tuple[bool, int]:
        admission = Admission(1, 10, 0.01, Clock())
        admission.enter_now()
        return await admission.enter(), admission.queued

    assert (False, 0) == asyncio.run(scenario())


def test_a_waiting_request_that_is_cancelled_loses_no_place() -> None:
    async def scenario() -> tuple[int, int]:
        admission = Admission(1, 10, 60, Clock())
        admission.enter_now()
        waiting = [asyncio.create_task(admission.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        admission.leave()
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        admission.leave()
        return admission.in_flight, admission.queued

    assert (0, 0) == asyncio.run(scenario())
