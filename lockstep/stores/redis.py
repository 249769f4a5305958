"""The online store: rows and seals in Redis or Valkey, one server or a cluster.

A cache of Delta that can be verified, never the source. Every call has a time limit, is sent once
and raises OnlineError when no answer came: a write without an answer may or may not have happened,
and running the push again settles it, because every write is a compare-and-set.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from redis import exceptions

from lockstep.calls import FunctionLibrary, PushCalls, WipeCalls, shipped_library, sweep_calls
from lockstep.codec import RowCodec, bucket_of
from lockstep.errors import ConfigError, OnlineError
from lockstep.layout import (
    Lookup,
    Names,
    NoteKind,
    PushRows,
    Receipt,
    Seal,
    ServerInfo,
    Swept,
    buckets_from,
    check_name,
)
from lockstep.stores.link import UNKNOWN, Call, Link
from lockstep.stores.pushing import Pipes, load_functions, refused
from lockstep.stores.walking import scan_keys
from lockstep.throttle import Throttle

__all__ = ["Lookup", "OnlineStore", "PushRows", "Receipt", "Seal", "ServerInfo"]


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
        self._link: Final = Link(url, timeout=socket_timeout)
        self.address: Final = self._link.address
        self.encrypted: Final = self._link.encrypted

    def close(self) -> None:
        """Close every connection; the store may be used again."""
        self._link.close()

    def ping(self) -> None:
        """Do nothing if the server answers (of a cluster, every master).

        Raises:
            OnlineError: It does not, or still loads its data.
        """
        self._link.each("PING")

    def ask(self, *words: Any) -> dict[str, Any]:
        """Address of every master → its answer to a command without keys.

        Raises:
            OnlineError: One does not answer, or refuses the command.
        """
        return self._link.each(*words)

    def nodes(self) -> dict[str, ServerInfo]:
        """Address of every master → what it says about itself; one unless it is a cluster."""
        return {name: ServerInfo.of(facts) for name, facts in self._link.each("INFO").items()}

    def node_of(self, entity: str, bucket: int) -> str:
        """Address of the master that has the bucket."""
        return self._link.node_of(self.names.bucket_key(entity, bucket))

    def info(self) -> ServerInfo:
        """What the server says about itself; of a cluster, its first master."""
        return next(iter(self.nodes().values()))

    def ensure_ready(self) -> ServerInfo:
        """What `info` gives, once `ready_nodes` has returned."""
        return next(iter(self.ready_nodes().values()))

    def ready_nodes(self) -> dict[str, ServerInfo]:
        """What `nodes` gives, once each of them has been made ready for a push.

        Raises:
            OnlineError: No answer, older than Redis 7, or it would drop rows when full.
        """
        nodes = self.nodes()
        for name, info in nodes.items():
            lossy = info.maxmemory and info.maxmemory_policy != "noeviction"
            if lossy and not self._allow_eviction:
                raise OnlineError(
                    f"The server at {name} would silently drop rows when it is full.",
                    expected="maxmemory-policy noeviction",
                    got=info.maxmemory_policy,
                    fix="Set it, or allow eviction explicitly.",
                    effect="Nothing was pushed.",
                )
        load_functions(self._link, self._library)
        return nodes

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
        found = buckets_from(entity, self._pipeline([(name, call) for call in calls])[1])
        if found != buckets:
            raise ConfigError(
                f"Entity '{entity}' has another number of buckets online than declared.",
                expected=f"{found}, as fixed when it was first pushed",
                got=str(buckets),
                fix=f"Declare buckets={found}, or use another namespace and push everything again.",
                effect="Nothing was pushed.",
            )

    def declared_buckets(self, entity: str) -> int | None:
        """The number of buckets fixed when the entity was first pushed; None if it never was."""
        name = self.names.entity_meta(entity)
        found = self._link.call("HGET", name, "buckets", key=name)
        return None if found is None else buckets_from(entity, found)

    def learn_schema(self, codec: RowCodec) -> None:
        """Keep the codec's schema under its fingerprint, so that any reader can decode by name."""
        key, name, text = self.names.schemas(), codec.fingerprint.hex(), codec.schema_json
        calls = [("HSETNX", key, name, text), ("HGET", key, name)]
        found = self._pipeline([(key, call) for call in calls])[1].decode()
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
        return {bytes.fromhex(k): text for k, text in self._hash(self.names.schemas()).items()}

    def note(self, kind: NoteKind, view: str, text: str | None) -> None:
        """Say something about a view to every reader; None takes it back."""
        check_name("a view", view)
        name = self.names.notes(kind)
        words = ("HDEL", name, view) if text is None else ("HSET", name, view, text)
        self._link.call(*words, key=name)

    def notes(self, kind: NoteKind) -> dict[str, str]:
        """View → what was said about it."""
        return self._hash(self.names.notes(kind))

    def seals(self, entity: str, view: str, buckets: int) -> dict[int, Seal | None]:
        """The seal of every bucket, None where the view is not sealed. One round trip."""
        return self.seals_and_claims(entity, view, buckets)[0]

    def table_ids(self, entity: str, view: str, buckets: int) -> set[str]:
        """Delta tables that the view's buckets belong to; any but the one to push means wipe.

        An interrupted wipe leaves `wiping <table id>`. A view that was never pushed has none.
        """
        return {claim for claim in self.claims(entity, view, buckets).values() if claim}

    def claims(self, entity: str, view: str, buckets: int) -> dict[int, str | None]:
        """The Delta table that every bucket belongs to; None where nobody has said."""
        return self.seals_and_claims(entity, view, buckets)[1]

    def seals_and_claims(
        self, entity: str, view: str, buckets: int
    ) -> tuple[dict[int, Seal | None], dict[int, str | None]]:
        """What `seals` and `claims` give, as of one look in one round trip."""
        found = self._bucket_fields(entity, buckets, view, f"table:{view}")
        seals = {bucket: Seal.parse(text) if text else None for bucket, (text, _) in found.items()}
        return seals, {n: claim.decode() if claim else None for n, (_, claim) in found.items()}

    def begun(self, entity: str, view: str, buckets: int) -> list[int]:
        """Buckets that have chunks of a push which has not sealed them, ascending."""
        found = self._bucket_fields(entity, buckets, f"push:{view}")
        return [bucket for bucket, (chunks,) in found.items() if chunks]

    def push(
        self,
        entity: str,
        view: str,
        buckets: int,
        rows: PushRows | Iterable[PushRows],
        *,
        seals: Mapping[int, Seal],
        started_from: Mapping[int, Seal | None],
        keep_ms: int = 0,
        ready: bool = False,
        throttle: Throttle | None = None,
        on_rows: Callable[[int], None] | None = None,
    ) -> Receipt:
        """Write rows by compare-and-set as they come, then seal every bucket of `seals`.

        A row is taken unless the entity's stored value has a newer version. An entity's key goes
        no earlier than the longest expiry of its views, and never once a row for ever came.

        Args:
            entity: Declared entity.
            view: Field of the entity's hash.
            buckets: The entity's number of buckets.
            rows: What to write, in one block or several; must lie in the buckets of `seals`.
            seals: The seal to set per bucket, all of one table and one version (the rows' own).
            started_from: The seal each of those buckets had when the push was planned.
            keep_ms: How long after its event_timestamp a row is kept; 0 for ever.
            ready: `ready_nodes` has just looked for the functions. A server that has lost them
                since refuses the push (ConflictError); then ask it again.
            throttle: Paces the push; without it, it goes as fast as the server takes it.
            on_rows: Called with the number of rows of every acknowledged chunk.

        Raises:
            ConflictError: A bucket is sealed at a newer version, or was sealed by somebody else or
                lost chunks since the push was planned, or the cluster moved it. Rows that arrived
                stay (they are right for their version); plan again.
            PushFailedError: No answer, no memory, or rows of another Delta table are in the bucket;
                it carries the receipt of what was acknowledged.
            InputError: Seals that contradict each other, or rows of other buckets.
        """
        check_name("a view", view)
        calls = PushCalls(
            self.names, self._library, entity, view, buckets, seals, started_from, keep_ms
        )
        if not ready:
            load_functions(self._link, self._library)
        pipes = Pipes(self._link, self.names, entity, throttle, on_rows)
        return pipes.run(calls, [rows] if isinstance(rows, PushRows) else rows)

    def fetch(
        self, entity: str, keys: Sequence[bytes], views: Sequence[str], buckets: int
    ) -> list[list[bytes | None]]:
        """Packed values per key, in the order of `keys` and `views`; None where there is none.

        One round trip per node. Whether a value has outlived its ttl is the reader's to decide.
        """
        return self.fetch_many([Lookup(entity, keys, views, buckets)])[0]

    def fetch_many(self, lookups: Sequence[Lookup]) -> list[list[list[bytes | None]]]:
        """What `fetch` gives for each lookup, all in one round trip per node."""
        calls: list[Call] = []
        for lookup in lookups:
            for key in lookup.keys:
                name = self.names.entity_key(lookup.entity, bucket_of(key, lookup.buckets), key)
                calls.append((name, ("HMGET", name, *lookup.views)))
        answers = iter(self._pipeline(calls) if calls else [])
        return [[next(answers) for _ in lookup.keys] for lookup in lookups]

    def scan(self, entity: str, view: str) -> Iterator[tuple[bytes, bytes]]:
        """Every stored (entity key, packed value) of the view, each key once, in no order.

        Rows written while it runs may be missing. It walks all keys of the server.
        """
        for names in scan_keys(self._link, self.names.entity_pattern(entity)):
            answers = self._pipeline([(name, ("HGET", name, view)) for name in names])
            for name, value in zip(names, answers, strict=True):
                if value is not None:
                    yield self.names.split(entity, name)[1], value

    def wipe(
        self,
        entity: str,
        view: str,
        buckets: int,
        *,
        table_id: str | None,
        own_rows_too: bool = True,
    ) -> int:
        """Remove the view's rows and seals; afterwards only that table may push (None: any).

        Pushes are refused while it runs. When it is interrupted they stay refused until a wipe for
        the same or another table has finished.

        Args:
            own_rows_too: Also in buckets that belong to that table by now; without it they are
                spared.

        Returns:
            Number of rows and tombstones removed.

        Raises:
            ConflictError: Another process wiped the same view for another table, or finished first.
        """
        check_name("a view", view)
        load_functions(self._link, self._library)
        calls = WipeCalls(self.names, self._library, entity, view, table_id, buckets, own_rows_too)
        calls.began(self._functions(calls.begin()))
        found = scan_keys(self._link, self.names.entity_pattern(entity))
        removed = sum(sum(self._functions(calls.rows(names))) for names in found)
        self._functions(calls.finish())
        return removed

    def entity_keys(self, entity: str, most_calls: int | None = None) -> Iterator[bytes]:
        """Every encoded key with anything stored, in no order; see `scan_keys` for the calls."""
        for names in scan_keys(self._link, self.names.entity_pattern(entity), most_calls):
            yield from (self.names.split(entity, name)[1] for name in names)

    def stored_views(self, entity: str, keys: Sequence[bytes], buckets: int) -> int:
        """How many rows and tombstones of any view are stored under the encoded keys."""
        names = [self.names.entity_key(entity, bucket_of(key, buckets), key) for key in keys]
        return sum(map(len, self._pipeline([(name, ("HKEYS", name)) for name in names])))

    def remove(self, entity: str, keys: Sequence[bytes], buckets: int) -> int:
        """Remove all that is stored under the encoded keys; how many rows and tombstones it was.

        It stays removed if each view was pushed without them and sealed before: a push that was
        planned earlier writes nothing any more.
        """
        removed = 0
        for key in keys:
            name = self.names.entity_key(entity, bucket_of(key, buckets), key)
            while fields := self._link.call("HKEYS", name, key=name):
                removed += self._link.call("HDEL", name, *fields, key=name)
        return removed

    def sweep(self, keep_ms: Mapping[str, Mapping[str, int]]) -> Swept:
        """Free the fields of what is not declared, and rows past their time.

        It walks all keys of the server. Pushes and reads may go on meanwhile.

        Args:
            keep_ms: Entity → view → how long after its event_timestamp a row is kept (0 for ever),
                of everything that is declared.
        """
        load_functions(self._link, self._library)
        self._forget_undeclared(keep_ms)
        swept = Swept()
        for names in scan_keys(self._link, self.names.any_entity_pattern()):
            calls = sweep_calls(self.names, self._library, names, keep_ms)
            answers = self._functions(calls)
            undeclared, dead = (sum(column) for column in zip(*answers, strict=True))
            swept = Swept(
                swept.looked_at + len(names), swept.undeclared + undeclared, swept.dead + dead
            )
        return swept

    def _forget_undeclared(self, keep_ms: Mapping[str, Mapping[str, int]]) -> None:
        """Remove the seals of what is not declared, before its rows: no seal may outlive them."""
        for names in scan_keys(self._link, self.names.any_bucket_pattern()):
            answers = self._pipeline([(name, ("HKEYS", name)) for name in names])
            calls: list[Call] = []
            for name, fields in zip(names, answers, strict=True):
                declared = keep_ms.get(self.names.entity_of(name), {})
                gone = [f for f in fields if f.rpartition(b":")[2].decode() not in declared]
                if gone:
                    calls.append((name, ("HDEL", name, *gone)))
            if calls:
                self._pipeline(calls)

    def _bucket_fields(
        self, entity: str, buckets: int, *fields: str
    ) -> dict[int, list[bytes | None]]:
        names = [self.names.bucket_key(entity, bucket) for bucket in range(buckets)]
        return dict(enumerate(self._pipeline([(n, ("HMGET", n, *fields)) for n in names])))

    def _hash(self, name: bytes) -> dict[str, str]:
        flat = self._link.call("HGETALL", name, key=name)
        return {name.decode(): text.decode(errors="replace") for name, text in flat.items()}

    def _pipeline(self, calls: Sequence[Call]) -> list[Any]:
        answers = self._link.send(calls)
        for answer in answers:
            if isinstance(answer, Exception):
                with self._link.answering(UNKNOWN):
                    raise answer
        return answers

    def _functions(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Answers of function calls; the fourth word is the bucket's key."""
        answers = self._link.send([(call[3], call) for call in calls])
        for answer in answers:
            if isinstance(answer, exceptions.RedisError):
                raise refused(self._link, answer) from None
        return answers
