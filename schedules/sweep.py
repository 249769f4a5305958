"""The job that frees memory online once a week: dead rows and removed views."""

import dagster as dg

from lockstep.errors import LockstepError
from lockstep.sweep import sweep
from resources.store import StoreResource


@dg.op(description="Removes expired rows, and fields of views that are not declared any more.")
def sweep_redis(context: dg.OpExecutionContext, lockstep: StoreResource) -> None:
    """Sweep the online store."""
    store = lockstep.open()
    try:
        swept = sweep(store.online_store, store.catalog)
    except LockstepError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata(
        {"entities": swept.looked_at, "dead": swept.dead, "undeclared": swept.undeclared}
    )


@dg.job(name="sweep", description="Frees the memory of what nobody can be served any more.")
def sweep_job() -> None:
    """Sweep the online store."""
    sweep_redis()


def sweep_schedule(zone: str) -> dg.ScheduleDefinition:
    """Return the schedule that sweeps on Sundays at four."""
    return dg.ScheduleDefinition(
        name="sweep_on_sundays",
        job=sweep_job,
        cron_schedule="0 4 * * 0",
        execution_timezone=zone,
        description="Dead rows and removed views, while few people read.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
