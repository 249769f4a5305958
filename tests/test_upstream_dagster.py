"""Dagster behaviour that the glue leans on: an upgrade that changes one of these turns red.

One ranged run over four days with a bad third day, and one single-partition run, on a SQLite
instance of their own; most tests read what those runs left behind.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from feature_assets._events import CheckOutcome, DayEvents, finish, record_days

DAYS = dg.DailyPartitionsDefinition("2024-03-01", end_date="2024-04-01", timezone="Europe/Berlin")
CHECKS = ("keys", "fill_rate")
RANGE = ("2024-03-02", "2024-03-05")
GOOD, BAD = ("2024-03-02", "2024-03-04", "2024-03-05"), "2024-03-03"
OUTSIDE, SINGLE = "2024-03-01", "2024-03-06"
SINGLE_RUN = dg.BackfillPolicy.single_run()
WINDOW = dg.TimeWindowPartitionMapping(start_offset=-6, allow_nonexistent_upstream_partitions=True)
SPEND, ONLINE, EVENTS = dg.AssetKey("spend"), dg.AssetKey("spend_online"), dg.AssetKey("events")


@dataclass
class Seen:
    """What the ops saw, and the content that the source gives its days."""

    content: str = "first"
    days: list[str] = field(default_factory=list)
    selected: set[dg.AssetKey] = field(default_factory=set)


SEEN = Seen()


@dg.asset(partitions_def=DAYS, backfill_policy=SINGLE_RUN)
def events(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.Output]:
    SEEN.days = list(context.partition_keys)
    SEEN.selected = set(context.job_def.asset_layer.selected_asset_keys)
    days = [OUTSIDE, *SEEN.days] if len(SEEN.days) > 1 else SEEN.days
    record_days(context, [DayEvents(day=day, data_version=SEEN.content) for day in days])
    yield from finish(context)


@dg.asset(backfill_policy=SINGLE_RUN)
def products() -> None: ...


@dg.asset(
    partitions_def=DAYS,
    backfill_policy=SINGLE_RUN,
    deps=[dg.AssetDep(events, partition_mapping=WINDOW), products],
    check_specs=[
        dg.AssetCheckSpec(name, asset="spend", partitions_def=DAYS, blocking=True)
        for name in CHECKS
    ],
    code_version="7",
    owners=["team:growth"],
    kinds={"polars", "deltalake"},
    tags={"pii": "none"},
    pool="offline",
)
def spend(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.Output]:
    record_days(context, [_audited(day) for day in context.partition_keys])
    yield from finish(context)


def _audited(day: str) -> DayEvents:
    bad = day == BAD
    checks = [CheckOutcome(name=name, passed=name == "keys" or not bad) for name in CHECKS]
    version = None if bad else f"hash-{day}"
    metadata = {"rows": date.fromisoformat(day).day}
    return DayEvents(day=day, data_version=version, metadata=metadata, checks=checks)


@dg.asset(partitions_def=DAYS, backfill_policy=SINGLE_RUN, deps=[spend])
def spend_online(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.Output]:
    good = [day for day in context.partition_keys if day != BAD]
    record_days(context, [DayEvents(day=day, data_version=f"hash-{day}") for day in good])
    if bad := [day for day in context.partition_keys if day not in good]:
        raise dg.Failure(f"Not certified: {bad}.", allow_retries=False)
    yield from finish(context)


DEFINITIONS = dg.Definitions(
    assets=[events, products, spend, spend_online],
    jobs=[dg.define_asset_job("everything", "*")],
    executor=dg.in_process_executor,
)


@dataclass(frozen=True)
class Runs:
    instance: dg.DagsterInstance
    ranged: dg.ExecuteInProcessResult
    single: dg.ExecuteInProcessResult
    selected: list[set[dg.AssetKey]]


def range_tags(start: str, end: str) -> dict[str, str]:
    return {ASSET_PARTITION_RANGE_START_TAG: start, ASSET_PARTITION_RANGE_END_TAG: end}


def sqlite_instance(home: Path) -> dg.DagsterInstance:
    home.mkdir(exist_ok=True)
    return dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with sqlite_instance(tmp_path_factory.mktemp("dagster")) as instance:
        job = DEFINITIONS.resolve_job_def("everything")
        ranged = job.execute_in_process(
            tags=range_tags(*RANGE), instance=instance, raise_on_error=False
        )
        selected = [SEEN.selected]
        single = job.execute_in_process(
            partition_key=SINGLE, instance=instance, asset_selection=[EVENTS, SPEND, ONLINE]
        )
        yield Runs(instance, ranged, single, [*selected, SEEN.selected])


def materialized(runs: Runs, asset: dg.AssetKey) -> dict[str | None, dg.EventLogEntry]:
    records = runs.instance.fetch_materializations(asset, limit=100).records
    return {record.partition_key: record.event_log_entry for record in reversed(records)}


def test_only_the_good_days_of_a_range_count_as_materialized(runs: Runs) -> None:
    entries = materialized(runs, SPEND)

    assert {*GOOD, SINGLE} == entries.keys()
    for day in GOOD:
        event = entries[day].asset_materialization
        assert entries[day].run_id == runs.ranged.run_id
        assert event.metadata["rows"].value == date.fromisoformat(day).day
        assert event.tags["dagster/code_version"] == "7"
        assert event.tags["dagster/data_version"] == f"hash-{day}"


def test_a_bad_day_keeps_its_failed_check_without_a_materialization(runs: Runs) -> None:
    latest = runs.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(SPEND, "fill_rate"), limit=100
    )

    assert {record.partition: record.status.value for record in latest} == {
        BAD: "FAILED",
        **dict.fromkeys([*GOOD, SINGLE], "SUCCEEDED"),
    }


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_evaluation_has_a_day_and_belongs_to_the_run(runs: Runs, name: str) -> None:
    history = runs.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(SPEND, name), limit=100
    )

    by_run = Counter(record.run_id for record in history)
    assert by_run == {runs.ranged.run_id: 4, runs.single.run_id: 1}
    assert None not in {record.partition for record in history}


def test_a_failed_blocking_check_that_is_recorded_does_not_stop_the_step(runs: Runs) -> None:
    assert set(GOOD) < materialized(runs, ONLINE).keys()


def test_the_last_step_fails_the_run_and_names_the_days(runs: Runs) -> None:
    run = runs.instance.get_run_by_id(runs.ranged.run_id)
    failures = [event for event in runs.ranged.all_events if event.is_step_failure]

    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert [event.step_key for event in failures] == ["spend_online"]
    assert (
        failures[0].step_failure_data.user_failure_data.description == f"Not certified: ['{BAD}']."
    )


def test_a_bad_day_is_shown_as_failed_not_as_missing(runs: Runs) -> None:
    value = get_and_update_asset_status_cache_value(runs.instance, SPEND, DAYS)

    assert value is not None
    failed = value.deserialize_failed_partition_subsets(DAYS)
    assert set(failed.get_partition_keys()) == {BAD}


def test_one_partition_takes_the_same_path_and_succeeds(runs: Runs) -> None:
    assert runs.single.success
    assert materialized(runs, ONLINE)[SINGLE].run_id == runs.single.run_id


def test_a_day_outside_the_range_of_the_run_may_be_recorded(runs: Runs) -> None:
    assert materialized(runs, EVENTS)[OUTSIDE].run_id == runs.ranged.run_id


def test_an_unpartitioned_asset_materializes_once_in_a_ranged_run(runs: Runs) -> None:
    entries = materialized(runs, dg.AssetKey("products"))

    assert [entry.run_id for entry in entries.values()] == [runs.ranged.run_id]
    assert set(entries) == {None}


def test_recorded_days_are_fresh_and_missing_ones_missing(runs: Runs) -> None:
    assert statuses(runs.instance, SPEND, *GOOD, BAD) == {
        **dict.fromkeys(GOOD, StaleStatus.FRESH),
        BAD: StaleStatus.MISSING,
    }
    assert statuses(runs.instance, ONLINE, *GOOD) == dict.fromkeys(GOOD, StaleStatus.FRESH)


def statuses(
    instance: dg.DagsterInstance, asset: dg.AssetKey, *days: str
) -> dict[str, StaleStatus]:
    resolver = CachingStaleStatusResolver(
        instance, DEFINITIONS.resolve_asset_graph(), LoadingContextForTest(instance)
    )
    return {day: resolver.get_status(asset, day) for day in days}


def test_only_changed_content_of_a_day_in_the_window_makes_later_days_stale() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        graph = [events, products, spend]
        assert dg.materialize(graph, instance=instance, tags=range_tags(*GOOD[1:])).success
        results = []
        for content in ("first", "second"):
            SEEN.content = content
            assert dg.materialize([events], instance=instance, partition_key="2024-03-05").success
            results.append(statuses(instance, SPEND, "2024-03-04", "2024-03-05"))
        SEEN.content = "first"

    fresh, stale = StaleStatus.FRESH, StaleStatus.STALE
    assert results[0] == {"2024-03-04": fresh, "2024-03-05": fresh}
    assert results[1] == {"2024-03-04": fresh, "2024-03-05": stale}


def test_a_window_maps_to_its_seven_days_and_stops_at_the_first_partition() -> None:
    def upstream(day: str) -> list[str]:
        subset = DAYS.empty_subset().with_partition_keys([day])
        mapped = WINDOW.get_upstream_mapped_partitions_result_for_partitions(subset, DAYS, DAYS)
        return list(mapped.partitions_subset.get_partition_keys())

    assert upstream("2024-03-10") == [f"2024-03-{day:02}" for day in range(4, 11)]
    assert upstream("2024-03-02") == ["2024-03-01", "2024-03-02"]


def test_a_result_without_the_helper_marks_every_day_and_loses_the_day_of_a_check() -> None:
    @dg.asset(
        partitions_def=DAYS,
        backfill_policy=SINGLE_RUN,
        check_specs=[dg.AssetCheckSpec("keys", asset="naive", partitions_def=DAYS)],
    )
    def naive() -> dg.MaterializeResult:
        check = dg.AssetCheckResult(check_name="keys", passed=True)
        return dg.MaterializeResult(check_results=[check])

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([naive], instance=instance, tags=range_tags(*RANGE))

    days = {event.partition for event in result.get_asset_materialization_events()}
    assert days == {*GOOD, BAD}
    assert [check.partition for check in result.get_asset_check_evaluations()] == [None]


def test_a_batch_stores_what_log_event_stores(tmp_path: Path) -> None:
    @dg.asset(
        partitions_def=DAYS,
        backfill_policy=SINGLE_RUN,
        check_specs=[dg.AssetCheckSpec("keys", asset="logged", partitions_def=DAYS)],
    )
    def logged(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.Output]:
        outcome = DayEvents(
            day="2024-03-02", data_version="h", checks=[CheckOutcome(name="keys", passed=True)]
        )
        if context.run.tags["route"] == "batch":
            record_days(context, [outcome])
        else:
            tags = {
                "dagster/code_version": context.run.run_id,
                "dagster/data_version_is_user_provided": "true",
            }
            context.log_event(outcome.materialization(context.asset_key, tags))
            context.log_event(outcome.checks[0].evaluation(context.asset_key, outcome.day))
        yield from finish(context)

    kept = {}
    for route in ("batch", "log"):
        with sqlite_instance(tmp_path / route) as instance:
            tags = {**range_tags("2024-03-02", "2024-03-02"), "route": route}
            run_id = dg.materialize([logged], instance=instance, tags=tags).run_id
            folder = Path(instance.event_log_storage.path_for_shard(INDEX_SHARD_NAME)).parent
        kept[route] = rows(folder, run_id)

    assert kept["batch"] == kept["log"]
    assert len(kept["batch"]["asset_check_executions"]) == 1
    assert len(kept["batch"]["asset_event_tags"]) == 1


def rows(folder: Path, run_id: str) -> dict[str, list[tuple[str, ...]]]:
    """The columns of the index and of the run's file that do not hold times or run ids."""
    queries = {
        "event_logs": "SELECT dagster_event_type, step_key, asset_key, partition FROM event_logs",
        "asset_check_executions": (
            "SELECT asset_key, check_name, partition, execution_status, evaluation_event_storage_id"
            " FROM asset_check_executions"
        ),
        "asset_event_tags": (
            "SELECT event_id, asset_key, key, replace(value, :run_id, 'run') FROM asset_event_tags"
        ),
        "asset_keys": "SELECT asset_key FROM asset_keys",
    }
    with sqlite3.connect(folder / f"{INDEX_SHARD_NAME}.db") as index:
        found = {
            table: sorted(map(repr, index.execute(query, {"run_id": run_id})))
            for table, query in queries.items()
        }
    with sqlite3.connect(folder / f"{run_id}.db") as run:
        found["run"] = [repr(row) for row in run.execute(queries["event_logs"])]
    return found


