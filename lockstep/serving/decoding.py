"""Stored rows of one view as columns: values, an honest status per cell, and from when they hold.

Rows are decoded by the schema they were written under and bound to the asked features by name. The
usual case, in which every row is there, valid and of one schema, costs no Python per cell.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Self, TypeAlias

import msgspec
import polars as pl

from lockstep.codec import HEADER_BYTES, ROW, TOMBSTONE, raw_header
from lockstep.online import CellStatus
from lockstep.serving.schemas import RowSchema, Schemas
from lockstep.time import micros
from lockstep.view import FeatureView

Stored: TypeAlias = Sequence[bytes | None]
Head: TypeAlias = tuple[int, int, int, bytes]
"""Kind, day, event_timestamp in microseconds, fingerprint."""

_ABSENT: Final[Head] = (0, 0, 0, b"")
_DAMAGED: Final[Head] = (-1, 0, 0, b"")
_SHORT: Final = b"?"
_NO_COLUMN: Final = -1
_MISFIT: Final = -2
_UNDECODABLE: Final = (msgspec.DecodeError, ValueError, ArithmeticError)
_FAMILIES: Final = ((pl.Int8, pl.Int16, pl.Int32, pl.Int64), (pl.Float32, pl.Float64))
"""A later type of a family holds every value of an earlier one."""
_EPOCH_DAY: Final = date(1970, 1, 1)
_FIRST_DAY: Final = (date.min - _EPOCH_DAY).days
_LAST_DAY: Final = (date.max - _EPOCH_DAY).days
_FIRST_US: Final = micros(datetime.min.replace(tzinfo=UTC))
_LAST_US: Final = micros(datetime.max.replace(tzinfo=UTC))


class Heads:
    """The headers of a view's stored values. Rows of one push share theirs, so each is read once.

    Attributes:
        each: The header's bytes per value.
        read: Those bytes → what they say.
    """

    __slots__ = ("each", "read")

    def __init__(self, stored: Stored) -> None:
        self.each = [b"" if value is None else value[:HEADER_BYTES] or _SHORT for value in stored]
        self.read: dict[bytes, Head] = {head: _head(head) for head in set(self.each)}

    @property
    def fingerprints(self) -> set[bytes]:
        """The schemas that the rows were written under."""
        return {fingerprint for kind, _, _, fingerprint in self.read.values() if kind == ROW}


def _head(data: bytes) -> Head:
    if not data:
        return _ABSENT
    if len(data) < HEADER_BYTES:
        return _DAMAGED
    kind, _, day, _, event_us, fingerprint = raw_header(data)
    sane = _FIRST_DAY <= day <= _LAST_DAY and _FIRST_US <= event_us <= _LAST_US
    return (kind, day, event_us, fingerprint) if sane else _DAMAGED


@dataclass(frozen=True)
class Window:
    """When a row must be valid from to count: both ends inclusive, microseconds since 1970 UTC."""

    oldest: int
    newest: int

    @classmethod
    def of(cls, ttl: timedelta | None, at_us: int) -> Self:
        """The window of a ttl at an instant."""
        oldest = _FIRST_US if ttl is None else at_us - ttl // timedelta(microseconds=1)
        return cls(max(_FIRST_US, oldest), at_us)

    def holds(self, head: Head) -> bool:
        """Whether it is the header of a row that counts."""
        return head[0] == ROW and self.oldest <= head[2] <= self.newest


@dataclass(frozen=True)
class ViewColumns:
    """One view's part of an answer: per asked feature its values and statuses."""

    columns: Sequence[list[Any]]
    cells: Sequence[list[CellStatus]]
    event_us: list[int | None]


