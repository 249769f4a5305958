"""The served-feature log: what sampled entities were answered, as files of a source.

An entity is sampled by a hash of its encoded key, so it is followed completely or not at all, by
every process of every release since this hash. A request only puts what was said of sampled
entities into a bounded queue; a thread writes files. What does not fit, or cannot be written, is
dropped and counted: the log never slows or fails a request, nor the end of the process.
"""

import asyncio
import io
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4
from zlib import crc32

import polars as pl

from lockstep.errors import LockstepError
from lockstep.online import Vectors
from lockstep.serving.daemon import in_daemon
from lockstep.serving.plan import Plan
from lockstep.serving.shape import shape_of
from lockstep.serving.values import exact_text
from lockstep.stores.files import Place
from lockstep.time import micros

SOURCE: Final = "served_features"
SCHEMA: Final[dict[str, pl.DataType]] = {
    "served_at": pl.Datetime("us", "UTC"),
    "trace_id": pl.String(),
    "feature_set": pl.String(),
    "view": pl.String(),
    "feature": pl.String(),
    "entity": pl.String(),
    "key": pl.String(),
    "status": pl.String(),
    "number": pl.Float64(),
    "text": pl.String(),
    "event_timestamp": pl.Datetime("us", "UTC"),
}
"""A row per request, entity and feature; `number` is set for numbers, `text` unless a float."""

_ROOM: Final = 500_000
_HASHES: Final = 2**32
_LOGGER: Final = logging.getLogger("lockstep.serving")


@dataclass(frozen=True)
class _Served:
    """What one answer says of its sampled entities; nothing of the others.

    Attributes:
        keys: Entity type → the keys of those that are sampled, if any are.
        columns: Per feature of the plan a value per key of its entity type; `cells` the statuses.
        event_us: View → the same.
    """

    plan: Plan
    trace_id: str
    at_us: int
    keys: Mapping[str, Sequence[str]]
    columns: Sequence[Sequence[Any]]
    cells: Sequence[Sequence[str]]
    event_us: Mapping[str, Sequence[int | None]]

    @property
    def size(self) -> int:
        """How many cells it holds."""
        return sum(map(len, self.cells))


