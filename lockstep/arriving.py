"""Whether the distance between event time and arrival moved by an offset of a time zone. Pure.

It says something of feeds whose rows arrive at a steady distance, within minutes or hours of what
happened; of files of a whole day it says nothing. A delivery that is late moves it too, so three
days must agree on a zone's offset to within minutes, and the shape of the days must not speak
against it. Rows that arrive before they are said to have happened need no more than one day. The
longer it lasts the more days are judged together, against those before them: a shift that nobody
mends stays one for four weeks.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Final

import numpy as np

from lockstep.day_shape import SLOT_MINUTES, SLOTS, DayShape, Floats
from lockstep.shifting import LEAST_REFERENCE_DAYS, LEAST_ROWS, REFERENCE_DAYS, Shift, distance

WINDOWS: Final = (1, *range(3, REFERENCE_DAYS + 1))
_AGREEING: Final = 0.8
"""So many of the days must agree, and of three all."""
_STEADY: Final = 3_600.0
"""Seconds between the 10th and the 90th percentile of a steady feed's distance."""
_SAME: Final = 150.0
"""Seconds by which an offset may be missed."""
_LONGEST: Final = 86_400.0
_SLOT: Final = SLOT_MINUTES * 60.0
_CONTRADICTED: Final = 0.3
"""Hours by which the shape fits better where it is."""


def find_by_arrival(days: Sequence[DayShape], allowed: Sequence[int]) -> Shift | None:
    """Return the shift that the newest days' arrivals show; None if they show none.

    Args:
        days: Days with rows, in order; the last one is the newest.
        allowed: The offsets, in slots, that may be reported.
    """
    for length in WINDOWS:
        window = days[-length:]
        before = [day for day in days[-length - REFERENCE_DAYS : -length] if day.lag is not None]
        if len(window) < length or len(before) < LEAST_REFERENCE_DAYS:
            return None
        found = _moved(window, before, allowed, certain=length == 1)
        if found is not None:
            return found
    return None


def _moved(
    window: Sequence[DayShape], before: Sequence[DayShape], allowed: Sequence[int], *, certain: bool
) -> Shift | None:
    lags = np.array([day.lag or (0.0, 0.0, _LONGEST) for day in window])
    usual = np.array([day.lag for day in before])
    median = float(np.median(usual[:, 1]))
    if not _steady(usual, median) or sum(day.rows for day in window) < LEAST_ROWS:
        return None
    later = median - lags[:, 1]
    if certain and -lags[-1, 1] < _SLOT:
        return None
    slots = round(float(np.median(later)) / _SLOT)
    missed = np.abs(later - slots * _SLOT)
    told = np.array([_tells(day, median, slots) for day in window])
    if slots not in allowed or not (told[-3:].all() and told.mean() >= _AGREEING and told[0]):
        return None
    shape = np.sum([day.counts for day in window], axis=0)
    reference = np.sum([day.counts for day in before], axis=0)
    shape, reference = shape / shape.sum(), reference / reference.sum()
    here, there = distance(shape, np.array([reference, np.roll(reference, slots % SLOTS)]))
    if not certain and there > here + _CONTRADICTED:
        return None
    hours = abs(slots) * SLOT_MINUTES / 60
    shifted = [*_just_before(before, median, slots), *window]
    return Shift(slots, shifted, hours, float(missed[told].mean()) / 3_600, reference, shape)


def _tells(day: DayShape, median: float, slots: int) -> bool:
    """Whether the rows of a day arrived at the usual distance, but for the offset."""
    low, middle, high = day.lag or (0.0, 0.0, _LONGEST)
    return high - low <= _STEADY and abs(median - middle - slots * _SLOT) <= _SAME


def _just_before(before: Sequence[DayShape], median: float, slots: int) -> list[DayShape]:
    """Return the last days of the reference that are shifted already, oldest first."""
    rest = takewhile(lambda day: _tells(day, median, slots), reversed(before))
    return [*rest][::-1]


def _steady(usual: Floats, median: float) -> bool:
    """Whether rows used to arrive at one distance."""
    return (
        0 <= median <= _LONGEST
        and bool(np.median(usual[:, 2] - usual[:, 0]) <= _STEADY)
        and bool(np.quantile(np.abs(usual[:, 1] - median), 0.9) <= _SAME)
    )
