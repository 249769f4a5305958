"""The sensor that tells owners what is wrong, once, and again when it has healed.

Dagster's log adds what the lake and Redis cannot show: runs that failed, and what the checks that
are too costly for every tick found last. The log is only read; what was told is in the lake.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from feature_assets._outcomes import NAMES_DAYS
from lockstep.alerts.look import look, settings_of, told
from lockstep.alerts.problem import Look, Problem, problem
from lockstep.alerts.state import State, States
from lockstep.catalog import Catalog
from lockstep.store import Store
from lockstep.time import parse_days, span
from resources.store import StoreResource

EVERY: Final = 60
"""Seconds between two ticks."""

BACK: Final = timedelta(days=7)
"""How much older than the newest run a failed one may be to be found.

One that was told is watched until it is mended.
"""

CHECKS: Final = {"parity": "parity", "served_drift": "served_drift"}
"""Name of a check on the state of the world → the kind of problem that its failure is.

Freshness, shifted hours and late rows are not among them: the lake shows them at every tick.
"""

_MOST_RUNS: Final = 500
_CAUSE: Final = "likely_cause"  # metadata of the parity check; out of a list, so it names nobody
_NAMED: Final = 5  # assets in a sentence


def alerts_sensor(world: Sequence[dg.AssetCheckKey]) -> dg.SensorDefinition:
    """Return the sensor that looks every minute and tells what is new, over, or to be reminded of.

    It requests no run. A cursor is not needed: what was told is one document in the lake.

    Args:
        world: The checks on the state of the world.
    """
    checks = [key for key in world if key.name in CHECKS]

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells owners what is wrong, grouped and once, and when it has healed.",
    )
    def sensor(context: dg.SensorEvaluationContext, lockstep: StoreResource) -> dg.SkipReason:
        store = lockstep.open()
        now = store.now()
        state = States(store.lake.place).newest()
        found = look(store) + look_at_dagster(context.instance, store, state, checks)
        for beginning, why in found.unknown.items():
            context.log.warning("%s could not be looked at: %s", beginning, why)
        ticked = told(store, found, now)
        for receiver, why in ticked.failed.items():
            context.log.warning("%s: %s", receiver, why)
        for receiver, message in ticked.sent:
            context.log.info("%s was told: %s", receiver, message.title)
        live = sum(episode.healed is None for episode in ticked.state.episodes.values())
        sent, failed = len(ticked.sent), len(ticked.failed)
        return dg.SkipReason(f"{live} problems are open; {sent} messages sent, {failed} failed.")

    return sensor


def look_at_dagster(
    instance: dg.DagsterInstance,
    store: Store,
    state: State,
    checks: Sequence[dg.AssetCheckKey],
) -> Look:
    """Return the problems that Dagster's log shows: failed runs that no later one has mended.

    Args:
        state: What was told: its failed runs are looked at however old they are.
        checks: The checks whose last result counts.
    """
    owner = settings_of(store).owner
    found = [
        _run_problem(record, broken, missing, store.catalog, owner)
        for record in _failed_runs(instance, state)
        if (broken := _broken(instance, record.dagster_run))
        and (missing := _missing(instance, record, broken))
    ]
    evaluated, unknown = _check_problems(instance, checks, store.catalog)
    sees = {"run_failed", *(f"{CHECKS[key.name]}:check" for key in checks)}
    return Look([*_newest(found), *evaluated], frozenset(sees), unknown)


# Failed runs


def _failed_runs(instance: dg.DagsterInstance, state: State) -> list[dg.RunRecord]:
    """Return the failed runs of the last days, and those that were told, oldest first."""
    newest = instance.get_run_records(limit=1)
    if not newest:
        return []
    failed = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE],
        created_after=newest[0].create_timestamp - BACK,
    )
    records = {
        record.dagster_run.run_id: record
        for record in instance.get_run_records(failed, limit=_MOST_RUNS)
    }
    told_of = [
        episode.problem.details.get("run_id", "")
        for episode in state.episodes.values()
        if episode.problem.kind == "run_failed" and episode.healed is None
    ]
    if older := [run_id for run_id in told_of if run_id and run_id not in records]:
        for record in instance.get_run_records(dg.RunsFilter(run_ids=older)):
            records[record.dagster_run.run_id] = record
    return sorted(records.values(), key=lambda record: record.create_timestamp)


Part = tuple[str, str]
"""An asset and a partition; either is empty where there is none."""


def _missing(instance: dg.DagsterInstance, record: dg.RunRecord, broken: set[Part]) -> set[Part]:
    """Return the parts of a failed run that no later run has succeeded with.

    Of a run without assets, that is no later run of its job.
    """
    run = record.dagster_run
    if run.tags.get("dagster/will_retry") == "true":
        return set()
    missing = set(broken)
    later = dg.RunsFilter(
        job_name=None if run.asset_selection else run.job_name,
        statuses=[dg.DagsterRunStatus.SUCCESS],
        created_after=record.create_timestamp,
    )
    for other in instance.get_run_records(later, limit=_MOST_RUNS) if missing else ():
        missing -= _parts(other.dagster_run)
    return missing


def _broken(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[Part]:
    """Return the parts of a run whose steps broke.

    A step that only names days which are not certified did its work: why they are not (in
    quarantine, held, never landed) is told by itself. A run without a failed step was killed, or
    never began: all of it counts as broken.
    """
    parts = _parts(run)
    broken: set[Part] = set()
    failed = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    for entry in failed:
        event = entry.get_dagster_event()
        said = event.step_failure_data.user_failure_data
        if said is None or NAMES_DAYS not in said.metadata:
            broken |= {part for part in parts if part[0] == event.step_key} or parts
    return broken if failed else parts


def _parts(run: dg.DagsterRun) -> set[Part]:
    """Return every asset and partition that a run is for; of a plain job one empty part."""
    selected = run.asset_selection or ()
    assets = [key.to_user_string() for key in selected] or [""]
    return {(asset, partition) for asset in assets for partition in _partitions(run)}


def _partitions(run: dg.DagsterRun) -> list[str]:
    first = run.tags.get(ASSET_PARTITION_RANGE_START_TAG)
    last = run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
    if first and last:
        return [str(day) for day in parse_days(f"{first}..{last}")]
    return [run.tags.get(PARTITION_NAME_TAG, "")]


def _run_problem(
    record: dg.RunRecord, broken: set[Part], missing: set[Part], catalog: Catalog, owner: str
) -> Problem:
    """Return the problem of one failed run; its errors stay in Dagster: they may hold anything."""
    run = record.dagster_run
    assets = sorted({asset for asset, _ in missing if asset})
    days = sorted({partition for _, partition in missing if partition})
    all_days = sorted({partition for _, partition in broken if partition})
    more = " and more" if len(assets) > _NAMED else ""
    what = f" of {', '.join(assets[:_NAMED])}{more}" if assets else ""
    when = f" for {_days(days)}" if days else ""
    owners = {whose for asset in assets if (whose := _owner(catalog, asset))}
    return problem(
        # Of all that broke: it stays the same problem while it is mended bit by bit.
        f"run_failed:{run.job_name}:{'@'.join(min(broken))}",
        f"{run.job_name}{f' {_days(all_days)}' if all_days else ''}",
        f"A run of {run.job_name}{what}{when} failed, and none after it succeeded. What was "
        "certified before is served.",
        owner=owners.pop() if len(owners) == 1 else owner,
        since=datetime.fromtimestamp(record.end_time or record.create_timestamp.timestamp(), UTC),
        fix=_again(catalog, assets, days),
        details={"run_id": run.run_id, "job": run.job_name, "assets": ", ".join(assets)},
    )


def _again(catalog: Catalog, assets: Sequence[str], days: Sequence[str]) -> str:
    names = sorted({name.removesuffix("_online") for name in assets})
    known = catalog.views.keys() | catalog.sources.keys() | catalog.snapshots.keys()
    if days and names and known.issuperset(names):
        return f"lockstep materialize {' '.join(names)} --days {days[0]}..{days[-1]}"
    return "lockstep ui"


def _days(texts: Sequence[str]) -> str:
    try:
        return span(date.fromisoformat(text) for text in texts)
    except ValueError:  # partitions that are no days
        return ", ".join(texts[:_NAMED])


def _owner(catalog: Catalog, asset: str) -> str:
    name = asset.removesuffix("_online")
    if name in catalog.views:
        return catalog.views[name].contract.owner
    of = catalog.sources.get(name) or catalog.snapshots.get(name)
    return of.owner if of else ""


def _newest(found: Sequence[Problem]) -> Iterator[Problem]:
    """Yield one problem per key, the first of them: a run that failed again is the same one."""
    keys: set[str] = set()
    for each in found:
        if each.key not in keys:
            keys.add(each.key)
            yield each


# What checks found last


def _check_problems(
    instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey], catalog: Catalog
) -> tuple[list[Problem], dict[str, str]]:
    latest: Any = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    found: list[Problem] = []
    unknown: dict[str, str] = {}
    for key in checks:
        asset, kind = key.asset_key.to_user_string(), CHECKS[key.name]
        name = asset.removesuffix("_online")
        record = latest.get(key)
        if record is None:
            continue
        if record.status == AssetCheckExecutionRecordStatus.FAILED:
            evaluation = record.event.dagster_event.asset_check_evaluation_data
            numbers = _numbers(evaluation)
            if not numbers:  # a view that was never built has none, and is no problem
                continue
            cause = evaluation.metadata.get(_CAUSE)
            likely = f" Likely cause: {cause.value}." if cause else ""
            found.append(_check_problem(kind, name, numbers, likely, record, catalog))
        elif record.status != AssetCheckExecutionRecordStatus.SUCCEEDED:
            unknown[f"{kind}:check:{name}"] = f"the check {key.name} is running, or did not finish"
    return found, unknown


def _numbers(evaluation: Any) -> dict[str, str]:
    return {
        label: f"{entry.value:g}"
        for label, entry in evaluation.metadata.items()
        if isinstance(entry.value, (int, float)) and not isinstance(entry.value, bool)
    }


def _check_problem(
    kind: str, name: str, numbers: Mapping[str, str], likely: str, record: Any, catalog: Catalog
) -> Problem:
    """Return the problem of a failed check by its numbers: its words may name an entity."""
    shown = ", ".join(f"{label} {value}" for label, value in numbers.items())
    what, fix = _CHECK_WORDS[kind]
    return problem(
        f"{kind}:check:{name}",
        name,
        f"{name}: {what} ({shown}).{likely}",
        owner=_owner(catalog, name),
        since=datetime.fromtimestamp(record.create_timestamp, UTC),
        fix=fix.format(name=name),
        details={**numbers, "run_id": record.run_id},
    )


_CHECK_WORDS: Final = {
    "parity": (
        "what is served is not what is committed, of some entities",
        "lockstep parity {name}",
    ),
    "served_drift": (
        "what was served is distributed otherwise than what the models learned from",
        "lockstep training-sets list",
    ),
}
