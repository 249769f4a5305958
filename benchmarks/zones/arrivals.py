"""When the rows of a simulated feed arrive: a third arrives at a steady distance, mostly.

Arrival is in true time, whatever is stored. Some deliveries are late: an outage holds rows back
until it ends, and a schedule that is moved has all arrive later, for days or for good.
"""

from typing import Final, Literal, TypeAlias

import numpy as np

from lockstep.day_shape import SLOT_MINUTES, Floats

Arrival: TypeAlias = Literal["unknown", "stream", "hourly files"]
"""How rows arrive: nobody noted it, minutes later, or in a file per hour."""

KNOWN: Final = 1 / 3
HOUR: Final = 3_600.0
DAY: Final = 24 * HOUR
WITHIN: Final = (1 / 6, 1 / 2, 5 / 6)
"""Where in its quarter of an hour each third of the rows lies."""
QUANTILES: Final = (0.1, 0.5, 0.9)
SLOW: Final = 0.25
WHOLE: Final = 0.5

Lag: TypeAlias = tuple[float, float, float]


def arrival_of(random: np.random.Generator) -> Arrival:
    """Return how the rows of a feed arrive."""
    if random.random() >= KNOWN:
        return "unknown"
    return "stream" if random.random() < 1 / 2 else "hourly files"


def arrived(random: np.random.Generator, how: Arrival, starts: Floats) -> Floats:
    """Return when rows arrive, seconds since 1970: per quarter of true time, three thirds of it."""
    happened = starts[:, None] + np.array(WITHIN) * SLOT_MINUTES * 60
    if how == "stream":
        usual = np.exp(random.uniform(np.log(20), np.log(20 * 60)))
        found = happened + usual * np.exp(random.normal(0, 0.3, happened.shape))
    else:
        runs = random.uniform(120, 900) * np.exp(random.normal(0, 0.1, len(starts)))
        found = np.ceil(happened / HOUR) * HOUR + runs[:, None]
    return _held_back(random, _slowed(random, found), starts[0], starts[-1])


def lag_of_day(lags: Floats, rows: Floats) -> Lag:
    """Return the 10th, 50th and 90th percentile of lags, so many rows each."""
    order = np.argsort(lags)
    upto = np.cumsum(rows[order])
    at = np.searchsorted(upto, np.array(QUANTILES) * upto[-1])
    low, median, high = lags[order][at]
    return float(low), float(median), float(high)


def _slowed(random: np.random.Generator, arrival: Floats) -> Floats:
    """Let all rows of some days, or from a day on, arrive later by minutes or hours."""
    if random.random() >= SLOW:
        return arrival
    later = random.uniform(0.25, 8) * HOUR
    if random.random() < WHOLE:
        later = max(1, round(later / HOUR)) * HOUR
    begin = arrival[0, 0] + random.uniform(16, 60) * DAY
    end = begin + random.choice([random.uniform(1, 8) * DAY, np.inf])
    found: Floats = arrival + np.where((arrival >= begin) & (arrival < end), later, 0)
    return found


def _held_back(random: np.random.Generator, arrival: Floats, first: float, last: float) -> Floats:
    """Let the rows of a few outages arrive when these end."""
    found = arrival.copy()
    for begin in random.uniform(first, last, int(random.integers(0, 4))):
        end = begin + random.uniform(2, 30) * HOUR
        found[(found >= begin) & (found < end)] = end
    return found
