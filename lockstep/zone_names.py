"""Which zones an offset speaks for: what one clock is ahead of another on given days."""

from collections.abc import Iterable
from datetime import date, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

from lockstep.day_shape import SLOT_MINUTES, offset_slots
from lockstep.time import zone_named

MOST_HOURS: Final = 14
_DAY: Final = timedelta(days=1)
_HOUR: Final = 60 // SLOT_MINUTES

ZONES: Final = (
    *("UTC", "America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles"),
    *("Europe/London", "Europe/Berlin", "Europe/Athens", "Europe/Istanbul", "Asia/Kolkata"),
    *("Asia/Shanghai", "Asia/Tokyo", "Australia/Sydney", "America/Sao_Paulo", "Asia/Dubai"),
    *("America/Phoenix", "America/Anchorage", "Pacific/Honolulu", "America/Adak"),
    *("Pacific/Marquesas", "Pacific/Pago_Pago", "Etc/GMT+12", "America/Halifax"),
    *("America/St_Johns", "America/Noronha", "Atlantic/Azores", "Asia/Tehran", "Asia/Kabul"),
    *("Asia/Karachi", "Asia/Kathmandu", "Asia/Dhaka", "Asia/Yangon", "Asia/Bangkok"),
    *("Australia/Eucla", "Australia/Darwin", "Australia/Adelaide", "Australia/Brisbane"),
    *("Australia/Lord_Howe", "Pacific/Guadalcanal", "Pacific/Auckland", "Pacific/Chatham"),
    *("Pacific/Tongatapu", "Pacific/Kiritimati", "Africa/Lagos", "Africa/Johannesburg"),
)
"""Well-known names of every offset that is in use, the best known first."""

COMMON_PARTS: Final = frozenset({-14, -10, 14, 18, 22, 23, 26, 38, 42})
"""The offsets from UTC, in slots, of the zones of many people that are no whole hours."""


@cache
def offset_of(name: str, day: date) -> int:
    """Return by how many minutes the zone is ahead of UTC at about noon of the day."""
    return offset_slots(day, _zone(name)) * SLOT_MINUTES


@cache
def _zone(name: str) -> ZoneInfo:
    return zone_named(name)


def offsets(day: date, declared: str) -> list[int]:
    """Return the offsets in slots that a conversion may be wrong by, ±14 hours at most, not 0.

    Every whole hour, what the clocks of a zone and the declared one differ by, and for the zones of
    many people also the opposite: a conversion made twice.
    """
    read_as = offset_of(declared, day)
    found = {hours * _HOUR for hours in range(-MOST_HOURS, MOST_HOURS + 1)}
    found |= {(offset_of(name, day) - read_as) // SLOT_MINUTES for name in ZONES}
    found |= {-slots for slots in found if -slots in COMMON_PARTS or slots in COMMON_PARTS}
    return sorted(slots for slots in found if 0 < abs(slots) <= MOST_HOURS * _HOUR)


def fitting(minutes: int, days: Iterable[date], declared: str, known: Iterable[str]) -> list[str]:
    """Return the zones whose wall clock, read as the declared zone, is wrong by the minutes.

    Args:
        days: The offset must be that on each of them.
        declared: The zone that the wall clock is read by.
        known: Zones of the project, named first.
    """
    asked = list(days)
    names = list(dict.fromkeys([*known, *ZONES]))
    return [
        name
        for name in names
        if name != declared
        and all(offset_of(name, day) - offset_of(declared, day) == minutes for day in asked)
    ]


def twice(minutes: int, days: Iterable[date], declared: str, known: Iterable[str]) -> list[str]:
    """Return the zones from which a conversion made twice, or the wrong way, is wrong by so much.

    Such a source is read as UTC (or as `declared`), and was converted before.
    """
    asked = list(days)
    names = dict.fromkeys([*known, *ZONES])
    return [
        name
        for name in names
        if all(-offset_of(name, day) == minutes and offset_of(declared, day) == 0 for day in asked)
    ]


def switches(name: str, first: date, last: date) -> dict[date, int]:
    """Return the days of that range on which the zone's clocks changed → by how many slots."""
    found, day = {}, first
    before = offset_of(name, first - _DAY) // SLOT_MINUTES
    while day <= last:
        ahead = offset_of(name, day) // SLOT_MINUTES
        if ahead != before:
            found[day] = ahead - before
        before, day = ahead, day + _DAY
    return found
