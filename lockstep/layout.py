"""Where things lie in Redis, and how a push is cut: names, seals, chunks. Pure; no connection.

    <namespace>:{<entity>:<bucket>}:<entity key>   hash, one field per view: a packed value
    <namespace>:{<entity>:<bucket>}!seal           hash, see stores/lockstep.lua
    <namespace>!entity:<entity>                    hash, field buckets
    <namespace>!schemas                            hash, fingerprint in hex: schema text

The braces are a cluster's hash tag, so that a bucket's rows and its seal share one slot: they are
written by one call, and lost or rolled back together.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import polars as pl

from lockstep.errors import ConfigError, InputError, OnlineError

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
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
    """The rows of one push, three columns of equal length without nulls.

    Attributes:
        keys: Encoded entity keys (Binary), each at most once.
        values: Packed values or tombstones (Binary), all of the pushed version.
        expire_at_ms: When the entity's key may go, in ms since 1970-01-01 UTC (Int64); 0 is never.
    """

    keys: pl.Series
    values: pl.Series
    expire_at_ms: pl.Series

    def __post_init__(self) -> None:
        wanted = {"keys": pl.Binary, "values": pl.Binary, "expire_at_ms": pl.Int64}
        for name, dtype in wanted.items():
            column: pl.Series = getattr(self, name)
            if column.dtype != dtype or column.null_count() or len(column) != len(self.keys):
                raise InputError(
                    f"The column '{name}' of rows to push is wrong.",
                    expected=f"{len(self.keys)} values of {dtype} without nulls",
                    got=f"{len(column)} of {column.dtype}, {column.null_count()} of them null",
                    effect=_NOTHING_PUSHED,
                )
        if (self.expire_at_ms < 0).any():
            raise InputError(
                "An expiry lies before 1970.",
                expected="milliseconds since 1970, or 0 for never",
                effect=_NOTHING_PUSHED,
            )


@dataclass(frozen=True)
class Receipt:
    """What a push did.

    Attributes:
        written: Rows that are now stored.
        removed: Tombstones that are now stored.
        superseded: Rows and tombstones rejected because a newer version was there already.
        expired: Of those stored, how many arrived after their expiry (kept for an hour).
        sealed: Buckets that carry the push's seal, ascending.
    """

    written: int
    removed: int
    superseded: int
    expired: int
    sealed: tuple[int, ...]


@dataclass(frozen=True)
class ServerInfo:
    """What the server says about itself (INFO).

    Attributes:
        engine: "valkey 9.1.2" or "redis 7.0.15".
        run_id: Changes with every start of the server.
        process_id: Of the server.
        used_memory: Bytes.
        maxmemory: Bytes; 0 is no limit.
        maxmemory_policy: What happens at the limit; must be "noeviction".
        evicted_keys: Keys evicted since the server started.
        append_only: Whether acknowledged writes survive a crash of the server.
    """

    engine: str
    run_id: str
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

    def entity_pattern(self, entity: str) -> bytes:
        """The glob that matches every entity key of that entity and nothing else."""
        return f"{self.namespace}:{{{entity}:*}}:*".encode()

    def split(self, entity: str, name: bytes) -> tuple[int, bytes]:
        """Bucket and entity key of a Redis key that `entity_pattern` matched."""
        start = len(self.namespace) + len(entity) + 3
        bucket, _, key = name[start:].partition(b"}:")
        return int(bucket), key


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
