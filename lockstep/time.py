"""What a day means: bounds, assignment, validity. The only place that adds or subtracts a day.

A day is a civil date in the project's partition time zone and may last 23 or 25 hours. It starts
at the first instant of its date. Inside, every instant is UTC in microseconds.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from lockstep.errors import ConfigError, InputError

INSTANT: Final = pl.Datetime("us", "UTC")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
ONE_DAY: Final = timedelta(days=1)
SNAPSHOT_DAY: Final = date(1970, 1, 1)
"""The day under which a snapshot, which has no days, is stored."""


def zone_named(name: str) -> ZoneInfo:
    """Return the time zone, or raise ConfigError naming it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(
            f"Time zone {name!r} is not known.",
            expected="a name of the IANA database, e.g. 'America/New_York' or 'UTC'",
            fix="Correct it; on a system without zone data, install tzdata.",
        ) from error


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """Return the first instant of `day`, in UTC, also where midnight does not exist.

    Raises:
        InputError: It lies before year 1 in UTC, so that no datetime can hold it.
    """
    civil = datetime(day.year, day.month, day.day, tzinfo=zone)
    if day == date.min:  # the day before is none, and no clock jumped
        offset = civil.utcoffset() or timedelta()
        if offset > timedelta():
            raise InputError(f"The day {day} begins before year 1 in UTC.", expected="a later day")
        return civil.replace(tzinfo=UTC) - offset
    midnight = civil.astimezone(UTC)
    before = midnight - timedelta(microseconds=1)
    while before.astimezone(zone).date() >= day:  # clocks jumped over midnight
        before, midnight = _earlier(before, day, zone)
    return midnight


