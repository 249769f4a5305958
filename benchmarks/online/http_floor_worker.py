"""The least that an HTTP service in Python can be: `http_floor_worker REDIS_PORT HTTP_PORT`.

uvloop, one asyncio protocol, one Redis connection for all requests, one MGET of packed rows of one
view, msgspec's JSON. It checks nothing and knows one route, one view and no error.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import msgspec
import uvloop

Answered = Callable[[list[bytes]], None]
PREFIX = b"floor:"


class Redis(asyncio.Protocol):
    """One connection; answers come in the order of the questions."""

    def __init__(self) -> None:
        self.waiting: deque[Answered] = deque()
        self.reader = hiredis.Reader()

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, received: bytes) -> None:
        """Hand out whole answers."""
        self.reader.feed(received)
        while (said := self.reader.gets()) is not False:
            self.waiting.popleft()(said)

    def mget(self, ids: list[int], then: Answered) -> None:
        """Ask for the rows of entities."""
        self.waiting.append(then)
        keys = [PREFIX + b"%d" % one for one in ids]
        words = b"".join(b"$%d\r\n%b\r\n" % (len(key), key) for key in keys)
        self.transport.write(b"*%d\r\n$4\r\nMGET\r\n%b" % (len(keys) + 1, words))


class Request(msgspec.Struct):
    """What is asked."""

    features: list[str]
    ids: list[int]


class Http(asyncio.Protocol):
    """One connection of a client that waits for each answer."""

    def __init__(self, store: Redis) -> None:
        self.store = store
        self.seen = b""
        self.parse = msgspec.json.Decoder(Request).decode
        self.unpack = msgspec.msgpack.Decoder(list).decode

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, received: bytes) -> None:
        """Answer once a request is whole."""
        self.seen += received
        head, found, body = self.seen.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self.seen = b""
        request = self.parse(body)

        def answer(rows: list[bytes]) -> None:
            columns = list(zip(*map(self.unpack, rows), strict=True))
            said = msgspec.json.encode({"features": request.features, "values": columns})
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said
            )

        self.store.mget(request.ids, answer)


async def main() -> None:
    """Listen on a free port until ended."""
    loop = asyncio.get_running_loop()
    _, store = await loop.create_connection(Redis, "127.0.0.1", int(sys.argv[1]))
    server = await loop.create_server(lambda: Http(store), "127.0.0.1", int(sys.argv[2]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
