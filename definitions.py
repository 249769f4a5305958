"""Composition root: the project's declarations become Dagster's definitions."""

import warnings
from pathlib import Path

import dagster as dg
from dagster_aws.s3 import S3Resource

from checks.audits import audit_specs
from checks.world import world_checks
from feature_assets._broken import broken_assets
from feature_assets._build import build_snapshot, build_source, build_view
from lockstep.catalog import Catalog, discover
from lockstep.project import find_project
from resources.store import StoreResource
from schedules.daily import daily_job, daily_schedule, world_job, world_schedule
from schedules.new_files import new_files_sensor

# Partitioned checks and single-run backfills are preview and beta; tests hold what is leaned on.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
warnings.filterwarnings("ignore", category=dg.BetaWarning)

PROJECT = find_project(Path(__file__).parent)


def build_definitions(catalog: Catalog) -> dg.Definitions:
    """Return assets, checks, jobs, schedules and sensors for everything declared."""
    views = list(catalog.views.values())
    start = min(source.start for source in catalog.sources.values())
    days = dg.DailyPartitionsDefinition(start_date=str(start), timezone=PROJECT.zone.key)
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [
        *(build_source(source, days, views) for source in catalog.sources.values()),
        *(build_snapshot(snapshot) for snapshot in catalog.snapshots.values()),
        *(
            asset
            for view in views
            for asset in build_view(view, days, audit_specs(view, days), views)
        ),
        *broken_assets(catalog),
    ]
    daily, world = daily_job(), world_job(views)
    return dg.Definitions(
        assets=assets,
        asset_checks=[check for view in views for check in world_checks(view)],
        jobs=[daily, world],
        schedules=[daily_schedule(daily, days, views), world_schedule(world)],
        sensors=[new_files_sensor(catalog)],
        resources={
            "lockstep": StoreResource(folder=str(PROJECT.folder), s3=S3Resource()),
        },
        executor=dg.in_process_executor,
    )


defs = build_definitions(discover(PROJECT))
