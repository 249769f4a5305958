"""What a run tells Dagster about each day: its materialization and its check evaluations.

One run covers a range of days (or one: the code path is the same), and Dagster's own bookkeeping
would mark every day of the range as materialized, with one check result without a partition. So
`record_days` records day by day from inside the op, linked to the run, and `finish` ends the op
without the automatic events. Dagster's event log is a display, never the source of truth: record
a day after it was committed or pushed; recording it again is harmless.

On SQLite the days of one call are stored in one transaction (`resources.event_log` says why). Each
upstream behaviour leaned on here has a test in `tests/test_upstream_dagster.py`.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.tags import BACKFILL_ID_TAG

from resources.event_log import store_at_once


@dataclass(frozen=True, kw_only=True)
class CheckOutcome:
    """The result of one declared check on one day; `name` is the name of its `AssetCheckSpec`."""

    name: str
    passed: bool
    blocking: bool = True
    description: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def evaluation(
        self,
        asset: dg.AssetKey,
        day: str,
        target: AssetCheckEvaluationTargetMaterializationData | None = None,
    ) -> dg.AssetCheckEvaluation:
        return dg.AssetCheckEvaluation(
            asset_key=asset,
            check_name=self.name,
            passed=self.passed,
            blocking=self.blocking,
            severity=dg.AssetCheckSeverity.ERROR if self.blocking else dg.AssetCheckSeverity.WARN,
            description=self.description,
            metadata=self.metadata,
            partition=day,
            target_materialization_data=target,
        )


@dataclass(frozen=True, kw_only=True)
class DayEvents:
    """What became of one day of the running asset.

    Attributes:
        day: The partition key; it may lie outside the range of the run.
        data_version: The content hash of what was committed or pushed; None for a day that was
            not, so that its checks are recorded and no materialization is.
        metadata: Shown with the day's materialization; unused without one.
        checks: The evaluations of the day's checks.
    """

    day: str
    data_version: str | None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[CheckOutcome] = ()

    def materialization(
        self, asset: dg.AssetKey, versions: Mapping[str, str]
    ) -> dg.AssetMaterialization:
        tags = {**versions, DATA_VERSION_TAG: str(self.data_version)}
        return dg.AssetMaterialization(
            asset_key=asset, partition=self.day, metadata=self.metadata, tags=tags
        )


def record_days(context: dg.AssetExecutionContext, outcomes: Sequence[DayEvents]) -> None:
    """Store the events of these days at once, linked to the run: materializations, then checks.

    A failed check is recorded and stops nothing: the caller decides what runs on. The events are
    in the event log, not in the in-process result of the run. Call it once per chunk of days.
    """
    key, versions = context.asset_key, _version_tags(context)
    certified = [outcome for outcome in outcomes if outcome.data_version is not None]
    _store(context, [_entry(context, day.materialization(key, versions)) for day in certified])
    checked = [outcome for outcome in outcomes if outcome.checks]
    if checked:
        targets = _targets(context, {outcome.day for outcome in checked})
        _store(
            context,
            [
                _entry(context, check.evaluation(key, outcome.day, targets.get(outcome.day)))
                for outcome in checked
                for check in outcome.checks
            ],
        )


def _targets(
    context: dg.AssetExecutionContext, days: set[str]
) -> dict[str, AssetCheckEvaluationTargetMaterializationData]:
    """Return day → its newest materialization, to which the UI must see the checks belong.

    It shows a check of a day as missing if that day was materialized and the check names another.
    """
    stored = context.instance.event_log_storage.get_latest_storage_id_by_partition(
        context.asset_key, DagsterEventType.ASSET_MATERIALIZATION, days
    )
    return {
        day: AssetCheckEvaluationTargetMaterializationData(
            storage_id=number, run_id=context.run.run_id, timestamp=time.time()
        )
        for day, number in stored.items()
    }


def _store(context: dg.AssetExecutionContext, entries: Sequence[EventLogEntry]) -> None:
    storage = context.instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        store_at_once(storage, entries)
    else:
        for entry in entries:
            context.instance.handle_new_event(entry)


def finish(
    context: dg.AssetExecutionContext,
) -> Iterator[dg.Output[None] | dg.MaterializeResult[None]]:
    """End the op so that downstream runs, without any automatic event.

    Each selected check gets its empty output instead of an `AssetCheckResult`, which would be
    stored without a partition; the metadata key suppresses the materialization of every day.
    """
    selected = context.selected_asset_check_keys
    for name, spec in context.assets_def.check_specs_by_output_name.items():
        if spec.key in selected:
            yield dg.Output(None, output_name=name)
    yield dg.MaterializeResult(metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})


def _version_tags(context: dg.AssetExecutionContext) -> dict[str, str]:
    """The tags from which Dagster tells stale days: code version, and per input what was read."""
    step = context.get_step_execution_context()
    node = step.job_def.asset_layer.get(context.asset_key)
    tags = {
        CODE_VERSION_TAG: node.code_version or context.run.run_id,
        DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
    }
    if backfill := context.run.tags.get(BACKFILL_ID_TAG):
        tags[BACKFILL_ID_TAG] = backfill
    for parent in node.parent_keys:
        # Read by Dagster when the step started, so before this op looked at its inputs.
        info = step.maybe_fetch_and_get_input_asset_version_info(parent)
        version = (info and info.data_version) or DEFAULT_DATA_VERSION
        tags[get_input_data_version_tag(parent)] = version.value
        tags[get_input_event_pointer_tag(parent)] = (
            str(info.storage_id) if info else NULL_EVENT_POINTER
        )
    return tags


def _entry(
    context: dg.AssetExecutionContext, data: dg.AssetMaterialization | dg.AssetCheckEvaluation
) -> EventLogEntry:
    """The log entry that `context.log_event(data)` would store, without storing it."""
    step = context.get_step_execution_context()
    payload: StepMaterializationData | dg.AssetCheckEvaluation
    if isinstance(data, dg.AssetMaterialization):
        kind, payload = DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(data)
        message = f"Recorded {data.partition}."
    else:
        kind, payload = DagsterEventType.ASSET_CHECK_EVALUATION, data
        verdict = "passed" if data.passed else "did not pass"
        message = f"Asset check '{data.check_name}' {verdict} on {data.partition}."
    event = DagsterEvent(
        event_type_value=kind.value,
        job_name=step.job_name,
        step_handle=step.step.handle,
        node_handle=step.step.node_handle,
        step_kind_value=step.step.kind.value,
        event_specific_data=payload,
        message=message,
    )
    return EventLogEntry(
        error_info=None,
        level=logging.DEBUG,
        user_message="",
        run_id=context.run.run_id,
        timestamp=time.time(),
        step_key=event.step_key,
        job_name=step.job_name,
        dagster_event=event,
    )
