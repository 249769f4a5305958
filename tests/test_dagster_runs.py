"""Runs as Dagster has them: what is recorded per day, what is refused, what schedules ask for."""

import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
import redis
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._utils.schedules import schedule_execution_time_iterator

import definitions
from feature_assets._metadata import MASK
from lockstep.quarantine import Quarantine
from lockstep.time import day_start
from tests.dagster_world import (
    D1,
    D2,
    D3,
    D4,
    D5,
    D6,
    D7,
    D8,
    D9,
    D10,
    DAYS,
    DagsterWorld,
    crowded,
    dagster_world,
    failures,
    unfilled,
    usual,
)
from tests.scenario import AUTUMN, EVENTS, SPRING, ZONE, event, instant

# Dagster calls what it deprecates, where a resource inside a resource has settings.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

GOOD, BAD = (D1, D2, D4, D5), D3
FILL_RATE = 0.5


@pytest.fixture
def made(tmp_path: Path, redis_url: str) -> Iterator[DagsterWorld]:
    with dagster_world(tmp_path, redis_url, fill_rate=FILL_RATE) as opened:
        yield opened


def text(*days: date) -> set[str]:
    return {str(day) for day in days}


def land_with_a_bad_day(made: DagsterWorld) -> None:
    for day, events in zip(DAYS, (usual, usual, unfilled, crowded, usual), strict=False):
        made.land(day, *events(day))


def land_usual(made: DagsterWorld, *days: date) -> None:
    for day in days:
        made.land(day, *usual(day))


def test_a_bad_day_in_a_range_stops_no_other_day_and_fails_the_run(made: DagsterWorld) -> None:
    land_with_a_bad_day(made)

    run = made.run(D1, D5)

    assert not run.success
    for name in ("spend_3d", "spend_3d_online", "pace", "pace_online"):
        assert text(*GOOD) == made.materialized(name).keys(), name
    assert text(*DAYS[:5]) == made.materialized("profile_online").keys()
    checked = made.checks("spend_3d", "completeness", run)
    assert {**dict.fromkeys(text(*GOOD), True), str(BAD): False} == checked
    assert set(GOOD) == made.world.store.committed(made.views.spend_3d).keys()
    assert set(GOOD) == made.world.store.committed(made.views.pace).keys()
    assert made.online(21) == 1.0
    told = failures(run)
    assert {"spend_3d_online", "pace_online"} == told.keys()
    assert f"spend_3d of {BAD} is not certified" in told["spend_3d_online"]
    assert "amount_3d is filled in 40.0% of 5 rows" in told["spend_3d_online"]
    assert f"pace of {BAD} is not certified" in told["pace_online"]


def test_a_bad_day_alone_fails_the_run_of_its_partition(made: DagsterWorld) -> None:
    made.world.clock.now = instant(D4, 3)
    land_with_a_bad_day(made)
    assert made.run(D2).success

    run = made.run(BAD)

    assert not run.success
    for name in ("spend_3d", "spend_3d_online", "pace", "pace_online"):
        assert text(D2) == made.materialized(name).keys(), name
    assert {str(BAD): False} == made.checks("spend_3d", "completeness", run)
    assert {str(BAD): True} == made.checks("spend_3d", "keys", run)
    assert text(BAD) == made.materialized("profile_online", run).keys()
    assert f"not certified ({BAD})" in failures(run)["spend_3d"]
    assert 2.0 == made.online(1)


def test_the_push_refuses_a_day_that_only_dagster_believes_in(made: DagsterWorld) -> None:
    made.world.clock.now = instant(D4, 3)
    land_with_a_bad_day(made)
    made.run(D1, D2)
    fake = dg.AssetMaterialization("spend_3d", partition=str(BAD))
    made.instance.report_runless_asset_event(fake)

    run = made.run(BAD, None, "spend_3d_online")

    assert not run.success
    assert f"spend_3d of {BAD} is not certified" in failures(run)["spend_3d_online"]
    assert text(BAD) & made.materialized("spend_3d").keys()
    assert text(D1, D2) == made.materialized("spend_3d_online").keys()
    assert [2.0, None] == [made.online(1), made.online(11)]


