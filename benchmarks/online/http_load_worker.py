"""Sends HTTP requests over kept-alive connections and times them: closed and open loops.

The open loop sends every request when it is due, whatever became of those before, and counts its
time from then: what waits in line behind a slow answer is not left out.
"""

import json
import math
import random
import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle
from typing import Any

from benchmarks.online.talk import answer
from benchmarks.timing import spread

OK = 200
DEGRADED = -1
"""An answer of 200 that says of a cell that it could not be read."""
SHED = 503
LINGER = 3.0  # seconds that answers may take after the last request was due


@dataclass
class Connection:
    """One kept-alive connection and the request under way on it."""

    socket: socket.socket
    due: float = 0.0
    received: bytearray = field(default_factory=bytearray)
    whole: int = 0  # bytes of the whole answer once its head was read
    status: int = 0

    def send(self, request: bytes, due: float) -> None:
        """Send a request; small enough for the socket's buffer."""
        self.due, self.whole = due, 0
        self.received.clear()
        self.socket.sendall(request)

    def receive(self, degraded: bytes) -> bool:
        """Take what has come; whether the answer is whole.

        Args:
            degraded: What an answer contains that could not read the store; empty is nothing.

        Raises:
            ConnectionError: The server closed the connection.
        """
        got = self.socket.recv(1 << 18)
        if not got:
            raise ConnectionError
        self.received += got
        if not self.whole:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self.received[:end]).lower()
            self.status = int(head[9:12])
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self.whole = end + 4 + int(length)
        whole = len(self.received) >= self.whole
        if whole and self.status == OK and degraded and degraded in self.received:
            self.status = DEGRADED
        return whole


@dataclass(frozen=True)
class Answered:
    """One request: when it was due, when it was answered (seconds since the start), and how."""

    due: float
    at: float
    status: int


class Load:
    """A number of connections to one server."""

    def __init__(
        self, port: int, requests: Sequence[bytes], connections: int, degraded: bytes = b""
    ) -> None:
        self.port, self.degraded = port, degraded
        self.requests = cycle(requests)
        self.poll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.idle: deque[Connection] = deque()
        self.answers: list[Answered] = []
        self.lateness: list[float] = []
        self.sent_bytes = self.received_bytes = 0
        for _ in range(connections):
            self._connect()
        self.begin = time.perf_counter()

    def close(self) -> None:
        """Close every connection."""
        for connection in self.connections.values():
            connection.socket.close()
        self.poll.close()

    def _connect(self) -> None:
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(opened)
        self.connections[opened.fileno()] = connection
        self.poll.register(opened.fileno(), select.EPOLLIN)
        self.idle.append(connection)

    def _drop(self, connection: Connection) -> None:
        number = connection.socket.fileno()
        self.poll.unregister(number)
        del self.connections[number]
        connection.socket.close()
        self._connect()

    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.begin

    def send(self, due: float) -> None:
        """Send the next request on an idle connection."""
        connection = self.idle.popleft()
        try:
            connection.send(next(self.requests), due)
        except OSError:
            self.answers.append(Answered(due, self.now(), 0))
            self._drop(connection)

    def receive(self, timeout: float) -> int:
        """Wait for answers; how many became whole."""
        # epoll alone would wait in whole milliseconds.
        select.select([self.poll.fileno()], [], [], max(0.0, timeout))
        whole = 0
        for number, _ in self.poll.poll(0):
            connection = self.connections[number]
            try:
                if not connection.receive(self.degraded):
                    continue
            except OSError:
                self.answers.append(Answered(connection.due, self.now(), 0))
                self._drop(connection)
                whole += 1
                continue
            self.answers.append(Answered(connection.due, self.now(), connection.status))
            self.received_bytes = connection.whole
            self.idle.append(connection)
            whole += 1
        return whole

    def closed(self, seconds: float) -> None:
        """Keep every connection busy for some seconds."""
        while self.idle:
            self.send(self.now())
        while self.now() < seconds:
            if self.receive(0.1):
                while self.idle:
                    self.send(self.now())
        self._drain(0)

    def open(self, arrivals: Iterator[float]) -> None:
        """Send a request at every instant (seconds since the start), then wait for the rest."""
        overdue: deque[float] = deque()
        following = next(arrivals, None)
        end = math.inf
        while (following is not None or overdue) and self.now() < end:
            while following is not None and following <= self.now():
                self.lateness.append(self.now() - following)
                overdue.append(following)
                end = following + LINGER
                following = next(arrivals, None)
            end = math.inf if following is not None else end
            while overdue and self.idle:
                self.send(overdue.popleft())
            self.receive(0.1 if following is None else following - self.now())
        self.answers += [Answered(due, self.now(), 0) for due in overdue]
        self._drain(LINGER)

    def _drain(self, seconds: float) -> None:
        """Wait for what is under way; what does not come is counted as no answer."""
        end = self.now() + max(seconds, 1.0)
        while len(self.idle) < len(self.connections) and self.now() < end:
            self.receive(0.1)
        waiting = set(map(id, self.connections.values())) - set(map(id, self.idle))
        self.answers += [
            Answered(c.due, self.now(), 0) for c in self.connections.values() if id(c) in waiting
        ]

    def summary(self, seconds: float) -> dict[str, Any]:
        """Times of the good answers, answers per second, and how many were not good."""
        good = [one.at - one.due for one in self.answers if one.status == OK]
        statuses: dict[str, int] = {}
        for one in self.answers:
            statuses[str(one.status)] = statuses.get(str(one.status), 0) + 1
        late = spread(self.lateness)
        return {
            **spread(good),
            "per_s": round(len(good) / max([seconds, *(one.at for one in self.answers)]), 1),
            "statuses": statuses,
            "answer_bytes": self.received_bytes,
            **({"sent_late_p99_ms": late["p99_ms"]} if self.lateness else {}),
        }


