"""The reference project's upstream: the replay delivers yesterday's files, day after day."""

from collections.abc import Callable
from datetime import date
from importlib import import_module
from typing import Any

import dagster as dg

from lockstep.time import last_full_day
from resources.store import StoreResource


def landing_job(land: str) -> dg.JobDefinition:
    """Return the job that lands the last full day.

    Args:
        land: `module:function`, as in the project's settings.
    """
    function = _function(land)

    @dg.op(description="Delivers the files of the last full day into the landing zone.")
    def land_yesterday(context: dg.OpExecutionContext, lockstep: StoreResource) -> None:
        store = lockstep.open()
        day = last_full_day(store.now(), store.project.zone)
        context.log.info("%s", function(store, day, day))

    @dg.job(name="landing", description="Delivers yesterday's files, as upstream teams would.")
    def landing() -> None:
        land_yesterday()

    return landing


def landing_schedule(job: dg.JobDefinition, zone: str) -> dg.ScheduleDefinition:
    """Return the schedule that delivers yesterday's files half an hour after midnight."""
    return dg.ScheduleDefinition(
        name="landing_after_midnight",
        job=job,
        cron_schedule="30 0 * * *",
        execution_timezone=zone,
        description="Yesterday's files, half an hour after midnight; the sensor does the rest.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def _function(named: str) -> Callable[[Any, date, date], object]:
    module, _, name = named.partition(":")

    def function(store: Any, first: date, last: date) -> object:
        found: Callable[[Any, date, date], object] = getattr(import_module(module), name)
        return found(store, first, last)

    return function
