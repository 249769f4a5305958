"""What one connection may cost: trailers, pipelined floods, and callers who take no answer."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from lockstep.serving.protocol import GuardedProtocol
from tests.serving_world import (
    Running,
    make_catalog,
    new_namespace,
    push_all,
    raw_connection,
    received,
    running,
)

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.0\r\n\r\n"
CHUNKED = (
    b"POST /v1/features HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
)
TRAILERS = b"".join(b"x-%d: %s\r\n" % (at, b"x" * 1000) for at in range(1000))
MIB = 2**20
PATIENCE = 20.0


@pytest.fixture(scope="module")
def namespace(redis_url: str) -> str:
    made = new_namespace()
    push_all(redis_url, made, make_catalog())
    return made


@pytest.fixture(scope="module")
def patient(
    redis_url: str, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A service that waits longer than a test, so that it is no limit of time that ends one."""
    folder = tmp_path_factory.mktemp("patient")
    with running(redis_url, namespace, folder, read_seconds=600.0, idle_seconds=600.0) as it:
        yield it


@pytest.fixture(scope="module")
def strict(
    redis_url: str, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A service that soon closes what is too slow, and nothing for being idle."""
    folder = tmp_path_factory.mktemp("strict")
    with running(redis_url, namespace, folder, read_seconds=0.5, idle_seconds=600.0) as it:
        yield it


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives once it gives something."""
    ends = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < ends, "it never came true"
    return found


def connections(served: Running) -> list[GuardedProtocol]:
    return [
        each
        for each in served.server.server_state.connections.copy()
        if isinstance(each, GuardedProtocol)
    ]


def open_one(served: Running) -> GuardedProtocol:
    """The service's side of the only connection."""
    (found,) = until(lambda: len(connections(served)) == 1 and connections(served))
    assert isinstance(found, GuardedProtocol)
    return found


def test_trailers_are_read_and_not_kept(patient: Running) -> None:
    with raw_connection(patient.port) as connection:
        protocol = open_one(patient)
        connection.sendall(CHUNKED + TRAILERS + b"\r\n")
        answer = connection.recv(1000)
        kept = protocol.headers

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert [b"host", b"content-type", b"transfer-encoding"] == [name for name, _ in kept]


@pytest.mark.parametrize("trailer", [TRAILERS, b"x" * MIB], ids=["lines", "one line"])
def test_endless_trailers_end_the_connection(patient: Running, trailer: bytes) -> None:
    with raw_connection(patient.port) as connection:
        with suppress(ConnectionError):  # what is sent after its end is refused by the kernel
            connection.sendall(CHUNKED + b"x: ")
            for _ in range(8):
                connection.sendall(trailer)

        until(lambda: not connections(patient))


def test_as_many_requests_as_may_wait_are_answered(patient: Running) -> None:
    with raw_connection(patient.port) as connection:
        connection.sendall(GET * 64 + LAST)
        answers = received(connection)

    assert [b"200"] * 65 == re.findall(rb"HTTP/1\.1 (\d+) ", answers)


def test_a_flood_of_pipelined_requests_ends_the_connection(patient: Running) -> None:
    asked = 20_000
    answers = b""
    with raw_connection(patient.port) as connection, suppress(ConnectionError):
        connection.sendall(GET * asked + LAST)
        answers = received(connection)

    assert len(re.findall(rb"HTTP/1\.1 200 ", answers)) < asked
    until(lambda: not connections(patient))
    assert 200 == patient.get("/healthz").status


def not_taking(served: Running, connection: socket.socket) -> GuardedProtocol:
    """Ask for what fills every buffer on the way, and take none of it."""
    protocol = open_one(served)
    path = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    asked = 0

    def paused() -> bool:
        nonlocal asked
        if asked == served.server.server_state.total_requests - before:
            connection.sendall(path)
            asked += 1
        return protocol.flow.write_paused

    before = served.server.server_state.total_requests
    until(paused)
    return protocol


def test_who_takes_no_answer_is_cut_off(strict: Running) -> None:
    with raw_connection(strict.port) as connection:
        not_taking(strict, connection)

        until(lambda: not connections(strict))


def test_asking_for_more_buys_no_time_to_who_takes_no_answer(strict: Running) -> None:
    with raw_connection(strict.port) as connection:
        not_taking(strict, connection)
        connection.sendall(GET)

        until(lambda: not connections(strict))


def test_a_refusal_that_is_not_taken_keeps_no_place(strict: Running) -> None:
    """The last words wait behind answers that nobody reads: they are not waited for forever."""
    with raw_connection(strict.port) as connection:
        not_taking(strict, connection)
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)

        until(lambda: not connections(strict))


def test_what_ends_a_connection_is_not_told_as_the_answer_to_an_earlier_request(
    patient: Running,
) -> None:
    """The second request is refused for its headers while the first is not answered yet."""
    too_long = b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"
    asked = b'{"feature_set": "spending_v1", "entities": {"user_id": [1]}}'
    first = (
        b"POST /v1/features HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(asked), asked)
    )
    with raw_connection(patient.port) as connection:
        connection.sendall(first + too_long)
        answers = received(connection)

    assert not answers.startswith(b"HTTP/1.1 431 ")
    assert b"HTTP/1.1 500 " not in answers
