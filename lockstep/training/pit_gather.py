"""The values behind the hits of a point-in-time join, bit for bit, in the order of the spine."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lockstep.errors import StoreError
from lockstep.training.pit import Hits, ahead, batches
from lockstep.training.pit_keys import Keys
from lockstep.training.timeline import Rows, Slice

_USUAL: Final = 128
"""Bytes of a row up to which the usual number of rows is read at once."""


def gather(
    hits: Hits,
    slices: Sequence[Slice],
    rows: Rows,
    features: Sequence[str],
    types: Mapping[str, pl.DataType],
    *,
    width: int = 0,
    readers: int = 2,
) -> pl.DataFrame:
    """Return a column per feature, in the order asked for and of the spine; null without a hit.

    Of every slice that was hit the wanted columns are read once and only the hit rows kept. Where a
    slice's table did not have a feature, or had it with another type, each key takes the value from
    the earliest later revision of the day that has it, null if that one lacks the key; no such
    revision, no value.

    Args:
        hits: What `find` returned for the same slices and rows.
        types: The type of each feature.
        width: Bytes of a row of them: of wide ones fewer are read at once.
        readers: Threads that read slices; the result does not depend on it.

    Raises:
        StoreError: The day's newest revision has the feature with another type.
    """
    order, ends = _by_piece(hits.piece, len(slices))
    hit = [index for index in range(len(slices)) if ends[index] < ends[index + 1]]

    def read(batch: Sequence[int]) -> list[pl.DataFrame]:
        frames = rows.read_many([slices[index] for index in batch], features)
        parts = []
        for index, frame in zip(batch, frames, strict=True):
            places = pl.Series(hits.row[order[ends[index] : ends[index + 1]]])
            parts.append(_values(index, frame, places, hits.keys, slices, rows, features, types))
        return parts

    each = max(1, width // _USUAL)
    some = batches(hit, lambda index: slices[index].rows * each)
    parts = list(chain.from_iterable(ahead(some, read, readers)))
    # Where nothing was hit, the row behind the last one.
    position = np.full(len(hits.piece), len(order), dtype=np.uint32)
    position[order] = np.arange(len(order), dtype=np.uint32)
    places = pl.Series(position)

    def in_order(name: str) -> pl.Series:
        return _with_nothing(name, types[name], [part[name] for part in parts])[places]

    return pl.DataFrame(list(ahead(features, in_order, readers)))


def _with_nothing(name: str, dtype: pl.DataType, chunks: Sequence[pl.Series]) -> pl.Series:
    """Return the chunks as one column with a null behind the last row."""
    return pl.concat([*chunks, pl.Series(name, [None], dtype=dtype)], rechunk=True)


def _by_piece(piece: NDArray[np.int32], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the hit rows grouped by slice, and where each slice's group starts."""
    narrow = piece.astype(np.int16) if count < np.iinfo(np.int16).max else piece
    # 16 bits are sorted by counting.
    order = np.argsort(narrow, kind="stable")
    sizes = np.bincount(piece + 1, minlength=count + 1)
    return order[sizes[0] :], np.concatenate([[0], np.cumsum(sizes[1:])])


def _values(
    index: int,
    frame: pl.DataFrame,
    places: pl.Series,
    keys: tuple[str, ...],
    slices: Sequence[Slice],
    rows: Rows,
    features: Sequence[str],
    types: Mapping[str, pl.DataType],
) -> pl.DataFrame:
    """Return the features of some rows of one slice."""
    piece = slices[index]
    # By [], because Series.gather plans a query each time: five times as slow for a few rows.
    taken = {
        name: frame[name][places] for name in features if frame.schema.get(name) == types[name]
    }
    if lacking := [name for name in features if name not in taken]:
        wanted = rows.read(piece, list(keys)).select(pl.col(keys).gather(places))
        taken |= _from_later(piece, wanted, frame, lacking, slices, rows, types)
    return pl.DataFrame([taken[name] for name in features])


def _from_later(
    piece: Slice,
    wanted: pl.DataFrame,
    newest: pl.DataFrame,
    lacking: Sequence[str],
    slices: Sequence[Slice],
    rows: Rows,
    types: Mapping[str, pl.DataType],
) -> dict[str, pl.Series]:
    """Return for each wanted key the value of the first later revision with the column."""
    keys, ids = Keys.among(wanted)
    found: dict[str, pl.Series] = {}
    revisions = (s for s in slices if s.day == piece.day and s.revision > piece.revision)
    for later in sorted(revisions, key=lambda s: s.revision):
        missing = [name for name in lacking if name not in found]
        if not missing:
            break
        newest = rows.read(later, [*keys.names, *missing])
        row_of = np.full(keys.count + 1, newest.height, dtype=np.uint32)
        row_of[keys.of(newest)] = np.arange(newest.height, dtype=np.uint32)
        places = pl.Series(row_of[ids])
        for name in missing:
            if newest.schema.get(name) == types[name]:
                values = _with_nothing(name, types[name], [newest[name]])
                found[name] = values.gather(places)
    for name in lacking:
        if name not in found:
            found[name] = _without(name, piece, newest, types[name], len(ids))
    return found


def _without(
    name: str, piece: Slice, newest: pl.DataFrame, wanted: pl.DataType, count: int
) -> pl.Series:
    """Return nulls for a feature that no revision of the day has."""
    if name in newest.schema:
        raise StoreError(
            f"The feature {name!r} of {piece.day} has another type in its table.",
            expected=str(wanted),
            got=str(newest.schema[name]),
            fix="Rebuild the view (lockstep materialize VIEW --rebuild), or ask for the type that "
            "is stored.",
            effect="Nothing was joined.",
        )
    return pl.Series(name, [None], dtype=wanted).new_from_index(0, count)
