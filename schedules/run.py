"""One run in this process, recorded in the instance: what `lockstep materialize` starts.

    python -m schedules.run --select transactions,txn_7d --days 2026-11-01..2026-11-21

Exit status 0 if every day is certified and pushed, 1 if the run failed.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from feature_assets._build import NAMES_DAYS
from lockstep.progress import report
from lockstep.time import parse_days

PLANNED_BATCH = 2000
"""Events that Dagster plans for a run are stored in batches of this size."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the selected assets over the days and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m schedules.run")
    parser.add_argument("--select", help="names, with commas between; everything if not given")
    parser.add_argument("--days", required=True, help="FROM..TO, or one date")
    asked = parser.parse_args(arguments)
    days = parse_days(asked.days)
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(PLANNED_BATCH))
    report("loading")
    from definitions import defs

    job = defs.resolve_job_def("daily")
    with dg.DagsterInstance.get() as instance:
        report("running")
        result = job.execute_in_process(
            instance=instance,
            asset_selection=_selected(job, asked.select),
            tags={
                ASSET_PARTITION_RANGE_START_TAG: str(days[0]),
                ASSET_PARTITION_RANGE_END_TAG: str(days[-1]),
            },
            raise_on_error=False,
        )
        for event in result.all_events:
            if event.is_step_failure and not _names_days(event.step_failure_data):
                report("error", message=_innermost(event.step_failure_data.error))
    report("done", success=result.success, run_id=result.run_id)
    return 0 if result.success else 1


def _selected(job: dg.JobDefinition, names: str | None) -> list[dg.AssetKey]:
    """Return the named assets, a view with the asset that pushes it."""
    every = job.asset_layer.executable_asset_keys
    if names is None:
        return sorted(every)
    wanted = {dg.AssetKey(f"{name}{end}") for name in names.split(",") for end in ("", "_online")}
    return sorted(wanted & set(every))


def _names_days(failure: Any) -> bool:
    """Whether a failure only says which days are not certified: each was told with its reason."""
    told = failure.user_failure_data
    return told is not None and NAMES_DAYS in told.metadata


def _innermost(error: Any) -> str:
    """Return the message of the error that began it, without Dagster's frames around it."""
    while error is not None and error.cause is not None:
        error = error.cause
    message = str(error.message).strip() if error is not None else "unknown"
    return message.removeprefix("dagster._core.definitions.events.Failure: ")


if __name__ == "__main__":
    sys.exit(main())
