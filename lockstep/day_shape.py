"""How a day's rows lie over its hours, and how long they took to arrive: kept with every commit.

The shape of a day is 96 counts, one per 15 minutes of wall-clock time of the partition zone. Every
zone's offset is a multiple of 15 minutes, so a shift by a zone moves whole counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl

from lockstep.stores.day_index import DayRecord
from lockstep.time import day_start

Floats = npt.NDArray[np.float64]

SLOTS: Final = 96
SLOT_MINUTES: Final = 15
HOURS: Final = "hours"
LAG: Final = "arrival_lag"
_QUANTILES: Final = (0.1, 0.5, 0.9)
_NOON: Final = timedelta(hours=12)


@dataclass(frozen=True)
class DayShape:
    """One ingested day.

    Attributes:
        counts: Rows per 15 minutes of the day's wall-clock time, 96 of them.
        utc_offset: Slots by which the partition zone is ahead of UTC at the day's noon.
        lag: How long rows took to arrive, in seconds: the 10th, 50th and 90th percentile. None if
            it is not known.
    """

    day: date
    counts: Floats
    utc_offset: int
    lag: tuple[float, float, float] | None = None

    @property
    def rows(self) -> float:
        """How many rows there are."""
        return float(self.counts.sum())


def hours_of(event_times: pl.Series, zone: ZoneInfo) -> list[int]:
    """Return the rows per 15 minutes of wall-clock time in the zone, from midnight on.

    An hour that the clocks skip has none, an hour that they repeat has those of both.
    """
    local = event_times.dt.convert_time_zone(zone.key)
    slot = local.dt.hour().cast(pl.Int64) * 4 + local.dt.minute().cast(pl.Int64) // SLOT_MINUTES
    return [int(count) for count in np.bincount(slot.to_numpy(), minlength=SLOTS)]


def lag_of(event_times: pl.Series, arrived: pl.Series) -> list[int]:
    """Return the 10th, 50th and 90th percentile of arrival minus event time, in whole seconds.

    Negative: a row arrived before it is said to have happened. Empty for no rows.
    """
    if event_times.is_empty():
        return []
    seconds = (arrived - event_times).dt.total_seconds().to_numpy()
    return [int(value) for value in np.quantile(seconds, _QUANTILES)]


def offset_slots(day: date, zone: ZoneInfo) -> int:
    """Return by how many slots the zone is ahead of UTC at about noon of the day."""
    noon = (day_start(day, zone) + _NOON).astimezone(zone)
    return round((noon.utcoffset() or timedelta()) / timedelta(minutes=SLOT_MINUTES))


def shapes_of(days: Mapping[date, DayRecord], zone: ZoneInfo) -> list[DayShape]:
    """Return the shapes of the committed days that have rows, in order of the days.

    Days that were committed before shapes were kept are left out.
    """
    found = []
    for day in sorted(days):
        counts = days[day].note.get(HOURS)
        if isinstance(counts, Sequence) and len(counts) == SLOTS and any(counts):
            lag = _lag(days[day].note)
            shape = np.asarray(counts, dtype=np.float64)
            found.append(DayShape(day, shape, offset_slots(day, zone), lag))
    return found


def _lag(note: Mapping[str, Any]) -> tuple[float, float, float] | None:
    found = note.get(LAG)
    if not found or len(found) != len(_QUANTILES):
        return None
    low, median, high = found
    return float(low), float(median), float(high)