def test_a_certified_day_whose_rerun_fails_keeps_its_revision_on_both_sides(
    made: DagsterWorld,
) -> None:
    made.world.clock.now = instant(D4, 3)
    land_usual(made, D1, D2, D3)
    assert made.run(D1, D3).success
    before = made.world.rows(made.views.spend_3d, D3)
    made.land(D3, *unfilled(D3))

    ranged, single = made.run(D1, D3), made.run(D3)

    for run in (ranged, single):
        assert not run.success
        assert all(str(D3) in told for told in failures(run).values())
        assert str(D3) not in made.materialized("spend_3d", run)
        assert str(D3) not in made.materialized("spend_3d_online", run)
    assert 1 == made.revision(made.views.spend_3d, D3)
    assert before.equals(made.world.rows(made.views.spend_3d, D3))
    assert 3.0 == made.online(1)
    assert made.online(11) is None


def test_a_rerun_after_the_file_is_fixed_clears_the_day(made: DagsterWorld) -> None:
    land_with_a_bad_day(made)
    made.run(D1, D5)
    quarantine = Quarantine(made.world.store.lake.quarantine)
    waiting = [item.open for item in quarantine.items("spend_3d")]
    made.land(BAD, *usual(BAD))

    run = made.run(BAD, D5)

    assert run.success
    assert [True] == waiting
    assert [False] == [item.open for item in quarantine.items("spend_3d")]
    assert str(BAD) in made.materialized("spend_3d", run)
    assert str(BAD) in made.materialized("pace_online", run)
    for check in ("keys", "contract", "completeness", "cardinality", "drift"):
        assert made.checks("spend_3d", check, run)[str(BAD)], check
    assert all(found.passed for found in made.state_of_the_world().values())


def test_a_run_of_one_day_ingests_the_earlier_days_of_its_windows(made: DagsterWorld) -> None:
    land_usual(made, D1, D2, D3, D4, D5)

    run = made.run(D5)

    # Three days of the window, and the one that just left it and gives closing rows.
    assert run.success
    assert text(D2, D3, D4, D5) == made.materialized("events").keys()
    assert text(D5) == made.materialized("spend_3d").keys()
    assert 3.0 == made.online(1)


def test_a_run_without_views_ingests_only_what_it_was_asked_for(made: DagsterWorld) -> None:
    land_usual(made, D1, D2, D3, D4, D5)

    assert made.run(D5, None, "events", "people").success
    assert text(D5) == made.materialized("events").keys()


def test_an_unchanged_rerun_says_so_and_commits_nothing(made: DagsterWorld) -> None:
    land_usual(made, D1, D2)
    made.run(D1, D2)
    tables = [EVENTS, *made.views.all]
    before = [made.world.store.lake.table(of).head().version for of in tables]

    run = made.run(D1, D2)

    assert run.success
    assert before == [made.world.store.lake.table(of).head().version for of in tables]
    for of in tables:
        again = made.materialized(of.name, run)
        assert {str(D1): True, str(D2): True} == {d: m["reused_commit"] for d, m in again.items()}
        assert {1} == {shown["revision"] for shown in again.values()}


def test_a_day_shows_its_numbers_and_a_preview_without_pii(made: DagsterWorld) -> None:
    land_usual(made, D1, D2)
    assert made.run(D1, D2).success

    spend, profile = made.materialized("spend_3d"), made.materialized("profile")

    record = made.world.store.committed(made.views.spend_3d)[D2]
    shown = spend[str(D2)]
    assert (2, 1) == (shown["rows"], shown["revision"])
    assert isinstance(shown["delta_version"], int)
    assert record.content_hash.startswith(shown["content_hash"])
    assert 1.0 == shown["fill_rate:amount_3d"]
    assert isinstance(shown["fill_rate:events_3d"], float)
    assert shown["reused_commit"] is False
    of_events = made.materialized("events")[str(D2)]
    covers = {found["day_in_utc"] for found in (shown, of_events)}
    assert {"2026-03-04 05:00 to 2026-03-05 05:00, 24 h"} == covers
    assert "amount_3d" in shown["preview"]
    assert {MASK} == {
        line.split(" | ")[0].strip("| ") for line in shown["preview"].splitlines()[2:]
    }
    assert MASK in profile[str(D2)]["preview"]
    assert not [day for day, found in profile.items() if "NZ" in str(found)]


