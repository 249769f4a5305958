"""Reads three views in process: `fetch_worker PROJECT`; the store is in the environment.

Every question names a client, which is opened by the first one:

    client     Lockstep's synchronous client
    async      Lockstep's asyncio client
    redis_py   a redis-py pipeline of HMGETs over the same rows, unpacked to the same columns
    packed     commands packed by hand over one socket, hiredis, unpacked: the least in Python

The last two check no type, no ttl and no seal, and know no status.
"""

import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiredis
import msgspec
import redis
import uvloop

from benchmarks.online import data
from benchmarks.online.talk import answer
from benchmarks.timing import WARM_UP, closed_loop, paced_loop, spread
from lockstep.catalog import Catalog, discover
from lockstep.codec import HEADER_BYTES
from lockstep.keys import bucket_of, encode_key
from lockstep.layout import Names
from lockstep.project import Project, find_project

ENTITY = data.ENTITIES[data.READ[0]]
KEY = data.key_of(data.READ[0])
FEATURES = [f"{view}:{name}" for view in data.READ for name in data.FEATURES]
HONEST: Any = {"deadline": 5.0, "outage": "raise"}
"""Slow answers are waited for and failures seen, not replaced by the declared fallback."""
Values = dict[str, list[Any]]


def from_rows(answers: Sequence[Sequence[bytes]]) -> Values:
    """Columns of the packed values of each entity."""
    decode = msgspec.msgpack.Decoder(list).decode
    rows = [
        [item for value in views for item in decode(memoryview(value)[HEADER_BYTES:])]
        for views in answers
    ]
    return dict(zip(FEATURES, map(list, zip(*rows, strict=True)), strict=True))


@dataclass(frozen=True)
class Opened:
    """The project without its lake, which no reader needs."""

    project: Project
    catalog: Catalog

    @property
    def url(self) -> str:
        """The online store that the environment names."""
        return str(self.project.redis_url)

    @property
    def named(self) -> Any:
        """What both clients take besides catalog and URL."""
        return {"namespace": self.project.namespace, **HONEST}


def keys_of(opened: Opened) -> Callable[[int], bytes]:
    """Entity → its Redis key."""
    buckets = opened.catalog.entities[ENTITY].buckets
    names = Names(opened.project.namespace)

    def key(one: int) -> bytes:
        encoded = encode_key([one])
        return names.entity_key(ENTITY, bucket_of(encoded, buckets), encoded)

    return key


def by_redis_py(opened: Opened) -> Callable[[Sequence[int]], Values]:
    """A pipeline of HMGETs."""
    client = redis.Redis.from_url(opened.url, protocol=2)
    key = keys_of(opened)

    def values(ids: Sequence[int]) -> Values:
        pipeline = client.pipeline(transaction=False)
        for one in ids:
            pipeline.hmget(key(one), data.READ)
        return from_rows(pipeline.execute())

    return values


def by_packed(opened: Opened) -> Callable[[Sequence[int]], Values]:
    """One write, one parser."""
    host, port = opened.url.removeprefix("redis://").split("/")[0].split(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = keys_of(opened)
    tail = b"".join(b"$%d\r\n%b\r\n" % (len(view), view.encode()) for view in data.READ)
    head = b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(data.READ))

    def values(ids: Sequence[int]) -> Values:
        names = map(key, ids)
        connection.sendall(
            b"".join(head + b"$%d\r\n%b\r\n" % (len(name), name) + tail for name in names)
        )
        reader = hiredis.Reader()
        answers: list[Any] = []
        while len(answers) < len(ids):
            reader.feed(connection.recv(1 << 18))
            while (said := reader.gets()) is not False:
                answers.append(said)
        return from_rows(answers)

    return values


def by_client(opened: Opened) -> Callable[[Sequence[int]], Values]:
    """Lockstep's synchronous client."""
    from lockstep.serving.client import Client

    client = Client(opened.catalog, opened.url, **opened.named)
    client.start()
    plan = client.plan(FEATURES)

    def values(ids: Sequence[int]) -> Values:
        return dict(zip(FEATURES, client.fetch(plan, {KEY: ids}).columns, strict=True))

    return values


def async_client(opened: Opened) -> Any:
    """Lockstep's asyncio client, to be entered."""
    from lockstep.serving.aclient import AsyncClient

    return AsyncClient(opened.catalog, opened.url, **opened.named)


async def async_values(opened: Opened, ids: Sequence[int]) -> Values:
    """What the asyncio client answers."""
    async with async_client(opened) as client:
        found = await client.fetch(client.plan(FEATURES), {KEY: ids})
        return dict(zip(FEATURES, found.columns, strict=True))


async def async_loop(
    opened: Opened, requests: Sequence[Sequence[int]], seconds: float
) -> dict[str, Any]:
    """The closed loop of `timing`, awaited."""
    taken: list[float] = []
    async with async_client(opened) as client:
        plan = client.plan(FEATURES)
        for ids in requests[:WARM_UP]:
            await client.fetch(plan, {KEY: ids})
        begin = time.perf_counter()
        while (started := time.perf_counter()) - begin < seconds:
            await client.fetch(plan, {KEY: requests[len(taken) % len(requests)]})
            taken.append(time.perf_counter() - started)
        return {**spread(taken), "per_s": round(len(taken) / (time.perf_counter() - begin), 1)}


CLIENTS = {"client": by_client, "redis_py": by_redis_py, "packed": by_packed}


class Reads:
    """What the benchmark asks; a client is opened once."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self._clients: dict[str, Callable[[Sequence[int]], Values]] = {}

    def _by(self, client: str) -> Callable[[Sequence[int]], Values]:
        if client not in self._clients:
            self._clients[client] = CLIENTS[client](self.opened)
        return self._clients[client]

    def values(self, client: str, ids: list[int]) -> Values:
        """The features of some entities."""
        if client == "async":
            return uvloop.run(async_values(self.opened, ids))
        return self._by(client)(ids)

    def fetch(self, client: str, requests: list[list[int]], seconds: float) -> dict[str, Any]:
        """The closed loop."""
        if client == "async":
            return uvloop.run(async_loop(self.opened, requests, seconds))
        return closed_loop(self._by(client), requests, seconds)

    def paced(
        self, client: str, requests: list[list[int]], rate: float, stop: str
    ) -> dict[str, Any]:
        """The loop at a steady rate, until there is a file."""
        return paced_loop(self._by(client), requests, rate, until=Path(stop).exists)


def main() -> None:
    """Answer the benchmark's questions."""
    project = find_project(sys.argv[1])
    reads = Reads(Opened(project, discover(project)))
    answer({"values": reads.values, "fetch": reads.fetch, "paced": reads.paced})


if __name__ == "__main__":
    main()
