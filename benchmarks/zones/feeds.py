"""Simulated feeds: what a source's days look like, with or without a shift that begins mid-feed.

A feed is made of events in true time, quarter by quarter of an hour, by the clock that its people
or machines live by. What is stored differs from the truth once the shift begins. Everything
follows from the seed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from benchmarks.zones.arrivals import WITHIN, Arrival, arrival_of, arrived, lag_of_day
from lockstep.day_shape import SLOT_MINUTES, SLOTS, DayShape, Floats, offset_slots
from lockstep.time import day_start
from lockstep.zone_names import ZONES, offset_of, switches

Injected: TypeAlias = Literal[
    "own zone dropped", "whole hours", "30/45 minutes", "other way", "DST only"
]
"""What is wrong: the conversion of the partition zone was dropped, that of another zone, that of a
zone of no whole hours; a conversion was made twice or the wrong way, or with a fixed offset."""
LENGTH: Final = 63
OF_ITS_OWN: Final = ("own zone dropped", "DST only")
HALF: Final = 0.5
BY_UTC: Final = 0.4
ELSEWHERE: Final = 0.1
SATURDAY: Final = 5
OUTAGE: Final = 2
TWO_HOURS: Final = 8
PARTITION_ZONES: Final = ("America/New_York", "Europe/Berlin", "UTC", "Asia/Kolkata")
SWITCHES: Final = {
    "America/New_York": (date(2025, 3, 9), date(2025, 11, 2), date(2026, 3, 8)),
    "Europe/Berlin": (date(2025, 3, 30), date(2025, 10, 26), date(2026, 3, 29)),
}
PLAIN: Final = (date(2025, 1, 6), date(2025, 5, 5), date(2025, 8, 4), date(2026, 6, 1))


@dataclass(frozen=True)
class Feed:
    """One simulated feed.

    Attributes:
        zone: The partition zone; the source is declared as UTC.
        kind: Its shape.
        injected: What is wrong from `first` on; None for a clean feed.
        minutes: Event time minus truth.
        name: The zone whose conversion was dropped.
        first: Day of the first shifted row.
        arrival: How its rows arrive.
    """

    seed: int
    zone: ZoneInfo
    kind: str
    days: list[DayShape]
    injected: Injected | None = None
    minutes: int = 0
    name: str = ""
    first: date | None = None
    arrival: Arrival = "unknown"


Random: TypeAlias = np.random.Generator
Shape: TypeAlias = Callable[[Random], tuple[Floats, Floats]]


def _hills(*hills: tuple[float, float, float], floor: float = 0.02) -> Floats:
    """Return weights per quarter of an hour: hills of (hour, width in hours, height)."""
    hour = np.arange(SLOTS) * SLOT_MINUTES / 60
    found = np.full(SLOTS, floor)
    for middle, width, height in hills:
        apart = (hour - middle + 12) % 24 - 12
        found += height * np.exp(-0.5 * (apart / width) ** 2)
    return found / found.sum()


def _retail(random: Random) -> tuple[Floats, Floats]:
    noon, evening = 12.5 + random.normal(0, 0.7), 18 + random.normal(0, 0.7)
    day = _hills((noon, 1.8, 1.0), (evening, 1.6, random.uniform(0.7, 1.6)))
    week = _hills((14 + random.normal(0, 0.5), 3.0, 1.0))
    return day, week


def _batch(random: Random) -> tuple[Floats, Floats]:
    day = _hills((random.uniform(0, 5), 0.3, 1.0), floor=0.0005)
    return day, day


def _two_peaks(random: Random) -> tuple[Floats, Floats]:
    morning = 8 + random.normal(0, 0.4)
    day = _hills((morning, 1.0, 1.0), (17.5, 1.2, random.uniform(0.6, 1.4)), floor=0.03)
    return day, _hills((13, 3.5, 1.0), floor=0.05)


def _flat(_random: Random) -> tuple[Floats, Floats]:
    day = np.full(SLOTS, 1 / SLOTS)
    return day, day


def _office(random: Random) -> tuple[Floats, Floats]:
    day = _hills((10.5, 1.4, 1.0), (15, 1.6, random.uniform(0.7, 1.1)), floor=0.004)
    return day, _hills((12, 4, 1.0), floor=0.05)


SHAPES: Final[Mapping[str, Shape]] = {
    "retail": _retail,
    "nightly batch": _batch,
    "two-peaked": _two_peaks,
    "flat": _flat,
    "weekly rhythm": _office,
    "growth": _retail,
    "holidays": _two_peaks,
    "sparse": _retail,
    "noise": _retail,
}


def make_feed(seed: int) -> Feed:
    """Return the feed of a seed: kinds by turns, every second one with a shift."""
    random = np.random.default_rng(seed)
    kind = tuple(SHAPES)[seed // 2 % len(SHAPES)]
    shifted = seed % 2 == 1
    injected = _injected(random) if shifted else None
    zones = tuple(SWITCHES) if injected in OF_ITS_OWN else PARTITION_ZONES
    zone = ZoneInfo(zones[int(random.integers(len(zones)))])
    start, switch = _start(random, zone, injected)
    minutes, name = _offset(random, injected, zone, start, switch)
    begins = _begins(random, zone, start, switch if injected == "DST only" else None)
    lives_by = _lives_by(random, kind, zone, injected)
    starts, counts = _events(random, kind, lives_by, start, zone)
    arrivals = np.random.default_rng((seed, 1))
    arrival = arrival_of(arrivals)
    arrival_times = None if arrival == "unknown" else arrived(arrivals, arrival, starts)
    if shifted:
        late = starts >= begins.timestamp()
        starts = starts + np.where(late, minutes * 60, 0)
    days = _days(starts, counts, zone, start, arrival_times)
    first = begins.astimezone(zone).date() if shifted else None
    return Feed(seed, zone, kind, days, injected, minutes, name, first, arrival)


def _injected(random: Random) -> Injected:
    kinds: tuple[Injected, ...] = get_args(Injected)
    return kinds[int(random.choice(len(kinds), p=(0.25, 0.25, 0.2, 0.2, 0.1)))]


def _start(random: Random, zone: ZoneInfo, injected: Injected | None) -> tuple[date, date]:
    """Return the first day, so that every second feed of such a zone has a switch within."""
    if zone.key in SWITCHES and (injected == "DST only" or random.random() < HALF):
        dates = SWITCHES[zone.key]
        switch = dates[int(random.integers(len(dates)))]
        return switch - timedelta(days=int(random.integers(38, 50))), switch
    first = PLAIN[int(random.integers(len(PLAIN)))] + timedelta(days=int(random.integers(20)))
    return first, first


def _offset(
    random: Random, injected: Injected | None, zone: ZoneInfo, start: date, switch: date
) -> tuple[int, str]:
    """Return event time minus truth in minutes, and the zone that it comes from."""
    if injected is None:
        return 0, ""
    if injected == "DST only":
        changed = switches(zone.key, switch, switch)[switch]
        return changed * SLOT_MINUTES, zone.key
    day = start + timedelta(days=LENGTH)
    if injected == "own zone dropped":
        return offset_of(zone.key, day), zone.key
    found = {name: offset_of(name, day) for name in ZONES}
    whole = injected != "30/45 minutes"
    usable = [n for n, minutes in found.items() if minutes and (minutes % 60 == 0) == whole]
    name = usable[int(random.integers(len(usable)))]
    return (-found[name] if injected == "other way" else found[name]), name


def _begins(random: Random, zone: ZoneInfo, start: date, switch: date | None) -> datetime:
    """Return when the shift begins: at a switch, else at any quarter or midnight of a day."""
    if switch is not None:
        return day_start(switch, zone) + timedelta(hours=3)
    day = start + timedelta(days=int(random.integers(35, 50)))
    if random.random() < HALF:
        return day_start(day, zone)
    return day_start(day, zone) + timedelta(minutes=SLOT_MINUTES * int(random.integers(92)))


def _lives_by(random: Random, kind: str, zone: ZoneInfo, injected: Injected | None) -> ZoneInfo:
    """Return the clock of a feed: people live by a wall clock, machines also by UTC."""
    if injected == "DST only":
        return zone
    if kind == "nightly batch" and random.random() < BY_UTC:
        return ZoneInfo("UTC")
    return ZoneInfo("Asia/Tokyo") if random.random() < ELSEWHERE else zone


def _events(
    random: Random, kind: str, lives_by: ZoneInfo, start: date, zone: ZoneInfo
) -> tuple[Floats, Floats]:
    """Return the quarters (seconds since 1970) and how many events happen in each."""
    begin = day_start(start, zone).astimezone(UTC)
    size = LENGTH * SLOTS
    starts = begin.timestamp() + np.arange(size) * SLOT_MINUTES * 60
    wall = pl.Series((starts * 1e6).astype(np.int64)).cast(pl.Datetime("us", "UTC"))
    wall = wall.dt.convert_time_zone(lives_by.key)
    slot = (wall.dt.hour().cast(pl.Int64) * 4 + wall.dt.minute() // SLOT_MINUTES).to_numpy()
    weekday = wall.dt.weekday().to_numpy() - 1
    which = (wall.dt.date() - wall.dt.date()[0]).dt.total_days().to_numpy()
    working, weekend = SHAPES[kind](random)
    free = (weekday >= SATURDAY) | np.isin(which, _holidays(random, kind))
    weights = np.where(free, weekend[slot], working[slot])
    volume = np.exp(random.uniform(np.log(600), np.log(30_000)))
    if kind == "sparse":
        volume = random.uniform(15, 80)
    level = np.where(free, random.uniform(0.3, 1.3), 1.0)
    if kind == "growth":
        level = level * np.linspace(1, random.uniform(2, 6), size)
    daily = np.exp(random.normal(0, 0.15, which.max() + 1))[which]
    wobble = 0.5 if kind == "noise" else 0.1
    rough = np.exp(random.normal(0, wobble, size) - wobble**2 / 2)
    expected = weights * volume * level * daily * rough
    expected = _incidents(random, expected, which, slot)
    return starts, random.poisson(expected).astype(np.float64)


def _holidays(random: Random, kind: str) -> list[int]:
    if kind != "holidays":
        return []
    first = int(random.integers(30, 55))
    return [int(random.integers(10, 30)), *range(first, first + int(random.integers(1, 4)))]


def _incidents(random: Random, expected: Floats, which: Floats, slot: Floats) -> Floats:
    """Put in what is no shift: a promotion, half a day, an outage, a flood of a few hours."""
    found = expected.copy()
    for _ in range(int(random.integers(0, 4))):
        day, at = int(random.integers(30, LENGTH)), int(random.integers(SLOTS))
        here = which == day
        incident = int(random.integers(4))
        if incident == 0:
            days = (which >= day) & (which < day + int(random.integers(1, 6)))
            hour = (slot - at) % SLOTS < int(random.integers(6, 24))
            found[days & hour] *= random.uniform(1.5, 5)
        elif incident == 1:
            found[here & (slot >= at)] = 0
        elif incident == OUTAGE:
            found[here & ((slot - at) % SLOTS < int(random.integers(8, 60)))] = 0
        else:
            found[here & ((slot - at) % SLOTS < TWO_HOURS)] *= random.uniform(3, 20)
    return found


def _days(
    starts: Floats, counts: Floats, zone: ZoneInfo, start: date, arrival: Floats | None
) -> list[DayShape]:
    """Return the days as they are stored.

    Args:
        starts: Of the quarters, as they are stored.
        arrival: When the three thirds of each arrived.
    """
    wall = pl.Series((starts * 1e6).astype(np.int64)).cast(pl.Datetime("us", "UTC"))
    wall = wall.dt.convert_time_zone(zone.key)
    slot = (wall.dt.hour().cast(pl.Int64) * 4 + wall.dt.minute() // SLOT_MINUTES).to_numpy()
    which = (wall.dt.date() - start).dt.total_days().to_numpy()
    stored = starts[:, None] + np.array(WITHIN) * SLOT_MINUTES * 60
    found = []
    for number in range(LENGTH):
        here = which == number
        shape = np.bincount(slot[here], counts[here], SLOTS)
        day = start + timedelta(days=number)
        if shape.sum():
            lag = None
            if arrival is not None:
                thirds = np.repeat(counts[here] / len(WITHIN), len(WITHIN))
                lag = lag_of_day((arrival - stored)[here].ravel(), thirds)
            found.append(DayShape(day, shape, offset_slots(day, zone), lag))
    return found
