"""Reads from the online store with blocking sockets: packed by hand, parsed by hiredis.

One call is one write and one answer per node, within one deadline that covers waiting for a
connection, connecting, and the one retry. A connection on which a call did not come to its end is
closed: what it would still deliver belongs to nobody.
"""

import os
import socket
import ssl
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Self, TypeAlias

import hiredis

from lockstep.errors import OnlineError
from lockstep.stores.address import Address, told
from lockstep.stores.deadline import Deadline
from lockstep.stores.resp import Batch, Reply
from lockstep.stores.routing import CLUSTER_SLOTS, Outcome, Part, Refresh, Topology, exchange

_RECEIVE: Final = 256 * 1024
_MORE: Final = object()
_Place: TypeAlias = tuple[socket.AddressFamily, tuple[object, ...] | str]
_BROKEN_OFF: Final = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_names: Final = ThreadPoolExecutor(4, thread_name_prefix="lockstep-names")


class _BrokenOffError(ConnectionError):
    """The server closed a connection that had worked before: it may work on a new one."""


class Connection:
    """One greeted connection; one call at a time."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket: Final = connected
        self._reader: Final = hiredis.Reader(notEnoughData=_MORE)
        self._buffer: Final = bytearray(_RECEIVE)
        self.clustered = False
        self.used = False

    @classmethod
    def open(cls, address: Address, deadline: Deadline) -> Self:
        """Connect and greet; OSError, ProtocolError or OnlineError if that is not possible."""
        opened = cls(_connected(address, deadline))
        try:
            packed, count = address.greeting
            opened.send(packed, deadline)
            opened.clustered = address.welcomed(opened.receive(count, deadline))
        except BaseException:
            opened.close()
            raise
        return opened

    def send(self, packed: bytes, deadline: Deadline) -> None:
        """Write everything; OSError if that is not possible in time."""
        rest = memoryview(packed)
        while rest:
            self._socket.settimeout(deadline.left())
            rest = rest[self._socket.send(rest) :]

    def receive(self, count: int, deadline: Deadline) -> list[Reply]:
        """Read that many answers; OSError or ProtocolError if that is not possible in time."""
        replies: list[Reply] = []
        gets, append = self._reader.gets, replies.append
        while True:
            while (reply := gets()) is not _MORE:
                append(reply)
            if len(replies) >= count:
                break
            self._socket.settimeout(deadline.left())
            size = self._socket.recv_into(self._buffer)
            if not size:
                raise ConnectionResetError("it closed the connection")
            self._reader.feed(self._buffer, 0, size)  # type: ignore[arg-type]
        if len(replies) > count or self._reader.has_data():
            raise hiredis.ProtocolError("it answered more than it was asked")
        return replies

    def close(self) -> None:
        """Close the socket, whatever it is in the middle of."""
        with suppress(OSError):
            self._socket.close()


class Pool:
    """Connections to one node, each lent to one call at a time.

    Args:
        size: How many at most; further calls wait, within their deadline.
    """

    def __init__(self, address: Address, size: int) -> None:
        self.address: Final = address
        self._idle: Final[deque[Connection]] = deque()
        self._free: Final = threading.BoundedSemaphore(size)
        self._open: Final[set[Connection]] = set()
        weakref.finalize(self, _close_all, self._open)

    def take(self, deadline: Deadline, *, fresh: bool = False) -> Connection:
        """Lend a connection, the one used last if there is one."""
        if not self._free.acquire(timeout=deadline.left()):
            raise TimeoutError
        try:
            if fresh:
                self.clear()
            with suppress(IndexError):
                return self._idle.pop()
            connection = Connection.open(self.address, deadline)
        except BaseException:
            self._free.release()
            raise
        self._open.add(connection)
        return connection

    def give(self, connection: Connection, *, whole: bool) -> None:
        """Take a connection back; it is closed unless its call came to its end."""
        if whole:
            connection.used = True
            self._idle.append(connection)
        else:
            self._closed(connection)
        self._free.release()

    def clear(self) -> None:
        """Close the connections that nobody uses."""
        with suppress(IndexError):
            while True:
                self._closed(self._idle.pop())

    def _closed(self, connection: Connection) -> None:
        connection.close()
        self._open.discard(connection)


def _close_all(connections: set[Connection]) -> None:
    for connection in connections:
        connection.close()


class _Trip:
    """One part on its way to its node and back."""

    def __init__(self, pool: Pool, part: Part, deadline: Deadline) -> None:
        self._pool: Final = pool
        self._part: Final = part
        self._deadline: Final = deadline
        self._connection: Connection | None = None

    def start(self) -> None:
        """Send it, on a new connection if an old one has gone stale."""
        self._sent(fresh=False)

    def finish(self) -> list[Reply]:
        """Wait for the answers; ask once more if the connection had gone stale."""
        try:
            return self._received()
        except _BrokenOffError:
            self._sent(fresh=True)
            return self._received()

    def drop(self) -> None:
        """Give up what is under way."""
        if self._connection is not None:
            self._pool.give(self._connection, whole=False)
            self._connection = None

    def _sent(self, *, fresh: bool) -> None:
        self._connection = taken = self._pool.take(self._deadline, fresh=fresh)
        try:
            taken.send(self._part.packed, self._deadline)
        except _BROKEN_OFF:
            self.drop()
            if not taken.used:
                raise
            self._sent(fresh=True)

    def _received(self) -> list[Reply]:
        connection = self._connection
        if connection is None:
            raise ConnectionResetError("nothing was sent")
        try:
            replies = connection.receive(self._part.count, self._deadline)
        except _BROKEN_OFF as error:
            self.drop()
            raise (_BrokenOffError(str(error)) if connection.used else error) from None
        self._connection = None
        self._pool.give(connection, whole=True)
        return replies


class Reading:
    """The blocking reader of one server or cluster. Safe to share between threads.

    Args:
        address: The server, or any node of the cluster. Nothing is connected yet.
        connections: How many at most, per node.
    """

    def __init__(self, address: Address, *, connections: int = 16) -> None:
        self.address: Final = address
        self._size: Final = connections
        self._home: Pool
        self._pools: dict[Address, Pool]
        self._topology: Topology | None
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, batch: Batch, deadline: Deadline) -> list[Reply]:
        """Answers in the order of the commands; an error of a single command is a ReplyError.

        Raises:
            OnlineError: No whole answer within the deadline, or the server refuses this user.
        """
        if self._process != os.getpid():
            self._begin()  # a forked child must not speak on its parent's connections
        steps = exchange(batch, self._topology or self._learnt([self.address], deadline))
        try:
            wanted = next(steps)
            while True:
                if isinstance(wanted, Refresh):
                    nodes = [*wanted.nodes, self.address]
                    wanted = steps.send(self._learnt(nodes, deadline))
                else:
                    wanted = steps.send(list(self._outcomes(wanted, deadline)))
        except StopIteration as done:
            replies: list[Reply] = done.value
            return replies

    def close(self) -> None:
        """Close the connections that no call is using; the reader may be used again."""
        for pool in self._pools.values():
            pool.clear()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._home = Pool(self.address, self._size)
        self._pools = {self.address: self._home}
        self._topology = None

    def _outcomes(self, parts: Sequence[Part], deadline: Deadline) -> Iterator[Outcome]:
        """Send every part before the first answer is awaited."""
        trips = [_Trip(self._pool(part.node), part, deadline) for part in parts]
        failed: dict[int, OnlineError] = {}
        try:
            for at, trip in enumerate(trips):
                failed |= self._attempt(at, trip, parts[at].node, deadline)
            for at, trip in enumerate(trips):
                if at in failed:
                    yield failed[at]
                    continue
                yield self._finished(trip, parts[at].node, deadline)
        finally:
            for trip in trips:
                trip.drop()

    def _attempt(
        self, at: int, trip: _Trip, node: Address, deadline: Deadline
    ) -> dict[int, OnlineError]:
        try:
            trip.start()
        except (OSError, hiredis.HiredisError, OnlineError) as error:
            return {at: told(error, node, deadline)}
        return {}

    def _finished(self, trip: _Trip, node: Address, deadline: Deadline) -> Outcome:
        try:
            return trip.finish()
        except (OSError, hiredis.HiredisError, OnlineError) as error:
            return told(error, node, deadline)

    def _pool(self, node: Address) -> Pool:
        if node is self.address:
            return self._home
        found = self._pools.get(node)
        return found or self._pools.setdefault(node, Pool(node, self._size))

    def _learnt(self, nodes: Sequence[Address], deadline: Deadline) -> Topology:
        """What the first node that answers says about the cluster, if it is one."""
        failure: OnlineError | None = None
        for node in nodes:
            pool = self._pool(node)
            whole = False
            try:
                connection = pool.take(deadline)
                try:
                    if connection.clustered:
                        connection.send(CLUSTER_SLOTS, deadline)
                        (reply,) = connection.receive(1, deadline)
                        self._topology = Topology.of(reply, node)
                    else:
                        self._topology = Topology((self.address,))
                    whole = True
                finally:
                    pool.give(connection, whole=whole)
            except (OSError, hiredis.HiredisError, OnlineError) as error:
                failure = told(error, node, deadline)
                continue
            return self._topology
        raise failure or self.address.unusable(OSError("no node is known"))


def _connected(address: Address, deadline: Deadline) -> socket.socket:
    """A connected socket, TLS done; the first of the host's addresses that takes it."""
    failure: OSError = OSError("its name has no address")
    for family, place in _places(address, deadline):
        found = socket.socket(family, socket.SOCK_STREAM)
        try:
            found.settimeout(deadline.left())
            if family != socket.AF_UNIX:
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            found.connect(place)
            if (security := address.security) is not None:
                found = security.wrap_socket(found, server_hostname=address.host)
        except TimeoutError:
            found.close()
            raise
        except OSError as error:
            found.close()
            failure = error
        else:
            return found
    raise failure


def _places(address: Address, deadline: Deadline) -> Iterator[_Place]:
    """Where to connect; a name is looked up in a thread, because that can't be timed otherwise."""
    if address.path is not None:
        yield socket.AF_UNIX, address.path
        return
    host, port = address.host, address.port
    try:
        numeric = socket.AI_NUMERICHOST
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=numeric)
    except OSError:
        looked_up = _names.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = looked_up.result(timeout=deadline.left())
        finally:
            looked_up.cancel()
    yield from ((family, place) for family, _, _, _, place in found)
