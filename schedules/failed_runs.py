"""Failed runs that no later one has mended, as Dagster's log shows them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeAlias

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from feature_assets._outcomes import NAMES_DAYS
from lockstep.alerts.problem import Problem, problem
from lockstep.alerts.state import State
from lockstep.catalog import Catalog
from lockstep.time import parse_days, span

BACK: Final = timedelta(days=7)
"""How much older than the newest run a failed one may be to be found.

One that was told is watched until it is mended.
"""

Part: TypeAlias = tuple[str, str]
"""An asset and a partition; either is empty where there is none."""

_MOST_RUNS: Final = 500
_PAGE: Final = 1000  # materializations in one query
_NAMED: Final = 5  # assets in a sentence


def failed_runs(
    instance: dg.DagsterInstance, state: State, catalog: Catalog, owner: str
) -> list[Problem]:
    """Return a problem per failed run that no later run has mended, oldest first.

    Args:
        state: What was told: its failed runs are looked at however old they are.
        owner: Who answers for a run whose assets belong to nobody, or to several.
    """
    found: dict[str, Problem] = {}
    for record in _failed_runs(instance, state):
        broken, missing = _broken_and_missing(instance, record)
        if missing:
            each = _run_problem(record, broken, missing, catalog, owner)
            found.setdefault(each.key, each)  # a run that failed again is the same problem
    return list(found.values())


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


def _broken_and_missing(
    instance: dg.DagsterInstance, record: dg.RunRecord
) -> tuple[set[Part], set[Part]]:
    """Return what broke of a failed run, and what of that no other run has made since.

    What the other run selected does not matter: what a run of everything broke, one of two assets
    may mend. A run that is tried again by itself has broken nothing yet.
    """
    run = record.dagster_run
    if run.tags.get("dagster/will_retry") == "true":
        return set(), set()
    parts = _parts(instance, run)
    failed = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    broken = _broken(parts, failed) if failed else parts
    made = _made_since(instance, broken, record)
    if not failed:  # it was killed, or never began
        broken = {part for part in broken if run.run_id not in made[part]}
    return broken, {part for part in broken if not made[part] - {run.run_id}}


def _broken(parts: set[Part], failed: Sequence[dg.EventLogEntry]) -> set[Part]:
    """Return the parts of a run whose steps broke.

    A step that only names days which are not certified did its work: why they are not (in
    quarantine, held, never landed) is told by itself.
    """
    broken: set[Part] = set()
    for entry in failed:
        event = entry.get_dagster_event()
        said = event.step_failure_data.user_failure_data
        if said is None or NAMES_DAYS not in said.metadata:
            broken |= {part for part in parts if part[0] == event.step_key} or parts
    return broken


def _made_since(
    instance: dg.DagsterInstance, parts: set[Part], record: dg.RunRecord
) -> dict[Part, set[str]]:
    """Return part → the runs that have made it since a run was created."""
    after = record.create_timestamp
    found: dict[Part, set[str]] = {part: set() for part in parts}
    for asset in {asset for asset, _ in parts}:
        partitions = {partition for of, partition in parts if of == asset}
        if not asset:
            later = _succeeded_since(instance, record)
            found |= {(asset, partition): set(later) for partition in partitions}
            continue
        key = dg.AssetKey.from_user_string(asset)
        for run, partition in _materializations(instance, key, partitions - {""}, after):
            # An asset without partitions may be made by a run of some.
            for each in [partition] if partition else partitions:
                found[asset, each].add(run)
    return found


def _materializations(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: set[str], after: datetime
) -> Iterator[tuple[str, str]]:
    """Yield run and partition of an asset's materializations: of these partitions, or the newest.

    The partition is empty where the asset has none.
    """
    newest = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset, after_timestamp=after.timestamp()), limit=1
    )
    for record in newest.records:
        if not record.partition_key:
            yield record.run_id, ""
    if not newest.records or not partitions or not newest.records[0].partition_key:
        return
    wanted = dg.AssetRecordsFilter(
        asset, asset_partitions=sorted(partitions), after_timestamp=after.timestamp()
    )
    cursor, more = None, True
    while more:
        page = instance.fetch_materializations(wanted, limit=_PAGE, cursor=cursor)
        for record in page.records:
            yield record.run_id, str(record.partition_key)
        cursor, more = page.cursor, page.has_more


def _succeeded_since(instance: dg.DagsterInstance, record: dg.RunRecord) -> list[str]:
    """Return a later run of the same job, for the same partition if it is for one."""
    tags = record.dagster_run.tags
    names = (
        PARTITION_NAME_TAG,
        ASSET_PARTITION_RANGE_START_TAG,
        ASSET_PARTITION_RANGE_END_TAG,
    )
    later = dg.RunsFilter(
        job_name=record.dagster_run.job_name,
        statuses=[dg.DagsterRunStatus.SUCCESS],
        created_after=record.create_timestamp,
        tags={name: tags[name] for name in names if name in tags},
    )
    return [found.dagster_run.run_id for found in instance.get_run_records(later, limit=1)]


def _parts(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[Part]:
    """Return every asset and partition that a run is for; of a plain job one empty part.

    A scheduled run selects nothing and is for all assets of its job: what it planned says which.
    """
    assets = {key.to_user_string() for key in run.asset_selection or ()}
    if not assets:
        planned = instance.all_logs(
            run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        )
        keys = [entry.get_dagster_event().asset_key for entry in planned]
        assets = {key.to_user_string() for key in keys if key is not None}
    return {(asset, partition) for asset in assets or {""} for partition in _partitions(run)}


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
    owners = {whose for asset in assets if (whose := owner_of(catalog, asset))}
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


def owner_of(catalog: Catalog, asset: str) -> str:
    """Return who answers for an asset; empty if it is nobody's."""
    name = asset.removesuffix("_online")
    if name in catalog.views:
        return catalog.views[name].contract.owner
    of = catalog.sources.get(name) or catalog.snapshots.get(name)
    return of.owner if of else ""
