"""Where things lie in Redis, and how a push is cut: names, seals, chunks. Pure; no connection.

    <namespace>:{<entity>:<bucket>}:<entity key>   hash, one field per view: a packed value
    <namespace>:{<entity>:<bucket>}!seal           hash, see stores/lockstep.lua
    <namespace>!entity:<entity>                    hash, field buckets
    <namespace>!schemas                            hash, fingerprint in hex: schema text
    <namespace>!facts                              hash, view: JSON, what was last pushed of it
    <namespace>!unready                            hash, view: JSON, why it is not to be trusted

The braces are a cluster's hash tag, so that a bucket's rows and its seal share one slot: they are
written by one call, and lost or rolled back together.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, Self, TypeAlias

import polars as pl

from lockstep.errors import ConfigError, InputError, OnlineError

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
NoteKind: TypeAlias = Literal["facts", "unready"]

_NOTHING_PUSHED: Final = "Nothing was pushed."


@dataclass(frozen=True)
class Seal:
    """What has been pushed completely into one bucket, for one view.

    Attributes:
        table_id: Identity of the Delta table the rows come from.
        version: Delta version up to which the bucket is complete.
        days: Day-to-revision map as text; nothing here looks into it.
        at: When the push was planned, microseconds since 1970-01-01 UTC.
    """

    table_id: str
    version: int
    days: str
    at: int

    @property
    def text(self) -> str:
        """The canonical JSON that Redis keeps; seals are compared by these exact bytes."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """The seal with that text.

        Raises:
            OnlineError: Not a seal, or not in the form this release writes.
        """
        try:
            seal = cls(**json.loads(text))
        except (ValueError, TypeError):
            seal = None
        if seal is None or seal.text.encode() != text:
            raise OnlineError(
                "A seal in Redis is not in the form this release writes.",
                got=repr(text[:80]),
                fix="Upgrade this process, or rebuild the view online from Delta.",
            )
        return seal


@dataclass(frozen=True)
class PushRows:
    """Rows of a push, two columns of equal length without nulls.

    Attributes:
        keys: Encoded entity keys (Binary), each at most once in a push.
        values: Packed values or tombstones (Binary), all of the pushed version.
    """

    keys: pl.Series
    values: pl.Series

    def __post_init__(self) -> None:
        for name in ("keys", "values"):
            column: pl.Series = getattr(self, name)
            if column.dtype != pl.Binary or column.null_count() or len(column) != len(self.keys):
                raise InputError(
                    f"The column '{name}' of rows to push is wrong.",
                    expected=f"{len(self.keys)} values of Binary without nulls",
                    got=f"{len(column)} of {column.dtype}, {column.null_count()} of them null",
                    effect=_NOTHING_PUSHED,
                )

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Receipt:
    """What a push did.

    Attributes:
        written: Rows that are now stored.
        removed: Tombstones that are now stored.
        superseded: Rows and tombstones rejected because a newer version was there already.
        expired: Of those stored, how many arrived after their expiry (kept for an hour).
        failed: Rows sent or still to be sent for which no answer came; 0 unless the push failed.
        sealed: Buckets that carry the push's seal, ascending; empty if the push failed.
    """

    written: int = 0
    removed: int = 0
    superseded: int = 0
    expired: int = 0
    failed: int = 0
    sealed: tuple[int, ...] = ()

    def plus(self, counts: Sequence[int]) -> Self:
        """With the answer to one more chunk: written, removed, superseded, expired."""
        written, removed, superseded, expired = counts
        return replace(
            self,
            written=self.written + written,
            removed=self.removed + removed,
            superseded=self.superseded + superseded,
            expired=self.expired + expired,
        )


@dataclass(frozen=True)
class Swept:
    """What a sweep removed.

    Attributes:
        looked_at: Entity hashes that were looked at.
        undeclared: Fields of views, or of entities, that are not declared any more.
        dead: Rows past their ttl and grace in hashes that other views keep alive.
    """

    looked_at: int = 0
    undeclared: int = 0
    dead: int = 0


@dataclass(frozen=True)
class ServerInfo:
    """What the server says about itself (INFO).

    Attributes:
        engine: "valkey 9.1.2" or "redis 7.0.15".
        run_id: Changes with every start of the server.
        replid: Identity of its history; changes when a replica is promoted.
        process_id: Of the server.
        used_memory: Bytes.
        maxmemory: Bytes; 0 is no limit.
        maxmemory_policy: What happens at the limit; must be "noeviction".
        evicted_keys: Keys evicted since the server started.
        append_only: Whether acknowledged writes survive a crash of the server.
    """

    engine: str
    run_id: str
    replid: str
    process_id: int
    used_memory: int
    maxmemory: int
    maxmemory_policy: str
    evicted_keys: int
    append_only: bool

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """The fields of a parsed INFO answer, of Redis or Valkey."""
        engine, version = str(facts.get("server_name", "redis")), facts["redis_version"]
        return cls(
            engine=f"{engine} {facts.get(f'{engine}_version', version)}",
            run_id=str(facts["run_id"]),
            replid=str(facts.get("master_replid", "")),
            process_id=int(facts["process_id"]),
            used_memory=int(facts["used_memory"]),
            maxmemory=int(facts["maxmemory"]),
            maxmemory_policy=str(facts["maxmemory_policy"]),
            evicted_keys=int(facts["evicted_keys"]),
            append_only=bool(facts["aof_enabled"]),
        )


@dataclass(frozen=True)
class Lookup:
    """Entities of one type to fetch: encoded keys, the views wanted, the entity's buckets."""

    entity: str
    keys: Sequence[bytes]
    views: Sequence[str]
    buckets: int


