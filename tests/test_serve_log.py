"""The served-feature log: what was answered lands, is ingested, and never costs a request."""

import asyncio
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import polars as pl
import pytest

from feature_assets.sources import SERVED_FEATURES
from lockstep.errors import StoreError
from lockstep.ingest import days_to_ingest, ingest
from lockstep.keys import encode_key
from lockstep.lake import Lake
from lockstep.online import Vectors
from lockstep.serving.plan import Plan, compile_plan
from lockstep.serving.served_log import SCHEMA, SOURCE, ServedLog, sampled
from lockstep.stores.files import open_place
from tests.serving_world import (
    CASES,
    NOW,
    YESTERDAY,
    Clock,
    Running,
    make_catalog,
    new_namespace,
    project_at,
    push_all,
    running,
)

HALF = 2**31


@pytest.fixture(scope="module")
def namespace(redis_url: str) -> str:
    made = new_namespace()
    push_all(redis_url, made, make_catalog())
    return made


@pytest.fixture
def logged(
    redis_url: str, namespace: str, tmp_path: Path
) -> Callable[[Callable[[Running], Any]], pl.DataFrame]:
    """What is in the log after some requests and a stop."""

    def run(ask: Callable[[Running], Any], **settings: Any) -> pl.DataFrame:
        chosen = {"served_log_rate": 1.0, "served_log_seconds": 3600, **settings}
        with running(redis_url, namespace, tmp_path, **chosen) as served:
            ask(served)
        files = sorted((tmp_path / "lake" / "landing").rglob("*.parquet"))
        frames = [pl.read_parquet(file) for file in files]
        return pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA)

    return run


def test_what_was_answered_is_in_the_log_when_the_service_has_stopped(logged: Any) -> None:
    replies = []

    rows = logged(
        lambda served: replies.append(
            served.post(
                "/v1/features",
                {"feature_set": "spending_v1", "entities": {"user_id": [1, 5, 6, 8]}},
                Accept="*/*",
            ).json
        )
    )

    amounts = rows.filter(feature="amount").sort("key")
    assert SCHEMA == dict(rows.schema)
    assert 8 == rows.height
    assert [10.5, None, None, None] == amounts["number"].to_list()
    assert ["present", "expired", "null", "missing"] == amounts["status"].to_list()
    assert ["i1:1", "i1:5", "i1:6", "i1:8"] == amounts["key"].to_list()
    assert YESTERDAY == amounts["event_timestamp"][0]
    assert {NOW} == set(rows["served_at"])
    assert {replies[0]["trace_id"]} == set(rows["trace_id"])
    assert {"spending_v1"} == set(rows["feature_set"])
    assert {("spend", "user")} == set(rows.select("view", "entity").iter_rows())


def test_every_type_has_an_exact_text_or_number(logged: Any) -> None:
    rows = logged(lambda served: served.features("everything_v1", [1, 2, 3, 4]))

    found = {name: rows.filter(feature=name).sort("key") for name in CASES}
    assert [str(value) for value in CASES["int64"][1]] == found["int64"]["text"].to_list()
    assert CASES["float64"][1] == found["float64"]["number"].to_list()
    assert [None] * 4 == found["float64"]["text"].to_list()
    assert ["true", "false", None, None] == found["bool"]["text"].to_list()
    assert "2025-01-02T03:04:05.678901Z" == found["ts_us"]["text"][0]
    assert "1.2345" == found["decimal"]["text"][0]
    assert '[0.1,"NaN"]' == found["list_float"]["text"][0]
    assert "AP8=" == found["bytes"]["text"][0]
    assert ["NaN", "inf", "-inf"] == [
        str(x).replace("nan", "NaN") for x in found["float64_nan_inf"]["number"][:3]
    ]


def test_columns_that_identify_people_are_masked(logged: Any) -> None:
    rows = logged(lambda served: served.features(["contact:email", "contact:city"], [1]))

    email, city = rows.sort("feature", descending=True).iter_rows(named=True)
    assert ("email", "present", None, None) == (
        email["feature"],
        email["status"],
        email["text"],
        email["number"],
    )
    assert "Kraków" == city["text"]