class _Binding:
    """The asked features in rows of one schema."""

    def __init__(self, schema: RowSchema, asked: Mapping[str, pl.DataType]) -> None:
        self._schema = schema
        self._expects_nulls = False
        self._picks: list[tuple[int, Callable[[Any], Any] | None]] = []
        for name, dtype in asked.items():
            place, kind = schema.columns.get(name, (_NO_COLUMN, None))
            if kind is not None and not _holds(dtype, kind.dtype):
                place = _MISFIT
            self._picks.append((place, kind.from_wire if kind else None))
        self._lacks_columns = any(place == _NO_COLUMN for place, _ in self._picks)

    def reads(self, payload: bytes) -> bool:
        """Whether a row can be decoded."""
        try:
            self.decoded([payload])
        except _UNDECODABLE:
            return False
        return True

    def present(self, payloads: Sequence[bytes], event_us: list[int | None]) -> ViewColumns | None:
        """The rows' part of an answer, if all of them and every type are as they should be."""
        present: list[CellStatus] = ["present"] * len(event_us)
        try:
            rows = self._without_nulls(payloads)
            columns = self._columns(rows or list(map(self._schema.decode, payloads)))
        except _UNDECODABLE:
            return None
        whole = [column for column in columns if column is not None]
        if len(whole) < len(columns):
            return None
        if rows is not None and not self._lacks_columns:
            return ViewColumns(whole, [present] * len(whole), event_us)
        cells = [_with_nulls(column) if None in column else present for column in whole]
        return ViewColumns(whole, cells, event_us)

    def decoded(self, payloads: Sequence[bytes]) -> list[list[Any] | None]:
        """Per asked feature its values; None if the rows hold another type under that name.

        Raises:
            DecodeError: A row is damaged (or ValueError, ArithmeticError).
        """
        return self._columns(list(map(self._schema.decode, payloads)))

    def _without_nulls(self, payloads: Sequence[bytes]) -> list[tuple[Any, ...]] | None:
        """The decoded rows if none has a null, which spares looking for one in every cell."""
        if self._expects_nulls:
            return None
        try:
            return list(map(self._schema.decode_whole, payloads))
        except _UNDECODABLE:
            self._expects_nulls = True
            return None

    def _columns(self, rows: Sequence[tuple[Any, ...]]) -> list[list[Any] | None]:
        turned = tuple(zip(*rows, strict=True))
        found: list[list[Any] | None] = []
        for place, convert in self._picks:
            if place == _MISFIT:
                found.append(None)
            elif place == _NO_COLUMN:
                found.append([None] * len(rows))
            elif not rows:
                found.append([])
            elif convert is None:
                found.append(list(turned[place]))
            else:
                found.append([v if v is None else convert(v) for v in turned[place]])
        return found


def _holds(asked: pl.DataType, stored: pl.DataType) -> bool:
    """Whether a value of the stored type is one of the asked type, exactly."""
    for family in _FAMILIES:
        if type(asked) in family and type(stored) in family:
            return family.index(type(stored)) <= family.index(type(asked))
    return asked == stored


