"""One planted incident: how it is broken, what has to notice it, what `why` has to call it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from demo.incident.night import Night
from demo.incident.watch import Sight, Watch
from lockstep.why.found import Cause

TWO: Final = 2.1
"""Hours after midnight: the engineer on call looks."""

Entity = Mapping[str, int]
Noticing = Callable[[Watch], Iterator[Sight]]


@dataclass(frozen=True)
class Incident:
    """A night on which one thing goes wrong.

    Attributes:
        name: For the command line.
        title: For people.
        broken: What is broken, in one sentence.
        feature: `view:feature` that the story looks at.
        cause: What `why` has to call it.
        catchers: What may notice it, as `Sight.by`; the first of them counts.
        whose: Returns the entity that the story looks at, once it is broken.
        breaks: Breaks it, and lets the platform do what it would have done; returns since when
            the fault was within its reach.
        mends: Does what mends it, and says what that was.
        notices: Lets the watchers look until somebody must have seen it.
        asks: Hours after midnight at which `why` is asked; None is at once.
        quiet: Nobody may be woken by it.
        as_if_nothing: Once it is mended, every day has the content that it has on a night on which
            nothing breaks.
    """

    name: str
    title: str
    broken: str
    feature: str
    cause: Cause
    catchers: frozenset[str]
    whose: Callable[[Night], Entity]
    breaks: Callable[[Night], datetime]
    mends: Callable[[Watch], str]
    notices: Noticing
    asks: float | None = TWO
    quiet: bool = False
    as_if_nothing: bool = True


def for_minutes(minutes: float) -> Noticing:
    """Return what lets every watcher look for so many minutes."""

    def notices(watch: Watch) -> Iterator[Sight]:
        yield from watch.audited()
        yield from watch.until(watch.night.clock.now + timedelta(minutes=minutes))

    return notices


def for_hours(hours: float) -> Noticing:
    """Return what lets time pass until an alert is due, or so many hours after midnight."""

    def notices(watch: Watch) -> Iterator[Sight]:
        yield from watch.audited()
        end = watch.night.instant(hours)
        first = watch.first_minute(end)
        if first < end:
            watch.night.clock.now = first
            yield from watch.alerted()

    return notices


def through_the_day(hours: float, step: float) -> Noticing:
    """Return what looks every so many hours up to so many hours after midnight."""

    def notices(watch: Watch) -> Iterator[Sight]:
        yield from watch.audited()
        clock, end = watch.night.clock, watch.night.instant(hours)
        while clock.now < end:
            yield from watch.alerted()
            clock.now = min(end, clock.now + timedelta(hours=step))
        yield from watch.alerted()
        yield from watch.compared()

    return notices


def for_nights(nights: int, lands: Callable[[Night], object], catcher: str) -> Noticing:
    """Return what goes on night after night until a catcher has seen it.

    Args:
        lands: Lands the next night's files.
    """

    def notices(watch: Watch) -> Iterator[Sight]:
        for number in range(nights):
            if number:
                watch.night.next_night()
                lands(watch.night)
            sights = list(for_minutes(1)(watch))
            yield from sights
            if any(sight.by == catcher for sight in sights):
                return

    return notices
