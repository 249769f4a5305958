"""Time-zone shifts of a source: which offset, since when, which zones fit. Reads the day index."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np

from lockstep.arriving import find_by_arrival
from lockstep.day_shape import SLOT_MINUTES, SLOTS, DayShape, Floats, shapes_of
from lockstep.lake import Lake
from lockstep.shifting import REFERENCE_DAYS, Shift, distance, find_shift, nearer_moved
from lockstep.sources import Source
from lockstep.time import as_of, span
from lockstep.zone_names import ZONES, fitting, offsets, switches, twice

Clock: TypeAlias = Literal["local", "utc", "either"]
KEPT_DAYS: Final = 420
"""So many days are looked at: the clocks changed twice or more in them."""
_HOUR: Final = 60 // SLOT_MINUTES
_SETTLED: Final = timedelta(days=35)
_BETWEEN: Final = timedelta(days=3)
"""Days in a row of unusual shape, such as holidays, end no shift if there are fewer."""
_NAMED: Final = 4
_NEARBY: Final = 120
"""Offsets so many minutes apart are told as a range."""
_ONE_DAY: Final = timedelta(days=1)
_MORNING: Final = 7
_CONCENTRATED: Final = 0.6
"""A feed with that share of its rows in two hours is a batch."""
_LEVEL_DAYS: Final = 14


@dataclass(frozen=True)
class ZoneShift:
    """The newest days of a source lie at other hours than those before: a conversion is wrong.

    Attributes:
        offset_minutes: Event time minus truth: -240 is the wall clock of New York in summer, stored
            as UTC.
        first: The first shifted day; a part of it may be right.
        last: The newest day.
        days: Shifted days.
        confidence: Share of the distance from the reference that the offset explains, 0 to 1.
        dst_only: One hour, since the clocks changed: the conversion knows no daylight saving.
        names: Zones that it fits, the likeliest first, then those that the others fit.
        others: Offsets that fit about as well, in minutes, the likeliest first.
        usual: The hourly shape of the days before: 96 shares.
        shape: That of the shifted days.
    """

    source: str
    offset_minutes: int
    first: date
    last: date
    days: int
    confidence: float
    dst_only: bool
    names: Sequence[str]
    sentence: str
    usual: Sequence[float] = ()
    shape: Sequence[float] = ()
    others: Sequence[int] = ()


def zone_shift(lake: Lake, source: Source, now: datetime) -> ZoneShift | None:
    """Return the shift that the source's committed days show; None if they show none.

    Only the index of the days is read. Days that had not ended at `now` are left out.
    """
    head = lake.table(source).head_or_none()
    zone = lake.project.zone
    if head is None:
        return None
    ended = {day: record for day, record in head.days.items() if as_of(day, zone) <= now}
    newest = sorted(ended)[-KEPT_DAYS:]
    shapes = shapes_of({day: ended[day] for day in newest}, zone)
    return judge(source.name, shapes, zone, source.time_zone or "UTC")


def judge(source: str, days: Sequence[DayShape], zone: ZoneInfo, declared: str) -> ZoneShift | None:
    """Return the shift of the newest days of a source; None if there is none.

    Args:
        days: Its days with rows, in order.
        zone: The partition zone.
        declared: The zone that its wall clock is read by.
    """
    if not days:
        return None
    known = [declared, zone.key]
    candidates = offsets(days[-1].day, declared)
    found = _by_its_clock(days, candidates)
    if found is not None and _natural(found, days, zone):
        return None
    arrival = find_by_arrival(days, candidates)
    if found is not None:
        shifted = _all_shifted(found, days)
        slots, others = _exactly(found, days, shifted, arrival)
    elif arrival is not None:
        found, shifted, slots, others = arrival, list(arrival.days), arrival.slots, []
    else:
        return None
    dates = [day.day for day in shifted]
    dst_only = _dst_only(slots, dates[0], known)
    minutes, rest = slots * SLOT_MINUTES, [other * SLOT_MINUTES for other in others]
    names = [zone.key] if dst_only else _names([minutes, *rest], dates[-1:], declared, known)
    return ZoneShift(
        source=source,
        offset_minutes=minutes,
        first=dates[0],
        last=dates[-1],
        days=len(dates),
        confidence=round(found.confidence, 3),
        dst_only=dst_only,
        names=names,
        sentence=_sentence(source, minutes, rest, dates, declared, names, dst_only=dst_only),
        usual=found.reference.tolist(),
        shape=found.shape.tolist(),
        others=rest,
    )


def _by_its_clock(days: Sequence[DayShape], moves: Sequence[int]) -> Shift | None:
    """Return the shift by the clock that the feed keeps; where nobody can tell, by both.

    The days that show it are then judged once more, all together and against those before them:
    a reference that holds shifted days itself names the offset badly. Of two clocks the one counts
    that makes the days likelier, and the offset by the other is told, too.
    """
    clock = _clock_that_matters(days)
    clocks = (False, True) if clock == "either" else (clock == "utc",)
    found = [find_shift(days, moves, by_utc=by_utc) for by_utc in clocks]
    if None in found:
        return None
    first = [shift for shift in found if shift is not None]
    windows = [len(_all_shifted(first[0], days))]
    again = [find_shift(days, moves, by_utc=by_utc, windows=windows) for by_utc in clocks]
    both = [shift for shift in again if shift is not None] or first
    best = max(both, key=lambda shift: shift.likelihood / len(shift.days))
    more = [shift.slots for shift in both if shift.slots not in (best.slots, *best.others)]
    return replace(best, others=[*best.others, *more])


def _exactly(
    found: Shift, days: Sequence[DayShape], shifted: Sequence[DayShape], arrival: Shift | None
) -> tuple[int, list[int]]:
    """Return the offset, and those that fit about as well.

    Where rows arrive at a steady distance, that tells it to the minute.
    """
    fitting = [found.slots, *found.others]
    if arrival is not None and arrival.slots % SLOTS in {slots % SLOTS for slots in fitting}:
        return arrival.slots, []
    alike = [slots for slots in fitting if (slots - found.slots) % SLOTS == 0]
    best = _around(found, days, shifted, alike)
    return best, [slots for slots in fitting if slots != best]


def _clock_that_matters(days: Sequence[DayShape]) -> Clock:
    """Return the clock that the feed keeps; the local one if the clocks were not changed lately."""
    lately = {day.utc_offset for day in days[-2 * REFERENCE_DAYS :]}
    return "local" if len(lately) == 1 else clock_of(days)


def clock_of(days: Sequence[DayShape]) -> Clock:
    """Return by which clock a feed keeps its hours: the partition zone's, or UTC.

    Told by the last change of the clocks that is five weeks old or older. Without one: by the wall
    clock, if the day's quietest hours are at night, as those of people are; a batch, or people
    elsewhere, may keep either.
    """
    newest = days[-1].day
    for at in range(len(days) - 1, 7, -1):
        if days[at].utc_offset == days[at - 1].utc_offset or newest - days[at].day < _SETTLED:
            continue
        before, after = days[max(0, at - 14) : at], days[at : at + 14]
        moved = after[0].utc_offset - before[-1].utc_offset
        was, now = _pooled(before), _pooled(after)
        local, utc = distance(now, np.array([was, np.roll(was, moved)]))
        if max(local, utc) > 1.5 * min(local, utc):
            return "local" if local < utc else "utc"
    return "local" if _quiet_at_night(_pooled(days[-REFERENCE_DAYS:])) else "either"


def _pooled(days: Sequence[DayShape]) -> Floats:
    total = np.sum([day.counts for day in days], axis=0)
    found: Floats = total / total.sum()
    return found


def _quiet_at_night(shape: Floats) -> bool:
    """Whether the quietest four hours are centred between midnight and seven, and the rest busy."""
    window = 4 * _HOUR
    padded = np.concatenate([shape, shape[:window]])
    sums = np.convolve(padded, np.ones(window), "valid")[:SLOTS]
    centre = (int(sums.argmin()) + window // 2) % SLOTS / _HOUR
    busiest = np.convolve(padded, np.ones(2 * _HOUR), "valid").max()
    return 0 <= centre <= _MORNING and bool(busiest < _CONCENTRATED)


def _all_shifted(found: Shift, days: Sequence[DayShape]) -> list[DayShape]:
    """Return the newest days in a row that are nearer to the reference once they are moved."""
    agreeing = [
        day.day for day in days if nearer_moved(day.counts / day.rows, found.reference, found.slots)
    ]
    first = newest = days[-1].day
    for day in reversed(agreeing):
        if first - day > _BETWEEN and first != newest:
            break
        first = day
    return [day for day in days if day.day >= min(first, found.days[-1].day)]


def _natural(found: Shift, days: Sequence[DayShape], zone: ZoneInfo) -> bool:
    """Whether people elsewhere have changed their clocks, and nothing is wrong."""
    if abs(found.slots) != _HOUR:
        return False
    first = _all_shifted(found, days)[0].day
    near = (first - _ONE_DAY, first + _ONE_DAY)
    if switches(zone.key, *near):
        return False
    changes = [switches(name, *near) for name in ZONES]
    return any(-found.slots in changed.values() for changed in changes)


def _dst_only(slots: int, first: date, known: Iterable[str]) -> bool:
    near = (first - _ONE_DAY, first + _ONE_DAY)
    return abs(slots) == _HOUR and any(switches(name, *near) for name in known)


def _around(
    found: Shift, days: Sequence[DayShape], shifted: Sequence[DayShape], choices: Sequence[int]
) -> int:
    """Return the offset itself out of some that look alike on a clock: +14 hours and -10 hours.

    Where rows begin to be stored later, hours are empty; where earlier, hours are counted twice.
    The days around the beginning are compared with both.
    """
    at = next(n for n, day in enumerate(days) if day.day == shifted[0].day)
    if len(choices) == 1 or at < _LEVEL_DAYS // 2:
        return choices[0]
    start = max(1, at - 2)
    around = np.concatenate([day.counts for day in days[start : at + 2]])
    level = np.median([day.rows for day in days[max(0, at - _LEVEL_DAYS) : at - 1]])
    usual = np.tile(found.reference * level, 5 + len(days[start : at + 2]))
    moves = {slots: _misfit(around, usual, slots) for slots in choices}
    return min(moves, key=lambda slots: moves[slots])


def _misfit(around: Floats, usual: Floats, slots: int) -> float:
    """Return the least distance of the days from a shift that begins at any quarter of them."""
    size, lead = len(around), 2 * SLOTS
    least = np.inf
    for begin in range(0, size, 2):
        true_begin = lead + begin
        stored = np.zeros(len(usual) + 2 * SLOTS)
        stored[:true_begin] += usual[:true_begin]
        to = true_begin + slots
        stored[to : to + len(usual) - true_begin] += usual[true_begin:]
        least = min(least, float(np.abs(stored[lead : lead + size] - around).sum()))
    return least


def _names(
    offsets_in_minutes: Sequence[int], dates: Sequence[date], declared: str, known: Sequence[str]
) -> list[str]:
    """Return the zones that fit the first offset, then those of the others."""
    found: list[str] = []
    for number, minutes in enumerate(offsets_in_minutes):
        for way in (fitting, twice):
            found += way(minutes, dates, declared, known)[: 1 if number else _NAMED]
    return list(dict.fromkeys(found))


def hours(minutes: int) -> str:
    """Return an offset for people: `-4 h`, `+5:45 h`."""
    whole, rest = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{whole}{f':{rest:02}' if rest else ''} h"


def _sentence(
    source: str,
    minutes: int,
    others: Sequence[int],
    dates: Sequence[date],
    declared: str,
    names: Sequence[str],
    *,
    dst_only: bool,
) -> str:
    off = _off(minutes, others)
    said = f"{source}: the event times of {span(dates)} are {off} off the usual hours"
    if dst_only:
        return (
            f"{said}, since the clocks changed in {names[0]}: a conversion uses a fixed offset. "
            "Correct it upstream and deliver these days again. If the source keeps another clock, "
            "nothing is wrong."
        )
    causes = _causes(minutes, dates, declared, ", likeliest" if others else ",")
    return (
        f"{said}{causes}. Fits: {', '.join(names) or 'no zone'}. Correct the conversion upstream, "
        "or the source's time_zone, and deliver these days again."
    )


def _off(minutes: int, others: Sequence[int]) -> str:
    """Return the offset in words: `-4 h`, `about -4 h (-4:30 to -4 h)`, `+12 h or -12 h`."""
    near = [other for other in others if abs(other - minutes) <= _NEARBY]
    far = [other for other in others if other not in near]
    said = hours(minutes)
    if near:
        fits = sorted([minutes, *near])
        said = f"about {said} ({hours(fits[0])} to {hours(fits[-1])} fit about as well)"
    return " or ".join([said, *map(hours, far)])


def _causes(minutes: int, dates: Sequence[date], declared: str, before: str) -> str:
    direct = fitting(minutes, dates[-1:], declared, ())
    back = twice(minutes, dates[-1:], declared, [name for name in (declared,) if name != "UTC"])
    parts = [f"as if the wall clock of {direct[0]} were read as {declared}"] if direct else []
    if back:
        parts.append(f"as if times of {back[0]} were converted to UTC twice")
    return f"{before} {', or '.join(parts)}" if parts else ""
