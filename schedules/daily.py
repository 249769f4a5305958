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
    world: Sequence[dg.AssetCheckKey] = (), without: Sequence[dg.AssetKey] = ()
) -> UnresolvedAssetJobDefinition:
    """Return the job that ingests, computes, audits, commits and pushes one day or a range.

    Without the checks on the state of the world: they have no partitions, and a run that has some
    would plan them once for each and show all but one as never executed.

    Args:
        world: The checks on the state of the world.
        without: Assets that are no days, such as training sets: their partitions are requests.
    """
    return dg.define_asset_job(
        "daily",
        selection=dg.AssetSelection.all()
        - dg.AssetSelection.assets(*without)
        - dg.AssetSelection.checks(*world),
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


def world_job(world: Sequence[dg.AssetCheckKey]) -> UnresolvedAssetJobDefinition:
    """Return the job that runs every check on the state of the world and materializes nothing."""
    return dg.define_asset_job(
        "state_of_the_world",
        selection=dg.AssetSelection.checks(*world),
        description="Freshness, parity and served values of every view; hours, late and duplicate "
        "events of every source.",
    )


def world_schedule(
    job: UnresolvedAssetJobDefinition,
    world: Sequence[dg.AssetCheckKey],
    closely: Sequence[dg.AssetCheckKey],
) -> dg.ScheduleDefinition:
    """Return the schedule of the checks on the state of the world.

    Every ten minutes those of `closely`, once an hour all of them: what days show does not change
    within minutes, and every check is some events in Dagster's storage.
    """

    @dg.schedule(
        name="state_of_the_world_every_ten_minutes",
        job=job,
        cron_schedule=WORLD_EVERY,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Whether the data is fresh, and online equals offline, for every view; at the "
        "full hour also what is served, and the hours and late events of every source.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        now = context.scheduled_execution_time
        asked = world if now.minute == 0 else closely
        return dg.RunRequest(run_key=now.isoformat(), asset_check_keys=list(asked))

    return schedule
