"""The point-in-time join of one view: which row of which slice holds for each row of the spine.

Slices are walked in the order in which they take effect. Each writes the places of its rows into
`latest`, one cell per distinct key of the spine; the spine's rows, in order of time, read their
cell before the next slice takes effect. Only key columns are read, and only of slices that some
row of the spine can reach. The values are `lockstep.training.pit_gather`'s part.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Final, TypeAlias, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lockstep.errors import InputError
from lockstep.training.pit_keys import Ids, Keys
from lockstep.training.timeline import Rows, Slice

Longs: TypeAlias = NDArray[np.int64]

NONE: Final = -1
_BATCH_ROWS: Final = 1 << 18
"""Rows of small slices that are read at once: opening a file costs as much as thousands of rows."""
_ROW_BITS: Final = 32
_ROW: Final = (1 << _ROW_BITS) - 1
"""The part of a place that says the row; all of it set: the row is gone, look among older ones."""

Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Moments:
    """The timestamps of a spine in order of time; shared by all views.

    Attributes:
        rows: Rows of the spine.
        order: The spine's rows that have a timestamp, earliest first.
        at: Their timestamps, microseconds UTC.
    """

    rows: int
    order: NDArray[np.uint32]
    at: Longs

    @classmethod
    def among(cls, at: pl.Series) -> "Moments":
        """Order the timestamps: `Datetime("us")` of any zone, or microseconds UTC as Int64.

        Raises:
            InputError: They are something else.
        """
        if at.dtype != pl.Int64 and not (
            isinstance(at.dtype, pl.Datetime) and at.dtype.time_unit == "us"
        ):
            raise InputError(
                f"The spine's timestamps are {at.dtype}.",
                expected="Datetime('us', 'UTC')",
                fix="Convert them.",
                effect="Nothing was joined.",
            )
        order = _order(at)
        return cls(len(at), order, at.to_physical().fill_null(0).to_numpy()[order])


@dataclass(frozen=True)
class Asked:
    """What a spine asks of the views of one entity; shared by them.

    Attributes:
        keys: Its distinct keys.
        moments: Its timestamps.
        ids: The number of the key per row of `moments`; `keys.count + 1` where it is null.
    """

    keys: Keys
    moments: Moments
    ids: Ids


@dataclass(frozen=True)
class Hits:
    """What was found, per row of the spine in its order.

    Attributes:
        keys: The key columns.
        piece: Index of the slice whose row holds; -1 where none does.
        row: The row within the slice; 0 where none holds.
        age_us: Timestamp less event_timestamp of the row that holds or has expired; -1 if none.
        expired: The latest row is older than the ttl, by no more than once the ttl again: beyond
            that nothing is looked for, so that how far back is read depends on no other row.
    """

    keys: tuple[str, ...]
    piece: NDArray[np.int32]
    row: NDArray[np.uint32]
    age_us: Longs
    expired: NDArray[np.bool_]


@dataclass(frozen=True)
class _Reach:
    """A slice and the rows of `moments` that may see it, first and one after the last.

    Attributes:
        index: Its place in the caller's list.
        rank: Its place by `(event_us, revision)`: of two in effect the higher one holds.
        earlier: Ranks of the day's earlier revisions.
    """

    index: int
    piece: Slice
    rank: int
    earlier: tuple[int, ...]
    first: int
    end: int


def _order(at: pl.Series) -> NDArray[np.uint32]:
    """Return the rows that have a timestamp, earliest first."""
    order: NDArray[np.uint32] = at.to_physical().arg_sort(nulls_last=True).to_numpy()
    return order[: len(at) - at.null_count()]


def ask(keys: pl.DataFrame, at: pl.Series | Moments) -> Asked:
    """Return the spine's keys, numbered, in order of time.

    Args:
        keys: The key columns of the entity, named as in the view; nulls match nothing.
        at: The timestamps, of the same rows; nulls match nothing.

    Raises:
        InputError: The timestamps are no instants, or a key column is of a type that no key has.
    """
    moments = at if isinstance(at, Moments) else Moments.among(at)
    known = keys.drop_nulls()
    found, ids = Keys.among(known)
    if known.height < keys.height:
        everywhere = np.full(keys.height, found.count + 1, dtype=np.int32)
        everywhere[~keys.select(pl.any_horizontal(pl.all().is_null())).to_series().to_numpy()] = ids
        ids = everywhere
    return Asked(found, moments, ids[moments.order])


def find(
    asked: Asked, slices: Sequence[Slice], rows: Rows, ttl: timedelta | None, *, readers: int = 2
) -> Hits:
    """Return for each row of the spine where its values are.

    Among the slices in effect at its timestamp t (`effect_us <= t`, no later revision of the day in
    effect) it is the one with the greatest `(event_us, revision)` that has the key, and it holds
    while `t - event_us <= ttl`, both ends included.

    Args:
        asked: The spine.
        slices: Every revision that may count, in any order.
        rows: Where their rows are; unique by key within a slice.
        ttl: How long a row holds after its event_timestamp; None is for ever.
        readers: Threads that read slices; what is found does not depend on it.

    Raises:
        InputError: A key column has another type than in the spine.
    """
    ranked = sorted(range(len(slices)), key=lambda i: _rank(slices[i]))
    reaches = _reaches(slices, ranked, asked.moments.at, ttl)
    places = _walk(asked, reaches, rows, readers)
    _fall_back(asked, reaches, rows, places)
    return _hits(asked, slices, ranked, places, ttl)


def _rank(piece: Slice) -> tuple[int, int, int]:
    return piece.event_us, piece.revision, piece.day.toordinal()


def _reaches(
    slices: Sequence[Slice], ranked: Sequence[int], at: Longs, ttl: timedelta | None
) -> list[_Reach]:
    """Return the slices that some row may see, by the first row that does, then by rank."""
    days: dict[int, list[tuple[int, int]]] = {}
    for rank, index in enumerate(ranked):
        days.setdefault(slices[index].day.toordinal(), []).append((rank, index))
    found = []
    for revisions in days.values():
        superseded = None
        for number, (rank, index) in reversed(list(enumerate(revisions))):
            piece = slices[index]
            end = len(at) if superseded is None else int(np.searchsorted(at, superseded))
            if ttl is not None:
                oldest = piece.event_us + 2 * (ttl // timedelta(microseconds=1))
                end = min(end, int(np.searchsorted(at, oldest, side="right")))
            first = int(np.searchsorted(at, piece.effect_us))
            if first < end:
                earlier = tuple(rank for rank, _ in revisions[:number])
                found.append(_Reach(index, piece, rank, earlier, first, end))
            superseded = piece.effect_us if superseded is None else min(superseded, piece.effect_us)
    return sorted(found, key=lambda reach: (reach.first, reach.rank))


def _walk(asked: Asked, reaches: Sequence[_Reach], rows: Rows, readers: int) -> Longs:
    """Return a place (rank and row) or NONE per row of `moments`; `_ROW` marks a row that is gone.

    A row is gone when its revision was superseded by one that lacks its key.
    """
    count = asked.keys.count
    # One cell more for keys of slices that the spine does not have, one for its null keys.
    latest = np.full(count + 2, NONE, dtype=np.int64)
    places = np.empty(len(asked.ids), dtype=np.int64)
    seen: set[int] = set()
    answered, newest = 0, NONE
    found = ahead(batches(reaches, _rows), lambda some: _ids(asked.keys, some, rows), readers)
    for reach, ids in chain.from_iterable(found):
        places[answered : reach.first] = latest[asked.ids[answered : reach.first]]
        answered = reach.first
        here = (np.int64(reach.rank) << _ROW_BITS) + np.arange(len(ids), dtype=np.int64)
        latest[ids] = here if reach.rank > newest else np.maximum(latest[ids], here)
        newest = max(newest, reach.rank)
        if gone := seen.intersection(reach.earlier):
            _forget(latest[:count], gone)
            seen -= gone
        seen.add(reach.rank)
    places[answered:] = latest[asked.ids[answered:]]
    return places


def _forget(latest: Longs, gone: set[int]) -> None:
    ranks = latest >> _ROW_BITS
    for rank in gone:
        latest[ranks == rank] |= _ROW


def _rows(reach: _Reach) -> int:
    return reach.piece.rows


def _ids(keys: Keys, reaches: Sequence[_Reach], rows: Rows) -> list[tuple[_Reach, Ids]]:
    """Return each slice with the numbers of its keys."""
    filled = [reach for reach in reaches if reach.piece.rows]
    frames = iter(rows.read_many([reach.piece for reach in filled], list(keys.names)))
    nothing = np.empty(0, dtype=np.int32)
    return [(reach, keys.of(next(frames)) if reach.piece.rows else nothing) for reach in reaches]


def _fall_back(asked: Asked, reaches: Sequence[_Reach], rows: Rows, places: Longs) -> None:
    """Find, for rows that are gone, the next older slice in effect that has the key."""
    open_ = np.flatnonzero((places != NONE) & (places & _ROW == _ROW))
    for reach in sorted(reaches, key=lambda reach: -reach.rank):
        inside = slice(*np.searchsorted(open_, [reach.first, reach.end]))
        wanting = open_[inside]
        wanting = wanting[places[wanting] >> _ROW_BITS > reach.rank]
        if not len(wanting):
            continue
        row_of = np.full(asked.keys.count + 2, NONE, dtype=np.int64)
        ((_, ids),) = _ids(asked.keys, [reach], rows)
        row_of[ids] = np.arange(len(ids))
        row = row_of[asked.ids[wanting]]
        has = row != NONE
        places[wanting[has]] = (np.int64(reach.rank) << _ROW_BITS) + row[has]
        open_ = open_[places[open_] & _ROW == _ROW]
    places[open_] = NONE


def _hits(
    asked: Asked,
    slices: Sequence[Slice],
    ranked: Sequence[int],
    places: Longs,
    ttl: timedelta | None,
) -> Hits:
    moments = asked.moments
    piece = np.full(moments.rows, NONE, dtype=np.int32)
    row = np.zeros(moments.rows, dtype=np.uint32)
    age = np.full(moments.rows, NONE, dtype=np.int64)
    expired = np.zeros(moments.rows, dtype=np.bool_)
    event = np.array([slices[index].event_us for index in ranked] or [0], dtype=np.int64)
    rank = places >> _ROW_BITS
    old = moments.at - event[rank]
    known, holds = places != NONE, places != NONE
    if ttl is not None:
        limit = ttl // timedelta(microseconds=1)
        holds = known & (old <= limit)
        known &= old <= 2 * limit
        expired[moments.order] = known & ~holds
    piece[moments.order] = np.where(holds, np.array([*ranked, 0], dtype=np.int32)[rank], NONE)
    row[moments.order] = np.where(holds, places & _ROW, 0)
    age[moments.order] = np.where(known, old, NONE)
    return Hits(asked.keys.names, piece, row, age, expired)


def batches(items: Iterable[Item], rows: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Return the items in order, in lists that are worth reading at once."""
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and size + rows(item) > _BATCH_ROWS:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += rows(item)
    if batch:
        yield batch


def ahead(items: Iterable[Item], do: Callable[[Item], Done], readers: int) -> Iterator[Done]:
    """Return what `do` makes of each item, in their order, while the next ones are being done."""
    if readers <= 1:
        yield from map(do, items)
        return
    with ThreadPoolExecutor(readers) as pool:
        waiting: deque[Future[Done]] = deque()
        for item in items:
            waiting.append(pool.submit(do, item))
            if len(waiting) > readers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
