"""One run in this process, recorded in the instance: what `lockstep materialize` starts.

    python -m schedules.run --select transactions,txn_7d --days 2026-11-01..2026-11-21

A view is selected with the asset that pushes it.
Exit status 0 if every day is certified and pushed, 1 if the run failed.
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.execution.api import create_execution_plan, execute_run
from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.snap import snapshot_from_execution_plan
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from dagster._core.workspace.load import location_origins_from_yaml_paths

from feature_assets._outcomes import NAMES_DAYS
from lockstep.errors import InputError
from lockstep.progress import report
from lockstep.time import parse_days
from schedules.killed import fail_killed_runs, process_tag

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
    import definitions

    daily, world = map(definitions.defs.resolve_job_def, ("daily", "state_of_the_world"))
    try:
        assets = _selected(daily, asked.select)
    except InputError as error:
        parser.error(str(error))
    audits, state = (
        {key for key in job.asset_layer.asset_graph.asset_check_keys if key.asset_key in assets}
        for job in (daily, world)
    )
    tags = {
        ASSET_PARTITION_RANGE_START_TAG: str(days[0]),
        ASSET_PARTITION_RANGE_END_TAG: str(days[-1]),
    }
    with dg.DagsterInstance.get() as instance:
        for run_id in fail_killed_runs(instance):
            report("killed", run_id=run_id)
        result = _execute(instance, daily, assets, audits, tags)
        for event in result.all_events:
            if event.is_step_failure and not _names_days(event.step_failure_data):
                report("error", message=_innermost(event.step_failure_data.error))
        report("done", success=result.success, run_id=result.run_id)
        if result.success and state:
            _execute(instance, world, frozenset(), state, {})
    return 0 if result.success else 1


def _execute(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    assets: AbstractSet[dg.AssetKey],
    checks: AbstractSet[dg.AssetCheckKey],
    tags: Mapping[str, str],
) -> dg.JobExecutionResult:
    """Execute exactly these assets and checks, as a run like those that the daemon launches."""
    part = job.get_subset(asset_selection=assets, asset_check_selection=checks)
    plan = create_execution_plan(part, tags=tags)
    run = instance.create_run(
        job_name=job.name,
        run_id=None,
        run_config=None,
        status=None,
        tags={**tags, **process_tag()},
        root_run_id=None,
        parent_run_id=None,
        step_keys_to_execute=None,
        execution_plan_snapshot=snapshot_from_execution_plan(plan, part.get_job_snapshot_id()),
        job_snapshot=part.get_job_snapshot(),
        parent_job_snapshot=part.get_parent_job_snapshot(),
        asset_selection=assets,
        asset_check_selection=checks,
        resolved_op_selection=None,
        op_selection=None,
        remote_job_origin=_origin(job.name),
        job_code_origin=None,
        asset_graph=part.asset_layer.asset_graph,
    )
    report("running", run_id=run.run_id)
    return execute_run(InMemoryJob(job), run, instance)


def _origin(job: str) -> RemoteJobOrigin | None:
    """Return how workspace.yaml's code location knows the job: the UI shows such runs with it."""
    workspace = Path(__file__).parents[1] / "workspace.yaml"
    if not workspace.is_file():
        return None
    location = next(iter(location_origins_from_yaml_paths([str(workspace)])))
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME), job)


def _selected(job: dg.JobDefinition, names: str | None) -> frozenset[dg.AssetKey]:
    """Return the named assets, a view with the asset that pushes it.

    Raises:
        InputError: One does not exist.
    """
    every = set(job.asset_layer.executable_asset_keys)
    if names is None:
        return frozenset(every)
    named = {dg.AssetKey(name) for name in names.split(",")}
    if unknown := sorted(key.to_user_string() for key in named - every):
        raise InputError(
            f"There is no asset named {', '.join(unknown)}.",
            expected=f"some of {', '.join(sorted(key.to_user_string() for key in every))}",
            effect="Nothing was started.",
        )
    pushes = {dg.AssetKey(f"{key.to_user_string()}_online") for key in named}
    return frozenset(named | (pushes & every))


def _names_days(failure: Any) -> bool:
    """Whether a failure only says which days are not certified: each was told with its reason."""
    told = failure.user_failure_data
    return told is not None and NAMES_DAYS in told.metadata


def _innermost(error: Any) -> str:
    """Return the message of the error that began it, without Dagster's frames around it."""
    while error is not None and error.cause is not None:
        error = error.cause
    message = str(error.message).strip() if error is not None else "unknown"
    return re.sub(r"^(dagster\.[\w.]+\.Failure|lockstep\.errors\.\w+): ", "", message)


if __name__ == "__main__":
    sys.exit(main())
