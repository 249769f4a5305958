"""The sensor: runs and checks that failed are told once, and again when they have healed."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest
import redis

from lockstep.alerts.state import States
from tests.dagster_world import (
    D1,
    D2,
    D3,
    D4,
    DagsterWorld,
    crowded,
    dagster_world,
    unfilled,
    usual,
)
from tests.receivers import WebReceiver, web_receiver
from tests.scenario import START, instant

VIEWS = "pace profile spend_3d"

pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[DagsterWorld]:
    """Everything built and pushed, without Dagster, which is slower."""
    folder = tmp_path_factory.mktemp("alerts")
    with dagster_world(folder, redis_url, fill_rate=0.5) as opened:
        opened.world.clock.now = instant(D4, 3)
        for day in (D1, D2, D3):
            opened.land(day, *usual(day))
        opened.world.ingest_people()
        opened.world.ingest(START, D3)
        for view in opened.views.all:
            opened.world.build(view, D1, D3)
            opened.world.push(view)
        yield opened


@pytest.fixture
def made(built: DagsterWorld) -> DagsterWorld:
    """The world in the night after its newest day, with nobody told of anything."""
    built.world.clock.now = instant(D4, 3)
    built.world.store.lake.place.delete_all("alerts")
    return built


@pytest.fixture
def web() -> Iterator[WebReceiver]:
    with web_receiver() as running:
        yield running


def listen(made: DagsterWorld, web: WebReceiver) -> None:
    receivers = {"hook": {"type": "webhook", "url": web.url}}
    object.__setattr__(made.world.store.project, "alerts", {"receivers": receivers})


def tick(made: DagsterWorld, *, minutes: int = 0) -> str:
    """Let the sensor look, so many minutes later; return what it says."""
    made.world.clock.now += timedelta(minutes=minutes)
    sensor = made.definitions.resolve_sensor_def("alerts")
    with dg.build_sensor_context(made.instance, resources=made.definitions.resources) as context:
        found = sensor.evaluate_tick(context)
    assert [] == list(found.run_requests or [])
    return str(found.skip_message)


def news(web: WebReceiver) -> list[tuple[str, str, str]]:
    """Return kind, subject and standing of everything that was told, and forget it."""
    told = [
        (request.body["kind"], alert["subject"], alert["status"])
        for request in web.requests
        for alert in request.body["alerts"]
    ]
    web.requests.clear()
    return told


def open_problems(made: DagsterWorld) -> dict[str, Mapping[str, Any]]:
    episodes = States(made.world.store.lake.place).newest().episodes.values()
    return {ep.problem.key: vars(ep.problem) for ep in episodes if ep.healed is None}


def test_the_sensor_runs_from_the_start(made: DagsterWorld) -> None:
    sensor = made.definitions.resolve_sensor_def("alerts")

    assert dg.DefaultSensorStatus.RUNNING == sensor.default_status
    assert "0 problems are open; 0 messages sent, 0 failed." == tick(made)


def test_a_failed_run_is_told_once_and_again_when_another_has_succeeded(
    made: DagsterWorld, web: WebReceiver
) -> None:
    listen(made, web)
    with without_redis(made):
        assert not made.run(D1, D2, "spend_3d_online").success
    tick(made)
    (problem,) = (each for each in open_problems(made).values() if each["kind"] == "run_failed")
    assert [("run_failed", f"daily {D1}..{D2}", "new")] == news(web)
    assert f"lockstep materialize spend_3d --days {D1}..{D2}" == problem["fix"]
    assert "team:tests" == problem["owner"]
    assert "127.0.0.1" not in str(problem)

    tick(made, minutes=1)
    assert made.run(D1, D1, "spend_3d_online").success
    tick(made, minutes=1)
    assert [] == news(web), "a day of it is still missing"

    assert made.run(D2, D2, "spend_3d_online").success
    tick(made, minutes=1)
    assert [("run_failed", f"daily {D1}..{D2}", "resolved")] == news(web)
    tick(made, minutes=1)
    assert [] == news(web)


@contextmanager
def without_redis(made: DagsterWorld) -> Iterator[None]:
    """Let the store reach no server meanwhile."""
    project = made.world.store.project
    good = project.redis_url

    def reach(url: str | None) -> None:
        made.world.store.__dict__.pop("online_store", None)
        object.__setattr__(project, "redis_url", url)

    reach("redis://127.0.0.1:1/0")
    yield
    reach(good)


def test_what_a_run_of_everything_broke_a_run_of_what_is_missing_mends(
    made: DagsterWorld, web: WebReceiver
) -> None:
    listen(made, web)
    with without_redis(made):
        assert not made.run(D1).success, "like the schedule, which selects no asset"

    tick(made)
    (problem,) = run_problems(made)
    assert f"lockstep materialize {VIEWS} --days {D1}..{D1}" == problem["fix"]
    assert "team:tests" == problem["owner"]

    assert made.run(D1, D1, *(f"{name}_online" for name in VIEWS.split())).success
    tick(made, minutes=1)
    assert [] == run_problems(made)


def test_what_a_run_of_one_asset_broke_a_run_of_everything_mends(
    made: DagsterWorld, web: WebReceiver
) -> None:
    listen(made, web)
    with without_redis(made):
        assert not made.run(D2, None, "spend_3d_online").success
    tick(made)
    assert 1 == len(run_problems(made))

    assert made.run(D2).success
    tick(made, minutes=1)
    assert [] == run_problems(made)


def run_problems(made: DagsterWorld) -> list[Mapping[str, Any]]:
    return [each for each in open_problems(made).values() if each["kind"] == "run_failed"]


def test_a_run_that_failed_for_days_in_quarantine_is_told_as_quarantine_alone(
    made: DagsterWorld, web: WebReceiver
) -> None:
    listen(made, web)
    made.land(D3, *unfilled(D3), file="bad")
    made.world.ingest(D3, D3)
    assert not made.run(D3, D3, "spend_3d").success

    tick(made)
    assert [("quarantined", f"spend_3d {D3}", "new")] == news(web)

    made.land(D3, *crowded(D3), file="more")
    made.world.ingest(D3, D3)
    made.world.build(made.views.spend_3d, D3)
    made.world.push(made.views.spend_3d)
    tick(made, minutes=1)
    assert [("quarantined", f"spend_3d {D3}", "resolved")] == news(web)


def test_a_failed_parity_check_is_told_by_its_numbers_and_when_it_passes_again(
    made: DagsterWorld, web: WebReceiver
) -> None:
    listen(made, web)
    tick(made)
    lose_one_row(made)

    assert not made.state_of_the_world()["spend_3d_online:parity"].passed
    tick(made, minutes=1)
    assert [] == news(web), "what lasts a moment is mended by others"
    tick(made, minutes=16)
    problem = open_problems(made)["parity:check:spend_3d"]
    assert ("parity", "spend_3d", "new") in news(web)
    assert ("1", "lockstep parity spend_3d") == (problem["details"]["missing"], problem["fix"])
    assert "user_id" not in problem["sentence"]
    assert "(1,)" not in str(problem)

    made.world.store.push(made.views.spend_3d, rebuild=True)
    made.state_of_the_world()
    tick(made, minutes=1)
    assert ("parity", "spend_3d", "resolved") in news(web)
    assert {} == open_problems(made)


def lose_one_row(made: DagsterWorld) -> None:
    store = made.world.store
    with redis.Redis.from_url(str(store.project.redis_url)) as client:
        for key in client.keys(f"{store.project.namespace}*"):
            if b":i1:" in key and client.hdel(key, "spend_3d"):
                return
    message = "There is no row."
    raise AssertionError(message)


def test_what_cannot_be_delivered_stands_in_the_tick_and_is_tried_again(
    made: DagsterWorld, web: WebReceiver
) -> None:
    listen(made, web)
    web.statuses = [503]
    made.world.clock.now = instant(D4, 3) + timedelta(days=9)

    first = tick(made)
    second = tick(made, minutes=1)

    assert "0 messages sent, 1 failed." in first or "1 failed" in first
    assert "0 failed." in second
    assert "it answered with status 503" not in str(States(made.world.store.lake.place).newest())


def test_two_sensors_at_once_tell_once(made: DagsterWorld, web: WebReceiver) -> None:
    listen(made, web)
    made.world.clock.now = instant(D4, 3) + timedelta(days=9)
    threads = [threading.Thread(target=tick, args=(made,)) for _ in range(2)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    told = news(web)
    assert len(told) == len(set(told)) > 0
