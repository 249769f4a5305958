"""What a view may read: sources and snapshots, and the windows through which it reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

import polars as pl

from lockstep.errors import DeclarationError
from lockstep.schema import PolarsType, name_problem
from lockstep.time import (
    INSTANT,
    SNAPSHOT_DAY,
    days_within,
    following_days,
    trailing_days,
    zone_named,
)
from lockstep.types import canonical_type, type_problem

if TYPE_CHECKING:
    from lockstep.view import FeatureView

Reach: TypeAlias = Literal["trailing", "same_day", "latest"]


@dataclass(frozen=True, eq=False)
class Source:
    """Raw events that land as files and are ingested day by day.

    Bronze rows have the schema's columns, with `event_time` (UTC) in place of the declared event
    time, in the total order (event_time, *unique_by); one row per `unique_by` key.

    Args:
        name: Name of the landing folder and of the asset.
        schema: Column → Polars type as the files have it.
        event_time: The column that says when a row happened.
        unique_by: Columns that identify a row; exact duplicates by them are dropped and counted.
        start: First day that this source has data for.
        time_zone: Zone of a naive event time. An aware one must be UTC.
        description: One sentence for the catalog.
        owner: Who answers for it.
        may_be_empty: Whether a day without any row is normal; if not, it is refused.
    """

    name: str
    schema: Mapping[str, PolarsType]
    event_time: str = field(kw_only=True)
    unique_by: tuple[str, ...] | list[str] = field(kw_only=True)
    start: date = field(kw_only=True)
    time_zone: str | None = field(default=None, kw_only=True)
    description: str = field(default="", kw_only=True)
    owner: str = field(default="", kw_only=True)
    may_be_empty: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "unique_by", tuple(self.unique_by))
        types = {column: canonical_type(dtype) for column, dtype in self.schema.items()}
        object.__setattr__(self, "schema", types)
        if problems := _source_problems(self):
            raise DeclarationError(problems)
        if self.time_zone is not None:
            zone_named(self.time_zone)

    @property
    def file_types(self) -> dict[str, pl.DataType]:
        """Column → type, as landed."""
        return {column: canonical_type(dtype) for column, dtype in self.schema.items()}

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """Column → type, as ingested: `event_time` first, in UTC."""
        rest = {name: t for name, t in self.file_types.items() if name != self.event_time}
        return {"event_time": INSTANT, **rest}

    @property
    def key(self) -> list[str]:
        """The columns that identify a row, by their ingested names."""
        return ["event_time" if name == self.event_time else name for name in self.unique_by]

    @property
    def order(self) -> list[str]:
        """The total order of its rows."""
        return ["event_time", *(name for name in self.key if name != "event_time")]

    def trailing(self, *, days: int, name: str | None = None) -> "Input":
        """Read the `days` civil days that end with the computed day, `[as_of - days, as_of)`."""
        return Input(self, "trailing", days=days, name=name or self.name)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A slowly changing table: one current row per key, or one per key and `valid_from`.

    Args:
        name: Name of the landing folder and of the asset.
        schema: Column → Polars type as the files have it.
        key: Columns that identify a row.
        valid_from: The column (an instant in UTC) from which a row counts, or "always" for a table
            without history, which assumes that today's rows always held.
        description: One sentence for the catalog.
        owner: Who answers for it.
    """

    name: str
    schema: Mapping[str, PolarsType]
    key: str | tuple[str, ...] | list[str] = field(kw_only=True)
    valid_from: str = field(kw_only=True)
    description: str = field(default="", kw_only=True)
    owner: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        key = (self.key,) if isinstance(self.key, str) else tuple(self.key)
        object.__setattr__(self, "key", key)
        types = {column: canonical_type(dtype) for column, dtype in self.schema.items()}
        object.__setattr__(self, "schema", types)
        problems = [name_problem("Snapshot", self.name)]
        problems += [type_problem(f"{self.name}.{c}", t) for c, t in types.items()]
        problems += [_undeclared(self.name, "key", column, types) for column in key]
        if self.valid_from != "always":
            problems.append(_undeclared(self.name, "valid_from", self.valid_from, types))
        if found := [problem for problem in problems if problem]:
            raise DeclarationError(found)

    @property
    def start(self) -> date:
        """A snapshot has no days before which it does not exist."""
        return date.min

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """Column → type, as landed and as ingested."""
        return {column: canonical_type(dtype) for column, dtype in self.schema.items()}

    @property
    def order(self) -> list[str]:
        """The total order of its rows."""
        return [*self.key, *([] if self.valid_from == "always" else [self.valid_from])]

    def latest(self, *, name: str | None = None) -> "Input":
        """Read, per key, the row with the newest `valid_from` not after as_of."""
        return Input(self, "latest", name=name or self.name)


