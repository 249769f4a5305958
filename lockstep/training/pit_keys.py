"""Keys as small numbers: what the spine asks for is numbered once, then every slice is looked up.

Whole numbers and dates of a moderate range go through a table that is indexed by the key, others
and text through a hash table, several columns through the numbers of each. A slice is never sorted,
and what is built is built once for all slices of all views of an entity.
"""

from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lockstep.errors import InputError

Ids: TypeAlias = NDArray[np.int32]
_Numbers: TypeAlias = NDArray[np.int64]

_ALWAYS_A_TABLE: Final = 1 << 22
"""A table of so many entries (16 MB) is worth it for however few keys."""
_ENTRIES_PER_KEY: Final = 16
_LARGEST_TABLE: Final = 1 << 25
_BUCKETS_PER_KEY: Final = 4
_ODD: Final = np.uint64(0x9E37_79B9_7F4A_7C15)
"""Spreads values over the high bits, from which buckets are taken."""
_FAR: Final = 1 << 62
"""Beyond it a difference of two values could wrap around into the table."""


class _Numbering(Protocol):
    """Distinct values numbered 0, 1, 2…; `count` of them."""

    count: int

    def of(self, values: _Numbers) -> Ids:
        """Return each value's number, `count` for one that has none."""
        ...


class _Table:
    """Numbers by table look-up; the entries at both ends stand for everything outside."""

    def __init__(self, values: _Numbers, low: int, high: int) -> None:
        self._below = low - 1
        size = high - low + 3
        seen = np.zeros(size, dtype=np.bool_)
        seen[values - self._below] = True
        present = np.flatnonzero(seen)
        self.count = len(present)
        self._numbers = np.full(size, self.count, dtype=np.int32)
        self._numbers[present] = np.arange(self.count, dtype=np.int32)

    def of(self, values: _Numbers) -> Ids:
        return self._numbers.take(values - self._below, mode="clip")


class _Hashed:
    """Numbers by a hash table, for values that are spread too far for a plain one.

    The values lie in order of their buckets; `_starts` says where each bucket's begin.
    """

    def __init__(self, distinct: _Numbers) -> None:
        self.count = len(distinct)
        bits = (_BUCKETS_PER_KEY * self.count).bit_length()
        self._shift = np.uint64(64 - bits)
        buckets = self._buckets(distinct)
        self.order = np.argsort(buckets)
        self._values = distinct[self.order]
        sizes = np.bincount(buckets, minlength=1 << bits)
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        self._longest = int(sizes.max())

    def _buckets(self, values: _Numbers) -> _Numbers:
        return ((values.view(np.uint64) * _ODD) >> self._shift).view(np.int64)

    def of(self, values: _Numbers) -> Ids:
        buckets = self._buckets(values)
        at = self._starts.take(buckets)
        found = np.full(len(values), self.count, dtype=np.int32)
        left = np.arange(len(values))
        for _ in range(self._longest):
            # What lies behind an empty bucket is no match: equal values share a bucket.
            same = self._values.take(at, mode="clip") == values[left]
            found[left[same]] = at[same]
            at = at[~same] + np.int32(1)
            left = left[~same]
            inside = at < self._starts.take(buckets[left] + 1)
            at, left = at[inside], left[inside]
        return found


