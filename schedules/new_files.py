"""The sensor that notices landed files; late, corrected or on time, they are treated alike."""

import hashlib
from collections.abc import Iterator

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from feature_assets._landed import LANDED_TAG, encode_landed
from lockstep.affected import affected_days
from lockstep.catalog import Catalog
from lockstep.ingest import days_to_ingest
from lockstep.store import Store
from lockstep.time import contiguous, days_between, last_full_day
from resources.store import StoreResource


def new_files_sensor(catalog: Catalog) -> dg.SensorDefinition:
    """Return the sensor that requests the bronze days for which files have landed.

    With them, in the same run, goes every view day whose window contains them.
    """

    @dg.sensor(
        name="new_files",
        job_name="daily",
        minimum_interval_seconds=30,
        description="Materializes the days for which files have landed, and what reads them.",
    )
    def sensor(lockstep: StoreResource) -> dg.SensorResult | dg.SkipReason:
        requests = list(run_requests(catalog, lockstep.open()))
        if not requests:
            return dg.SkipReason("Nothing has landed that is not ingested.")
        return dg.SensorResult(run_requests=requests)

    return sensor


def run_requests(catalog: Catalog, store: Store) -> Iterator[dg.RunRequest]:
    """Yield a request per source and range of landed days; the same files are requested once."""
    newest = last_full_day(store.now(), store.project.zone)
    for source in catalog.sources.values():
        files = {
            day: stamp
            for day, stamp in days_to_ingest(store.lake, source, store.now()).items()
            if day <= newest
        }
        for first, last in contiguous(files):
            days = days_between(first, last)
            affected = affected_days(catalog.views.values(), {source.name: days}, newest)
            assets = [source.name, *affected, *(f"{name}_online" for name in affected)]
            until = max([last, *(max(reading) for reading in affected.values())])
            stamp = hashlib.sha256("\n".join(files[day] for day in days).encode()).hexdigest()
            yield dg.RunRequest(
                run_key=f"{source.name}:{first}..{last}:{stamp[:16]}",
                asset_selection=[dg.AssetKey(name) for name in assets],
                tags={
                    ASSET_PARTITION_RANGE_START_TAG: str(first),
                    ASSET_PARTITION_RANGE_END_TAG: str(until),
                    LANDED_TAG: encode_landed(source.name, first, last),
                },
            )
