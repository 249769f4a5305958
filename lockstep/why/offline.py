"""What Delta says of one entity: the row that counts at an instant, and how its day came about."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any, Final

import polars as pl

from lockstep.codec import RowCodec
from lockstep.errors import ContractChangedError, InputError
from lockstep.lake import Lake
from lockstep.stores.causes import answering
from lockstep.stores.day_index import Head, History
from lockstep.stores.delta import DayTable
from lockstep.stores.history import SliceReader
from lockstep.time import as_of, is_valid, micros
from lockstep.training.timeline import known_slices
from lockstep.view import FeatureView
from lockstep.why.facts import Cell, cell_status

_NEAR_DAYS: Final = 8
"""Days that are looked through first: most entities have a row in them."""


@dataclass(frozen=True)
class Asked:
    """One feature of one entity at one instant.

    Attributes:
        entity: Key column → value, in the contract's order and types.
    """

    lake: Lake
    view: FeatureView
    feature: str
    entity: Mapping[str, int | str]
    at: datetime

    @cached_property
    def table(self) -> DayTable:
        """The view's table; kept, because its index is."""
        return self.lake.table(self.view)

    @property
    def matches(self) -> pl.Expr:
        """What chooses the entity's row."""
        return self.chosen(self.view.contract.keys)

    def chosen(self, keys: Collection[str]) -> pl.Expr:
        """What chooses the rows that agree with the entity in some key columns."""
        types = self.view.contract.entity.key_types
        return pl.all_horizontal(
            *(pl.col(key) == pl.lit(self.entity[key], dtype=types[key]) for key in keys)
        )

    def value_in(self, frame: pl.DataFrame) -> tuple[bool, Any]:
        """Return whether a day's frame has a row of the entity, and the feature in it."""
        row = frame.filter(self.matches)
        if not row.height or self.feature not in row.columns:
            return bool(row.height), None
        return True, row[self.feature][0]


@dataclass(frozen=True)
class Answer:
    """What a reader must be told, and the row it comes from.

    Attributes:
        packed: The row as Redis must hold it, its version blank; None without a valid row.
    """

    cell: Cell
    packed: bytes | None = None


def ended_days(asked: Asked, head: Head) -> list[date]:
    """Return the committed days that had ended at the instant, oldest first."""
    zone = asked.lake.project.zone
    return [day for day in sorted(head.days) if as_of(day, zone) <= asked.at]


def present_answer(asked: Asked, head: Head) -> Answer:
    """Return what the committed head says: event mode, corrections included."""
    row = _newest_row(asked, head, ended_days(asked, head))
    if row is None:
        return Answer(Cell("missing"))
    day = row["day"][0]
    record = head.days[day]
    cell = _cell(asked, row, day, record.revision, record.version)
    valid = cell.status in {"present", "null"}
    return Answer(cell, _packed(asked, row, record.revision) if valid else None)


def known_answer(asked: Asked, head: Head, history: History) -> Answer:
    """Return what could have been answered at the instant: known mode."""
    zone, delay = asked.lake.project.zone, asked.view.contract.landing_delay
    known: dict[date, tuple[int, int]] = {}
    for piece in known_slices(history.days, zone, delay):
        if piece.effect_us <= micros(asked.at):
            known[piece.day] = max(known.get(piece.day, (0, 0)), (piece.revision, piece.version))
    current = [
        day
        for day, (revision, _) in known.items()
        if day in head.days and head.days[day].revision == revision
    ]
    found = _newest_row(asked, head, sorted(current))
    newest = None if found is None else found["day"][0]
    reader = None if len(current) == len(known) else SliceReader(asked.table, head.version)
    for day in sorted(known.keys() - set(current), reverse=True) if reader else ():
        if newest is not None and day < newest:
            break
        rows = reader.rows(day, known[day][0], _columns(asked, reader.schema)) if reader else None
        row = rows.filter(asked.matches) if rows is not None else None
        if row is not None and row.height:
            return Answer(_cell(asked, row, day, *known[day]))
    if found is None or newest is None:
        return Answer(Cell("missing"))
    return Answer(_cell(asked, found, newest, *known[newest]))


def known_days(asked: Asked, history: History) -> set[date]:
    """Return the days of which some revision could have been served at the instant."""
    zone, delay = asked.lake.project.zone, asked.view.contract.landing_delay
    slices = known_slices(history.days, zone, delay)
    return {piece.day for piece in slices if piece.effect_us <= micros(asked.at)}


def refused_contract(table: DayTable) -> str | None:
    """Return why an existing table refuses the declared contract; None if it does not."""
    try:
        table.open_for_writing()
    except ContractChangedError as error:
        return str(error)
    return None


def _newest_row(asked: Asked, head: Head, days: Sequence[date]) -> pl.DataFrame | None:
    """Return the entity's newest row of the days; the last ones are read first."""
    for part in (days[-_NEAR_DAYS:], days[:-_NEAR_DAYS]):
        if not part:
            continue
        scan = asked.table.scan(part, version=head.version)
        stored = scan.collect_schema()
        if not set(asked.view.contract.keys) <= stored.keys():
            return None  # another contract, which another rule names
        with answering(f"The table {asked.table.uri}"):
            rows = scan.filter(asked.matches).collect(engine="in-memory")
        if rows.height:
            return rows.sort("day").tail(1)
    return None


def _columns(asked: Asked, stored: Mapping[str, Any]) -> list[str]:
    wanted = [*asked.view.contract.keys, "event_timestamp", asked.feature]
    return [name for name in wanted if name in stored]


def _cell(asked: Asked, row: pl.DataFrame, day: date, revision: int, version: int) -> Cell:
    since = row["event_timestamp"][0]
    value = row[asked.feature][0] if asked.feature in row.columns else None
    if isinstance(value, pl.Series):
        value = value.to_list()
    valid = is_valid(since, asked.view.contract.ttl, asked.at)
    return Cell(cell_status(value, valid=valid), value, day, revision, since, version)


def _packed(asked: Asked, row: pl.DataFrame, revision: int) -> bytes | None:
    """Return the row as it must be online; None where the table has other columns."""
    dated = row.with_columns(pl.lit(revision, pl.Int64).alias("revision"))
    try:
        packed: bytes = RowCodec(asked.view.contract.feature_types).encode(dated, version=0)[0]
    except InputError:
        return None
    return packed
