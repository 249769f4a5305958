"""Whether the newest days of a feed lie elsewhere on the clock than the days before. Pure.

Days are compared by the circular earth mover's distance of their hourly shapes, in hours: how far
a row has to move, on average, to make one shape of the other. A shift is only reported if

- the newest days are far from their reference, measured by how far the reference days are from
  each other and by what counting so few rows leaves to chance;
- moved by the offset they are as near as a usual day is, and far nearer than where they are;
- the offset is one that two zones can have, no other offset that is an hour or more away fits
  nearly as well, and each of the days for itself says the same, or there is one day only and it is
  overwhelming.

Which of the offsets near it, the likelihood of the days says: those that it does not rule out are
told, too.

So a promotion (another shape, wherever one moves it), half a day, an outage, a flat feed (every
offset fits alike) and a sparse one (chance explains it) are no shift.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lockstep.day_shape import SLOTS, DayShape, Floats
from lockstep.zone_names import COMMON_PARTS

REFERENCE_DAYS: Final = 28
LEAST_REFERENCE_DAYS: Final = 7
LEAST_ROWS: Final = 60
"""Fewer rows in all of the judged days say nothing of their shape."""
WINDOWS: Final = (1, 2, 3, 5, 7, 10, 14, 21, 28)
"""How many of the newest days are judged together."""
_PER_HOUR: Final = SLOTS // 24
_LENT_ROWS: Final = 500.0
_FAR: Final = {1: 4.0, 2: 3.0}
_FAR_LATER: Final = 2.5
_LEAST_HOURS: Final = 0.3
_NEAR: Final = 1.6
_GAIN: Final = 3.0
_UNIQUE: Final = 1.5
_AGREEING: Final = 0.8
_SURE: Final = 4.0
"""By how much the log-likelihood of an offset must be ahead of any other's."""
_ABOUT: Final = 30.0
"""Others whose log-likelihood is behind by less fit about as well: no day is quite like another."""
_CLOSE: Final = 2.0
"""Offsets are compared by likelihood if moved by them days are so many usual distances away."""
_WHOLE_HOUR: Final = 2.0
"""How much likelier a whole hour is beforehand than 30 or 45 minutes."""
_OWN: Final = 4.0
"""How much likelier the partition zone's own offset is: not converted, or converted twice."""
_LONG_WEEKEND: Final = 3
"""So few days may be holidays: like those of any weekday."""
_MIDDLE: Final = 0.5
_MOST: Final = 9.0
"""What one slot may say against an offset: promotions and outages move no day."""
_PATIENT: Final = 7
"""So many days are waited for an offset that is ahead of the others."""


@dataclass(frozen=True)
class Shift:
    """The newest days of a feed lie elsewhere on the clock.

    Attributes:
        slots: By how many quarters of an hour; positive is later.
        days: The judged days that show it, oldest first.
        before: Distance of the days from the reference, in hours.
        after: The same once they are moved back.
        reference: Shape of the days before, as shares.
        shape: Shape of the judged days, as shares.
        likelihood: Logarithm of how likely the offset makes the days; to compare with another's.
        others: Offsets that fit about as well, the likeliest first.
    """

    slots: int
    days: Sequence[DayShape]
    before: float
    after: float
    reference: Floats
    shape: Floats
    likelihood: float = 0.0
    others: Sequence[int] = ()

    @property
    def confidence(self) -> float:
        """Share of the distance that moving back explains, 0 to 1."""
        return 1 - self.after / self.before


