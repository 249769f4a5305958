"""The sensor that watches Redis: one incident is marked at once and makes one run that repairs it.

Also what a cursor that slipped back, or was lost, does to it and to the sensor of landed files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis

from lockstep.reconcile import Finding, Look
from lockstep.throttle import Throttle
from lockstep.time import as_of
from schedules.reconcile import FOUND, INCIDENT, attempt_after, run_requests
from tests.dagster_world import (
    D1,
    D2,
    D3,
    D4,
    DagsterWorld,
    dagster_world,
    failures,
    unfilled,
    usual,
)
from tests.scenario import START, ZONE, instant

pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")


@pytest.fixture
def made(tmp_path: Path, redis_url: str) -> Iterator[DagsterWorld]:
    with dagster_world(tmp_path, redis_url, fill_rate=0.5) as opened:
        opened.world.clock.now = instant(D4, 3)
        for day in (D1, D2, D3):
            opened.land(day, *usual(day))
        yield opened


def tick(made: DagsterWorld, name: str = "reconcile", cursor: str | None = None) -> Any:
    sensor = made.definitions.resolve_sensor_def(name)
    with dg.build_sensor_context(
        made.instance, resources=made.definitions.resources, cursor=cursor
    ) as context:
        return sensor.evaluate_tick(context)


def run(made: DagsterWorld, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    job = made.definitions.resolve_job_def("reconcile")
    return job.execute_in_process(
        instance=made.instance,
        run_config=request.run_config,
        tags=request.tags,
        raise_on_error=False,
    )


def push_all(made: DagsterWorld) -> None:
    """Build and push every view, without Dagster, which is slower."""
    world = made.world
    world.ingest_people()
    world.ingest(START, D3)
    for view in world.views.all:
        world.build(view, D1, D3)
        world.push(view)


def lose(made: DagsterWorld) -> None:
    """Delete every key of the project's namespace, as a flush would."""
    store = made.world.store
    with redis.Redis.from_url(str(store.project.redis_url)) as client:
        client.delete(*client.keys(f"{store.project.namespace}*"))


def test_one_incident_is_marked_in_the_tick_and_makes_one_run_that_repairs_it(
    made: DagsterWorld,
) -> None:
    push_all(made)
    quiet = tick(made)
    lose(made)

    noticed = tick(made)
    (request,) = noticed.run_requests or []
    online = made.world.store.online_store
    marked = set(online.notes("unready"))
    repaired = run(made, request)

    assert [] == list(quiet.run_requests or [])
    assert "3 views are online as they are committed." in str(quiet.skip_message)
    assert {"spend_3d", "profile", "pace"} == marked
    assert sorted(marked) == request.run_config["ops"]["rebuild_online"]["config"]["views"]
    assert repaired.success
    assert {} == online.notes("unready")
    assert all(found.holds for found in made.world.store.parity())
    assert [] == list(tick(made).run_requests or [])


def test_the_run_shows_findings_and_parity(made: DagsterWorld) -> None:
    push_all(made)
    tick(made)
    lose(made)
    (request,) = tick(made).run_requests or []

    repaired = run(made, request)
    (seen,) = made.instance.fetch_observations(dg.AssetKey("spend_3d_online"), limit=1).records

    told = {name: entry.value for name, entry in seen.asset_observation.metadata.items()}
    assert ("lost", True, 0) == (told["finding"], told["holds"], told["mismatch"])
    assert told["entities"] == told["equal"] == told["rows_written"] == 2
    assert "online equals offline" in told["parity"]
    (output,) = repaired.filter_events(
        lambda event: event.is_handled_output or event.is_successful_output
    )[:1]
    shown = output.step_output_data.metadata["repaired"].value
    assert "| spend_3d | lost |" in shown
    assert "pace: lost, profile: lost, spend_3d: lost" == ", ".join(
        sorted(request.tags[FOUND].split(", "))
    )


