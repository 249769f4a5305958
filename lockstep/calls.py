"""How a push is cut into calls of the Redis Functions, and which functions those are. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final, Literal, Self
from uuid import uuid4

import polars as pl

from lockstep.codec import bucket_of
from lockstep.errors import ConflictError, InputError
from lockstep.layout import Lookup, Names, PushRows, Seal

CHUNK_ROWS: Final = 200  # one call of the push function; more would let readers wait
BATCH_CHUNKS: Final = 16  # chunks sent before an answer is awaited
_NOTHING_PUSHED: Final = "Nothing was pushed."


@dataclass(frozen=True)
class FunctionLibrary:
    """The Redis Functions, under a name that carries a digest of their source.

    So two releases never call each other's functions, and "loaded but older" cannot happen.

    Attributes:
        name: Library name; its functions are `<name>_push` and `<name>_wipe`.
        source: What FUNCTION LOAD takes.
    """

    name: str
    source: str

    @classmethod
    def of(cls, lua: str) -> Self:
        """The library with that Lua source, in which it is called `lockstep_v1`."""
        name = f"lockstep_v1_{sha256(lua.encode()).hexdigest()[:12]}"
        return cls(name, lua.replace("lockstep_v1", name))


@cache
def shipped_library() -> FunctionLibrary:
    """The library of this release."""
    return FunctionLibrary.of(files("lockstep.stores").joinpath("lockstep.lua").read_text("utf-8"))


@dataclass(frozen=True)
class Chunk:
    """One call of the push function: `rows` are positions in PushRows, `last` carries the seal."""

    bucket: int
    number: int
    rows: Sequence[int]
    last: bool


def plan_chunks(keys: pl.Series, buckets: int, sealing: Collection[int]) -> list[list[Chunk]]:
    """The chunks of a push in batches, each to be acknowledged before the next is sent.

    Every bucket of `sealing` gets chunks numbered from 1, of which the last one seals it, even if
    it has no rows. The last batch is one chunk without rows that seals the last bucket, so before
    it every row has arrived; the first batch is at most half of the others, so after it a push is
    under way.

    Args:
        keys: Encoded entity keys, in any order.
        buckets: The entity's number of buckets.
        sealing: Buckets to push, all of them or those that need it.

    Raises:
        InputError: Nothing to seal, or a key whose bucket is not in `sealing`.
    """
    by_bucket: dict[int, list[int]] = {bucket: [] for bucket in sorted(sealing)}
    for position, bucket in enumerate(bucket_of(keys, buckets).to_list()):
        if bucket not in by_bucket:
            raise InputError(
                f"A row belongs to bucket {bucket}, which this push does not seal.",
                expected=f"buckets {sorted(by_bucket)}",
                effect=_NOTHING_PUSHED,
            )
        by_bucket[bucket].append(position)
    if not by_bucket:
        raise InputError("A push without buckets seals nothing.", effect=_NOTHING_PUSHED)
    final = max(by_bucket)
    chunks = [
        chunk
        for bucket, rows in by_bucket.items()
        for chunk in _chunks_of(bucket, rows, final=bucket == final)
    ]
    body, sealing_chunk = chunks[:-1], chunks[-1:]
    first = min(BATCH_CHUNKS, (len(body) + 1) // 2)
    rest = [body[at : at + BATCH_CHUNKS] for at in range(first, len(body), BATCH_CHUNKS)]
    return [batch for batch in (body[:first], *rest, sealing_chunk) if batch]


def _chunks_of(bucket: int, rows: Sequence[int], *, final: bool) -> list[Chunk]:
    parts = [rows[at : at + CHUNK_ROWS] for at in range(0, len(rows), CHUNK_ROWS)]
    if final or not parts:
        parts.append([])
    count = len(parts)
    return [Chunk(bucket, n, part, n == count) for n, part in enumerate(parts, start=1)]


@dataclass(frozen=True)
class PushCalls:
    """Turns the chunks of one push into calls of the push function.

    Raises:
        InputError: Seals of more than one table or version.
        ConflictError: A seal is older than the one it would replace.
    """

    names: Names
    library: FunctionLibrary
    entity: str
    view: str
    rows: PushRows
    seals: Mapping[int, Seal]
    started_from: Mapping[int, Seal | None]
    push_id: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        if len({(seal.table_id, seal.version) for seal in self.seals.values()}) > 1:
            raise InputError(
                "The seals of one push name several tables or versions.",
                expected="one pinned Delta version",
                effect=_NOTHING_PUSHED,
            )
        for bucket, seal in self.seals.items():
            before = self.started_from.get(bucket)
            if before and before.table_id == seal.table_id and before.version > seal.version:
                raise ConflictError(
                    f"Bucket {bucket} is sealed at a newer Delta version than the one to push.",
                    expected=f"version {before.version} or later",
                    got=str(seal.version),
                    fix="Open the table again and plan the push from its head. If the table was "
                    "restored to an older version, wipe the view online first.",
                    effect=_NOTHING_PUSHED,
                )

    def call(self, chunk: Chunk) -> tuple[Any, ...]:
        """The words of the call that carries one chunk."""
        bucket, seal = chunk.bucket, self.seals[chunk.bucket]
        before = self.started_from.get(bucket)
        return (
            "FCALL",
            f"{self.library.name}_push",
            1 + len(chunk.rows),
            self.names.bucket_key(self.entity, bucket),
            *(self.names.entity_key(self.entity, bucket, self._keys[at]) for at in chunk.rows),
            self.view,
            seal.table_id,
            seal.version,
            self.push_id,
            chunk.number,
            before.text if before else "",
            seal.text if chunk.last else "",
            *(word for at in chunk.rows for word in (self._values[at], self._expiries[at])),
        )

    @cached_property
    def _keys(self) -> list[bytes]:
        return self.rows.keys.to_list()

    @cached_property
    def _values(self) -> list[bytes]:
        return self.rows.values.to_list()

    @cached_property
    def _expiries(self) -> list[int]:
        return self.rows.expire_at_ms.to_list()


@dataclass(frozen=True)
class WipeCalls:
    """Turns the steps of one wipe into calls of the wipe function."""

    names: Names
    library: FunctionLibrary
    entity: str
    view: str
    table_id: str | None

    def call(
        self, step: Literal["begin", "rows", "finish"], bucket: int, rows: Sequence[bytes] = ()
    ) -> tuple[Any, ...]:
        """The words of one step on one bucket; `rows` are Redis keys of that bucket."""
        return (
            "FCALL",
            f"{self.library.name}_wipe",
            1 + len(rows),
            self.names.bucket_key(self.entity, bucket),
            *rows,
            self.view,
            step,
            self.table_id or "",
        )

    def rows(self, found: Sequence[bytes]) -> list[tuple[Any, ...]]:
        """The "rows" steps for Redis keys of any buckets."""
        by_bucket: dict[int, list[bytes]] = {}
        for name in found:
            by_bucket.setdefault(self.names.split(self.entity, name)[0], []).append(name)
        return [
            self.call("rows", bucket, names[at : at + CHUNK_ROWS])
            for bucket, names in by_bucket.items()
            for at in range(0, len(names), CHUNK_ROWS)
        ]


def packed_reads(names: Names, lookups: Sequence[Lookup]) -> bytes:
    """One HMGET per key of the lookups, in their order, in the words of the Redis protocol.

    Packed here because redis-py spends twice as long on it (docs/adr/0003-online-layout.md).
    """
    commands: list[bytes] = []
    for lookup in lookups:
        head = b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(lookup.views))
        tail = b"".join(_bulk(view.encode()) for view in lookup.views)
        for key in lookup.keys:
            name = names.entity_key(lookup.entity, bucket_of(key, lookup.buckets), key)
            commands.append(head + _bulk(name) + tail)
    return b"".join(commands)


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)
