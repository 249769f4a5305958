"""The checks on the state of the world as Dagster runs them: sources, and the hourly ones."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from checks.world import watched_closely, world_checks
from feature_assets.sources import SERVED_FEATURES
from lockstep.time import days_between
from schedules.daily import world_job, world_schedule
from tests.dagster_world import DagsterWorld, dagster_world
from tests.scenario import EVENTS, START, event, instant

pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

LAST = START + timedelta(days=14)
DAYS = days_between(START, LAST)


@pytest.fixture
def made(tmp_path: Path, redis_url: str) -> Iterator[DagsterWorld]:
    """Fifteen ingested days; on the last two every event lies four hours before its usual hour."""
    with dagster_world(tmp_path, redis_url, now=instant(LAST + timedelta(days=1), 3)) as opened:
        for day in DAYS:
            early = 4 if day >= DAYS[-2] else 0
            events = [event(f"{day}/{n}", n, day, hour=11 + n % 3 - early) for n in range(1, 61)]
            opened.land(day, *events)
        opened.world.ingest(START, LAST)
        yield opened


def only(made: DagsterWorld, *names: str) -> dict[str, dg.AssetCheckEvaluation]:
    """Run some of the checks of `events`, as a person does who runs one again."""
    keys = [dg.AssetCheckKey(dg.AssetKey("events"), name) for name in names]
    job = made.definitions.resolve_job_def("state_of_the_world")
    job = job.get_subset(asset_check_selection=set(keys))
    result = job.execute_in_process(instance=made.instance)
    assert result.success
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def test_a_shift_is_shown_with_its_offset_days_zones_and_a_picture(made: DagsterWorld) -> None:
    found = only(made, "zone_shift")

    assert {"zone_shift"} == found.keys()
    one = found["zone_shift"]
    shown = {name: value.value for name, value in one.metadata.items()}
    assert (False, dg.AssetCheckSeverity.ERROR) == (one.passed, one.severity)
    assert -4.0 == shown["offset_hours"]
    assert (str(DAYS[-2]), str(LAST), 2) == (shown["first_day"], shown["last_day"], shown["days"])
    assert "America/" in shown["zones"]
    assert shown["hours"].startswith("![usual (grey) and shifted (blue)](data:image/svg+xml")
    assert len(shown["hours"]) < 1_000
    assert shown["runbook"] == "docs/runbooks/zone_shift.md"
    assert one.description is not None
    assert "events: the event times of" in one.description


def test_late_rows_and_the_days_that_wait_for_them_are_shown(made: DagsterWorld) -> None:
    before = only(made, "late_and_duplicate")["late_and_duplicate"]
    made.land(DAYS[3], *(event(f"late {n}", n, DAYS[3]) for n in range(40)), file="late")
    made.world.clock.now += timedelta(hours=1)
    made.world.ingest(DAYS[3], DAYS[3])

    after = only(made, "late_and_duplicate")["late_and_duplicate"]

    assert (True, False) == (before.passed, after.passed)
    assert dg.AssetCheckSeverity.WARN == after.severity
    assert 40 == after.metadata["late"].value
    assert "docs/runbooks/late_data.md" == after.metadata["runbook"].value


def compared(made: DagsterWorld) -> dg.AssetCheckEvaluation:
    """Run the check `parity` of `spend_3d`."""
    key = dg.AssetCheckKey(dg.AssetKey("spend_3d_online"), "parity")
    job = made.definitions.resolve_job_def("state_of_the_world")
    result = job.get_subset(asset_check_selection={key}).execute_in_process(instance=made.instance)
    (found,) = result.get_asset_check_evaluations()
    return found


def test_a_backfill_that_computes_for_an_hour_fails_no_parity_check_until_it_stops(
    made: DagsterWorld,
) -> None:
    """Its days are committed by and by, and pushed last; nothing was pushed before."""
    seen = []
    for day in DAYS[-5:-2]:
        made.world.build(made.views.spend_3d, day)
        made.world.clock.now += timedelta(minutes=25)
        seen.append(compared(made))
    made.world.clock.now += timedelta(minutes=5)
    dead = compared(made)
    made.world.push(made.views.spend_3d)
    pushed = compared(made)

    assert [True, True, True, False, True] == [one.passed for one in (*seen, dead, pushed)]
    assert "spend_3d: 3 days are committed and not pushed yet" in (seen[-1].description or "")
    assert 3 == seen[-1].metadata["unsealed_days"].value
    assert "Repair: lockstep push spend_3d" in (dead.description or "")


def test_a_day_that_waits_is_told_all_the_same_to_who_asks(made: DagsterWorld) -> None:
    made.world.build(made.views.spend_3d, DAYS[-5])
    made.world.push(made.views.spend_3d)
    made.world.build(made.views.spend_3d, DAYS[-4])

    (asked,) = made.world.store.parity("spend_3d")

    assert compared(made).passed
    assert not asked.holds
    assert "1 day is committed and not pushed yet" in asked.sentence
    assert "Repair: lockstep push spend_3d" in asked.sentence


def test_what_may_be_empty_is_named_where_its_age_is_not_asked(made: DagsterWorld) -> None:
    catalog, view = made.world.store.catalog, made.views.spend_3d
    strict = replace(view.inputs[0], of=replace(EVENTS, may_be_empty=False))
    asked = replace(view, name="asked", inputs=(strict,))
    checks = world_checks(replace(catalog, views={**catalog.views, "asked": asked}))
    said = {
        spec.asset_key.path[-1]: str(spec.description)
        for check in checks
        for spec in check.check_specs
        if spec.name == "freshness"
    }

    assert said["asked"].endswith("; an empty run can't reset it.")
    assert "unless what is empty is events: a day may bring no rows of it" in said["spend_3d"]
    assert "unless what is empty is events:" in said["pace"], "through the view that it reads"
    assert "unless what is empty is people:" in said["profile"]


def test_every_hour_all_checks_run_and_in_between_those_that_change_in_minutes(
    made: DagsterWorld,
) -> None:
    catalog = made.world.store.catalog
    logged = {**catalog.sources, "served_features": SERVED_FEATURES}
    keys = [
        key for check in world_checks(replace(catalog, sources=logged)) for key in check.check_keys
    ]
    closely = watched_closely(keys)
    schedule = world_schedule(world_job(keys), keys, closely)

    def asked(minute: int) -> set[str]:
        at = datetime(2026, 3, 10, 5, minute, tzinfo=UTC)
        with dg.build_schedule_context(scheduled_execution_time=at) as context:
            ticked = schedule.evaluate_tick(context)
        (request,) = ticked.run_requests or ()
        return {key.name for key in request.asset_check_keys or ()}

    assert {"freshness", "parity"} == asked(10) == asked(50)
    everything = {"freshness", "parity", "served_drift", "zone_shift", "late_and_duplicate"}
    assert everything == asked(0)
    assert 3 * len(catalog.views) + 2 * len(logged) == len(keys)
