"""How a push is cut into calls of the Redis Functions, and the bytes of those calls. Pure.

Rows become bytes a column at a time: nothing here loops over rows in Python.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final, Self
from uuid import uuid4

import numpy as np
import polars as pl

from lockstep.codec import bucket_of
from lockstep.errors import ConflictError, InputError
from lockstep.layout import Names, PushRows, Seal, bulk

CHUNK_ROWS: Final = 128  # one call of the push function; more would let readers wait
_NOTHING_PUSHED: Final = "Nothing was pushed."


@dataclass(frozen=True)
class FunctionLibrary:
    """The Redis Functions, under a name that carries a digest of their source.

    So two releases never call each other's functions, and "loaded but older" cannot happen.

    Attributes:
        name: Library name; its functions are `<name>_push`, `<name>_wipe` and `<name>_sweep`.
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
    """One call of the push function, as bytes of the Redis protocol.

    Attributes:
        bucket: Whose rows it carries.
        number: Its place among the bucket's chunks, from 1.
        rows: How many rows it carries.
        packed: What to send.
    """

    bucket: int
    number: int
    rows: int
    packed: bytes


@dataclass
class PushCalls:
    """Turns the rows of one push, block by block, into calls of the push function.

    Every bucket's chunks are numbered on from 1 through all blocks; the last one seals it.

    Args:
        keep_ms: How long after its event_timestamp a row is kept; 0 for ever.

    Raises:
        InputError: Nothing to seal, or seals of more than one table or version.
        ConflictError: A seal is older than the one it would replace.
    """

    names: Names
    library: FunctionLibrary
    entity: str
    view: str
    buckets: int
    seals: Mapping[int, Seal]
    started_from: Mapping[int, Seal | None]
    keep_ms: int = 0
    push_id: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        if len({(seal.table_id, seal.version) for seal in self.seals.values()}) != 1:
            raise InputError(
                "The seals of one push name several tables or versions, or none.",
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
        self._sent = dict.fromkeys(self.seals, 0)

    def rows(
        self, block: PushRows, chunk_rows: Callable[[], int] = lambda: CHUNK_ROWS
    ) -> Iterator[Chunk]:
        """The chunks of one block, bucket by bucket, none of them sealing.

        Args:
            chunk_rows: Called before every chunk: how many rows it may carry.

        Raises:
            InputError: A key of a bucket that this push does not seal.
        """
        if not len(block):
            return
        unsorted = bucket_of(block.keys, self.buckets).to_numpy()
        order = np.argsort(unsorted, kind="stable")
        of_row = unsorted[order]
        self._require_sealed(of_row)
        keys, key_ends = _bulks(self._redis_keys(block.keys.gather(order), of_row))
        values, value_ends = _bulks(block.values.gather(order))
        starts = np.flatnonzero(np.diff(of_row, prepend=-1)).tolist()
        for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
            last = start
            while last < end:
                first, last = last, min(last + chunk_rows(), end)
                yield self._chunk(
                    int(of_row[start]),
                    last - first,
                    keys[key_ends[first] : key_ends[last]],
                    values[value_ends[first] : value_ends[last]],
                )

    def sealing(self) -> list[Chunk]:
        """The last chunk of every bucket; to be sent when all others have arrived."""
        return [self._chunk(bucket, 0, b"", b"", seal.text) for bucket, seal in self.seals.items()]

    def _chunk(
        self,
        bucket: int,
        rows: int,
        keys: bytes | memoryview,
        values: bytes | memoryview,
        seal: str = "",
    ) -> Chunk:
        self._sent[bucket] += 1
        number, sealed = self._sent[bucket], self.seals[bucket]
        before = self.started_from.get(bucket)
        head = (
            b"FCALL",
            f"{self.library.name}_push".encode(),
            b"%d" % (1 + rows),
            self.names.bucket_key(self.entity, bucket),
        )
        words = (
            self.view.encode(),
            sealed.table_id.encode(),
            b"%d" % sealed.version,
            self.push_id.encode(),
            b"%d" % number,
            before.text.encode() if before else b"",
            seal.encode(),
            b"%d" % self.keep_ms,
        )
        count = b"*%d\r\n" % (len(head) + rows + len(words) + rows)
        packed = b"".join((count, *map(bulk, head), keys, *map(bulk, words), values))
        return Chunk(bucket, number, rows, packed)

    def _redis_keys(self, keys: pl.Series, of_row: np.ndarray[Any, Any]) -> pl.Series:
        prefixes = [self.names.entity_key(self.entity, n, b"") for n in range(self.buckets)]
        return pl.Series(prefixes, dtype=pl.Binary).gather(of_row) + keys

    def _require_sealed(self, of_row: np.ndarray[Any, Any]) -> None:
        others = sorted(set(np.unique(of_row).tolist()) - self.seals.keys())
        if others:
            raise InputError(
                f"Rows belong to buckets {others}, which this push does not seal.",
                expected=f"buckets {sorted(self.seals)}",
                effect="Nothing of these rows was pushed.",
            )


@dataclass
class WipeCalls:
    """Turns the steps of one wipe into calls of the wipe function, numbered per bucket."""

    names: Names
    library: FunctionLibrary
    entity: str
    view: str
    table_id: str | None
    buckets: int
    own_rows_too: bool = True
    wiper: str = field(default_factory=lambda: uuid4().hex)
    _eras: dict[int, bytes] = field(default_factory=dict, init=False)
    _sent: dict[int, int] = field(default_factory=dict, init=False)

    def begin(self) -> list[tuple[Any, ...]]:
        """The first step on every bucket; `began` takes the answers."""
        return [self._call("begin", bucket) for bucket in range(self.buckets)]

    def began(self, eras: Sequence[bytes]) -> None:
        """Take the answers to `begin`; a bucket without an era is spared."""
        self._eras.update((bucket, era) for bucket, era in enumerate(eras) if era)

    def rows(self, found: Sequence[bytes]) -> list[tuple[Any, ...]]:
        """The "rows" steps for Redis keys of any buckets."""
        by_bucket: dict[int, list[bytes]] = {}
        for name in found:
            by_bucket.setdefault(self.names.split(self.entity, name)[0], []).append(name)
        return [
            self._call("rows", bucket, names[at : at + CHUNK_ROWS])
            for bucket, names in by_bucket.items()
            if bucket in self._eras
            for at in range(0, len(names), CHUNK_ROWS)
        ]

    def finish(self) -> list[tuple[Any, ...]]:
        """The last step on every bucket, when all rows were removed."""
        return [self._call("finish", bucket) for bucket in self._eras]

    def _call(self, step: str, bucket: int, rows: Sequence[bytes] = ()) -> tuple[Any, ...]:
        number: int | str = ""
        if step != "begin":
            number = self._sent[bucket] = self._sent.get(bucket, 0) + 1
        return (
            "FCALL",
            f"{self.library.name}_wipe",
            1 + len(rows),
            self.names.bucket_key(self.entity, bucket),
            *rows,
            self.view,
            step,
            self.table_id or "",
            self.wiper,
            self._eras.get(bucket, b""),
            number,
            "1" if self.own_rows_too else "0",
        )


def sweep_calls(
    names: Names,
    library: FunctionLibrary,
    found: Sequence[bytes],
    keep_ms: Mapping[str, Mapping[str, int]],
) -> list[tuple[Any, ...]]:
    """The calls that sweep Redis keys of any entities; the fourth word is the first key."""
    by_slot: dict[bytes, list[bytes]] = {}
    for name in found:
        by_slot.setdefault(name[: name.index(b"}")], []).append(name)
    calls: list[tuple[Any, ...]] = []
    for together in by_slot.values():
        declared = keep_ms.get(names.entity_of(together[0]), {})
        words = [word for view, keep in declared.items() for word in (view, keep)]
        for at in range(0, len(together), CHUNK_ROWS):
            keys = together[at : at + CHUNK_ROWS]
            calls.append(("FCALL", f"{library.name}_sweep", len(keys), keys[0], *keys[1:], *words))
    return calls


def _bulks(words: pl.Series) -> tuple[memoryview, list[int]]:
    """All words in the Redis protocol, one after the other, and where each begins (and all end)."""
    framed = pl.select(
        pl.lit(b"$")
        + words.bin.size().cast(pl.String).cast(pl.Binary)
        + pl.lit(b"\r\n")
        + words
        + pl.lit(b"\r\n")
    ).to_series()
    joined = b"".join(framed.to_list())
    ends = np.cumsum(framed.bin.size().to_numpy()).tolist()
    return memoryview(joined), [0, *ends]