def test_the_run_spares_readers_of_other_views(
    made: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from schedules import reconcile

    throttles: list[Throttle] = []
    real = reconcile.paced
    monkeypatch.setattr(reconcile, "paced", lambda: throttles.append(real()) or throttles[-1])
    push_all(made)
    tick(made)
    lose(made)
    (request,) = tick(made).run_requests or []

    assert run(made, request).success
    assert 3 == len(throttles)
    assert all(each.limit is not None for each in throttles)


def test_a_cursor_that_slips_back_asks_for_the_same_run_and_loses_none(
    made: DagsterWorld,
) -> None:
    """Dagster starts one run per key, so asking twice is harmless; a lost tick is asked again."""
    push_all(made)
    first = tick(made)
    lose(made)
    noticed = tick(made, cursor=first.cursor)
    made.world.clock.now = made.world.clock.now.replace(minute=1, second=1)

    again = [tick(made, cursor=cursor) for cursor in (None, first.cursor, "no such view")]

    (asked,) = noticed.run_requests or []
    keys = {request.run_key for each in again for request in each.run_requests or []}
    incidents = {request.tags[INCIDENT] for each in again for request in each.run_requests or []}
    assert {asked.tags[INCIDENT]} == incidents
    assert {f"{asked.tags[INCIDENT]}:1"} == keys
    assert f"{asked.tags[INCIDENT]}:0" == asked.run_key


def test_the_next_incident_is_another_run(made: DagsterWorld) -> None:
    push_all(made)
    tick(made)
    keys = []
    for second in (1, 2):
        made.world.clock.now = made.world.clock.now.replace(second=second)
        lose(made)
        (request,) = tick(made).run_requests or []
        assert run(made, request).success
        keys.append(request.run_key)

    assert len(set(keys)) == 2


def test_a_repair_that_fails_says_so_and_is_asked_for_again(
    made: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lockstep import reconcile
    from lockstep.errors import OnlineError

    push_all(made)
    tick(made)
    lose(made)
    (request,) = tick(made).run_requests or []

    def refuse(*_: Any, **__: Any) -> Any:
        raise OnlineError("The server is full.")

    with monkeypatch.context() as patch:
        patch.setattr(reconcile, "push", refuse)
        failed = run(made, request)
    made.world.clock.now = made.world.clock.now.replace(minute=2)
    (again,) = tick(made).run_requests or []

    assert not failed.success
    assert "The server is full." in failures(failed)["rebuild_online"]
    assert request.run_key != again.run_key
    assert request.tags[INCIDENT] == again.tags[INCIDENT]
    assert run(made, again).success
    assert {} == made.world.store.online_store.notes("unready")


def test_while_a_repair_is_under_way_nothing_is_asked_for() -> None:
    at = as_of(D1, ZONE)
    seen = Look(at, ["a", "b"], [Finding("a", "lost", "Gone.", at)], [])
    (request,) = run_requests(seen, set())

    assert [] == list(run_requests(seen, {request.tags[INCIDENT]}))


def test_retries_come_at_growing_distances() -> None:
    due = [0, 60, 180, 420, 900, 1860]

    assert list(range(6)) == [attempt_after(seconds) for seconds in due]
    assert list(range(5)) == [attempt_after(seconds - 1) for seconds in due[1:]]
    assert 55 > attempt_after(24 * 3600) > 45


def test_a_project_whose_server_was_never_started_skips_the_tick(
    made: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made.world.store
    store.__dict__.pop("online_store", None)
    monkeypatch.setitem(store.project.__dict__, "redis_url", None)

    assert "Run `lockstep up`" in str(tick(made).skip_message)


def test_the_sensor_of_landed_files_asks_for_the_same_run_after_its_cursor_slipped_back(
    made: DagsterWorld,
) -> None:
    push_all(made)
    first = tick(made, "new_files")
    made.land(D1, *usual(D1), file="late")
    second = tick(made, "new_files", first.cursor)
    replayed = tick(made, "new_files", first.cursor)
    lost = tick(made, "new_files")

    def keys(of: Any) -> set[str]:
        return {request.run_key for request in of.run_requests or []}

    assert keys(second) == keys(replayed) == keys(lost)
    assert keys(second)
    assert set() == keys(tick(made, "new_files", second.cursor))


def test_a_push_by_hand_after_a_blocking_failure_refuses(made: DagsterWorld) -> None:
    assert made.run(D1, D2).success
    made.land(D3, *unfilled(D3), file="bad")
    failed = made.run(D3)
    before = dict(made.world.store.online_store.scan("user", "spend_3d"))

    by_hand = made.run(D3, None, "spend_3d_online")

    assert not failed.success
    assert not by_hand.success
    assert f"spend_3d of {D3} is not certified" in failures(by_hand)["spend_3d_online"]
    assert before == dict(made.world.store.online_store.scan("user", "spend_3d"))
