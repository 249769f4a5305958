"""Which failed runs count as mended, on a log of Dagster that is written by hand."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import AssetMaterializationPlannedData, StepMaterializationData
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from dagster._core.test_utils import create_run_for_test

from lockstep.alerts.problem import Problem
from lockstep.alerts.state import State
from schedules.failed_runs import failed_runs
from tests.scenario import catalog_of, make_views

DAY, NEXT = "2026-03-03", "2026-03-04"
CATALOG = catalog_of(make_views().all)
FAILED, DONE = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def run(
    instance: dg.DagsterInstance,
    status: dg.DagsterRunStatus,
    *selected: str,
    job: str = "daily",
    planned: tuple[str, ...] = (),
    **tags: str,
) -> dg.DagsterRun:
    """Add a run; of one that selects nothing Dagster says what it planned."""
    made = create_run_for_test(
        instance,
        job_name=job,
        status=status,
        asset_selection=frozenset(map(dg.AssetKey, selected)) or None,
        tags={PARTITION_NAME_TAG: DAY, **tags},
    )
    for name in planned:
        data = AssetMaterializationPlannedData(dg.AssetKey(name), partition=DAY)
        report(instance, made, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, data)
    return made


def report(
    instance: dg.DagsterInstance, of: dg.DagsterRun, kind: dg.DagsterEventType, data: Any
) -> None:
    event = dg.DagsterEvent(kind.value, of.job_name, event_specific_data=data)
    instance.report_dagster_event(event, of.run_id)


def makes(
    instance: dg.DagsterInstance, of: dg.DagsterRun, *names: str, day: str | None = DAY
) -> None:
    for name in names:
        data = StepMaterializationData(dg.AssetMaterialization(name, partition=day))
        report(instance, of, dg.DagsterEventType.ASSET_MATERIALIZATION, data)


def found(instance: dg.DagsterInstance) -> list[Problem]:
    return failed_runs(instance, State(), CATALOG, "team:platform")


def test_a_killed_run_of_everything_names_what_it_did_not_make(
    instance: dg.DagsterInstance,
) -> None:
    killed = run(instance, FAILED, planned=("events", "spend_3d", "spend_3d_online"))
    makes(instance, killed, "events", "spend_3d")

    (problem,) = found(instance)

    assert "spend_3d_online" == problem.details["assets"]
    assert f"lockstep materialize spend_3d --days {DAY}..{DAY}" == problem.fix
    assert "team:tests" == problem.owner

    makes(instance, run(instance, DONE, "spend_3d_online"), "spend_3d_online")
    assert [] == found(instance)


def test_another_day_mends_nothing(instance: dg.DagsterInstance) -> None:
    run(instance, FAILED, "spend_3d")
    makes(instance, run(instance, DONE, "spend_3d"), "spend_3d", day=NEXT)

    assert [f"daily {DAY}"] == [problem.subject for problem in found(instance)]


def test_what_was_made_before_the_run_mends_nothing(instance: dg.DagsterInstance) -> None:
    makes(instance, run(instance, DONE, "spend_3d"), "spend_3d")
    run(instance, FAILED, "spend_3d")

    assert 1 == len(found(instance))


def test_days_of_a_range_are_mended_one_by_one(instance: dg.DagsterInstance) -> None:
    tags = {ASSET_PARTITION_RANGE_START_TAG: DAY, ASSET_PARTITION_RANGE_END_TAG: NEXT}
    run(instance, FAILED, "spend_3d", **tags)
    makes(instance, run(instance, DONE, "spend_3d"), "spend_3d")

    (problem,) = found(instance)

    assert f"daily {DAY}..{NEXT}" == problem.subject
    assert f"lockstep materialize spend_3d --days {NEXT}..{NEXT}" == problem.fix


def test_an_asset_without_partitions_is_mended_by_a_run_of_any_day(
    instance: dg.DagsterInstance,
) -> None:
    run(instance, FAILED, "people")
    makes(instance, run(instance, DONE, "people"), "people", day=None)

    assert [] == found(instance)


def test_a_run_without_assets_is_mended_by_the_next_of_its_job(
    instance: dg.DagsterInstance,
) -> None:
    run(instance, FAILED, job="sweep")
    run(instance, DONE, job="daily")
    assert ["sweep 2026-03-03"] == [problem.subject for problem in found(instance)]

    run(instance, DONE, job="sweep")
    assert [] == found(instance)


def test_a_run_that_dagster_tries_again_is_no_problem_yet(instance: dg.DagsterInstance) -> None:
    run(instance, FAILED, "spend_3d", **{"dagster/will_retry": "true"})

    assert [] == found(instance)


def test_a_mended_run_stays_mended_however_many_come_after(instance: dg.DagsterInstance) -> None:
    run(instance, FAILED, "spend_3d")
    makes(instance, run(instance, DONE, "spend_3d"), "spend_3d")

    for _ in range(501):  # like the checks of the world, 144 a day
        run(instance, DONE, job="state_of_the_world")

    assert [] == found(instance)
