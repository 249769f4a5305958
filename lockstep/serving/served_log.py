"""The served-feature log: what sampled entities were answered, as files of a source.

An entity is sampled by a hash of its encoded key, so it is followed completely or not at all. A
request only puts its answer into a bounded queue; a thread writes files. What does not fit, or
cannot be written, is dropped and counted: the log never slows or fails a request.
"""

import asyncio
import io
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final
from uuid import uuid4

import polars as pl

from lockstep.errors import LockstepError
from lockstep.keys import encode_key
from lockstep.online import Vectors
from lockstep.schema import Entity
from lockstep.serving.plan import Plan
from lockstep.serving.shape import shape_of
from lockstep.serving.values import exact_text
from lockstep.stores.files import Place

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
_HASHES: Final = 2**64
_LOGGER: Final = logging.getLogger("lockstep.serving")


@dataclass(frozen=True)
class _Served:
    plan: Plan
    vectors: Vectors
    trace_id: str
    sampled: dict[str, list[tuple[int, str]]]


class ServedLog:
    """The log of one process.

    Args:
        place: The landing zone.
        rate: Share of the entities that are followed, 0 to 1; 0 switches the log off.
        seconds: How often a file is written.
        room: Cells that may wait to be written.
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
        self._ending: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write files, if the log is on."""
        if self.on:
            self._task = asyncio.get_running_loop().create_task(self._write_on())

    async def close(self) -> None:
        """Write what waits, and end."""
        self._ending.set()
        if self._task is not None:
            await self._task

    def add(self, plan: Plan, vectors: Vectors, trace_id: str) -> None:
        """Keep what was answered about sampled entities, if there is room."""
        if not self.on:
            return
        sampled: dict[str, list[tuple[int, str]]] = {}
        for entity in plan.entities:
            if chosen := self._chosen(entity, vectors):
                sampled[entity.name] = chosen
        if not sampled:
            return
        cells = len(plan.features) * max(len(chosen) for chosen in sampled.values())
        if self._cells + cells > self._room:
            self.dropped += cells
            return
        self._cells += cells
        self._waiting.append(_Served(plan, vectors, trace_id, sampled))

    def _chosen(self, entity: Entity, vectors: Vectors) -> list[tuple[int, str]]:
        columns = [vectors.key_columns[name] for name in entity.key]
        found = []
        for position, values in enumerate(zip(*columns, strict=True)):
            key = encode_key(values)
            if is_sampled(key, self._below):
                found.append((position, key.decode()))
        return found

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
        self._cells = 0
        try:
            written, dropped = await asyncio.to_thread(_write, self._place, waiting)
        except Exception:
            _LOGGER.exception("What was served could not be made into rows of the log.")
            written, dropped = 0, cells
        self.written += written
        self.dropped += dropped


def is_sampled(key: bytes, below: int) -> bool:
    """Return whether an encoded key's hash (BLAKE2b, 64 bits) lies below a bound."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") < below


def rows_of(
    plan: Plan, vectors: Vectors, trace_id: str, sampled: dict[str, list[tuple[int, str]]]
) -> pl.DataFrame:
    """Return the log's rows of one answer, feature by feature; PII has a status and no value."""
    shape = shape_of(plan)
    entity_of = {view.name: view.contract.entity.name for view in plan.views}
    frames = []
    described = zip(
        plan.features, plan.types, shape.pii, vectors.columns, vectors.cells, strict=True
    )
    for name, dtype, masked, column, cells in described:
        view, _, feature = name.partition(":")
        chosen = sampled.get(entity_of[view], [])
        values = [None if masked else column[position] for position, _ in chosen]
        micros = vectors.event_us[view]
        frames.append(
            pl.DataFrame(
                {
                    "view": [view] * len(chosen),
                    "feature": [feature] * len(chosen),
                    "entity": [entity_of[view]] * len(chosen),
                    "key": [key for _, key in chosen],
                    "status": [cells[position] for position, _ in chosen],
                    "number": _numbers(values, dtype),
                    "text": [exact_text(value, dtype) for value in values],
                    "event_timestamp": [micros[position] for position, _ in chosen],
                },
                schema={
                    **{column: SCHEMA[column] for column in list(SCHEMA)[3:-1]},
                    "event_timestamp": pl.Int64(),
                },
            )
        )
    return (
        pl.concat(frames)
        .with_columns(
            pl.col("event_timestamp").cast(SCHEMA["event_timestamp"]),
            served_at=pl.lit(vectors.at, SCHEMA["served_at"]),
            trace_id=pl.lit(trace_id),
            feature_set=pl.lit(plan.feature_set, pl.String),
        )
        .select(SCHEMA.keys())
    )


def _numbers(values: Sequence[Any], dtype: pl.DataType) -> list[float | None]:
    if not dtype.is_numeric():
        return [None] * len(values)
    return [None if value is None else float(value) for value in values]


def _write(place: Callable[[], Place], waiting: Sequence[_Served]) -> tuple[int, int]:
    """Write one file per day that the rows fall on; return how many were written and dropped."""
    rows = pl.concat(rows_of(s.plan, s.vectors, s.trace_id, s.sampled) for s in waiting)
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
