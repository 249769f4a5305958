"""Every day of a feed is judged as the check does: what was found, when, and is it right."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from benchmarks.zones.feeds import Feed
from lockstep.zone_shift import ZoneShift, judge

FEEDS: Final = 1_000
QUICK_FEEDS: Final = 60
FIRST_JUDGED: Final = 14
WITHIN: Final = timedelta(days=14)
WEEK: Final = timedelta(days=7)


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
    false_alarm: ZoneShift | None = None
    hit: ZoneShift | None = None
    later: ZoneShift | None = None
    waited: int | None = None

    @property
    def informative(self) -> bool:
        """Whether the feed's days can tell: an even feed can't, whatever is done to it.

        Nor does a batch that stays at its hour in UTC when the clocks change differ from one that
        is converted by a fixed offset.
        """
        if self.feed.kind == "flat":
            return False
        return not (self.feed.kind == "nightly batch" and self.feed.injected == "DST only")


def watch(feed: Feed, step: int = 1) -> Watched:
    """Judge the feed after each of its days, or after every n-th of them."""
    false = hit = later = None
    for number in range(FIRST_JUDGED, len(feed.days) + 1, step):
        today = feed.days[number - 1].day
        wrong = feed.first is not None and today >= feed.first
        if wrong and feed.first and today > feed.first + WITHIN + WEEK:
            break
        found = judge("feed", feed.days[:number], feed.zone, "UTC")
        if not wrong:
            false = false or found
        elif found is not None:
            if hit is None and feed.first and found.last <= feed.first + WITHIN:
                hit = found
            if hit is not None and found.last <= hit.last + WEEK:
                later = found
    waited = (hit.last - feed.first).days if hit and feed.first else None
    return Watched(feed, false, hit, later, waited)


def named(feed: Feed, found: ZoneShift | None) -> bool:
    """Whether offset and zone are those that were injected."""
    if found is None or found.offset_minutes != feed.minutes:
        return False
    return found.dst_only if feed.injected == "DST only" else feed.name in found.names


def summed_up(watched: Sequence[Watched]) -> dict[str, Any]:
    """Rates of all feeds together, by what is wrong with them, and by their shape."""
    groups: dict[str, Callable[[Watched], bool]] = {
        "all": lambda _: True,
        "clean": lambda one: one.feed.injected is None,
        "shifted, can tell": lambda one: one.feed.injected is not None and one.informative,
    }
    for kind in sorted({one.feed.injected for one in watched if one.feed.injected}):
        groups[f"{kind}, can tell"] = lambda one, kind=kind: (
            one.feed.injected == kind and one.informative
        )
    for shape in dict.fromkeys(one.feed.kind for one in watched):
        groups[shape] = lambda one, shape=shape: one.feed.kind == shape
    return {name: _rates([one for one in watched if holds(one)]) for name, holds in groups.items()}


def _rates(watched: Sequence[Watched]) -> dict[str, Any]:
    shifted = [one for one in watched if one.feed.injected]
    hits = [one for one in shifted if one.hit]
    waited = [one.waited for one in hits if one.waited is not None]
    return {
        "feeds": len(watched),
        "shifted": len(shifted),
        "hits": len(hits) / len(shifted) if shifted else None,
        "right_at_once": _share([named(one.feed, one.hit) for one in hits]),
        "right_in_a_week": _share([named(one.feed, one.later) for one in hits]),
        "median_days": statistics.median(waited) if waited else None,
        "false_alarms": _share([one.false_alarm is not None for one in watched]),
    }


def _share(held: Sequence[bool]) -> float | None:
    return sum(held) / len(held) if held else None