def requests_of(path: str, bodies: Sequence[Any]) -> list[bytes]:
    """The requests as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    texts = [json.dumps(body, separators=(",", ":")).encode() for body in bodies]
    return [f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text for text in texts]


def evenly(rate: float, start: float, end: float) -> Iterator[float]:
    """Instants a steady time apart."""
    count = int((end - start) * rate)
    return (start + at / rate for at in range(count))


def poisson(rate: float, start: float, end: float) -> Iterator[float]:
    """Instants as independent clients make them, the same in every run."""
    seeded = random.Random(20261122)  # noqa: S311 - arrivals, no secret
    at = start + seeded.expovariate(rate)
    while at < end:
        yield at
        at += seeded.expovariate(rate)


ARRIVALS = {"even": evenly, "poisson": poisson}


class Target:
    """The server under load and the requests to it."""

    def aim(self, port: int, path: str, bodies: list[Any], degraded: str) -> int:
        """Choose server and requests; how many."""
        self.port, self.requests = port, requests_of(path, bodies)
        self.degraded = degraded.encode()
        return len(self.requests)

    def _load(self, connections: int) -> Load:
        return Load(self.port, self.requests, connections, self.degraded)

    def closed(self, connections: int, seconds: float) -> dict[str, Any]:
        """A closed loop after a short one that is not counted."""
        for count, last in ((min(0.3, seconds), False), (seconds, True)):
            load = self._load(connections)
            load.closed(count)
            load.close()
            if last:
                return load.summary(seconds)
        return {}

    def open(self, rate: float, seconds: float, connections: int, arrivals: str) -> dict[str, Any]:
        """An open loop."""
        load = self._load(connections)
        load.open(ARRIVALS[arrivals](rate, 0, seconds))
        load.close()
        return {"offered_per_s": round(rate, 1), **load.summary(seconds)}

    def overload(
        self, calm: float, over: float, seconds: float, connections: int, slow: float
    ) -> dict[str, Any]:
        """Calm, overload, calm; how long after the overload the last bad answer was due.

        Args:
            calm: Requests per second before and after.
            over: Requests per second meanwhile.
            seconds: Length of each of the three phases.
            slow: Seconds above which an answer counts as bad.
        """
        phases = [(calm, 0.0), (over, seconds), (calm, 2 * seconds)]
        due = chain(*(evenly(rate, at, at + seconds) for rate, at in phases))
        load = self._load(connections)
        load.open(due)
        load.close()
        end = 2 * seconds
        bad = [a.due - end for a in load.answers if a.status != OK or a.at - a.due > slow]
        found: dict[str, Any] = {
            "recovered_after_s": round(max([0.0, *(late for late in bad if late >= 0)]), 3)
        }
        for name, start in (("before", 0.0), ("during", seconds), ("after", end)):
            load_of = [a for a in load.answers if start <= a.due < start + seconds]
            good = [a.at - a.due for a in load_of if a.status == OK]
            shed = sum(a.status == SHED for a in load_of)
            found[name] = {"asked": len(load_of), "shed": shed, **spread(good)}
        return found


if __name__ == "__main__":
    target = Target()
    answer(
        {
            "aim": target.aim,
            "closed": target.closed,
            "open": target.open,
            "overload": target.overload,
        }
    )
