"""A spine split by time into parts, and what is joined to them put back into the spine's order.

Every part file has one record batch per block of the spine, holding the part's rows of that block.
So putting a block together reads one small batch of each part, and nothing is ever sorted.
"""

import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from lockstep.time import micros
from lockstep.training.column_hash import BLOCK, ColumnHashes
from lockstep.training.join import Found, Joined
from lockstep.training.manifest import Contents
from lockstep.training.pins import Pinned, Reach, thresholds
from lockstep.training.spine import Spine, instants
from lockstep.training.workspace import Workspace, reporting

AT: Final = "__at"
ROW: Final = "__row"
SPINE: Final = "spine.parquet"
_HOUR: Final = 3_600_000_000
_MOST: Final = 256
"""Parts of a spine: while they are written or put together, each is an open file."""


def most_parts() -> int:
    """Return how many parts there may be: a quarter of the files that a process may open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else max(1, min(_MOST, files // 4))


def part_file(number: int) -> str:
    """Return the name of the file with a part's rows of the spine."""
    return f"part-{number:05d}.arrow"


def joined_file(number: int) -> str:
    """Return the name of the file with what was joined to a part."""
    return f"joined-{number:05d}.arrow"


def spine_block(file: Path, number: int) -> pl.DataFrame:
    """Return one block of a written spine or set."""
    return pl.scan_parquet(file, glob=False).slice(number * BLOCK, BLOCK).collect()


