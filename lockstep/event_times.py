"""Event times that no source can mean: before 1900, or years after their file was written.

A sentinel (9999-12-31), a unit that was taken for another (the year 58,000) or a clock gone wrong.
A row of such a day would wait for it in the landing zone for ever, unseen.
"""

from datetime import UTC, datetime, timedelta
from math import floor
from typing import Final

import polars as pl

from lockstep.time import instant_of, micros

EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
AHEAD: Final = timedelta(days=731)
"""How long after its file was written an event may be said to happen, at most."""
_YEAR: Final = 365.2425 * 86_400e6
_NANOS: Final = 1_000


def believable(column: str, written_ns: int) -> pl.Expr:
    """Return whether an event time may be meant, as instants or as wall clocks; null for null.

    Args:
        column: The event times, in microseconds.
        written_ns: When their file was written, in nanoseconds since 1970.
    """
    return pl.col(column).to_physical().is_between(micros(EARLIEST), micros(_latest(written_ns)))


def unbelievable(times: pl.Series, written_ns: int) -> str:
    """Say which event times cannot be meant; empty if all can."""
    physical = times.to_physical()
    off = physical.filter(~physical.is_between(micros(EARLIEST), micros(_latest(written_ns))))
    if off.is_empty():
        return ""
    # Of a time that no calendar has only the year can be told.
    years = [floor(1970 + extreme / _YEAR) for extreme in off.sort()[[0, -1]].to_list()]
    got = " to ".join(map(str, dict.fromkeys(years)))
    return (
        f"column {times.name!r}: expected event times from 1900 to {_latest(written_ns):%Y-%m-%d}, "
        f"two years after the file was written, got {len(off)} of {len(times)} rows in the year "
        f"{got}"
    )


def _latest(written_ns: int) -> datetime:
    return instant_of(written_ns // _NANOS) + AHEAD
