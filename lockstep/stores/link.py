"""Connections to one server, or to every master of a cluster: who has a key, and what went wrong.

A server says itself whether it is part of a cluster; nothing has to be configured. Every call has a
time limit, is sent once (again only where the cluster says that the key has moved), and ends in an
answer or in OnlineError. Nothing here knows what the keys mean.
"""

import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final, TypeAlias

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from lockstep.errors import OnlineError
from lockstep.layout import pairs
from lockstep.stores.address import Address

Call: TypeAlias = tuple[bytes, tuple[Any, ...]]
"""A key of the slot to ask, and the words of the command."""

UNKNOWN: Final = (
    "Whether the last call was carried out is unknown; what is sealed is complete. Run it again."
)
_NOT_SENT: Final = "The last call was not sent, so it changed nothing."
_POOL: Final = 32
_GONE: Final = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ClusterDownError)
_UNREACHED: Final = (ConnectionRefusedError, FileNotFoundError, socket.gaierror)
"""Why there is no connection to send anything through."""
_REFUSALS: Final = (exceptions.ResponseError, exceptions.AuthenticationError)
_UNVERIFIED: Final = "certificate verify failed: "
_INNER_RIGHTS: Final = ("ACL failure in script", "The user executing the script can't")


class _TlsConnection(redis.SSLConnection):
    """Verifies what the address says, as the readers do, and nothing more or less."""

    def __init__(self, *, security: ssl.SSLContext, **settings: Any) -> None:
        super().__init__(**settings)
        self._security = security

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        return self._security.wrap_socket(sock, server_hostname=self.host)

    def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002
        """Greet the server, which also takes in TLS 1.3's session tickets.

        While they wait unread, redis-py takes them for an answer that nobody read.
        """
        super().on_connect_check_health(check_health)
        self.send_command("HELLO", 2, check_health=False)  # type: ignore[no-untyped-call]
        self.read_response()