def block_count(rows: int) -> int:
    """Return how many blocks so many rows are."""
    return -(-rows // BLOCK)


class ReachCounter:
    """Counts, block by block, which instants a spine asks about."""

    def __init__(self, pinned: Pinned) -> None:
        self._pinned = pinned
        self._beyond = {micros(instant): 0 for instant in thresholds(pinned).values()}
        self._first: int | None = None
        self._last: int | None = None
        self._rows = 0
        self._hours: dict[int, int] = {}

    def add(self, at: pl.Series) -> None:
        """Take in the instants of a block (microseconds UTC)."""
        self._rows += len(at)
        known = at.drop_nulls().to_numpy()
        if not len(known):
            return
        low, high = int(known.min()), int(known.max())
        self._first = low if self._first is None else min(self._first, low)
        self._last = high if self._last is None else max(self._last, high)
        for instant in self._beyond:
            if high >= instant:
                self._beyond[instant] += int(np.count_nonzero(known >= instant))

    def add_hours(self, at: pl.Series) -> None:
        """Count how many rows are in which hour; those without an instant are in the first."""
        hours, counts = np.unique(_hours(at), return_counts=True)
        for hour, count in zip(hours.tolist(), counts.tolist(), strict=True):
            self._hours[hour] = self._hours.get(hour, 0) + count

    @property
    def reach(self) -> Reach:
        """What was counted."""
        return Reach(self._first, self._last, self._rows, dict(self._beyond))

    @property
    def hours(self) -> Mapping[int, int]:
        """Hour since 1970 → rows."""
        return self._hours


def _hours(at: pl.Series) -> NDArray[np.int64]:
    found: NDArray[np.int64] = at.fill_null(np.iinfo(np.int64).min).to_numpy() // _HOUR
    return found


class Split:
    """Says which part each row of a spine belongs to, block by block.

    Rows are ranked by hour, then by their place in the spine; equal shares of the ranks make the
    parts, so that each part asks about few days and none is larger than the others.
    """

    def __init__(self, hours: Mapping[int, int], parts: int) -> None:
        self._hours = np.array(sorted(hours), dtype=np.int64)
        counts = np.array([hours[hour] for hour in self._hours.tolist()], dtype=np.int64)
        self._next = np.concatenate([[0], np.cumsum(counts)[:-1]]) if len(counts) else counts
        self._total, self._parts = int(counts.sum()), parts

    def of(self, at: pl.Series) -> NDArray[np.int64]:
        """Return the part of each row of the next block."""
        place = np.searchsorted(self._hours, _hours(at))
        order = np.argsort(place, kind="stable")
        counts = np.bincount(place, minlength=len(self._hours))
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        rank = np.empty(len(place), dtype=np.int64)
        rank[order] = np.arange(len(place)) - starts[place[order]] + self._next[place[order]]
        self._next = self._next + counts
        return rank * self._parts // max(1, self._total)


class BatchFile:
    """Writes one record batch per block to an uncompressed Arrow file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._sink: Any = None
        self._writer: Any = None

    def write(self, frame: pl.DataFrame) -> None:
        """Append a batch, also one without rows."""
        table = frame.rechunk().to_arrow()
        if self._writer is None:
            self._sink = pa.OSFile(str(self._file), "wb")
            self._writer = pa.ipc.new_file(self._sink, table.schema)
        batches = table.to_batches()
        empty = [pa.array([], field.type) for field in table.schema]
        self._writer.write_batch(
            batches[0] if batches else pa.RecordBatch.from_arrays(empty, schema=table.schema)
        )

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
        if self._sink is not None:
            self._sink.close()


class Batches:
    """Reads the record batches of an Arrow file, one at a time; used as a context."""

    def __init__(self, file: Path) -> None:
        self._source = pa.OSFile(str(file))  # a memory map would count as this process's memory
        self._reader = pa.ipc.open_file(self._source)
        self.count: int = self._reader.num_record_batches

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def batch(self, number: int) -> pl.DataFrame:
        """Return one batch."""
        found = pl.from_arrow(self._reader.get_batch(number))
        return found if isinstance(found, pl.DataFrame) else found.to_frame()

    def close(self) -> None:
        """Close the file."""
        self._source.close()


@dataclass(frozen=True)
class Written:
    """A spine in a workspace, split.

    Attributes:
        parts: Rows of each part.
    """

    contents: Contents
    reach: Reach
    parts: tuple[int, ...]


def write_parts(spine: Spine, pinned: Pinned, workspace: Workspace, parts: int) -> Written:
    """Write the spine and its parts into a workspace, block by block.

    Raises:
        InputError: The spine can't be read or written.
    """
    spine.write(workspace.writing(SPINE), BLOCK)
    file = workspace.done(SPINE)
    counter = _counted(file, spine.rows, pinned)
    split, sizes = Split(counter.hours, parts), np.zeros(parts, dtype=np.int64)
    hashes = ColumnHashes(spine.schema)
    with reporting(workspace.folder), ExitStack() as opened:
        names = [workspace.writing(part_file(number)) for number in range(parts)]
        writers = [opened.enter_context(closing(BatchFile(name))) for name in names]
        for number in range(block_count(spine.rows)):
            block = spine_block(file, number)
            hashes.update(block)
            at = instants(block[pinned.timestamp], pinned.time_zone, pinned.zone)
            rows = pl.Series(ROW, np.arange(block.height, dtype=np.uint32))
            asked = block.select(pinned.key_columns).with_columns(at.alias(AT), rows)
            part = split.of(at)
            sizes += np.bincount(part, minlength=parts)
            for index, writer in enumerate(writers):
                writer.write(asked.filter(pl.Series(part == index)))
    for index in range(parts if spine.rows else 0):
        workspace.done(part_file(index))
    contents = Contents(spine.rows, hashes.total, hashes.columns)
    return Written(contents, counter.reach, tuple(int(size) for size in sizes))


def _counted(file: Path, rows: int, pinned: Pinned) -> ReachCounter:
    counter = ReachCounter(pinned)
    scan = pl.scan_parquet(file, glob=False).select(pinned.timestamp)
    for number in range(block_count(rows)):
        values = scan.slice(number * BLOCK, BLOCK).collect()[pinned.timestamp]
        at = instants(values, pinned.time_zone, pinned.zone, number * BLOCK)
        counter.add(at)
        counter.add_hours(at)
    return counter


def read_part(workspace: Workspace, number: int) -> tuple[pl.DataFrame, list[int]]:
    """Return a part's keys, instants and rows, and how many of them are in each block."""
    with Batches(workspace.reading(part_file(number))) as batches:
        frames = [batches.batch(index) for index in range(batches.count)]
    return pl.concat(frames, rechunk=True), [frame.height for frame in frames]


def write_joined(
    workspace: Workspace, number: int, rows: pl.Series, sizes: Sequence[int], joined: Joined
) -> None:
    """Write what was joined to a part, a batch per block."""
    extra = [
        column
        for found in joined.found
        for column in (
            pl.Series(f"__status:{found.view}", found.status),
            pl.Series(f"__age:{found.view}", found.age_us),
        )
    ]
    frame = joined.features.with_columns(rows.alias(ROW), *extra)
    writer = BatchFile(workspace.writing(joined_file(number)))
    start = 0
    for size in sizes:
        writer.write(frame.slice(start, size))
        start += size
    writer.close()
    workspace.done(joined_file(number))


def joined_blocks(
    workspace: Workspace, pinned: Pinned, rows: int, parts: int
) -> Iterator[tuple[pl.DataFrame, Joined]]:
    """Return the spine's blocks and what was joined to each, in the spine's order."""
    spine = workspace.reading(SPINE)
    if not rows:
        return
    names = [workspace.reading(joined_file(number)) for number in range(parts)]
    with reporting(workspace.folder), ExitStack() as opened:
        files = [opened.enter_context(Batches(name)) for name in names]
        for number in range(block_count(rows)):
            yield spine_block(spine, number), _joined(_in_order(files, number), pinned)


def _in_order(files: Sequence[Batches], number: int) -> pl.DataFrame:
    """Return what was joined to a block's rows, in their order."""
    frame = pl.concat([file.batch(number) for file in files])
    position = np.empty(frame.height, dtype=np.uint32)
    position[frame[ROW].to_numpy()] = np.arange(frame.height, dtype=np.uint32)
    return frame[pl.Series(position)]


def _joined(frame: pl.DataFrame, pinned: Pinned) -> Joined:
    features = frame.select(pinned.features)
    found = [
        Found(
            pin.view,
            features.select(f"{pin.view}:{name}" for name in pin.features),
            frame[f"__status:{pin.view}"].to_numpy(),
            frame[f"__age:{pin.view}"].to_numpy(),
        )
        for pin in pinned.views
    ]
    return Joined(features, found)
