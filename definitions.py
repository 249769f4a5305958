"""Composition root: the project's declarations become Dagster's definitions."""

import warnings
from datetime import date
from pathlib import Path
from typing import Final

import dagster as dg
from dagster_aws.s3 import S3Resource

from checks.audits import audit_specs
from checks.world import watched_closely, world_checks
from feature_assets._broken import broken_assets
from feature_assets._build import build_snapshot, build_source, build_view
from feature_assets.training_sets.asset import KEY, build_training_sets
from lockstep.catalog import Catalog, discover
from lockstep.project import find_project
from resources.store import StoreResource
from schedules.alerts import alerts_sensor
from schedules.compact import compact_job, compact_schedule
from schedules.daily import daily_job, daily_schedule, world_job, world_schedule
from schedules.landing import landing_job, landing_schedule
from schedules.new_files import new_files_sensor
from schedules.reconcile import reconcile_job, reconcile_sensor
from schedules.sweep import sweep_job, sweep_schedule
from schedules.training_requests import training_job, training_requests_sensor

# Partitioned checks and single-run backfills are preview and beta; tests hold what is leaned on.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
warnings.filterwarnings("ignore", category=dg.BetaWarning)

WITHOUT_SOURCES: Final = date(2020, 1, 1)
"""Where partitions begin if no source says, because none is declared or their file is broken."""


def build_definitions(
    catalog: Catalog, zone: str, lockstep: StoreResource, land: str | None = None
) -> dg.Definitions:
    """Return assets, checks, jobs, schedules and sensors for everything declared.

    Args:
        catalog: What is declared.
        zone: Time zone whose civil dates are the partitions.
        lockstep: Opens the project's store.
        land: `module:function` that delivers a day's files, where the project plays its upstream.
    """
    views = list(catalog.views.values())
    start = min((source.start for source in catalog.sources.values()), default=WITHOUT_SOURCES)
    days = dg.DailyPartitionsDefinition(start_date=str(start), timezone=zone)
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [
        *(build_source(source, days, views) for source in catalog.sources.values()),
        *(build_snapshot(snapshot) for snapshot in catalog.snapshots.values()),
        *(
            asset
            for view in views
            for asset in build_view(view, days, audit_specs(view, days), views)
        ),
        build_training_sets(views),
        *broken_assets(catalog),
    ]
    checks = world_checks(catalog)
    keys = [key for check in checks for key in check.check_keys]
    daily, world, reconcile = daily_job(keys, [KEY]), world_job(keys), reconcile_job(views)
    training = training_job()
    landing = [landing_job(land)] if land else []
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=[daily, world, reconcile, sweep_job, compact_job, training, *landing],
        schedules=[
            daily_schedule(daily, days, views),
            world_schedule(world, keys, watched_closely(keys)),
            sweep_schedule(zone),
            compact_schedule(zone),
            *(landing_schedule(job, zone) for job in landing),
        ],
        sensors=[
            new_files_sensor(catalog),
            reconcile_sensor(reconcile, views),
            training_requests_sensor(training),
            alerts_sensor(keys),
        ],
        resources={"lockstep": lockstep},
        executor=dg.in_process_executor,
    )


def load(folder: Path) -> dg.Definitions:
    """Return the definitions of the project in a folder."""
    project = find_project(folder)
    lockstep = StoreResource(folder=str(project.folder), s3=S3Resource())
    return build_definitions(discover(project), project.zone.key, lockstep, project.land)


defs = load(Path(__file__).parent)