def test_an_entity_is_followed_completely_or_not_at_all(logged: Any) -> None:
    users = list(range(400))

    def ask(served: Running) -> None:
        served.features("spending_v1", users)
        served.features(["contact:city"], users)
        served.get("/v1/feature-sets/spending_v1?user_id=1&user_id=2")
        served.post(
            "/get-online-features", {"features": ["spend:tier"], "entities": {"user_id": users}}
        )

    rows = logged(ask, served_log_rate=0.5)

    expected = [f"i{len(str(at))}:{at}" for at in users]
    followed = {expected[at] for at in sampled([key.encode() for key in expected], HALF)}
    by_feature = rows.group_by("view", "feature").agg(pl.col("key").unique())
    assert 150 < len(followed) < 250
    assert 4 == by_feature.height
    assert all(followed == set(keys) for keys in by_feature["key"])


def test_at_rate_zero_nothing_is_written(logged: Any) -> None:
    rows = logged(lambda served: served.features("spending_v1", [1]), served_log_rate=0.0)

    assert 0 == rows.height


def test_dagsters_source_takes_in_what_has_landed(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    """The same path as any source: landed files, days, bronze; twice is once."""
    clock = Clock()
    settings = {"served_log_rate": 1.0, "served_log_seconds": 3600}
    with running(redis_url, namespace, tmp_path, now=clock, **settings) as served:
        served.features("spending_v1", [1, 2, 2])
        clock.now += timedelta(days=1)
        served.features("spending_v1", [3])
    lake = Lake(project_at(tmp_path, namespace))
    later = NOW + timedelta(days=3)

    def now() -> datetime:
        return later

    days = list(days_to_ingest(lake, SERVED_FEATURES, later))
    outcomes = list(ingest(lake, SERVED_FEATURES, days, now=now))
    again = days_to_ingest(lake, SERVED_FEATURES, later)

    assert [date(2026, 11, 22), date(2026, 11, 23)] == days
    assert ["committed"] * 2 == [outcome.status for outcome in outcomes]
    assert [4, 2] == [outcome.rows for outcome in outcomes]
    assert {} == again
    first = outcomes[0].frame
    assert first is not None
    assert [10.5, 20.0] == first.filter(feature="amount").sort("key")["number"].to_list()


def test_the_declared_source_is_what_the_log_writes() -> None:
    assert SOURCE == SERVED_FEATURES.name
    assert SCHEMA == SERVED_FEATURES.file_types
    assert SERVED_FEATURES.may_be_empty


def test_a_landing_zone_that_cannot_be_written_fails_no_request(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "lake").write_text("a file where a folder is needed")
    settings = {"served_log_rate": 1.0, "served_log_seconds": 0.05}
    with running(redis_url, namespace, tmp_path, **settings) as served:
        statuses = {served.features("spending_v1", [1]).status for _ in range(20)}
        while b"lockstep_served_log_dropped_total 0.0" in served.get("/metrics").body:
            pass
        dropped = served.get("/metrics").body

    assert {200} == statuses
    assert b"lockstep_served_log_cells_total 0.0" in dropped


def test_what_has_no_room_is_dropped_and_counted(tmp_path: Path) -> None:
    plan = compile_plan(make_catalog(), "spending_v1")

    async def run() -> tuple[int, int]:
        log = ServedLog(lambda: open_place(str(tmp_path / "landing")), 1.0, 3600, room=10)
        log.start()
        log.add(plan, vectors_of(plan), "a" * 32)
        log.add(plan, vectors_of(plan), "b" * 32)
        await log.close(20)
        return log.written, log.dropped

    assert (10, 10) == asyncio.run(run())


def test_whatever_goes_wrong_costs_what_was_to_be_written_and_not_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = compile_plan(make_catalog(), "spending_v1")
    failing = True

    def place() -> Any:
        if failing:
            message = "No space left on device"
            raise OSError(message)
        return open_place(str(tmp_path / "landing"))

    async def run() -> tuple[int, int]:
        nonlocal failing
        log = ServedLog(place, 1.0, 0.01)
        log.start()
        log.add(plan, vectors_of(plan), "a" * 32)
        while not log.dropped:  # noqa: ASYNC110 - nothing tells of it but the number
            await asyncio.sleep(0)
        unfit = replace(vectors_of(plan), event_us={})
        log.add(plan, unfit, "b" * 32)
        while log.dropped == 10:  # noqa: ASYNC110
            await asyncio.sleep(0)
        failing = False
        log.add(plan, vectors_of(plan), "c" * 32)
        await log.close(20)
        return log.written, log.dropped

    assert (10, 20) == asyncio.run(run())
    assert "No space left on device" in caplog.text
    assert "could not be taken into the log" in caplog.text


def vectors_of(plan: Plan) -> Vectors:
    """An answer about five users who have nothing."""
    count = 5
    return Vectors(
        key_columns={"user_id": list(range(count))},
        features=plan.features,
        types=plan.types,
        columns=[[None] * count for _ in plan.features],
        cells=[["missing"] * count for _ in plan.features],
        event_us={"spend": [None] * count},
        at=NOW,
        keys=[[encode_key([user]) for user in range(count)]],
    )


class Watched(float):
    """A value whose end can be seen."""


def test_what_waits_to_be_written_holds_sampled_rows_alone(tmp_path: Path) -> None:
    """A request of hundreds of entities, of which few are sampled, must not be kept whole."""
    plan = compile_plan(make_catalog(), ["spend:amount", "strict:score", "shops:open_days"])
    users = range(500)
    keys = [
        [encode_key([user]) for user in users],
        [encode_key(["pl", f"{user}"]) for user in users],
    ]
    columns: list[list[Any]] = [[Watched(user) for user in users] for _ in plan.features]
    seen = [[weakref.ref(value) for value in column] for column in columns]
    vectors = Vectors(
        key_columns={},
        features=plan.features,
        types=plan.types,
        columns=columns,
        cells=[["present"] * 500 for _ in plan.features],
        event_us={view.name: [0] * 500 for view in plan.views},
        at=NOW,
        keys=keys,
    )

    log = ServedLog(lambda: open_place(str(tmp_path)), 0.05, 3600)

    log.add(plan, vectors, "a" * 32)
    del vectors, columns
    alive = [[at for at, value in enumerate(column) if value() is not None] for column in seen]

    by_user, by_shop = (sampled(each, int(0.05 * 2**32)) for each in keys)
    assert [by_user, by_user, by_shop] == alive
    assert 10 < len(by_user) < 50
    assert by_user != by_shop


def test_which_entities_are_followed_is_the_same_everywhere() -> None:
    """A number that any other process, release or language gets, too: the CRC-32 of the key."""
    keys = [encode_key([user]) for user in range(100_000, 200_000)]
    keys += [encode_key([f"user-{user:06x}"]) for user in range(100_000)]

    assert 0xCBF43926 == crc32(b"123456789")
    assert [0] == sampled([b"123456789"], 0xCBF43926 + 1)
    assert [] == sampled([b"123456789"], 0xCBF43926)
    assert 1800 < len(sampled(keys, int(0.01 * 2**32))) < 2200


def test_a_slow_store_does_not_hold_up_the_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is on its way to the store, and what waits behind it, is dropped and counted."""
    plan = compile_plan(make_catalog(), "spending_v1")
    asked, answers = threading.Event(), threading.Event()

    def place() -> Any:
        asked.set()
        answers.wait()
        return open_place(str(tmp_path))

    async def run() -> tuple[int, int]:
        log = ServedLog(place, 1.0, 0.001)
        log.start()
        log.add(plan, vectors_of(plan), "a" * 32)
        while not asked.is_set():  # noqa: ASYNC110 - a thread tells of it
            await asyncio.sleep(0)
        log.add(plan, vectors_of(plan), "b" * 32)
        await log.close(0.01)
        return log.written, log.dropped

    before = set(threading.enumerate())
    found = asyncio.run(run())
    left = [thread for thread in threading.enumerate() if thread not in before]
    answers.set()

    assert (0, 20) == found
    assert [True] == [thread.daemon for thread in left]  # the one that writes holds nobody up
    assert "20 cells are dropped" in caplog.text


def test_a_panic_of_polars_costs_rows_of_the_log_and_not_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A panic is no Exception: nobody may wait for a thread that ended with one."""
    plan = compile_plan(make_catalog(), "spending_v1")

    def panics(_: object) -> Any:
        raise pl.exceptions.PanicException

    async def run() -> tuple[int, int]:
        log = ServedLog(lambda: open_place(str(tmp_path)), 1.0, 3600)
        log.start()
        log.add(plan, vectors_of(plan), "a" * 32)
        await log.close(10)
        return log.written, log.dropped

    with monkeypatch.context() as patch:
        patch.setattr("lockstep.serving.served_log.rows_of", panics)
        assert (0, 10) == asyncio.run(run())
    assert "could not be made into rows" in caplog.text


def test_a_place_that_cannot_even_be_opened_costs_only_the_log(tmp_path: Path) -> None:
    def place() -> Any:
        message = "The store does not answer."
        raise StoreError(message)

    async def run() -> tuple[int, int]:
        plan = compile_plan(make_catalog(), "spending_v1")
        log = ServedLog(place, 1.0, 3600)
        log.start()
        log.add(plan, vectors_of(plan), "a" * 32)
        await log.close(20)
        return log.written, log.dropped

    assert (0, 10) == asyncio.run(run())