def test_pictures_are_drawn_for_the_last_seven_days_of_a_range(made: DagsterWorld) -> None:
    made.world.clock.now = instant(DAYS[10], 3)
    land_usual(made, *DAYS[:10])
    assert made.run(D1, D10).success

    shown = made.materialized("spend_3d")

    drawn = {day for day, found in shown.items() if "histogram:amount_3d" in found}
    assert text(*DAYS[:10]) == shown.keys()
    assert text(*DAYS[3:10]) == drawn
    assert "histogram:country" not in made.materialized("profile")[str(D10)]


def test_freshness_fails_when_time_passes_and_an_empty_run_does_not_reset_it(
    made: DagsterWorld,
) -> None:
    made.world.clock.now = instant(D3, 3)
    land_usual(made, D1, D2)
    made.run(D1, D2)
    limit = made.views.spend_3d.contract.freshness

    fresh = made.state_of_the_world()["spend_3d:freshness"]
    made.world.clock.now = instant(D3) + limit + timedelta(minutes=1)
    old = made.state_of_the_world()["spend_3d:freshness"]
    made.run(D2)
    unchanged = made.state_of_the_world()["spend_3d:freshness"]
    made.world.clock.now = instant(DAYS[10], 3)
    assert made.run(D3, D10).success
    emptied = made.state_of_the_world()["spend_3d:freshness"]

    assert [True, False, False, False] == [
        found.passed for found in (fresh, old, unchanged, emptied)
    ]
    assert "over its limit" in (old.description or "")
    assert str(D10) in made.materialized("spend_3d")


def test_parity_fails_after_a_wipe_and_names_what_repairs_it(
    made: DagsterWorld, redis_url: str
) -> None:
    made.world.clock.now = instant(D3, 3)
    land_usual(made, D1, D2)
    made.run(D1, D2)
    whole = made.state_of_the_world()["spend_3d_online:parity"]
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        keys = list(client.scan_iter(f"*{made.world.store.project.namespace}*"))
        client.delete(*keys)

    wiped = made.state_of_the_world()["spend_3d_online:parity"]
    repaired = made.run(D1, D2, "spend_3d_online")
    after = made.state_of_the_world()["spend_3d_online:parity"]

    assert whole.passed
    assert not wiped.passed
    assert 2 == wiped.metadata["missing"].value
    assert "Repair: lockstep push spend_3d" in (wiped.description or "")
    assert repaired.success
    assert after.passed


@pytest.mark.parametrize("change", [date(2026, 3, 15), SPRING, AUTUMN])
def test_the_schedule_asks_for_each_day_once_also_when_the_clocks_change(
    made: DagsterWorld, change: date
) -> None:
    schedule = made.definitions.resolve_schedule_def("daily_after_landing")
    days = [change + timedelta(days=n) for n in range(-2, 3)]
    begin = instant(days[0] + timedelta(days=1)).timestamp()
    ticks = schedule_execution_time_iterator(
        begin, str(schedule.cron_schedule), schedule.execution_timezone
    )
    asked = []
    for day in days:
        tick = next(ticks)
        ended = day_start(day + timedelta(days=1), ZONE)
        delay = made.views.spend_3d.contract.landing_delay
        # Around a change the wall clock and the elapsed time are an hour apart.
        assert abs(tick - ended - delay) <= timedelta(hours=1), day
        with dg.build_schedule_context(
            made.instance,
            scheduled_execution_time=tick,
            repository_def=made.definitions.get_repository_def(),
        ) as context:
            (request,) = schedule.evaluate_tick(context).run_requests or []
        asked.append(request.partition_key)

    assert [str(day) for day in days] == asked


