"""The sensor that notices landed files; late, corrected or on time, they are treated alike."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import date

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from feature_assets._landed import LANDED_TAG, encode_landed
from lockstep.affected import affected_days
from lockstep.catalog import Catalog
from lockstep.ingest import days_to_ingest, held_days
from lockstep.quality import checks_of
from lockstep.store import Store
from lockstep.time import contiguous, days_between, last_full_day
from resources.store import StoreResource

Landed = Mapping[str, Mapping[str, str]]
"""Source → day → hash of the files that touch it."""


def new_files_sensor(catalog: Catalog) -> dg.SensorDefinition:
    """Return the sensor that requests the bronze days for which files have landed.

    With them, in the same run, goes every view day whose window contains them.
    """

    @dg.sensor(
        name="new_files",
        job_name="daily",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Materializes the days for which files have landed, and what reads them.",
    )
    def sensor(context: dg.SensorEvaluationContext, lockstep: StoreResource) -> dg.SensorResult:
        store = lockstep.open()
        asked: Landed = json.loads(context.cursor or "{}")
        landed = landed_days(catalog, store)
        requests = list(run_requests(catalog, store, _without(landed, asked)))
        why = "All that has landed was requested." if landed else "Nothing new has landed."
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else why,
            cursor=json.dumps(landed),
        )

    return sensor


def landed_days(catalog: Catalog, store: Store) -> dict[str, dict[str, str]]:
    """Return source → ended day → hash of landed files that bronze has not seen.

    A day that a refused file touches waits until that file is fixed or released.
    """
    now = store.now()
    newest = last_full_day(now, store.project.zone)
    found = {}
    for source in catalog.sources.values():
        waiting = days_to_ingest(store.lake, source, now)
        held = held_days(store.lake, source) if waiting else {}
        ready = {str(d): files for d, files in waiting.items() if d <= newest and d not in held}
        if ready:
            found[source.name] = ready
    return found


def _without(landed: Landed, asked: Landed) -> Landed:
    """Return what landed and was not asked for yet."""
    return {
        source: {
            day: files for day, files in days.items() if asked.get(source, {}).get(day) != files
        }
        for source, days in landed.items()
    }


def run_requests(catalog: Catalog, store: Store, landed: Landed) -> Iterator[dg.RunRequest]:
    """Yield a request per source and unbroken range of landed days."""
    newest = last_full_day(store.now(), store.project.zone)
    for source, files in landed.items():
        for first, last in contiguous(date.fromisoformat(day) for day in files):
            days = days_between(first, last)
            affected = affected_days(catalog.views.values(), {source: days}, newest)
            assets = [source, *affected, *(f"{name}_online" for name in affected)]
            until = max([last, *(max(reading) for reading in affected.values())])
            stamp = hashlib.sha256("\n".join(files[str(day)] for day in days).encode()).hexdigest()
            yield dg.RunRequest(
                # Remembered for ever, so also after a cursor was lost nothing is asked for twice.
                run_key=f"{source}:{first}..{last}:{stamp[:16]}",
                asset_selection=[dg.AssetKey(name) for name in assets],
                asset_check_keys=[
                    dg.AssetCheckKey(dg.AssetKey(name), check)
                    for name in affected
                    for check in checks_of(catalog.view(name))
                ],
                tags={
                    ASSET_PARTITION_RANGE_START_TAG: str(first),
                    ASSET_PARTITION_RANGE_END_TAG: str(until),
                    LANDED_TAG: encode_landed(source, first, last),
                },
            )