def distance(shape: Floats, others: Floats) -> Floats:
    """Return the circular earth mover's distance in hours of one shape from each row of others."""
    gaps = np.cumsum(shape - others, axis=-1)
    middle = np.partition(gaps, SLOTS // 2, axis=-1)[..., SLOTS // 2, None]
    found: Floats = np.abs(gaps - middle).sum(axis=-1) / _PER_HOUR
    return found


def rolled(shape: Floats) -> Floats:
    """Return the shape moved by 0, 1, … 95 slots to later, a row each."""
    at = (np.arange(SLOTS)[None, :] - np.arange(SLOTS)[:, None]) % SLOTS
    found: Floats = shape[at]
    return found


def find_shift(
    days: Sequence[DayShape],
    allowed: Sequence[int],
    *,
    by_utc: bool = False,
    windows: Sequence[int] = WINDOWS,
) -> Shift | None:
    """Return the shift of the newest days against those before them; None if there is none.

    Args:
        days: Days with rows, in order; the last one is the newest.
        allowed: The offsets, in slots, that may be reported.
        by_utc: The feed keeps its hours in UTC, not by the wall clock of the partition zone.
        windows: How many of the newest days are judged together; the first that shows a shift
            counts.
    """
    base = days[-1].utc_offset if days else 0
    counts = np.array([_aligned(day, base) if by_utc else day.counts for day in days])
    for length in windows:
        first = len(days) - length
        start = max(0, first - REFERENCE_DAYS)
        if first - start < LEAST_REFERENCE_DAYS:
            return None
        if counts[first:].sum() < LEAST_ROWS:
            continue
        judged = _Judged(days[first:], days[start:first], counts[first:], counts[start:first])
        found = judged.shift(allowed)
        if found is not None:
            return found
    return None


class _Judged:
    """Some of the newest days beside the days before them; their counts as they are compared."""

    def __init__(
        self,
        window: Sequence[DayShape],
        before: Sequence[DayShape],
        counts: Floats,
        counts_before: Floats,
    ) -> None:
        self._window = window
        self._before = before
        self._counts = counts
        self._counts_before = counts_before
        self._own = [day.day.weekday() for day in window]
        self._weekly = _by_weekday(counts_before, [day.day.weekday() for day in before])
        self._references = _shares(self._weekly)

    def shift(self, allowed: Sequence[int]) -> Shift | None:
        rows = self._counts.sum(axis=1)
        shape = self._counts.sum(axis=0) / rows.sum()
        reference = np.average(self._references[self._own], axis=0, weights=rows)
        here = self._unmoved(shape, reference)
        far = _FAR.get(len(self._window), _FAR_LATER)
        if here < max(_LEAST_HOURS, far * _by_chance(reference, rows.sum())):
            return None
        usual = max(self._usual_distance(), _by_chance(reference, rows.sum()))
        if here < far * usual:
            return None
        at_all = distance(shape, rolled(reference))
        best = min(allowed, key=lambda slots: at_all[slots % SLOTS])
        there = float(at_all[best % SLOTS])
        if there > _NEAR * usual or there * _GAIN > here or not _alone(at_all, best):
            return None
        scores = self._scores(allowed, usual)
        slots = self._surely(scores)
        if slots is None or not self._agree(slots):
            return None
        likelihood = scores.pop(slots)
        others = [other for other in _ranked(scores) if likelihood - scores[other] < _ABOUT]
        return Shift(slots, self._window, here, there, reference, shape, likelihood, others)

    def _unmoved(self, shape: Floats, own: Floats) -> float:
        """Return the distance where the days are; few days may be like those of another weekday."""
        others = [own] if len(self._window) > _LONG_WEEKEND else [own, *self._references]
        return float(distance(shape, np.array(others)).min())

    def _scores(self, allowed: Sequence[int], usual: float) -> dict[int, float]:
        """Return how likely each offset makes the days, as a logarithm; of those that come near.

        A day on which the shift began is a mixture, so the first of several is left out. Offsets a
        day apart make the same hours, but of another weekday.
        """
        later = slice(1 if len(self._window) > 1 else 0, None)
        counts = self._counts[later].sum(axis=0)
        if not counts.any():
            return {}
        moved = {slots: self._moved(slots)[later] for slots in allowed}
        weights = self._counts[later].sum(axis=1)
        pooled = weights @ np.array(list(moved.values())) / weights.sum()
        at_all = dict(zip(moved, distance(counts / counts.sum(), pooled), strict=True))
        near = _CLOSE * usual + min(at_all.values())
        scores: dict[int, float] = {}
        spread = self._overspread()
        for slots in allowed:
            if at_all[slots] <= near:
                apart = _squares(self._counts[later], moved[slots])
                likely = -0.5 * float(np.minimum(apart / spread, _MOST).sum())
                own = abs(slots) == abs(self._window[-1].utc_offset)
                scores[slots] = likely + beforehand(slots) + (_OWN if own else 0.0)
        return scores

    def _surely(self, scores: Mapping[int, float]) -> int | None:
        """Return the likeliest offset; None if one that is not a day apart may be as likely."""
        ranked = _ranked(scores)
        if not ranked:
            return None
        best = ranked[0]
        others = [scores[slots] for slots in ranked[1:] if (slots - best) % SLOTS]
        sure = not others or scores[best] - others[0] >= _SURE
        return best if sure or len(self._window) >= _PATIENT else None

    def _moved(self, slots: int) -> Floats:
        """Return the expected shapes of the days if rows are stored so much later.

        A part of each comes from the day before or after, which may be another kind of day.
        """
        week = np.roll(self._weekly.ravel(), slots).reshape(7, SLOTS)
        return _shares(week[self._own])

    def _overspread(self) -> float:
        """Return by how much days vary more than chance would have it, 1 or more."""
        shares = self._references[[day.day.weekday() for day in self._before]]
        squares = _squares(self._counts_before, shares)
        return max(1.0, float(np.quantile(squares.mean(axis=1), 0.75)))

    def _agree(self, slots: int) -> bool:
        """Whether most of the days for themselves are nearer at the offset than where they are."""
        agreeing = told = 0
        for counts, weekday in zip(self._counts, self._own, strict=True):
            rows = counts.sum()
            if rows >= LEAST_ROWS / 4:
                told += 1
                agreeing += nearer_moved(counts / rows, self._references[weekday], slots)
        return told == 0 or agreeing >= _AGREEING * told

    def _usual_distance(self) -> float:
        """Return how far so many of the days before are from the others: the 90th percentile."""
        length = min(len(self._window), 7, len(self._before) // 3)
        upto = np.cumsum(np.vstack([np.zeros(SLOTS), self._counts_before]), axis=0)
        blocks = upto[length:] - upto[:-length]
        others = upto[-1] - blocks
        kept = (blocks.sum(axis=1) > 0) & (others.sum(axis=1) > 0)
        found = distance(_shares(blocks[kept]), _shares(others[kept]))
        return float(np.quantile(found, 0.9)) if len(found) else 0.0


def nearer_moved(shape: Floats, reference: Floats, slots: int) -> bool:
    """Whether a shape is far nearer to its reference once that is moved by the offset."""
    here, there = distance(shape, np.array([reference, np.roll(reference, slots)]))
    return bool(there * 1.5 < here)


def _ranked(scores: Mapping[int, float]) -> list[int]:
    return sorted(scores, key=lambda slots: -scores[slots])


def _shares(counts: Floats) -> Floats:
    found: Floats = counts / counts.sum(axis=-1, keepdims=True)
    return found


def beforehand(slots: int) -> float:
    """Return how likely an offset is before anything is seen, as a logarithm."""
    if slots % _PER_HOUR == 0:
        return _WHOLE_HOUR
    return 0.0 if slots in COMMON_PARTS else -_WHOLE_HOUR


def _squares(counts: Floats, shares: Floats) -> Floats:
    """Return squared differences, in units of what chance leaves, of days from their shapes.

    The level of a day is that of its middle row, so that a promotion moves no other slot.
    """
    return 4 * (np.sqrt(counts) - np.sqrt(shares * _levels(counts, shares)[:, None])) ** 2


def _levels(counts: Floats, shares: Floats) -> Floats:
    """Return per day the rows that the shape stands for: the weighted median over the slots."""
    ratios = counts / np.maximum(shares, 1e-9)
    order = np.argsort(ratios, axis=1)
    reached = np.cumsum(np.take_along_axis(shares, order, axis=1), axis=1)
    middle = (reached < _MIDDLE).sum(axis=1).clip(max=SLOTS - 1)
    at = np.take_along_axis(order, middle[:, None], axis=1)
    found: Floats = np.take_along_axis(ratios, at, axis=1)[:, 0]
    return found


def _by_weekday(counts: Floats, weekdays: Sequence[int]) -> Floats:
    """Return the usual rows of each weekday, drawn towards those of all days where they are few."""
    everyday = counts.mean(axis=0)
    lent = _LENT_ROWS / max(everyday.sum(), 1.0)
    of_weekday = (np.arange(7)[:, None] == np.array(weekdays)).astype(np.float64)
    days = of_weekday.sum(axis=1, keepdims=True)
    found: Floats = (of_weekday @ counts + lent * everyday) / (days + lent)
    return found


def _aligned(day: DayShape, base: int) -> Floats:
    return np.roll(day.counts, base - day.utc_offset)


def _by_chance(reference: Floats, rows: float) -> float:
    """Return the distance in hours that counting so many rows leaves to chance."""
    upto = np.cumsum(reference)
    spread = np.sqrt(np.clip(upto * (1 - upto), 0, None) / rows)
    return float(0.8 * spread.sum() / _PER_HOUR)


def _alone(at_all: Floats, best: int) -> bool:
    """Whether no offset that is an hour or more away fits nearly as well."""
    slots = np.arange(SLOTS)
    apart = np.minimum((slots - best) % SLOTS, (best - slots) % SLOTS)
    return bool(at_all[apart >= _PER_HOUR].min() > _UNIQUE * at_all[best % SLOTS])
