"""Every planted incident, in the order in which they are told, and the night without one."""

from collections.abc import Mapping, Sequence
from typing import Final

from demo.incident.incident import Incident, through_the_day
from demo.incident.night import Night
from demo.incident.platform_incidents import BACKFILL, CODE_CHANGE, EVICTED_KEYS, PARTIAL_PUSH
from demo.incident.play import Hashes, hashes
from demo.incident.upstream_incidents import (
    DOUBLED,
    DROPPED_ZONE_CONVERSION,
    HALF_NULL,
    KEY_EXPLOSION,
    LANDS,
    SCHEMA_RENAME,
    SEASONAL_PROMO,
    STALE,
)
from demo.incident.watch import Watch
from lockstep.errors import StoreError

INCIDENTS: Final[Sequence[Incident]] = (
    DROPPED_ZONE_CONVERSION,
    BACKFILL,
    HALF_NULL,
    DOUBLED,
    STALE,
    PARTIAL_PUSH,
    EVICTED_KEYS,
    CODE_CHANGE,
    SCHEMA_RENAME,
    SEASONAL_PROMO,
    KEY_EXPLOSION,
)
BY_NAME: Final[Mapping[str, Incident]] = {incident.name: incident for incident in INCIDENTS}


def clean_night(night: Night) -> Hashes:
    """Play a night on which nothing breaks, and return what it commits.

    Raises:
        StoreError: Somebody saw something.
    """
    watch = Watch(night)
    watch.settle()
    night.at(LANDS)
    for source in night.store.catalog.sources:
        night.land(source)
    night.new_files()
    night.daily()
    seen = list(through_the_day(24.4, 6)(watch))
    if seen:
        raise StoreError(
            f"On a night on which nothing breaks, {seen[0].by} says: {seen[0].sentence}",
            fix="Correct the check that says so.",
            effect="No incident was played.",
        )
    return hashes(night)
