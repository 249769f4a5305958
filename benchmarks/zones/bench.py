"""Every day of a feed is judged as the check does: what was found, when, and is it right."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, TypeAlias

from benchmarks.zones.feeds import Feed
from lockstep.arriving import find_by_arrival
from lockstep.day_shape import SLOT_MINUTES, DayShape
from lockstep.zone_names import offsets
from lockstep.zone_shift import ZoneShift, judge

FEEDS: Final = 1_000
QUICK_FEEDS: Final = 60
FIRST_JUDGED: Final = 14
WITHIN: Final = timedelta(days=14)
WEEK: Final = timedelta(days=7)
DECLARED: Final = "UTC"

Way: TypeAlias = Callable[[Sequence[DayShape]], "Alarm | None"]


@dataclass(frozen=True)
class Alarm:
    """What was found.

    Attributes:
        minutes: The offset.
        others: Those that were said to fit about as well.
        zones: Those that were said to fit; None if none is asked for.
    """

    minutes: int
    others: Sequence[int] = ()
    zones: Sequence[str] | None = None
    dst_only: bool = False

    @classmethod
    def of(cls, shift: ZoneShift | None) -> "Alarm | None":
        """Return what the check says."""
        if shift is None:
            return None
        return cls(shift.offset_minutes, shift.others, shift.names, shift.dst_only)


@dataclass(frozen=True)
class Judging:
    """The ways to judge one feed's days."""

    feed: Feed
    _told: dict[int, Alarm | None] = field(default_factory=dict)

    def by_both(self, days: Sequence[DayShape]) -> Alarm | None:
        """Judge as the check does."""
        if len(days) not in self._told:
            self._told[len(days)] = self._judged(days)
        return self._told[len(days)]

    def by_hours(self, days: Sequence[DayShape]) -> Alarm | None:
        """Judge as the check does where nobody noted when rows arrived."""
        if self.by_arrival(days) is None:
            return self.by_both(days)
        return self._judged([replace(day, lag=None) for day in days])

    def by_arrival(self, days: Sequence[DayShape]) -> Alarm | None:
        """Judge by arrival alone, which names no zone."""
        found = find_by_arrival(days, offsets(days[-1].day, DECLARED))
        return None if found is None else Alarm(found.slots * SLOT_MINUTES)

    def _judged(self, days: Sequence[DayShape]) -> Alarm | None:
        return Alarm.of(judge("feed", days, self.feed.zone, DECLARED))


@dataclass(frozen=True)
class Watched:
    """What came of one feed.

    Attributes:
        false_alarm: What was found before anything was wrong; of a clean feed ever.
        hit: The first alarm within two weeks of the beginning.
        later: The alarm a week after that, or the last one before it ended.
        waited: Days from the beginning to the first alarm; 0 is the same day.
    """

    feed: Feed
    false_alarm: Alarm | None = None
    hit: Alarm | None = None
    later: Alarm | None = None
    waited: int | None = None

    @property
    def informative(self) -> bool:
        """Whether the feed's hours can tell: an even feed's can't, whatever is done to it.

        Nor does a batch that stays at its hour in UTC when the clocks change differ from one that
        is converted by a fixed offset.
        """
        if self.feed.kind == "flat":
            return False
        return not (self.feed.kind == "nightly batch" and self.feed.injected == "DST only")


def watch(feed: Feed, step: int = 1, way: Way | None = None) -> Watched:
    """Judge the feed after each of its days, or after every n-th of them.

    Args:
        way: How; as the check does if not given.
    """
    way = way or Judging(feed).by_both
    false = hit = later = None
    hit_on = feed.days[0].day
    for number in range(FIRST_JUDGED, len(feed.days) + 1, step):
        today = feed.days[number - 1].day
        wrong = feed.first is not None and today >= feed.first
        if wrong and feed.first and today > feed.first + WITHIN + WEEK:
            break
        found = way(feed.days[:number])
        if not wrong:
            false = false or found
        elif found is not None:
            if hit is None and feed.first and today <= feed.first + WITHIN:
                hit, hit_on = found, today
            if hit is not None and today <= hit_on + WEEK:
                later = found
    waited = (hit_on - feed.first).days if hit and feed.first else None
    return Watched(feed, false, hit, later, waited)


def named(feed: Feed, found: Alarm | None) -> bool:
    """Whether offset and zone are those that were injected."""
    if found is None or found.minutes != feed.minutes:
        return False
    if found.zones is None:
        return True
    return found.dst_only if feed.injected == "DST only" else feed.name in found.zones


def among(feed: Feed, found: Alarm | None) -> bool:
    """Whether the offset is right, or one of those that were said to fit about as well."""
    return found is not None and feed.minutes in (found.minutes, *found.others)


def stated_wrongly(feed: Feed, found: Alarm | None) -> bool:
    """Whether one offset alone was told, and it is not the right one."""
    return found is not None and not found.others and found.minutes != feed.minutes


def summed_up(watched: Sequence[Watched]) -> dict[str, Any]:
    """Rates of all feeds together, by what is wrong with them, and by their shape."""
    groups: dict[str, Callable[[Watched], bool]] = {
        "all": lambda _: True,
        "clean": lambda one: one.feed.injected is None,
        "shifted, can tell": lambda one: one.feed.injected is not None and one.informative,
    }
    for kind in dict.fromkeys(one.feed.injected for one in watched if one.feed.injected):
        groups[f"{kind}, can tell"] = lambda one, kind=kind: (
            one.feed.injected == kind and one.informative
        )
    for shape in dict.fromkeys(one.feed.kind for one in watched):
        groups[shape] = lambda one, shape=shape: one.feed.kind == shape
    return {name: rates([one for one in watched if holds(one)]) for name, holds in groups.items()}


def compared(ways: Mapping[str, Sequence[Watched]]) -> dict[str, Any]:
    """Rates of the same feeds, by each of some ways to judge them."""
    return {name: rates(watched) for name, watched in ways.items()}


def rates(watched: Sequence[Watched]) -> dict[str, Any]:
    """Rates of some feeds; those of offsets are shares of the hits."""
    shifted = [one for one in watched if one.feed.injected]
    hits = [one for one in shifted if one.hit]
    waited = [one.waited for one in hits if one.waited is not None]
    missed = Counter(one.later.minutes - one.feed.minutes for one in hits if one.later)
    return {
        "feeds": len(watched),
        "shifted": len(shifted),
        "hits": _share([one.hit is not None for one in shifted]),
        "right_at_once": _share([named(one.feed, one.hit) for one in hits]),
        "right_in_a_week": _share([named(one.feed, one.later) for one in hits]),
        "among_at_once": _share([among(one.feed, one.hit) for one in hits]),
        "among_in_a_week": _share([among(one.feed, one.later) for one in hits]),
        "stated_wrongly_at_once": _share([stated_wrongly(one.feed, one.hit) for one in hits]),
        "stated_wrongly_in_a_week": _share([stated_wrongly(one.feed, one.later) for one in hits]),
        "minutes_off_in_a_week": {str(off): missed[off] for off in sorted(missed)},
        "median_days": statistics.median(waited) if waited else None,
        "false_alarms": _share([one.false_alarm is not None for one in watched]),
    }


def _share(held: Sequence[bool]) -> float | None:
    return sum(held) / len(held) if held else None