@contextmanager
def undisturbed() -> Iterator[None]:
    """Make many short-lived tuples without the garbage collector looking through all of them.

    None is part of a cycle. It costs a third of the time of a large answer, and its stops are what
    callers would notice.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class ViewPart:
    """The features of one view in a plan, and how its stored rows become columns.

    Args:
        view: The view.
        asked: Names of its features, in the order in which their columns are wanted.
    """

    def __init__(self, view: FeatureView, asked: Sequence[str]) -> None:
        self.view: Final = view
        self.name: Final = view.name
        self.asked: Final = {name: view.contract.features[name].type for name in asked}
        self._bindings: Final[dict[bytes, _Binding]] = {}

    def decode(
        self,
        stored: Stored,
        heads: Heads,
        schemas: Schemas,
        *,
        at_us: int,
        absent: CellStatus,
        fallbacks: Sequence[Any],
    ) -> ViewColumns:
        """Columns of the stored rows, in their order.

        Args:
            stored: At least one value.
            heads: Of these values.
            at_us: The instant that decides what has expired, microseconds since 1970 UTC.
            absent: What an entity without a stored row is: "missing", or "error" while the view is
                not ready.
            fallbacks: Per feature the value of a cell that has none.
        """
        window = Window.of(self.view.contract.ttl, at_us)
        fingerprints = {head[3] for head in heads.read.values()}
        if len(fingerprints) == 1 and all(map(window.holds, heads.read.values())):
            binding = self._binding(fingerprints.pop(), schemas)
            payloads = [value[HEADER_BYTES:] for value in stored if value]
            events: list[int | None] = [heads.read[head][2] for head in heads.each]
            found = binding.present(payloads, events) if binding else None
            if found is not None:
                return found
        return self._mixed(stored, heads, schemas, window, absent, fallbacks)

    def outage(self, count: int, fallbacks: Sequence[Any]) -> ViewColumns:
        """Columns of so many entities when nothing could be read."""
        errors: list[CellStatus] = ["error"] * count
        columns = [[fallback] * count for fallback in fallbacks]
        return ViewColumns(columns, [errors] * len(columns), [None] * count)

    def _mixed(
        self,
        stored: Stored,
        heads: Heads,
        schemas: Schemas,
        window: Window,
        absent: CellStatus,
        fallbacks: Sequence[Any],
    ) -> ViewColumns:
        """The general case: row by row what each is, then the readable ones by their schema."""
        statuses = [
            _status(heads.read[head], value, window, absent)
            for head, value in zip(heads.each, stored, strict=True)
        ]
        events = {
            head: us if kind == ROW else None for head, (kind, _, us, _) in heads.read.items()
        }
        by_schema: dict[bytes, list[int]] = {}
        for row, status in enumerate(statuses):
            if status == "present":
                by_schema.setdefault(heads.read[heads.each[row]][3], []).append(row)
        found: list[tuple[list[int], list[list[Any] | None]]] = []
        for fingerprint, rows in by_schema.items():
            binding = self._binding(fingerprint, schemas)
            payloads = [(row, (stored[row] or b"")[HEADER_BYTES:]) for row in rows]
            readable, columns = _readable(binding, payloads)
            found.append((readable, columns))
            for row in set(rows).difference(readable):
                statuses[row] = "error"
        return _scattered(statuses, [events[head] for head in heads.each], found, fallbacks)

    def _binding(self, fingerprint: bytes, schemas: Schemas) -> _Binding | None:
        binding = self._bindings.get(fingerprint)
        if binding is None and (schema := schemas.get(fingerprint)) is not None:
            binding = self._bindings[fingerprint] = _Binding(schema, self.asked)
        return binding


def _with_nulls(column: Sequence[Any]) -> list[CellStatus]:
    return ["null" if value is None else "present" for value in column]


def _status(head: Head, value: bytes | None, window: Window, absent: CellStatus) -> CellStatus:
    """What one stored value is; "present" still has to be decoded."""
    if value is None:
        return absent
    if head[0] == ROW:
        return "present" if window.holds(head) else "expired"
    return "missing" if head[0] == TOMBSTONE and len(value) == HEADER_BYTES else "error"


def _readable(
    binding: _Binding | None, payloads: Sequence[tuple[int, bytes]]
) -> tuple[list[int], list[list[Any] | None]]:
    """The rows that can be decoded, and their columns."""
    if binding is None:
        return [], []
    try:
        return [row for row, _ in payloads], binding.decoded([data for _, data in payloads])
    except _UNDECODABLE:
        good = [(row, data) for row, data in payloads if binding.reads(data)]
        return [row for row, _ in good], binding.decoded([data for _, data in good])


def _scattered(
    statuses: list[CellStatus],
    event_us: list[int | None],
    found: Sequence[tuple[Sequence[int], Sequence[list[Any] | None]]],
    fallbacks: Sequence[Any],
) -> ViewColumns:
    """Put decoded columns at their rows; every other cell gets its fallback."""
    columns: list[list[Any]] = []
    cells: list[list[CellStatus]] = []
    for at, fallback in enumerate(fallbacks):
        column = [fallback] * len(statuses)
        own = statuses
        for rows, decoded in found:
            if not rows:
                continue
            values = decoded[at]
            if values is None or None in values:
                own = list(statuses) if own is statuses else own
            if values is None:
                for row in rows:
                    own[row] = "error"
                continue
            for row, value in zip(rows, values, strict=True):
                column[row] = value
                if value is None:
                    own[row] = "null"
        columns.append(column)
        cells.append(own)
    return ViewColumns(columns, cells, event_us)
