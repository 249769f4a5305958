"""The job that puts the many small files of the lake's records together every night."""

import dagster as dg

from lockstep.compacting import compact
from lockstep.errors import LockstepError
from resources.store import StoreResource


@dg.op(description="Every run appends small files to the ledger and the profiles; few are read.")
def compact_records(context: dg.OpExecutionContext, lockstep: StoreResource) -> None:
    """Put small files together; no row and no version changes."""
    store = lockstep.open()
    try:
        done = compact(store.lake.place, now=store.now)
    except LockstepError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata(
        {found.place: f"{found.before} files became {found.after}" for found in done}
    )


@dg.job(name="compact", description="Keeps the ledger and the profiles fast to read.")
def compact_job() -> None:
    """Put small files together."""
    compact_records()


def compact_schedule(zone: str) -> dg.ScheduleDefinition:
    """Return the schedule that compacts every night at half past four."""
    return dg.ScheduleDefinition(
        name="compact_every_night",
        job=compact_job,
        cron_schedule="30 4 * * *",
        execution_timezone=zone,
        description="Small files of the ledger, the profiles and the superseded rows.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
