"""What Dagster shows of a push: its receipt and its rate, also where it failed; and the sweep."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lockstep.codec import bucket_of, encode_key
from tests.dagster_world import D3, D4, D5, D6, D7, DagsterWorld, dagster_world, usual
from tests.scenario import instant

# Dagster calls what it deprecates, where a resource inside a resource has settings.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

WINDOW = [D3, D4, D5]


@pytest.fixture
def made(tmp_path: Path, redis_url: str) -> Iterator[DagsterWorld]:
    with dagster_world(tmp_path, redis_url) as opened:
        for day in WINDOW:
            opened.land(day, *usual(day))
        yield opened


def test_a_push_shows_its_receipt_and_its_rate(made: DagsterWorld) -> None:
    made.run(D5)

    shown = made.materialized("spend_3d_online")[str(D5)]

    receipt = {name: shown[name] for name in ("rows_written", "rows_failed", "rows_superseded")}
    assert {"rows_written": 2, "rows_failed": 0, "rows_superseded": 0} == receipt
    assert {"rows_per_second", "seconds"} <= shown.keys()
    assert shown["buckets_sealed"] == 4


def test_a_push_that_failed_shows_what_was_acknowledged(made: DagsterWorld, redis_url: str) -> None:
    made.run(D5)
    made.land(D6, *usual(D6))
    made.world.clock.now = instant(D7, 3)
    key = encode_key([1])
    name = made.world.store.online_store.names.entity_key("user", bucket_of(key, 4), key)
    with redis.Redis.from_url(redis_url) as raw:
        raw.delete(name)
        raw.set(name, "somebody else's")

        run = made.run(D6)

        raw.delete(name)
    (failed,) = [e for e in run.all_events if e.step_key == "spend_3d_online" and e.is_step_failure]
    told = failed.step_failure_data.user_failure_data
    assert told is not None
    assert "WRONGTYPE" in str(told.description)
    assert {"rows_written", "rows_failed", "buckets_sealed"} <= told.metadata.keys()
    assert 0 == told.metadata["buckets_sealed"].value
    assert made.run(D6).success
    assert made.world.store.parity("spend_3d")[0].holds


def test_the_sweep_is_a_job_that_says_what_it_removed(made: DagsterWorld) -> None:
    made.run(D5)

    swept = made.definitions.resolve_job_def("sweep").execute_in_process(instance=made.instance)

    assert swept.success
    (handled,) = [event for event in swept.all_events if event.is_successful_output]
    numbers = {k: v.value for k, v in handled.step_output_data.metadata.items()}
    assert numbers["undeclared"] == 0
    assert numbers["entities"] >= 2


def test_small_files_are_put_together_by_a_job_that_says_how_many(made: DagsterWorld) -> None:
    made.run(D5)
    made.run(D6)
    before = made.world.store.lake.latest_entries("spend_3d")

    done = made.definitions.resolve_job_def("compact").execute_in_process(instance=made.instance)

    assert done.success
    (handled,) = [event for event in done.all_events if event.is_successful_output]
    told = {k: v.value for k, v in handled.step_output_data.metadata.items()}
    assert "files became 1" in told["ledger"]
    assert before == made.world.store.lake.latest_entries("spend_3d")
