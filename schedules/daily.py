"""What runs by the clock: yesterday after its data has landed, and the checks on the world."""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,
)

from lockstep.time import last_full_day, zone_named
from lockstep.view import FeatureView

WORLD_EVERY = "*/10 * * * *"


def daily_job(
    views: Sequence[FeatureView] = (), without: Sequence[dg.AssetKey] = ()
) -> UnresolvedAssetJobDefinition:
    """Return the job that ingests, computes, audits, commits and pushes one day or a range.

    Without the checks on the state of the world: they have no partitions, and a run that has some
    would plan them once for each and show all but one as never executed.

    Args:
        views: The views that have such checks.
        without: Assets that are no days, such as training sets: their partitions are requests.
    """
    return dg.define_asset_job(
        "daily",
        selection=dg.AssetSelection.all()
        - dg.AssetSelection.assets(*without)
        - dg.AssetSelection.checks(*_world(views)),
        description="Ingest, compute, audit, commit and push; one day, or a range in one run.",
    )


def daily_schedule(
    job: UnresolvedAssetJobDefinition,
    partitions: dg.TimeWindowPartitionsDefinition,
    views: Sequence[FeatureView],
) -> dg.ScheduleDefinition:
    """Return the schedule that runs the day that ended, once its data is expected to be there."""
    delay = max((view.contract.landing_delay for view in views), default=timedelta(hours=2))
    hours, rest = divmod(delay, timedelta(hours=1))

    @dg.schedule(
        name="daily_after_landing",
        job=job,
        cron_schedule=f"{rest // timedelta(minutes=1)} {hours} * * *",
        execution_timezone=partitions.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Yesterday, {delay} after it ended: the largest landing delay of the views.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        now = context.scheduled_execution_time
        day = str(last_full_day(now, zone_named(partitions.timezone)))
        return dg.RunRequest(run_key=f"{day}@{now.isoformat()}", partition_key=day)

    return schedule


def world_job(views: Sequence[FeatureView]) -> UnresolvedAssetJobDefinition:
    """Return the job that runs every freshness and parity check and materializes nothing."""
    return dg.define_asset_job(
        "state_of_the_world",
        selection=dg.AssetSelection.checks(*_world(views)),
        description="Freshness and parity of every view.",
    )


def _world(views: Sequence[FeatureView]) -> list[dg.AssetCheckKey]:
    """Return the keys of every freshness and parity check."""
    return [
        *(dg.AssetCheckKey(dg.AssetKey(view.name), "freshness") for view in views),
        *(dg.AssetCheckKey(dg.AssetKey(f"{view.name}_online"), "parity") for view in views),
    ]


def world_schedule(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule of the checks on the state of the world."""
    return dg.ScheduleDefinition(
        name="state_of_the_world_every_ten_minutes",
        job=job,
        cron_schedule=WORLD_EVERY,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Whether the data is fresh, and online equals offline, for every view.",
    )