def _numbered(values: _Numbers) -> tuple[_Numbering, Ids]:
    """Return a numbering of the distinct values, and the number of each value."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    entries = min(max(_ALWAYS_A_TABLE, _ENTRIES_PER_KEY * len(values)), _LARGEST_TABLE)
    if high - low < entries and low > -_FAR and high < _FAR:
        table = _Table(values, low, high)
        return table, table.of(values)
    distinct, ids = np.unique(values, return_inverse=True)
    hashed = _Hashed(distinct)
    numbers = np.empty(len(distinct), dtype=np.int32)
    numbers[hashed.order] = np.arange(len(distinct), dtype=np.int32)
    return hashed, numbers[ids]


@dataclass(frozen=True)
class _Column:
    """The distinct values of one key column, numbered.

    Text is numbered by its hash; `seed` is one for which no two of the texts have the same.

    Attributes:
        texts: The distinct texts by number, and a null; None where the values are numbers.
    """

    name: str
    dtype: pl.DataType
    numbering: _Numbering
    texts: pl.Series | None = None
    seed: int = 0

    @classmethod
    def among(cls, values: pl.Series) -> "tuple[_Column, Ids]":
        """Return the column and the number of each value, none of which is null."""
        name, dtype = values.name, values.dtype
        if dtype == pl.String:
            distinct = values.unique()
            seed = _seed(distinct)
            numbering, ids = _numbered(_hashes(distinct, seed))
            texts = distinct.gather(pl.Series(np.argsort(ids)))
            texts = pl.concat([texts, pl.Series(name, [None], dtype=dtype)], rechunk=True)
            return cls(name, dtype, numbering, texts, seed), numbering.of(_hashes(values, seed))
        if dtype.is_integer() or dtype.is_temporal():
            numbering, ids = _numbered(values.to_physical().cast(pl.Int64).to_numpy())
            return cls(name, dtype, numbering), ids
        raise InputError(
            f"The key column {name!r} is {dtype}.",
            expected="whole numbers, text, or dates",
            fix="Cast it to the type that the entity declares.",
            effect="Nothing was joined.",
        )

    @property
    def count(self) -> int:
        return self.numbering.count

    def of(self, values: pl.Series) -> Ids:
        """Return each value's number, `count` for a null and a value that has none."""
        self._require(values.dtype)
        if self.texts is None:
            found = self.numbering.of(values.to_physical().cast(pl.Int64).fill_null(0).to_numpy())
            same = values.is_not_null()
        else:
            found = self.numbering.of(_hashes(values, self.seed))
            # Another text may have the same hash.
            same = (self.texts.gather(pl.Series(found)) == values).fill_null(value=False)
        return found if same.all() else np.where(same.to_numpy(), found, np.int32(self.count))

    def _require(self, dtype: pl.DataType) -> None:
        if dtype != self.dtype and not (dtype.is_integer() and self.dtype.is_integer()):
            raise InputError(
                f"The key column {self.name!r} has another type in the view than in the spine.",
                expected=str(dtype),
                got=str(self.dtype),
                fix=f"Cast it in the spine: pl.col({self.name!r}).cast(pl.{dtype}).",
                effect="Nothing was joined.",
            )


def _hashes(values: pl.Series, seed: int) -> _Numbers:
    return values.hash(seed).to_numpy().view(np.int64)


def _seed(distinct: pl.Series) -> int:
    """Return a seed that gives each text a hash of its own."""
    seeds = (s for s in count() if len(np.unique(_hashes(distinct, s))) == len(distinct))
    return next(seeds)


@dataclass(frozen=True)
class Keys:
    """The distinct keys of a spine, numbered.

    Attributes:
        names: The key columns, in order.
        count: How many distinct keys; also the number of a key that the spine does not have.
    """

    names: tuple[str, ...]
    count: int
    _columns: tuple[_Column, ...]
    _pairs: tuple[_Numbering, ...]

    @classmethod
    def among(cls, frame: pl.DataFrame) -> "tuple[Keys, Ids]":
        """Number the distinct rows of the key columns, none of which holds a null.

        Returns:
            The keys, and the number of each row's.

        Raises:
            InputError: A column is of a type that no key has, or there is no column.
        """
        if not frame.columns:
            raise InputError("The view has no key columns.", fix="Name at least one.")
        first, *others = frame.get_columns()
        column, ids = _Column.among(first)
        columns, pairs, count = [column], list[_Numbering](), column.count
        for other in others:
            column, second = _Column.among(other)
            numbering, ids = _numbered(_paired(ids, second, column.count))
            columns.append(column)
            pairs.append(numbering)
            count = numbering.count
        return cls(tuple(frame.columns), count, tuple(columns), tuple(pairs)), ids

    def of(self, frame: pl.DataFrame) -> Ids:
        """Return the number of each row's key, `count` where the spine does not have it.

        Raises:
            InputError: A key column has another type than in the spine.
        """
        first, *others = self._columns
        ids = first.of(frame[first.name])
        for column, pair in zip(others, self._pairs, strict=True):
            ids = pair.of(_paired(ids, column.of(frame[column.name]), column.count))
        return ids


def _paired(first: Ids, second: Ids, count: int) -> _Numbers:
    """Return one number per pair; a pair of which one part is unknown is none of the spine's."""
    return first.astype(np.int64) * (count + 1) + second
