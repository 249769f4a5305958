"""What the UI can be trusted to show: checks per day, runs that were killed, edges."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from feature_assets._edges import EVER, dependencies
from lockstep import Feature, Features, feature_view
from lockstep.view import FeatureView
from schedules.killed import PROCESS_TAG, fail_killed_runs, process_tag
from schedules.new_files import landed_days, run_requests
from tests.dagster_world import D1, D2, D3, DagsterWorld, dagster_world, unfilled, usual
from tests.scenario import EVENTS, PEOPLE, USER, make_views

# Dagster calls what it deprecates, where a resource inside a resource has settings.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")


@pytest.fixture
def made(tmp_path: Path, redis_url: str) -> Iterator[DagsterWorld]:
    with dagster_world(tmp_path, redis_url, fill_rate=0.5) as opened:
        yield opened


def checked(made: DagsterWorld, name: str, check: str) -> dict[str, str]:
    """Return day → status, as the tab of a check's partitions shows it."""
    key = dg.AssetCheckKey(dg.AssetKey(name), check)
    days = made.definitions.resolve_asset_graph().get(key.asset_key).partitions_def
    state = made.instance.event_log_storage.get_asset_check_state([(key, days)])[key]
    return {
        day: status.value
        for status, subset in state.subsets.items()
        for day in subset.subset_value.get_partition_keys()
    }


def test_the_checks_of_a_day_are_shown_for_its_newest_materialization(made: DagsterWorld) -> None:
    for day in (D1, D2):
        made.land(day, *usual(day))
    made.land(D3, *unfilled(D3))

    made.run(D1, D3)
    first = checked(made, "spend_3d", "completeness")
    made.land(D3, *usual(D3))
    made.run(D1, D3)

    assert {str(D1): "SUCCEEDED", str(D2): "SUCCEEDED", str(D3): "FAILED"} == first
    assert {str(D3): "SUCCEEDED"}.items() <= checked(made, "spend_3d", "completeness").items()


def test_a_day_that_was_certified_and_fails_again_is_shown_as_failed(made: DagsterWorld) -> None:
    made.land(D1, *usual(D1))
    assert made.run(D1).success
    made.land(D1, *unfilled(D1))

    assert not made.run(D1).success

    assert {str(D1): "FAILED"} == checked(made, "spend_3d", "completeness")


def test_checks_without_partitions_are_in_no_run_that_has_some(made: DagsterWorld) -> None:
    daily = made.definitions.resolve_job_def("daily").asset_layer.asset_graph.asset_check_keys
    made.land(D1, *usual(D1))
    store = made.world.store

    (request,) = run_requests(store.catalog, store, landed_days(store.catalog, store))

    audits = {"keys", "contract", "completeness", "cardinality", "drift"}
    assert audits == {key.name for key in daily}
    assert audits == {key.name for key in request.asset_check_keys or ()}


def test_a_run_whose_process_was_killed_is_marked_as_failed(made: DagsterWorld) -> None:
    own = "from schedules.killed import process_tag; import json; print(json.dumps(process_tag()))"
    ended = subprocess.run(
        [sys.executable, "-c", own],
        cwd=Path(__file__).parents[1],
        check=True,
        capture_output=True,
        text=True,
    )
    dead = {PROCESS_TAG: ended.stdout.split('"')[3]}
    elsewhere = {PROCESS_TAG: "another-host:boot:1:2"}
    reused = {PROCESS_TAG: f"{process_tag()[PROCESS_TAG].rpartition(':')[0]}:0"}

    killed = [_started(made, tags) for tags in (dead, reused)]
    alive = [_started(made, tags) for tags in (process_tag(), elsewhere, {})]

    assert set(killed) == set(fail_killed_runs(made.instance))
    assert [] == fail_killed_runs(made.instance)
    status = {run.run_id: run.status.value for run in made.instance.get_runs()}
    assert dict.fromkeys(killed, "FAILURE") | dict.fromkeys(alive, "STARTED") == status


def _started(made: DagsterWorld, tags: dict[str, str]) -> str:
    job = made.definitions.resolve_job_def("state_of_the_world")
    run = made.instance.create_run_for_job(job, tags=tags, status="STARTED")
    return run.run_id


def test_the_process_is_told_apart_from_a_later_one_of_its_number() -> None:
    host, boot, number, began = process_tag()[PROCESS_TAG].split(":")

    assert str(os.getpid()) == number
    assert all((host, boot, began))


def test_edges_reach_what_is_read_closing_day_included() -> None:
    views = make_views()

    class Ever(Features, entity=USER, owner="team:tests", ttl=timedelta(days=3)):
        """What is still known of somebody."""

        country = Feature(pl.String, "Where from.")

    @feature_view(
        Ever,
        inputs=[views.profile.latest(), views.spend_3d.latest(), EVENTS.trailing(days=2)],
    )
    def ever(profile: pl.LazyFrame, spend_3d: pl.LazyFrame, events: pl.LazyFrame) -> pl.LazyFrame:
        return profile.join(spend_3d.join(events, on="user_id"), on="user_id", how="semi")

    assert {"profile": -EVER, "spend_3d": -2, "events": -1} == _offsets(ever)
    assert {"events": -3} == _offsets(views.spend_3d)
    assert {PEOPLE.name: 0} == _offsets(views.profile)
    assert {"spend_3d": 0} == _offsets(views.pace)


def _offsets(view: FeatureView) -> dict[str, int]:
    found = {}
    for edge in dependencies(view):
        mapping = edge.partition_mapping
        assert mapping is None or isinstance(mapping, dg.TimeWindowPartitionMapping)
        found[edge.asset_key.path[-1]] = mapping.start_offset if mapping else 0
    return found


def test_an_input_without_ttl_maps_to_every_day_up_to_its_own() -> None:
    days = dg.DailyPartitionsDefinition("2026-03-01", end_date="2026-04-01")
    mapping = dg.TimeWindowPartitionMapping(
        start_offset=-EVER, allow_nonexistent_upstream_partitions=True
    )
    asked = days.empty_subset().with_partition_keys(["2026-03-04"])

    read = mapping.get_upstream_mapped_partitions_result_for_partitions(asked, days, days)

    expected = [str(date(2026, 3, day)) for day in range(1, 5)]
    assert expected == list(read.partitions_subset.get_partition_keys())