@dataclass(frozen=True)
class Names:
    """The Redis keys of one namespace, as bytes.

    Raises:
        ConfigError: A namespace that is not 1 to 100 letters, digits, `_`, `.`, `:` or `-`.
    """

    namespace: str

    def __post_init__(self) -> None:
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ConfigError(
                f"The namespace {self.namespace!r} cannot begin Redis keys.",
                expected="1 to 100 letters, digits, '_', '.', ':' or '-'",
                fix="Change `namespace` in [tool.lockstep] of pyproject.toml, or LOCKSTEP_ENV.",
            )

    def entity_key(self, entity: str, bucket: int, key: bytes) -> bytes:
        """The hash of one entity, in the slot of its bucket."""
        return b"%b:{%b:%d}:%b" % (self.namespace.encode(), entity.encode(), bucket, key)

    def bucket_key(self, entity: str, bucket: int) -> bytes:
        """The hash of one bucket's seals, in the same slot."""
        return b"%b:{%b:%d}!seal" % (self.namespace.encode(), entity.encode(), bucket)

    def entity_meta(self, entity: str) -> bytes:
        """The hash with the entity's number of buckets."""
        return f"{self.namespace}!entity:{entity}".encode()

    def schemas(self) -> bytes:
        """The hash of row schemas."""
        return f"{self.namespace}!schemas".encode()

    def notes(self, kind: NoteKind) -> bytes:
        """The hash of what is said about views: field view, JSON text."""
        return f"{self.namespace}!{kind}".encode()

    def entity_pattern(self, entity: str) -> bytes:
        """The glob that matches every entity key of that entity and nothing else."""
        return f"{self.namespace}:{{{entity}:*}}:*".encode()

    def any_entity_pattern(self) -> bytes:
        """The glob that matches every entity key of the namespace, of any entity."""
        return f"{self.namespace}:{{*}}:*".encode()

    def any_bucket_pattern(self) -> bytes:
        """The glob that matches the seals' hash of every bucket of the namespace."""
        return f"{self.namespace}:{{*}}!seal".encode()

    def entity_of(self, name: bytes) -> str:
        """The entity of a Redis key that one of the two patterns above matched."""
        return name[len(self.namespace) + 2 :].partition(b":")[0].decode()

    def split(self, entity: str, name: bytes) -> tuple[int, bytes]:
        """Bucket and entity key of a Redis key that `entity_pattern` matched."""
        start = len(self.namespace) + len(entity) + 3
        bucket, _, key = name[start:].partition(b"}:")
        return int(bucket), key


def bulk(word: bytes) -> bytes:
    """A word in the Redis protocol."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def pairs(flat: Sequence[Any]) -> dict[Any, Any]:
    """What an answer of keys and values in turn says."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def buckets_from(entity: str, text: bytes) -> int:
    """An entity's number of buckets, from what Redis holds.

    Raises:
        OnlineError: It is no number.
    """
    if not text.isdigit():
        raise OnlineError(
            f"The number of buckets of entity '{entity}' in Redis is no number.",
            got=repr(text[:40]),
            fix="Something else wrote it. HSET it to the declared number, then: lockstep reconcile",
        )
    return int(text)


def check_name(kind: str, name: str) -> None:
    """Do nothing if the entity or view name is safe inside a Redis key.

    Raises:
        InputError: The name is not lower-case letters, digits and `_`, or is longer than 63.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no name of {kind}.",
            expected="a lower-case letter, then up to 62 lower-case letters, digits or '_'",
        )
