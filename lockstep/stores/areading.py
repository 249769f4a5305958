"""Reads from the online store without blocking: many calls share few connections, in order.

Answers come back in the order of the commands, so a connection needs no locks and no waiting: each
call's answers are its own share of the stream. A call that was cancelled leaves its share to be
thrown away. A call that ran out of time retires the connection: it takes no new calls and is closed
when nobody waits on it any more.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Self, cast

import hiredis

from lockstep.errors import OnlineError
from lockstep.stores.address import Address, told
from lockstep.stores.deadline import Deadline
from lockstep.stores.resp import Batch, Reply
from lockstep.stores.routing import CLUSTER_SLOTS, Outcome, Part, Refresh, Topology, exchange

_MORE: Final = object()


class _Call:
    """One call's share of a connection's answers."""

    __slots__ = ("count", "done", "replies")

    def __init__(self, count: int, done: "asyncio.Future[list[Reply]]") -> None:
        self.count = count
        self.done = done
        self.replies: list[Reply] = []


class Pipeline(asyncio.Protocol):
    """One connection. `send` returns a future; futures are done in the order of the calls."""

    def __init__(self) -> None:
        self._calls: Final[deque[_Call]] = deque()
        self._reader: Final = hiredis.Reader(notEnoughData=_MORE)
        self._transport: asyncio.Transport | None = None
        self.retired = False
        self.clustered = False

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone, or going."""
        return self._transport is None or self._transport.is_closing()

    def send(self, packed: bytes, count: int) -> "asyncio.Future[list[Reply]]":
        """Write commands; the future gets their answers, or ConnectionError or ProtocolError."""
        done: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            done.set_exception(ConnectionResetError("it closed the connection"))
            return done
        self._calls.append(_Call(count, done))
        self._transport.write(packed)
        return done

    def retire(self) -> None:
        """Take no new calls, and close as soon as nobody waits."""
        self.retired = True
        if all(call.done.done() for call in self._calls):
            self.close()

    def close(self) -> None:
        """Close the connection now; whoever waits gets ConnectionError."""
        self.retired = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no such class

    def data_received(self, data: bytes) -> None:
        """Hand answers to the calls they belong to (asyncio calls this)."""
        try:
            self._reader.feed(data)
            self._hand_out()
        except (hiredis.HiredisError, IndexError):
            self._fail(hiredis.ProtocolError("it answered more than it was asked, or no RESP"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the calls that still wait (asyncio calls this)."""
        self.retired = True
        self._fail(exc or ConnectionResetError("it closed the connection"))

    def _hand_out(self) -> None:
        gets, calls = self._reader.gets, self._calls
        while (reply := gets()) is not _MORE:
            call = calls[0]
            call.replies.append(reply)
            if len(call.replies) == call.count:
                calls.popleft()
                if not call.done.done():
                    call.done.set_result(call.replies)
                elif self.retired:
                    self.retire()

    def _fail(self, error: Exception) -> None:
        while self._calls:
            call = self._calls.popleft()
            if not call.done.done():
                call.done.set_exception(error)


class _Lane:
    """The connections to one node."""

    def __init__(self, address: Address, size: int, connecting: float) -> None:
        self.address: Final = address
        self._size: Final = size
        self._connecting: Final = connecting
        self._lines: list[Pipeline] = []
        self._opening: asyncio.Task[Pipeline] | None = None

    async def pick(self, deadline: Deadline, *, fresh: bool = False) -> Pipeline:
        """The least busy connection; a new one if there is none, or if `fresh` is asked for."""
        # Retired ones are kept until they are closed: nobody else would close them in the end.
        self._lines = [line for line in self._lines if not line.closed]
        usable = [line for line in self._lines if not line.retired]
        if usable and not fresh:
            least = min(usable, key=len)
            if not len(least) or len(usable) >= self._size:
                return least
            self._open()
            return least
        async with asyncio.timeout(deadline.left()):
            return await asyncio.shield(self._open())

    def close(self) -> None:
        """Close all of them."""
        if self._opening is not None:
            self._opening.cancel()
        for line in self._lines:
            line.close()
        self._lines = []

    def _open(self) -> "asyncio.Task[Pipeline]":
        """One connection is opened at a time, and whoever needs it waits for the same."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._opened())
            self._opening.add_done_callback(_retrieved)
        return self._opening

    async def _opened(self) -> Pipeline:
        line = Pipeline()
        try:
            async with asyncio.timeout(self._connecting):
                await self._connect(line)
                line.clustered = self.address.welcomed(await line.send(*self.address.greeting))
        except BaseException:
            line.close()
            raise
        self._lines.append(line)
        return line

    async def _connect(self, line: Pipeline) -> None:
        loop, address = asyncio.get_running_loop(), self.address
        if address.path is not None:
            await loop.create_unix_connection(lambda: line, address.path)
            return
        security = address.security
        await loop.create_connection(
            lambda: line,
            address.host,
            address.port,
            ssl=security,
            server_hostname=address.host if security else None,
        )


class AsyncReading:
    """The non-blocking reader of one server or cluster, for one event loop.

    Args:
        address: The server, or any node of the cluster. Nothing is connected yet.
        connections: How many at most, per node.
        connecting: Seconds after which an attempt to connect is given up, so that a new one begins.
    """

    def __init__(self, address: Address, *, connections: int = 2, connecting: float = 1.0) -> None:
        self.address: Final = address
        self._size: Final = connections
        self._connecting: Final = connecting
        self._lanes: dict[Address, _Lane] = {}
        self._home: Final = self._lane(address)
        self._topology: Topology | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def read(self, batch: Batch, deadline: Deadline) -> list[Reply]:
        """Answers in the order of the commands; an error of a single command is a ReplyError.

        Raises:
            OnlineError: No whole answer within the deadline, or the server refuses this user.
        """
        steps = exchange(batch, self._topology or await self._learnt([self.address], deadline))
        try:
            wanted = next(steps)
            while True:
                if isinstance(wanted, Refresh):
                    nodes = [*wanted.nodes, self.address]
                    wanted = steps.send(await self._learnt(nodes, deadline))
                elif len(wanted) == 1:
                    wanted = steps.send([await self._trip(wanted[0], deadline)])
                else:
                    trips = (self._trip(part, deadline) for part in wanted)
                    wanted = steps.send(await asyncio.gather(*trips))
        except StopIteration as done:
            replies: list[Reply] = done.value
            return replies

    def close(self) -> None:
        """Close every connection; the reader may be used again."""
        for lane in self._lanes.values():
            lane.close()

    async def _trip(self, part: Part, deadline: Deadline) -> Outcome:
        """One part's answers; asked once more if the connection had gone stale."""
        lane = self._lane(part.node)
        try:
            line = await lane.pick(deadline)
            try:
                return await _answered(line, part, deadline)
            except ConnectionError:
                line = await lane.pick(deadline, fresh=True)
                return await _answered(line, part, deadline)
        except (OSError, hiredis.HiredisError, OnlineError) as error:
            return told(error, part.node, deadline)

    def _lane(self, node: Address) -> _Lane:
        if node not in self._lanes:
            self._lanes[node] = _Lane(node, self._size, self._connecting)
        return self._lanes[node]

    async def _learnt(self, nodes: Sequence[Address], deadline: Deadline) -> Topology:
        """What the first node that answers says about the cluster, if it is one."""
        failure: OnlineError | None = None
        for node in nodes:
            try:
                line = await self._lane(node).pick(deadline)
                if line.clustered:
                    (reply,) = await _answered(line, Part(node, CLUSTER_SLOTS, 1), deadline)
                    self._topology = Topology.of(reply, node)
                else:
                    self._topology = Topology((self.address,))
            except (OSError, hiredis.HiredisError, OnlineError) as error:
                failure = told(error, node, deadline)
                continue
            return self._topology
        raise failure or self.address.unusable(OSError("no node is known"))


async def _answered(line: Pipeline, part: Part, deadline: Deadline) -> list[Reply]:
    done = line.send(part.packed, part.count)
    timer = asyncio.get_running_loop().call_later(deadline.left(), _give_up, done)
    try:
        return await done
    except TimeoutError:
        line.retire()
        raise
    finally:
        timer.cancel()


def _give_up(done: "asyncio.Future[list[Reply]]") -> None:
    """Fail a call that is over, unless its answer has arrived while the loop was busy."""
    asyncio.get_running_loop().call_later(0, _expire, done)


def _expire(done: "asyncio.Future[list[Reply]]") -> None:
    if not done.done():
        done.set_exception(TimeoutError())


def _retrieved(task: "asyncio.Task[Pipeline]") -> None:
    """Look at the exception, so that nobody is warned when all who waited have gone."""
    with suppress(asyncio.CancelledError):
        task.exception()