def test_the_schedule_runs_at_two_in_the_projects_zone(made: DagsterWorld) -> None:
    schedule = made.definitions.resolve_schedule_def("daily_after_landing")

    assert ("0 2 * * *", ZONE.key) == (schedule.cron_schedule, schedule.execution_timezone)


def sensor_tick(made: DagsterWorld, cursor: str | None = None) -> SensorExecutionData:
    sensor = made.definitions.resolve_sensor_def("new_files")
    with dg.build_sensor_context(
        made.instance, resources=made.definitions.resources, cursor=cursor
    ) as context:
        return sensor.evaluate_tick(context)


def test_a_late_file_asks_for_its_day_and_the_days_that_read_it(made: DagsterWorld) -> None:
    made.world.clock.now = instant(D9, 3)
    land_usual(made, *DAYS[:8])
    assert {} == failures(made.run(D1, D8))
    quiet = sensor_tick(made)
    made.land(D3, event("late", 7, D3, 5.0), file="late")

    tick = sensor_tick(made, quiet.cursor)
    (request,) = tick.run_requests or []
    again = sensor_tick(made, tick.cursor)
    run = made.definitions.resolve_job_def("daily").execute_in_process(
        instance=made.instance,
        tags=request.tags,
        asset_selection=list(request.asset_selection or []),
        raise_on_error=False,
    )

    assert [] == list(quiet.run_requests or [])
    assert [] == list(again.run_requests or [])
    asked = {key.path[-1] for key in request.asset_selection or []}
    assert {"events", "spend_3d", "spend_3d_online", "pace", "pace_online"} == asked
    assert run.success
    assert text(D3) == made.materialized("events", run).keys()
    # Three days whose window holds it, and the one that closes it.
    for name in ("spend_3d", "spend_3d_online", "pace", "pace_online"):
        assert text(D3, D4, D5, D6) == made.materialized(name, run).keys(), name
    assert 1 == made.revision(made.views.spend_3d, D7)
    of_7 = [made.world.rows(made.views.spend_3d, day).filter(user_id=7) for day in (D5, D6, D7)]
    assert [[5.0], [0.0], []] == [rows["amount_3d"].to_list() for rows in of_7]
    for cursor in (tick.cursor, None):
        assert [] == list(sensor_tick(made, cursor).run_requests or [])


PYPROJECT = '[tool.lockstep]\nviews = "{views}"\nroot = "lake"\ntime_zone = "America/New_York"\n'
GOOD_FILE = '''"""A view that works."""

import polars as pl

from lockstep import Entity, Feature, Features, Snapshot, feature_view

PERSON = Entity("person", {"person_id": pl.Int64}, "Somebody.")
FOLK = Snapshot(
    "folk", {"person_id": pl.Int64, "age": pl.Int64}, key="person_id", valid_from="always"
)


class Aged(Features, entity=PERSON, owner="team:tests", ttl=None):
    """How old somebody is."""

    age = Feature(pl.Int64, "Age.")


@feature_view(Aged, inputs=[FOLK.latest()])
def aged(folk: pl.LazyFrame) -> pl.LazyFrame:
    return folk.select("person_id", "age")
'''


def test_a_broken_view_file_is_shown_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = "views_of_test_dagster_runs"
    (tmp_path / views).mkdir()
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.format(views=views))
    (tmp_path / views / "aged.py").write_text(GOOD_FILE)
    (tmp_path / views / "torn.py").write_text("def torn(:\n")
    monkeypatch.setattr(sys, "path", [*sys.path])

    graph = definitions.load(tmp_path).resolve_asset_graph()

    names = {key.path[-1] for key in graph.get_all_asset_keys()}
    assert {"folk", "aged", "aged_online", "torn", "training_sets"} == names
    torn = graph.get(dg.AssetKey("torn"))
    assert "broken" == torn.group_name
    assert not torn.is_executable
    assert "torn.py" in (torn.description or "")
    assert "line 1" in (torn.description or "")
    assert graph.get(dg.AssetKey("aged")).is_executable