class Link:
    """One server or cluster. Safe to share between threads; connects at the first call.

    Args:
        url: `redis://`, `rediss://` (TLS, certificates and host names verified) or `unix://`, with
            user and password if need be, and `ssl_ca_certs=…` in its query. Of a cluster, any node.
        timeout: Seconds to wait for a connection, for an answer, and for a free connection of the
            pool; each at most once per call, and once per node that is asked who has the slots.

    Raises:
        ConfigError: The URL is malformed, or a certificate cannot be read. Nothing is connected.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        self.timeout: Final = timeout
        self._address: Final = Address.parse(url)
        self._security: Final = self._address.security
        self.address: Final = self._address.place
        self.encrypted: Final = self._security is not None
        self._entry: Final = self.address.rpartition("/")[0]
        self._nodes: Final = {self._entry: self._client(self._address)}
        self._slots: list[tuple[int, int, str]] | None = None
        self._lock: Final = Lock()

    def close(self) -> None:
        """Close every connection; the link may be used again."""
        for node in self._nodes.values():
            node.connection_pool.disconnect()

    def call(self, *words: Any, key: bytes) -> Any:
        """The answer to one command, from the node that has the key.

        Raises:
            OnlineError: No answer, or a refusal.
        """
        answer = self.send([(key, words)])[0]
        if isinstance(answer, Exception):
            with self.answering(UNKNOWN):
                raise answer
        return answer

    def each(self, *words: Any) -> dict[str, Any]:
        """Address of every master → its answer.

        Raises:
            OnlineError: One of them did not answer, or refused.
        """
        answers = {}
        for name, node in self.masters().items():
            with self.answering(UNKNOWN, name):
                answers[name] = self._command(node)(*words)
        return answers

    def masters(self) -> dict[str, "redis.Redis"]:
        """Address → client of every master; one if the server is not part of a cluster.

        Raises:
            OnlineError: No node says who has the slots.
        """
        with self.answering(UNKNOWN):
            slots = self._known_slots()
        names = dict.fromkeys(name for _, _, name in slots) or [self._entry]
        return {name: self._node(name) for name in names}

    def send(self, calls: Sequence[Call]) -> list[Any]:
        """The answers in order, refusals as values; one round trip per node.

        Raises:
            OnlineError: A node did not answer.
        """
        with self.answering(UNKNOWN):
            answers = self._routed(calls)
            redirected = exceptions.AskError
            moved = [at for at, answer in enumerate(answers) if isinstance(answer, redirected)]
            if moved:  # every call of ours may be sent twice
                self.refresh()
                again = [self._asked(calls[at], answers[at]) for at in moved]
                for at, answer in zip(moved, again, strict=True):
                    answers[at] = answer
            return answers

    def refresh(self) -> None:
        """Forget which node has which slot; it is asked again."""
        self._slots = None

    @contextmanager
    def connection(self, key: bytes) -> Iterator[Any]:
        """A connection of the node that has the key, for the caller alone.

        It is closed if the block fails: the next user must not read what is left.
        """
        name = self.node_of(key)
        with self.answering(UNKNOWN, name):
            pool = self._node(name).connection_pool
            connection: Any = pool.get_connection()
            whole = False
            try:
                yield connection
                whole = True
            finally:
                if not whole:
                    connection.disconnect()
                pool.release(connection)

    def node_of(self, key: bytes) -> str:
        """Address of the master that has the key."""
        with self.answering(UNKNOWN):
            return self._name_of(key)

    def _routed(self, calls: Sequence[Call]) -> list[Any]:
        by_node: dict[str, list[int]] = {}
        for at, (key, _) in enumerate(calls):
            by_node.setdefault(self._name_of(key), []).append(at)
        answers: list[Any] = [None] * len(calls)
        for name, positions in by_node.items():
            pipeline = self._node(name).pipeline(transaction=False)
            queue: Callable[..., Any] = pipeline.execute_command
            for at in positions:
                queue(*calls[at][1])
            with self.answering(UNKNOWN, name):
                found = pipeline.execute(raise_on_error=False)
            for at, answer in zip(positions, found, strict=True):
                answers[at] = answer
        return answers

    def _asked(self, call: Call, moved: Any) -> Any:
        """The answer of the node that a redirection names."""
        node = self._node(f"{moved.host or self._address.host}:{moved.port}")
        pipeline = node.pipeline(transaction=False)
        queue: Callable[..., Any] = pipeline.execute_command
        if not isinstance(moved, exceptions.MovedError):
            queue("ASKING")
        queue(*call[1])
        with self.answering(UNKNOWN, f"{moved.host}:{moved.port}"):
            return pipeline.execute(raise_on_error=False)[-1]

    def _name_of(self, key: bytes) -> str:
        slots = self._known_slots()
        if not slots:
            return self._entry
        slot = key_slot(key)
        for first, last, name in slots:
            if first <= slot <= last:
                return name
        raise exceptions.ClusterDownError(f"no node has slot {slot}")

    def _known_slots(self) -> list[tuple[int, int, str]]:
        slots = self._slots
        if slots is None:
            slots = self._slots = self._read_slots()
        return slots

    def _read_slots(self) -> list[tuple[int, int, str]]:
        """Ranges of slots and who has them; empty if the server is not part of a cluster.

        A node that was taken out of the cluster may answer that nobody has any: the next is asked.
        """
        failure: exceptions.RedisError = exceptions.ClusterDownError("no slot is served")
        for name, node in list(self._nodes.items()):
            try:
                flat = self._command(node)("HELLO", 2)
                facts = pairs(flat)
                if facts[b"mode"] != b"cluster":
                    return []
                found = self._command(node)("CLUSTER", "SLOTS")
            except _GONE as error:  # any other node knows as well
                failure = error
                continue
            if found:
                return [_range(entry, name.rpartition(":")[0]) for entry in found]
        raise failure

    def _node(self, name: str) -> "redis.Redis":
        with self._lock:
            if name not in self._nodes:
                host, _, port = name.rpartition(":")
                self._nodes[name] = self._client(self._address.node(host, int(port)))
            return self._nodes[name]

    def _client(self, address: Address) -> "redis.Redis":
        settings: dict[str, Any] = {"host": address.host, "port": address.port}
        kind: type[Any] = redis.Connection
        if address.path is not None:
            kind, settings = redis.UnixDomainSocketConnection, {"path": address.path}
        elif self._security is not None:
            kind, settings["security"] = _TlsConnection, self._security
        pool: Any = redis.BlockingConnectionPool(  # type: ignore[no-untyped-call]
            connection_class=kind,
            max_connections=_POOL,
            timeout=self.timeout,
            socket_timeout=self.timeout,
            socket_connect_timeout=self.timeout,
            db=address.database,
            username=address.user,
            password=address.password,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,  # nothing is said that a user's rights would have to allow
            **settings,
        )
        return redis.Redis(connection_pool=pool)

    @staticmethod
    def _command(node: "redis.Redis") -> Callable[..., Any]:
        run: Callable[..., Any] = node.execute_command
        return run

    @contextmanager
    def answering(self, effect: str, node: str | None = None) -> Iterator[None]:
        """Say what redis-py raises in our words; `node` is which one of a cluster was asked."""
        try:
            yield
        except exceptions.RedisError as error:
            if isinstance(error, _GONE):  # another node may have the slots now
                self.refresh()
            raise self.wrapped(error, effect, node) from None

    def wrapped(
        self, error: exceptions.RedisError, effect: str, node: str | None = None
    ) -> OnlineError:
        """The error in our words, with the address and never the password.

        The original is not chained: tracebacks end up in Dagster's event log.
        """
        password = self._address.password
        unreached = _unreached(error)
        text = str(error) if unreached is None else unreached.strerror or str(unreached)
        text = (text.replace(password, "***") if password else text).rstrip(".")
        part = f" (node {node})" if node not in {None, self._entry} else ""
        culprit, fix = self._explained(error, text, f"The online store at {self.address}{part}")
        if effect == UNKNOWN and isinstance(error, _REFUSALS):
            effect = "What was refused was not carried out."
        elif effect == UNKNOWN and unreached is not None:
            effect = _NOT_SENT
        return OnlineError(culprit, fix=fix, effect=effect)

    def _explained(self, error: exceptions.RedisError, text: str, where: str) -> tuple[str, str]:
        """What is wrong, and what to do about it."""
        match error:
            case exceptions.TimeoutError():
                culprit = f"{where} did not answer within {self.timeout:g} s."
                fix = "See whether it is overloaded, paused or unreachable."
            case exceptions.OutOfMemoryError():
                culprit = f"{where} is out of memory and refuses writes: {text}."
                fix = "Raise maxmemory or remove views from it, then push again."
            case exceptions.AuthenticationError() | exceptions.NoPermissionError():
                culprit = f"{where} does not allow this user to do that: {text}."
                fix = "Check user and password in the URL, and the user's ACL."
            case exceptions.ResponseError() if text.startswith(_INNER_RIGHTS):
                culprit = f"{where} does not allow this user to do that: {text}."
                fix = "The functions need the rights of their own commands: deploy/redis/users.acl."
            case exceptions.ClusterDownError() | exceptions.TryAgainError() | exceptions.AskError():
                culprit = f"{where} is a cluster that cannot take this now: {text}."
                fix = "See CLUSTER INFO; run it again when every slot is served and none is moving."
            case exceptions.ReadOnlyError():
                culprit = f"{where} takes no writes: {text}."
                fix = "Name the primary in its URL."
            case exceptions.ConnectionError() if _UNVERIFIED in text:
                reason = text.partition(_UNVERIFIED)[2].partition(" (_ssl")[0].rstrip(".")
                culprit = f"{where} has a certificate that cannot be verified: {reason}."
                fix = "Name its authority (rediss://…?ssl_ca_certs=FILE) and the host it is for."
            case exceptions.ConnectionError():
                culprit = f"{where} cannot be used: {text}."
                fix = "Start it (`lockstep up` starts the embedded one), or correct its URL."
            case exceptions.ResponseError() if text.startswith("LSTABLE "):
                culprit = f"Rows of another Delta table are online: {text.partition(' ')[2]}."
                fix = "Wipe the view online, then push the whole table."
            case _:
                culprit = f"{where} refused a command: {text}."
                fix = "Lockstep needs Redis 7 or later, or Valkey."
        return culprit, fix


def _unreached(error: exceptions.RedisError) -> OSError | None:
    """Why no connection came about; None if there may have been one, and a call sent over it."""
    reason = error.__context__
    return reason if isinstance(reason, _UNREACHED) else None


def _range(entry: Sequence[Any], entry_host: str) -> tuple[int, int, str]:
    first, last, master = entry[0], entry[1], entry[2]
    host = (master[0] or b"").decode()
    known = host if host not in {"", "?"} else entry_host  # it is the one that was asked
    return first, last, f"{known}:{master[1]}"