Readable: TypeAlias = "Source | Snapshot | FeatureView"


@dataclass(frozen=True, eq=False)
class Input:
    """One parameter of a view function: what it reads, through which window, by which name."""

    of: Readable
    reach: Reach
    days: int | None = None
    name: str = ""

    @property
    def is_view(self) -> bool:
        """Whether it reads another view."""
        return not isinstance(self.of, (Source, Snapshot))

    def days_read(self, day: date, *, live: date | None = None) -> list[date]:
        """Return the days that the window of `day` covers, oldest first.

        Args:
            day: The computed day.
            live: First committed day of a view that is read by `latest()`: there is nothing before.
        """
        if isinstance(self.of, Snapshot):
            return [SNAPSHOT_DAY]
        if self.reach == "same_day":
            return [day]
        if self.reach == "trailing":
            return trailing_days(day, self.days or 1)
        return days_within(self.ttl, day, max(self.of.start, live or self.of.start))

    def first_day(self, *, partial: bool) -> date:
        """Return the first day whose window does not reach before what is read begins."""
        if self.reach != "trailing" or partial:
            return self.of.start
        return following_days(self.of.start, self.days or 1)[-1]

    def left_day(self, day: date) -> date | None:
        """Return the day that just left a trailing window; None for the other reaches."""
        return trailing_days(day, self.days + 1)[0] if self.days else None

    @property
    def ttl(self) -> timedelta | None:
        """How long a row of the read view is valid."""
        return None if isinstance(self.of, (Source, Snapshot)) else self.of.contract.ttl

    def problems(self, where: str) -> list[str]:
        """Say what is wrong with the window."""
        if self.reach == "trailing" and (self.days is None or self.days < 1):
            return [f"{where} reads {self.of.name!r} over {self.days} days. Give at least 1."]
        return []


def _undeclared(owner: str, role: str, column: str, types: Mapping[str, object]) -> str | None:
    if column in types:
        return None
    return (
        f"'{owner}' names {column!r} as {role}, but its schema has {sorted(types)}. "
        "Correct the name, or add the column to the schema."
    )


def _source_problems(source: Source) -> list[str]:
    types = source.file_types
    found = [name_problem("Source", source.name)]
    found += [_undeclared(source.name, "unique_by", column, types) for column in source.unique_by]
    found.append(_undeclared(source.name, "event_time", source.event_time, types))
    if not source.unique_by:
        found.append(
            f"'{source.name}' has no unique_by. Name the columns that identify a row, so that a "
            "file delivered twice counts once."
        )
    found += [
        type_problem(f"{source.name}.{column}", dtype)
        for column, dtype in types.items()
        if column != source.event_time
    ]
    event = types.get(source.event_time)
    if event is not None:
        found.append(_event_time_problem(source, event))
    return [problem for problem in found if problem]


def _event_time_problem(source: Source, event: pl.DataType) -> str | None:
    culprit = f"'{source.name}.{source.event_time}'"
    if not isinstance(event, pl.Datetime) or event.time_unit != "us":
        return f"{culprit} is {event}. Event times are pl.Datetime('us') with or without 'UTC'."
    if event.time_zone is None and source.time_zone is None:
        return (
            f"{culprit} is naive, so its instants are anybody's guess. Declare the zone of its "
            "wall clock: time_zone='America/New_York' (or 'UTC')."
        )
    if event.time_zone is not None and (event.time_zone != "UTC" or source.time_zone):
        return (
            f"{culprit} is {event}, time_zone={source.time_zone!r}. An aware event time is "
            "pl.Datetime('us', 'UTC') and has no time_zone of its own."
        )
    return None