class ServedLog:
    """The log of one process.

    Args:
        place: The landing zone.
        rate: Share of the entities that are followed, 0 to 1; 0 switches the log off.
        seconds: How often a file is written.
        room: Cells that may wait to be written; as many more may be on their way to the store.
    """

    def __init__(
        self, place: Callable[[], Place], rate: float, seconds: float, *, room: int = _ROOM
    ) -> None:
        self.written = 0
        self.dropped = 0
        self.on: Final = rate > 0
        self._place: Final = place
        self._below: Final = int(rate * _HASHES)
        self._seconds: Final = seconds
        self._room: Final = room
        self._waiting: deque[_Served] = deque()
        self._cells = 0
        self._on_their_way = 0
        self._ending: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write files, if the log is on."""
        if self.on:
            self._task = asyncio.get_running_loop().create_task(self._write_on())

    async def close(self, seconds: float) -> None:
        """Write what waits, for so many seconds at most, and end; the rest is dropped."""
        self._ending.set()
        if self._task is None:
            return
        await asyncio.wait([self._task], timeout=seconds)
        if self._task.done():
            return
        self._task.cancel()
        lost = self._cells + self._on_their_way
        self.dropped += lost
        _LOGGER.warning(
            "The served-feature log: %d cells are dropped, for they could not be written in the "
            "%.1f s that were left to stop.",
            lost,
            seconds,
        )

    def add(self, plan: Plan, vectors: Vectors, trace_id: str) -> None:
        """Keep what was answered about sampled entities, if there is room."""
        if not self.on:
            return
        try:
            served = self._sampled(plan, vectors, trace_id)
        except Exception:
            _LOGGER.exception("What was served could not be taken into the log.")
            self.dropped += sum(map(len, vectors.cells))
            return
        if served is None:
            return
        if self._cells + served.size > self._room:
            self.dropped += served.size
            return
        self._cells += served.size
        self._waiting.append(served)

    def _sampled(self, plan: Plan, vectors: Vectors, trace_id: str) -> _Served | None:
        chosen = [sampled(keys, self._below) for keys in vectors.keys]
        if not any(chosen):
            return None
        columns: list[Sequence[Any]] = [()] * len(plan.features)
        cells: list[Sequence[str]] = [()] * len(plan.features)
        keys: dict[str, list[str]] = {}
        event_us: dict[str, Sequence[int | None]] = {}
        for part, encoded, at in zip(plan.parts, vectors.keys, chosen, strict=True):
            keys[part.entity.name] = [encoded[position].decode() for position in at]
            for view, places in zip(part.parts, part.places, strict=True):
                event_us[view.name] = _only(vectors.event_us[view.name], at)
                for place in places:
                    columns[place] = _only(vectors.columns[place], at)
                    cells[place] = _only(vectors.cells[place], at)
        return _Served(plan, trace_id, micros(vectors.at), keys, columns, cells, event_us)

    async def _write_on(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), self._seconds)
            ending = self._ending.is_set()
            await self._flush()
            if ending:
                return

    async def _flush(self) -> None:
        waiting, cells = list(self._waiting), self._cells
        if not waiting:
            return
        self._waiting.clear()
        self._cells, self._on_their_way = 0, cells
        try:
            # A thread that the end of the process waits for would wait for the store, too.
            written, dropped = await in_daemon(lambda: _write(self._place, waiting))
        except (Exception, pl.exceptions.PanicException):
            _LOGGER.exception("What was served could not be made into rows of the log.")
            written, dropped = 0, cells
        self._on_their_way = 0
        self.written += written
        self.dropped += dropped


def sampled(keys: Sequence[bytes], below: int) -> list[int]:
    """Return the positions of encoded keys whose CRC-32, which also finds the bucket, lies below.

    It takes a small part of the time of a cryptographic hash, and any language has it.
    """
    return [at for at, hashed in enumerate(map(crc32, keys)) if hashed < below]


def _only(column: Sequence[Any], at: Sequence[int]) -> Sequence[Any]:
    """Return the items at those positions; a column that is all wanted is taken as it is."""
    return column if len(at) == len(column) else [column[position] for position in at]


def rows_of(waiting: Sequence[_Served]) -> pl.DataFrame:
    """Return the rows, answer by answer, feature by feature; PII has a status and no value."""
    rows: dict[str, list[Any]] = {name: [] for name in SCHEMA}
    for served in waiting:
        _append(rows, served)
    instants = ("served_at", "event_timestamp")
    types = SCHEMA | {name: pl.Int64() for name in instants}
    return pl.DataFrame(rows, schema=types).with_columns(
        pl.col(name).cast(SCHEMA[name]) for name in instants
    )


def _append(rows: Mapping[str, list[Any]], served: _Served) -> None:
    plan, shape = served.plan, shape_of(served.plan)
    entity_of = {view.name: view.contract.entity.name for view in plan.views}
    described = zip(plan.features, plan.types, shape.pii, served.columns, served.cells, strict=True)
    for name, dtype, masked, column, cells in described:
        view, _, feature = name.partition(":")
        keys = served.keys[entity_of[view]]
        values = [None] * len(keys) if masked else column
        once = {
            "served_at": served.at_us,
            "trace_id": served.trace_id,
            "feature_set": plan.feature_set,
            "view": view,
            "feature": feature,
            "entity": entity_of[view],
        }
        for label, value in once.items():
            rows[label].extend([value] * len(keys))
        rows["key"].extend(keys)
        rows["status"].extend(cells)
        rows["number"].extend(_numbers(values, dtype))
        rows["text"].extend(exact_text(value, dtype) for value in values)
        rows["event_timestamp"].extend(served.event_us[view])


def _numbers(values: Sequence[Any], dtype: pl.DataType) -> list[float | None]:
    if not dtype.is_numeric():
        return [None] * len(values)
    return [None if value is None else float(value) for value in values]


def _write(place: Callable[[], Place], waiting: Sequence[_Served]) -> tuple[int, int]:
    """Write one file per day that the rows fall on; return how many were written and dropped."""
    rows = rows_of(waiting)
    written = dropped = 0
    for (day,), part in rows.group_by(pl.col("served_at").dt.date(), maintain_order=True):
        stream = io.BytesIO()
        part.write_parquet(stream)
        at: datetime = part["served_at"].item(-1)
        name = f"{SOURCE}/{day}/{at.astimezone(UTC):%H%M%S}-{uuid4().hex[:12]}_{day}.parquet"
        try:
            place().write(name, stream.getvalue())
        except LockstepError as error:
            dropped += part.height
            _LOGGER.warning("The served-feature log could not be written. %s", error)
        except Exception:
            dropped += part.height
            _LOGGER.exception("The served-feature log could not be written.")
        else:
            written += part.height
    return written, dropped