def _earlier(inside: datetime, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Bisect to the last instant before `day` and its first, given one inside it."""
    low, high = inside - timedelta(hours=24), inside
    while high - low > timedelta(microseconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(zone).date() >= day:
            high = middle
        else:
            low = middle
    return low, high


def as_of(day: date, zone: ZoneInfo) -> datetime:
    """Return the end of the day, exclusive of it: the instant at which its values hold."""
    return day_start(day + ONE_DAY, zone)


def day_of(instant: datetime, zone: ZoneInfo) -> date:
    """Return the day that contains the instant."""
    civil = instant.astimezone(zone).date()
    return civil + ONE_DAY if instant >= day_start(civil + ONE_DAY, zone) else civil


def last_full_day(now: datetime, zone: ZoneInfo) -> date:
    """Return the newest day that has ended at `now`."""
    return day_of(now, zone) - ONE_DAY


def days_between(first: date, last: date) -> list[date]:
    """Return the days from `first` to `last`, both included; empty if `last` is earlier."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def trailing_days(day: date, count: int) -> list[date]:
    """Return the `count` days that end with `day`, oldest first."""
    return days_between(day - timedelta(days=count - 1), day)


def following_days(day: date, count: int) -> list[date]:
    """Return the `count` days that start with `day`: those whose trailing window contains it."""
    return days_between(day, day + timedelta(days=count - 1))


def days_within(ttl: timedelta | None, day: date, start: date) -> list[date]:
    """Return the days, from `start` on, whose rows may still be valid at the end of `day`."""
    if ttl is None:
        return days_between(start, day)
    return days_between(max(start, day - timedelta(days=-(-ttl // ONE_DAY))), day)


def parse_days(text: str) -> list[date]:
    """Return the days of `2026-11-01..2026-11-21` or of a single date.

    Raises:
        InputError: It is neither, or ends before it begins.
    """
    first, separator, last = text.partition("..")
    try:
        days = days_between(date.fromisoformat(first), date.fromisoformat(last or first))
    except ValueError as error:
        raise InputError(
            f"{text!r} names no days.",
            expected="a date or FROM..TO, e.g. 2026-11-01..2026-11-21",
            fix="Dates are written YYYY-MM-DD.",
        ) from error
    if not days or (separator and not last):
        raise InputError(
            f"{text!r} names no days.", expected="FROM..TO with FROM not after TO", got=repr(text)
        )
    return days


def assign_days(instants: pl.Series, zone: ZoneInfo) -> pl.Series:
    """Return the day of each instant (UTC, no nulls) as Date, in the same order."""
    if instants.is_empty():
        return pl.Series("day", [], dtype=pl.Date)
    low, high = instants.min(), instants.max()
    if not isinstance(low, datetime) or not isinstance(high, datetime):
        raise TypeError(f"instants must be {INSTANT} without nulls, got {instants.dtype}")
    days = days_between(day_of(low, zone), day_of(high, zone))
    starts = pl.Series([day_start(day, zone) for day in days], dtype=INSTANT)
    position = starts.search_sorted(instants, side="right").cast(pl.Int64) - 1
    return pl.Series("day", days, dtype=pl.Date).gather(position)


def to_utc(column: str, zone: str) -> pl.Expr:
    """Read naive wall-clock times of `zone` as instants.

    A nonexistent time moves forward by the length of the gap, an ambiguous one takes the first.
    """
    naive = pl.col(column)
    existing = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    # A day earlier the old offset still held; 24 elapsed hours later is the moved-forward time.
    moved = (naive - pl.duration(hours=24)).dt.replace_time_zone(
        zone, ambiguous="earliest", non_existent="null"
    ) + pl.duration(hours=24)
    return pl.coalesce(existing, moved).dt.convert_time_zone("UTC")


def count_odd_times(column: str, zone: str) -> tuple[pl.Expr, pl.Expr]:
    """Return expressions that count the nonexistent and the ambiguous wall-clock times."""
    naive = pl.col(column)
    first = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    second = naive.dt.replace_time_zone(zone, ambiguous="latest", non_existent="null")
    nonexistent = (first.is_null() & naive.is_not_null()).sum().alias("nonexistent")
    return nonexistent, (first != second).sum().alias("ambiguous")


def is_valid(event_timestamp: datetime, ttl: timedelta | None, at: datetime) -> bool:
    """Whether a row counts at an instant: both bounds inclusive, elapsed time."""
    return event_timestamp <= at and (ttl is None or at <= event_timestamp + ttl)


def micros(instant: datetime) -> int:
    """Return an instant as microseconds since 1970-01-01 UTC."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def instant_of(microseconds: int) -> datetime:
    """Return the instant (UTC) of microseconds since 1970-01-01 UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def span(days: Iterable[date]) -> str:
    """Name days for people: `2026-11-01..2026-11-05, 2026-11-07`."""
    return ", ".join(
        str(first) if first == last else f"{first}..{last}" for first, last in _runs(days)
    )


def _runs(days: Iterable[date]) -> Iterator[tuple[date, date]]:
    ordered = sorted(set(days))
    if not ordered:
        return
    first = ordered[0]
    for day, following in pairwise(ordered):
        if following - day != ONE_DAY:
            yield first, day
            first = following
    yield first, ordered[-1]


def contiguous(days: Iterable[date]) -> list[tuple[date, date]]:
    """Return the days as ranges (first, last), both included, in order."""
    return list(_runs(days))


def encode_revisions(revisions: Mapping[date, int]) -> str:
    """Write day → revision as runs, `2026-09-23..2026-11-20=1,2026-11-21=2`; the order is fixed."""
    by_revision: dict[int, list[date]] = {}
    for day, revision in revisions.items():
        by_revision.setdefault(revision, []).append(day)
    runs = [(*run, number) for number, days in by_revision.items() for run in _runs(days)]
    return ",".join(
        f"{first}={number}" if first == last else f"{first}..{last}={number}"
        for first, last, number in sorted(runs)
    )


def decode_revisions(text: str) -> dict[date, int]:
    """Read what `encode_revisions` wrote."""
    revisions: dict[date, int] = {}
    for run in filter(None, text.split(",")):
        days, _, number = run.partition("=")
        revisions.update(dict.fromkeys(parse_days(days), int(number)))
    return revisions
