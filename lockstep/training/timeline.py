"""Which revision of which day counts from when: a view's history as the point-in-time join sees it.

Every row of a day has one event_timestamp, the end of the day. So one slice per revision of a day
says all that the join must know about time; rows and keys stay where they are until asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

import polars as pl

from lockstep.time import as_of, micros


@dataclass(frozen=True)
class Slice:
    """One revision of one day.

    A later revision of the day supersedes it from the moment at which that one takes effect.

    Attributes:
        version: The Delta version that committed it.
        rows: How many rows it has; one without any supersedes earlier revisions all the same.
        event_us: event_timestamp of all its rows, microseconds UTC.
        effect_us: From when it counts, microseconds UTC; never before `event_us`.
    """

    day: date
    revision: int
    version: int
    rows: int
    event_us: int
    effect_us: int


class Rows(Protocol):
    """Where the rows of slices come from; safe to be asked from two threads at once."""

    def read(self, piece: Slice, columns: Sequence[str]) -> pl.DataFrame:
        """Return the slice's rows in the order they were committed, the same at every call.

        A column that the slice's table did not have is absent; the order of columns is free.
        """
        ...

    def read_many(self, pieces: Sequence[Slice], columns: Sequence[str]) -> list[pl.DataFrame]:
        """Return what `read` returns of each slice, in order; all of it is in memory at once."""
        return [self.read(piece, columns) for piece in pieces]


class Revision(Protocol):
    """What must be known of a committed revision; a `DayRecord` is one."""

    @property
    def day(self) -> date:
        """The day."""

    @property
    def revision(self) -> int:
        """1, 2, 3… per day."""

    @property
    def version(self) -> int:
        """The Delta version that committed it."""

    @property
    def known_at(self) -> datetime:
        """When it was certified."""

    @property
    def rows(self) -> int:
        """How many rows it has."""


def event_slices(days: Mapping[date, Revision], zone: ZoneInfo) -> list[Slice]:
    """Return the current revisions as slices that count from their event_timestamp on.

    Args:
        days: Day → its current revision.
        zone: The partition time zone.

    Returns:
        One slice per day, ordered by `(effect_us, event_us, revision)`.
    """
    ends = {day: micros(as_of(day, zone)) for day in days}
    return _ordered(_slice(days[day], end, end) for day, end in ends.items())


def known_slices(
    history: Mapping[date, Sequence[Revision]],
    zone: ZoneInfo,
    landing_delay: timedelta,
    *,
    live: datetime | None = None,
) -> list[Slice]:
    """Return every revision as a slice that counts from when the platform could have served it.

    That is its `known_at`, though not before the day ended. Of days that ended before the view went
    live, which could only be backfilled, the first revision counts from the end of the day and the
    landing delay, or from its `known_at` where that is earlier.

    Args:
        history: Day → its revisions, ascending.
        zone: The partition time zone.
        landing_delay: How long after a day's end its data is expected to have landed.
        live: When the view's first day ever was certified; None: the earliest in `history`, which
            must then hold all of it.

    Returns:
        One slice per revision, ordered by `(effect_us, event_us, revision)`.
    """
    known = (record.known_at for records in history.values() for record in records)
    began = min(known, default=None) if live is None else live
    found: list[Slice] = []
    for day, records in history.items():
        end = as_of(day, zone)
        for number, record in enumerate(records):
            since = record.known_at
            if number == 0 and began is not None and end < began:
                since = min(since, end + landing_delay)
            found.append(_slice(record, micros(end), micros(max(end, since))))
    return _ordered(found)


def _slice(record: Revision, event_us: int, effect_us: int) -> Slice:
    return Slice(record.day, record.revision, record.version, record.rows, event_us, effect_us)


def _ordered(slices: Iterable[Slice]) -> list[Slice]:
    return sorted(slices, key=lambda s: (s.effect_us, s.event_us, s.revision, s.day))
