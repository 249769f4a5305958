"""The online store: rows and seals in Redis or Valkey. The only importer of redis.

A cache of Delta that can be verified, never the source. Every call has a time limit, is sent once
and raises OnlineError when no answer came: a write without an answer may or may not have happened,
and running the push again settles it, because every write is a compare-and-set.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from lockstep.calls import (
    FunctionLibrary,
    PushCalls,
    WipeCalls,
    packed_reads,
    plan_chunks,
    shipped_library,
)
from lockstep.codec import RowCodec
from lockstep.crash import crash_point
from lockstep.errors import ConfigError, ConflictError, OnlineError
from lockstep.layout import Lookup, Names, PushRows, Receipt, Seal, ServerInfo, check_name

__all__ = ["Lookup", "OnlineStore", "PushRows", "Receipt", "Seal", "ServerInfo"]

_SCAN_COUNT: Final = 1000
_POOL: Final = 32
_UNKNOWN: Final = (
    "Whether the last call was carried out is unknown; what is sealed is complete. Run it again."
)
_CONFLICTS: Final = ("LSGAP ", "LSSEAL ", "LSWIPE ")
_UNSEALED: Final = "Rows that arrived are right for their version; the bucket was not sealed."
_NOT_LOADED: Final = "Function not found"


class OnlineStore:
    """One namespace of one Redis or Valkey server. Safe to share between threads.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, with user and password if need be.
        namespace: Beginning of every key, e.g. "lockstep:dev".
        socket_timeout: Seconds to wait for a connection, for an answer, and for a free connection
            of the pool; each at most once per call.
        allow_eviction: Accept a server that may drop rows when it is full.
        library: The Redis Functions; another one only in tests.

    Raises:
        ConfigError: The URL or the namespace is malformed. Nothing is connected yet.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        socket_timeout: float = 5.0,
        allow_eviction: bool = False,
        library: FunctionLibrary | None = None,
    ) -> None:
        self.names: Final = Names(namespace)
        self._library: Final = library or shipped_library()
        self._allow_eviction: Final = allow_eviction
        self._timeout: Final = socket_timeout
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=_POOL,
                timeout=socket_timeout,
                socket_timeout=socket_timeout,
                socket_connect_timeout=socket_timeout,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        except (ValueError, TypeError):  # its text may quote a part of the password
            raise ConfigError(
                "The online store's URL cannot be read (not shown: it may hold a password).",
                expected="redis://[user:password@]host:port/db, rediss://… or unix:///path",
                fix="Percent-encode special characters in the password.",
            ) from None
        settings = pool.connection_kwargs
        self._password: Final = settings.get("password")
        place = settings.get("path") or f"{settings.get('host')}:{settings.get('port', 6379)}"
        self.address: Final = f"{place}/{settings.get('db', 0)}"
        self._client: Final = redis.Redis(connection_pool=pool)
        self._execute: Final[Callable[..., Any]] = self._client.execute_command

    def close(self) -> None:
        """Close every connection; the store may be used again."""
        self._client.connection_pool.disconnect()

    def ping(self) -> None:
        """Do nothing if the server answers.

        Raises:
            OnlineError: It does not, or still loads its data.
        """
        self._call("PING")

    def info(self) -> ServerInfo:
        """What the server says about itself."""
        return ServerInfo.of(self._call("INFO"))

    def ensure_ready(self) -> ServerInfo:
        """What the server says about itself, once the functions are loaded.

        Raises:
            OnlineError: No answer, older than Redis 7, or it would drop rows when full.
        """
        info = self.info()
        if info.maxmemory and info.maxmemory_policy != "noeviction" and not self._allow_eviction:
            raise OnlineError(
                f"The server at {self.address} would silently drop rows when it is full.",
                expected="maxmemory-policy noeviction",
                got=info.maxmemory_policy,
                fix="Set it, or allow eviction explicitly.",
                effect="Nothing was pushed.",
            )
        if not self._call("FUNCTION LIST", "LIBRARYNAME", self._library.name):
            self._load_functions()
        return info

    def declare_entity(self, entity: str, buckets: int) -> None:
        """Fix the entity's number of buckets, or check that it is the one fixed before.

        Raises:
            ConfigError: It was created with another number; the keys would not be found.
        """
        check_name("an entity", entity)
        if buckets < 1:
            raise ConfigError(f"Entity '{entity}' has {buckets} buckets.", expected="at least 1")
        name = self.names.entity_meta(entity)
        calls = [("HSETNX", name, "buckets", buckets), ("HGET", name, "buckets")]
        found = int(self._pipeline(calls)[1])
        if found != buckets:
            raise ConfigError(
                f"Entity '{entity}' has another number of buckets online than declared.",
                expected=f"{found}, as fixed when it was first pushed",
                got=str(buckets),
                fix=f"Declare buckets={found}, or use another namespace and push everything again.",
                effect="Nothing was pushed.",
            )

    def learn_schema(self, codec: RowCodec) -> None:
        """Keep the codec's schema under its fingerprint, so that any reader can decode by name."""
        name, text = codec.fingerprint.hex(), codec.schema_json
        calls = [
            ("HSETNX", self.names.schemas(), name, text),
            ("HGET", self.names.schemas(), name),
        ]
        found = self._pipeline(calls)[1].decode()
        if found != text:
            raise OnlineError(
                f"Another schema is kept online under the fingerprint {name}.",
                expected=text,
                got=found,
                fix="Rename a column of the view.",
                effect="Nothing was pushed.",
            )

    def schemas(self) -> dict[bytes, str]:
        """The schema text of every fingerprint that rows may carry."""
        flat = self._pipeline([("HGETALL", self.names.schemas())])[0]
        return {bytes.fromhex(name.decode()): text.decode() for name, text in flat.items()}

    def seals(self, entity: str, view: str, buckets: int) -> dict[int, Seal | None]:
        """The seal of every bucket, None where the view is not sealed. One round trip."""
        found = self._bucket_fields(entity, view, buckets)
        return {bucket: Seal.parse(text) if text else None for bucket, (text, _) in found.items()}

    def table_ids(self, entity: str, view: str, buckets: int) -> set[str]:
        """Delta tables that the view's buckets belong to; any but the one to push means wipe.

        An interrupted wipe leaves `wiping <table id>`. A view that was never pushed has none.
        """
        found = self._bucket_fields(entity, view, buckets)
        return {claim.decode() for _, claim in found.values() if claim}

    def push(
        self,
        entity: str,
        view: str,
        buckets: int,
        rows: PushRows,
        *,
        seals: Mapping[int, Seal],
        started_from: Mapping[int, Seal | None],
        on_chunk: Callable[[int], None] | None = None,
    ) -> Receipt:
        """Write rows by compare-and-set, bucket by bucket, and seal every bucket of `seals`.

        A row is taken unless the entity's stored value has a newer version. An entity's key goes
        no earlier than the longest expiry of its views, and never once a row with expiry 0 came.

        Args:
            entity: Declared entity.
            view: Field of the entity's hash.
            buckets: The entity's number of buckets.
            rows: What to write; must lie in the buckets of `seals`.
            seals: The seal to set per bucket, all of one table and one version (the rows' own).
            started_from: The seal each of those buckets had when the push was planned.
            on_chunk: Called with the number of rows of every acknowledged chunk.

        Raises:
            ConflictError: A bucket is sealed at a newer version, or was sealed by somebody else or
                lost chunks since the push was planned. Rows that arrived stay (they are right for
                their version); plan again.
            OnlineError: No answer, no memory, or rows of another Delta table are in the bucket.
            InputError: Seals that contradict each other, or rows of other buckets; nothing sent.
        """
        check_name("a view", view)
        batches = plan_chunks(rows.keys, buckets, seals)
        calls = PushCalls(self.names, self._library, entity, view, rows, seals, started_from)
        counts = (0, 0, 0, 0)
        for at, batch in enumerate(batches):
            if at == 1:
                crash_point("mid_push")
            if at == len(batches) - 1:
                crash_point("pushed")
            answers = self._functions([calls.call(chunk) for chunk in batch])
            for chunk, answer in zip(batch, answers, strict=True):
                counts = tuple(total + more for total, more in zip(counts, answer, strict=True))
                if on_chunk is not None:
                    on_chunk(len(chunk.rows))
        return Receipt(*counts, sealed=tuple(sorted(seals)))

    def fetch(
        self, entity: str, keys: Sequence[bytes], views: Sequence[str], buckets: int
    ) -> list[list[bytes | None]]:
        """Packed values per key, in the order of `keys` and `views`; None where there is none.

        One round trip. Whether a value has outlived its ttl is the reader's to decide.
        """
        return self.fetch_many([Lookup(entity, keys, views, buckets)])[0]

    def fetch_many(self, lookups: Sequence[Lookup]) -> list[list[list[bytes | None]]]:
        """What `fetch` gives for each lookup, all in one round trip."""
        wanted = sum(len(lookup.keys) for lookup in lookups)
        answers = iter(self._read(packed_reads(self.names, lookups), wanted) if wanted else [])
        return [[next(answers) for _ in lookup.keys] for lookup in lookups]

    def scan(self, entity: str, view: str) -> Iterator[tuple[bytes, bytes]]:
        """Every stored (entity key, packed value) of the view, each key once, in no order.

        Rows written while it runs may be missing. It walks all keys of the server.
        """
        for names in self._scan_names(entity):
            answers = self._pipeline([("HGET", name, view) for name in names])
            for name, value in zip(names, answers, strict=True):
                if value is not None:
                    yield self.names.split(entity, name)[1], value

    def wipe(self, entity: str, view: str, buckets: int, *, table_id: str | None) -> int:
        """Remove the view's rows and seals; afterwards only that table may push (None: any).

        Pushes are refused while it runs. When it is interrupted they stay refused until a wipe for
        the same or another table has finished.

        Returns:
            Number of rows and tombstones removed.

        Raises:
            ConflictError: Another process wiped the same view for another table, or finished first.
        """
        check_name("a view", view)
        calls = WipeCalls(self.names, self._library, entity, view, table_id)
        self._functions([calls.call("begin", bucket) for bucket in range(buckets)])
        found = self._scan_names(entity)
        removed = sum(sum(self._functions(calls.rows(names))) for names in found)
        self._functions([calls.call("finish", bucket) for bucket in range(buckets)])
        return removed

    def _bucket_fields(
        self, entity: str, view: str, buckets: int
    ) -> dict[int, tuple[bytes | None, bytes | None]]:
        names = [self.names.bucket_key(entity, bucket) for bucket in range(buckets)]
        answers = self._pipeline([("HMGET", name, view, f"table:{view}") for name in names])
        return {bucket: (seal, claim) for bucket, (seal, claim) in enumerate(answers)}

    def _scan_names(self, entity: str) -> Iterator[list[bytes]]:
        """Redis keys of the entity's rows, each once, in groups."""
        pattern = self.names.entity_pattern(entity)
        seen: set[bytes] = set()
        cursor: Any = 0
        while True:
            cursor, found = self._call("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
            names = [name for name in dict.fromkeys(found) if name not in seen]
            seen.update(names)
            if names:
                yield names
            if int(cursor) == 0:
                return

    def _call(self, *command: Any) -> Any:
        with self._answering(_UNKNOWN):
            return self._execute(*command)

    def _pipeline(self, calls: Collection[tuple[Any, ...]]) -> list[Any]:
        answers = self._send(calls)
        for answer in answers:
            if isinstance(answer, Exception):
                with self._answering(_UNKNOWN):
                    raise answer
        return answers

    def _send(self, calls: Collection[tuple[Any, ...]]) -> list[Any]:
        with self._answering(_UNKNOWN):
            pipeline = self._client.pipeline(transaction=False)
            queue: Callable[..., Any] = pipeline.execute_command
            for call in calls:
                queue(*call)
            return pipeline.execute(raise_on_error=False)

    def _read(self, packed: bytes, count: int) -> list[Any]:
        """Answers of commands that only read, sent in one write."""
        with self._answering("Nothing was written."):
            connection: Any = self._client.connection_pool.get_connection()
            whole = False
            try:
                connection.send_packed_command([packed])
                answers = [connection.read_response() for _ in range(count)]
                whole = True
            finally:
                if not whole:  # the next user must not read what is left
                    connection.disconnect()
                self._client.connection_pool.release(connection)
            return answers

    def _functions(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Answers of function calls, loading the library once if the server has lost it."""
        answers = self._send(calls)
        if any(isinstance(answer, Exception) and str(answer) == _NOT_LOADED for answer in answers):
            self._load_functions()
            again = [at for at, answer in enumerate(answers) if isinstance(answer, Exception)]
            for at, answer in zip(again, self._send([calls[at] for at in again]), strict=True):
                answers[at] = answer
        for answer in answers:
            if isinstance(answer, exceptions.ResponseError) and str(answer).startswith(_CONFLICTS):
                raise ConflictError(
                    "Somebody else changed the view online, or chunks were lost, during this push.",
                    got=str(answer).partition(" ")[2],
                    fix="Plan the push again from the present seals.",
                    effect="Rows that arrived are right for their version and stay; the bucket was "
                    "not sealed by this push.",
                )
            if isinstance(answer, exceptions.RedisError):
                raise self._wrapped(answer, _UNSEALED) from None
        return answers

    def _load_functions(self) -> None:
        try:
            self._execute("FUNCTION LOAD", self._library.source)
        except exceptions.RedisError as error:
            if "already exists" not in str(error):  # another process was faster
                raise self._wrapped(error, "Nothing was pushed.") from None

    @contextmanager
    def _answering(self, effect: str) -> Iterator[None]:
        try:
            yield
        except exceptions.RedisError as error:
            raise self._wrapped(error, effect) from None

    def _wrapped(self, error: exceptions.RedisError, effect: str) -> OnlineError:
        """The error in our words, with the address and never the password.

        The original is not chained: tracebacks end up in Dagster's event log.
        """
        text = str(error).replace(self._password, "***") if self._password else str(error)
        where = f"The online store at {self.address}"
        match error:
            case exceptions.TimeoutError():
                culprit = f"{where} did not answer within {self._timeout:g} s."
                fix = "See whether it is overloaded, paused or unreachable."
            case exceptions.OutOfMemoryError():
                culprit = f"{where} is out of memory and refuses writes: {text}"
                fix = "Raise maxmemory or remove views from it, then push again."
            case exceptions.AuthenticationError() | exceptions.NoPermissionError():
                culprit = f"{where} does not allow this user to do that: {text}."
                fix = "Check user and password in the URL, and the user's ACL."
            case exceptions.ConnectionError():
                culprit = f"{where} cannot be used: {text.rstrip('.')}."
                fix = "Start it (`lockstep up` starts the embedded one), or correct its URL."
            case exceptions.ResponseError() if text.startswith("LSTABLE "):
                culprit = f"Rows of another Delta table are online: {text.partition(' ')[2]}."
                fix = "Wipe the view online, then push the whole table."
            case _:
                culprit = f"{where} refused a command: {text.rstrip('.')}."
                fix = "Lockstep needs Redis 7 or later, or Valkey."
        return OnlineError(culprit, fix=fix, effect=effect)
