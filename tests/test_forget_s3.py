"""Erasure in a lake on S3: every object without the rows, the others' rows as they were."""

import io
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from lockstep.erasure.erase import Places, forget
from lockstep.erasure.forgetting import forgetting
from lockstep.throttle import paced
from tests.s3_server import BUCKET, S3, s3_server
from tests.s3_world import put, set_up
from tests.scenario import USER, World, event

DAYS = [date(2026, 3, 1) + timedelta(days=n) for n in range(4)]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as running:
        yield running


@pytest.fixture
def made(s3: S3, tmp_path: Path, redis_url: str) -> World:
    """Two users, one of whom bought in the first file, which the second one corrects."""
    root = f"s3://{BUCKET}/my team/lake"
    made = set_up(tmp_path, redis_url=redis_url, LOCKSTEP_ROOT=root, **s3.options)
    events = [event(f"a{n}", 1, day, n + 1.0) for n, day in enumerate(DAYS)]
    put(made, "events", [*events, event("b", 2, DAYS[2], 9.0)], "first.parquet")
    put(made, "events", [event("a3", 1, DAYS[3], 77.0)], "second.parquet")
    people = [{"user_id": 1, "country": "NZ"}, {"user_id": 2, "country": "AU"}]
    put(made, "people", people, "people.parquet")
    made.ingest(DAYS[0], DAYS[3])
    made.ingest_people()
    for view in made.views.all:
        made.build(view, DAYS[2], DAYS[3])
        made.push(view)
    return made


def objects(made: World) -> dict[str, pl.DataFrame]:
    """Every Parquet object of data, by path."""
    place = made.store.lake.place
    return {
        info.path: pl.read_parquet(io.BytesIO(place.read(info.path)), hive_partitioning=False)
        for info in place.list()
        if info.path.endswith(".parquet") and "/_delta_log/" not in info.path
    }


def test_no_object_holds_a_row_and_the_others_are_as_before(made: World) -> None:
    store = made.store
    whom = forgetting(USER, {"user_id": 2}, {"user": USER})
    places = Places(store.lake, store.catalog, store.online_store, made.clock, paced, landing=True)
    rows = {v.name: made.rows(v, DAYS[3]).filter(user_id=1).rows() for v in made.views.all}

    done = forget(places, whom)

    assert done.rows > 5
    assert not [
        path
        for path, frame in objects(made).items()
        if 2 in frame.to_dict(as_series=False).get("user_id", ())
    ]
    assert rows == {v.name: made.rows(v, DAYS[3]).rows() for v in made.views.all}
    assert all(found.holds for found in store.parity())
    assert {"unchanged"} == {outcome.status for outcome in made.ingest(DAYS[0], DAYS[3])}
    assert [] == list(forget(places, whom).removed)
