"""Whether the distance between event time and arrival moved by an offset of a time zone. Pure.

It says something of feeds whose rows arrive at a steady distance, within minutes or hours of what
happened; of files of a whole day it says nothing. A delivery that is late moves it too, so three
days must agree on a zone's offset to within minutes, and the shape of the days must not speak
against it. Rows that arrive before they are said to have happened need no more than one day.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from lockstep.day_shape import SLOT_MINUTES, SLOTS, DayShape
from lockstep.shifting import LEAST_REFERENCE_DAYS, LEAST_ROWS, REFERENCE_DAYS, Shift, distance

DAYS: Final = 3
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
    for length in (1, DAYS):
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
    spread = usual[:, 2] - usual[:, 0]
    if np.median(spread) > _STEADY or not 0 <= median <= _LONGEST:
        return None
    if np.quantile(np.abs(usual[:, 1] - median), 0.9) > _SAME:
        return None
    if (lags[:, 2] - lags[:, 0]).max() > _STEADY or sum(d.rows for d in window) < LEAST_ROWS:
        return None
    if certain and lags[:, 1].max() > -_SLOT:
        return None
    later = median - lags[:, 1]
    slots = round(float(np.median(later)) / _SLOT)
    missed = np.abs(later - slots * _SLOT)
    if slots not in allowed or missed.max() > _SAME:
        return None
    shape = np.sum([day.counts for day in window], axis=0)
    reference = np.sum([day.counts for day in before], axis=0)
    shape, reference = shape / shape.sum(), reference / reference.sum()
    here, there = distance(shape, np.array([reference, np.roll(reference, slots % SLOTS)]))
    if not certain and there > here + _CONTRADICTED:
        return None
    hours = abs(slots) * SLOT_MINUTES / 60
    return Shift(slots, window, hours, float(missed.mean()) / 3_600, reference, shape)