def test_an_op_knows_which_assets_its_run_selected(runs: Runs) -> None:
    assert runs.selected == [
        {dg.AssetKey("products"), EVENTS, SPEND, ONLINE},
        {EVENTS, SPEND, ONLINE},
    ]


def test_a_code_reference_may_point_at_a_function_in_another_file() -> None:
    reference = dg.LocalFileCodeReference(file_path=str(Path(__file__)), line_number=1, label="txn")
    metadata = {
        "dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])
    }

    @dg.asset(metadata=metadata)
    def referenced() -> None: ...

    value = referenced.specs_by_key[dg.AssetKey("referenced")].metadata["dagster/code_references"]
    assert value.code_references == [reference]


def test_columns_lineage_owners_kinds_tags_and_pool_are_kept() -> None:
    columns = dg.TableSchema(
        [dg.TableColumn("sum_amt_7d", "Float64", description="Spend.", tags={"pii": "none"})]
    )
    source = dg.TableColumnDep(asset_key="events", column_name="sales_value")
    lineage = dg.TableColumnLineage({"sum_amt_7d": [source]})

    @dg.asset(
        metadata={"dagster/column_schema": columns, "dagster/column_lineage": lineage},
        owners=["team:growth"],
        kinds={"polars", "deltalake"},
        tags={"pii": "none"},
        pool="offline",
    )
    def described() -> None: ...

    spec = described.specs_by_key[dg.AssetKey("described")]
    assert spec.metadata["dagster/column_schema"] == columns
    assert spec.metadata["dagster/column_lineage"] == lineage
    assert list(spec.owners) == ["team:growth"]
    assert spec.kinds == {"polars", "deltalake"}
    assert spec.tags["pii"] == "none"
    assert described.op.pool == "offline"
