"""What upstream can do wrong: what is served stays right, and somebody is told in a sentence.

Every fault is put into landed files. `usage` is computed from them, a row per user and day, and is
pushed to a real server; what was certified before the fault is what is served after it.
"""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from feature_assets._metadata import source_day, view_day
from lockstep import Feature, Features, FeatureView, Snapshot, Source, feature_view
from lockstep.catalog import Catalog
from lockstep.ingest import ingest, ingest_snapshot
from lockstep.late import late_and_duplicate
from lockstep.outcome import DayOutcome
from lockstep.quarantine import Quarantine
from lockstep.status import source_facts, view_facts
from lockstep.store import Store
from tests.scenario import START, USER, ZONE, World, instant, world

D1, D2, D3 = (START + timedelta(days=n) for n in range(3))
FEATURES = ["usage:total", "usage:mean", "usage:units"]

READINGS = Source(
    "readings",
    {
        "reading_id": pl.Int64,
        "user_id": pl.Int64,
        "at": pl.Datetime("us", "UTC"),
        "value": pl.Float64,
        "units": pl.Int64,
    },
    event_time="at",
    unique_by=["reading_id"],
    start=START,
    may_be_empty=True,
)


def usage_view(fill_rate: float | None = None) -> FeatureView:
    class Usage(Features, entity=USER, owner="team:tests", ttl=None, min_rows=0):
        """What somebody used on a day."""

        total = Feature(pl.Float64, "Sum of the values.")
        mean = Feature(pl.Float64, "Mean of the values.", fill_rate=fill_rate)
        units = Feature(pl.Int64, "Sum of the units.")

    @feature_view(Usage, inputs=[READINGS.trailing(days=1)])
    def usage(readings: pl.LazyFrame) -> pl.LazyFrame:
        value = pl.col("value")
        return readings.group_by("user_id").agg(
            total=value.sum(), mean=value.mean(), units=pl.col("units").sum()
        )

    return usage


def opened(
    folder: Path,
    url: str | None = None,
    *,
    zone: ZoneInfo = ZONE,
    fill_rate: float | None = None,
) -> World:
    """A world that has readings and `usage` alone."""
    made = world(folder, redis_url=url)
    store = Store(replace(made.store.project, zone=zone), now=made.clock)
    view = usage_view(fill_rate)
    store.__dict__["catalog"] = Catalog(
        {USER.name: USER}, {READINGS.name: READINGS}, {}, {view.name: view}, {}, {}
    )
    return World(store, made.clock, made.views)


def usage_of(made: World) -> FeatureView:
    return made.store.views["usage"]


def reading(
    number: int, user: int, at: datetime, value: float | None = 1.0, units: int = 1
) -> dict[str, Any]:
    return {"reading_id": number, "user_id": user, "at": at, "value": value, "units": units}


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=READINGS.file_types)


def land(made: World, rows: pl.DataFrame, name: str) -> None:
    path = Path(made.store.project.landing) / "readings" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(path)


def take(made: World, *days: date) -> list[DayOutcome]:
    return list(ingest(made.store.lake, READINGS, days, now=made.clock))


def served(made: World, *users: int) -> list[list[Any]]:
    found = made.store.online(FEATURES, [{"user_id": user} for user in users]).values
    return [list(row) for row in found]


def done(made: World, *days: date) -> list[DayOutcome]:
    """Ingest, build and push the days; return what came of the view's."""
    take(made, *days)
    outcomes = made.build(usage_of(made), min(days), max(days))
    if made.store.committed(usage_of(made)):
        made.push(usage_of(made))
    return outcomes


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> World:
    """Day 1 is served; tests put a broken file for day 2 beside it."""
    made = opened(tmp_path_factory.mktemp("steady"), redis_url)
    land(made, frame(reading(1, 7, instant(D1, 9), 2.5)), f"{D1}")
    done(made, D1)
    return made


def micros(*values: int) -> pl.Expr:
    times = pl.Series("at", list(values), dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    return pl.lit(times).alias("at")


NEAR, FAR = 1_772_460_000_000_000, 4_070_908_800_000_000  # 2026-03-02 and 2099-01-01
EXPECTED = "expected Datetime(time_unit='us', time_zone='UTC'), got Datetime(time_unit="
REST = pl.exclude("at")
UPSTREAM: dict[str, tuple[list[pl.Expr], str]] = {
    "a zone that was dropped": (
        [REST, pl.col("at").dt.replace_time_zone(None)],
        f"column 'at': {EXPECTED}'us', time_zone=None)",
    ),
    "another zone": (
        [REST, pl.col("at").dt.convert_time_zone("America/New_York")],
        f"column 'at': {EXPECTED}'us', time_zone='America/New_York')",
    ),
    "milliseconds": (
        [REST, pl.col("at").dt.cast_time_unit("ms")],
        f"column 'at': {EXPECTED}'ms', time_zone='UTC')",
    ),
    "nanoseconds": (
        [REST, pl.col("at").dt.cast_time_unit("ns")],
        f"column 'at': {EXPECTED}'ns', time_zone='UTC')",
    ),
    "a dropped column": (
        [pl.exclude("units")],
        "column 'units' is missing, expected Int64",
    ),
    "a renamed column": (
        [pl.exclude("units"), pl.col("units").alias("count")],
        "column 'units' is missing, expected Int64 (undeclared columns of the file: ['count'])",
    ),
    "a null in the key": (
        [pl.exclude("reading_id"), pl.lit(pl.Series("reading_id", [2, None]))],
        "column 'reading_id': expected a value in every row, as it identifies rows, got 1 nulls",
    ),
    "a retyped column": (
        [pl.exclude("value"), pl.col("value").cast(pl.String)],
        "column 'value': expected Float64, got String",
    ),
    "a narrower column": (
        [pl.exclude("units"), pl.col("units").cast(pl.Int32)],
        "column 'units': expected Int64, got Int32",
    ),
    "the year 2099": ([REST, micros(NEAR, FAR)], "got 1 of 2 rows in the year 2099"),
    "a sentinel at the end of the calendar": (
        [REST, micros(NEAR, 253_402_300_799_000_000)],
        "got 1 of 2 rows in the year 9999",
    ),
    "nanoseconds that are called microseconds": (
        [REST, micros(NEAR * 1_000, NEAR)],
        "got 1 of 2 rows in the year 58137",
    ),
    "the least and the greatest number": (
        [REST, micros(-(2**63) + 1, 2**63 - 1)],
        "got 2 of 2 rows in the year -290308 to 294247",
    ),
    "a year before clocks": ([REST, micros(NEAR, -(2**61))], "got 1 of 2 rows in the year -71100"),
}


@pytest.mark.parametrize("story", list(UPSTREAM))
def test_a_file_that_is_not_as_declared_is_held_and_yesterday_is_served(
    steady: World, story: str
) -> None:
    changes, reason = UPSTREAM[story]
    good = frame(reading(2, 7, instant(D2, 9), 99.0), reading(3, 8, instant(D2, 9)))
    land(steady, good.select(changes), f"{D2}")

    (landed,) = take(steady, D2)
    (built,) = steady.build(usage_of(steady), D2)
    steady.push(usage_of(steady))

    assert "refused" == landed.status
    assert landed.message.startswith(f"readings/{D2}.parquet: column")
    assert f"{reason}. The file is quarantined whole and readings of {D2}" in landed.message
    (item,) = [i for i in Quarantine(steady.store.lake.quarantine).items("readings") if i.open]
    assert reason in item.reason
    assert "skipped" == built.status
    assert reason in built.message
    assert {D1} == set(steady.store.committed(READINGS))
    assert {D1} == set(steady.store.committed(usage_of(steady)))
    assert [[2.5, 2.5, 1], [None, None, None]] == served(steady, 7, 8)


def test_a_file_of_which_no_row_can_be_meant_may_touch_any_day_that_is_not_committed(
    tmp_path: Path,
) -> None:
    made = opened(tmp_path)
    land(made, frame(reading(1, 7, instant(D1, 9))), "first")
    take(made, D1)
    land(made, frame(reading(2, 7, datetime(2099, 1, 1, tzinfo=UTC))), "second")

    outcomes = take(made, D1, D2)

    assert ["unchanged", "refused"] == [outcome.status for outcome in outcomes]
    facts = source_facts(made.store.lake, READINGS)
    assert [("readings/second.parquet", None)] == [(held.path, held.days) for held in facts.held]


def test_a_column_that_nobody_declared_is_left_out_and_counted_by_its_name(tmp_path: Path) -> None:
    made = opened(tmp_path)
    rows = frame(reading(1, 7, instant(D1, 9)))
    land(made, rows.with_columns(channel=pl.lit("web"), tip=pl.lit(1)), "f")

    (outcome,) = take(made, D1)

    assert "committed" == outcome.status
    assert outcome.frame is not None
    assert list(READINGS.columns) == outcome.frame.columns
    shown = source_day(outcome, ZONE)
    assert (1, 1) == (shown["undeclared:channel"], shown["undeclared:tip"])


ODD_DAYS = [
    ("America/New_York", date(2024, 3, 10), "2024-03-10 05:00 to 2024-03-11 04:00, 23 h", 46),
    ("America/New_York", date(2024, 11, 3), "2024-11-03 04:00 to 2024-11-04 05:00, 25 h", 50),
    ("Europe/Berlin", date(2024, 3, 31), "2024-03-30 23:00 to 2024-03-31 22:00, 23 h", 46),
    ("Asia/Kolkata", date(2024, 3, 10), "2024-03-09 18:30 to 2024-03-10 18:30, 24 h", 48),
    ("Australia/Lord_Howe", date(2024, 10, 6), "2024-10-05 13:30 to 2024-10-06 13:00, 23.5 h", 47),
]


@pytest.mark.parametrize(("zone", "day", "shown", "half_hours"), ODD_DAYS)
def test_a_day_holds_the_rows_of_its_hours_and_shows_them_in_utc(
    tmp_path: Path,
    zone: str,
    day: date,
    shown: str,
    half_hours: int,
) -> None:
    made = opened(tmp_path, zone=ZoneInfo(zone))
    source = replace(READINGS, start=date(2024, 1, 1))
    view = replace(usage_view(), inputs=(source.trailing(days=1),))
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=1)
    times = [begin + timedelta(minutes=30 * n) for n in range(144)]
    land(made, frame(*(reading(n, 7, at) for n, at in enumerate(times))), "f")

    (bronze,) = ingest(made.store.lake, source, [day], now=made.clock)
    (built,) = made.build(view, day)

    assert built.frame is not None
    assert half_hours == bronze.rows == built.frame["units"].item()
    assert shown == source_day(bronze, ZoneInfo(zone))["day_in_utc"]
    of_view = view_day(view, built, pictures=False, zone=ZoneInfo(zone))
    assert shown == of_view["day_in_utc"]
    end = built.frame["event_timestamp"].item()
    assert shown.split(" to ")[1].startswith(f"{end:%Y-%m-%d %H:%M}, ")


def test_a_late_event_is_counted_and_served_once_its_stale_day_is_built_again(
    tmp_path: Path, redis_url: str
) -> None:
    made = opened(tmp_path, redis_url)
    view, lake = usage_of(made), made.store.lake
    land(made, frame(reading(1, 7, instant(D1, 9))), "first")
    done(made, D1)

    land(made, frame(reading(2, 7, instant(D1, 10), 5.0)), "late")
    waiting = source_facts(lake, READINGS).waiting
    (outcome,) = take(made, D1)
    before = served(made, 7)
    stale = view_facts(lake, view, made.store.reader(), made.clock()).stale
    found = late_and_duplicate(lake, READINGS, made.clock(), [view], made.store.reader())
    (corrected,) = done(made, D1)

    assert [D1] == list(waiting) == list(stale)
    assert (1, 2) == (outcome.counts["late_rows"], outcome.revision)
    assert found is not None
    assert found.sentence.endswith(f"Not computed with them yet: usage {D1}.")
    assert [[1.0, 1.0, 1]] == before
    assert ("committed", 2) == (corrected.status, corrected.revision)
    assert [[6.0, 3.0, 2]] == served(made, 7)
    assert [] == view_facts(lake, view, made.store.reader(), made.clock()).stale
    assert made.store.parity()[0].holds


def test_an_event_of_next_year_waits_for_its_day_and_pins_nobody(
    tmp_path: Path, redis_url: str
) -> None:
    made = opened(tmp_path, redis_url)
    ahead = made.clock() + timedelta(days=300, hours=12)
    land(made, frame(reading(1, 7, instant(D1, 9)), reading(2, 7, ahead, 99.0)), "first")

    done(made, D1)
    first = served(made, 7)
    land(made, frame(reading(1, 7, instant(D2, 9), 3.0)), "second")
    done(made, D2)

    assert [[1.0, 1.0, 1]] == first
    assert [[3.0, 3.0, 1]] == served(made, 7)
    (early,) = take(made, ahead.date())
    assert f"{ahead.date()} has not ended. readings of it was not written." == early.message
    assert [ahead.date()] == list(source_facts(made.store.lake, READINGS).waiting)


def test_a_row_of_a_snapshot_from_the_far_future_does_not_count_yet(tmp_path: Path) -> None:
    plans = Snapshot(
        "plans",
        {"user_id": pl.Int64, "since": pl.Datetime("us", "UTC"), "plan": pl.String},
        key="user_id",
        valid_from="since",
    )

    class Plan(Features, entity=USER, owner="team:tests", ttl=None):
        """Which plan somebody is on."""

        plan = Feature(pl.String, "The plan.")

    @feature_view(Plan, inputs=[plans.latest()])
    def plan(plans: pl.LazyFrame) -> pl.LazyFrame:
        return plans.select("user_id", "plan")

    made = opened(tmp_path)
    since = [instant(D1, 1), datetime(2099, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]
    rows = {"user_id": [7, 7, 7], "since": since, "plan": ["now", "later", "never"]}
    path = Path(made.store.project.landing) / "plans" / "f.parquet"
    path.parent.mkdir(parents=True)
    pl.DataFrame(rows, schema=plans.columns).write_parquet(path)
    ingest_snapshot(made.store.lake, plans, now=made.clock)

    (outcome,) = made.build(plan, D2)

    assert outcome.frame is not None
    assert ["now"] == outcome.frame["plan"].to_list()


MOST = 2**62


def test_a_sum_that_wraps_around_is_quarantined_and_named(tmp_path: Path, redis_url: str) -> None:
    made = opened(tmp_path, redis_url)
    land(made, frame(reading(1, 7, instant(D1, 9), units=5)), "first")
    done(made, D1)
    many = [reading(n, 7, instant(D2, 9), units=MOST) for n in range(2, 5)]
    land(made, frame(*many, reading(5, 8, instant(D2, 9), units=MOST)), "second")

    (outcome,) = done(made, D2)

    said = (
        "units is wrong in 1 rows: the sum of readings.units does not fit its whole-number type "
        "and wraps around. Add them up as pl.Float64 or pl.Decimal: cast the column before the sum."
    )
    assert "quarantined" == outcome.status
    assert outcome.message.startswith(said)
    (contract,) = [verdict for verdict in outcome.verdicts if verdict.check == "contract"]
    assert contract.blocks
    assert {"wrapped:units": 1} == contract.numbers
    assert {D1} == set(made.store.committed(usage_of(made)))
    assert [[1.0, 1.0, 5], [None, None, None]] == served(made, 7, 8)


def test_the_sum_of_nothing_but_nulls_is_zero_and_its_mean_null_on_every_side(
    tmp_path: Path, redis_url: str
) -> None:
    made = opened(tmp_path, redis_url)
    land(made, frame(reading(1, 7, instant(D1, 9), None)), "f")
    spine = pl.DataFrame({"user_id": [7], "at": [made.clock()]})

    done(made, D1)

    joined = made.store.training_set(spine, FEATURES, timestamp="at").frame
    assert [(7, 0.0, None, 1)] == made.rows(usage_of(made), D1).drop("event_timestamp").rows()
    assert [[0.0, None, 1]] == served(made, 7)
    assert [(0.0, None, 1)] == joined.select(FEATURES).rows()
    statuses = made.store.online(FEATURES, [{"user_id": 7}]).statuses
    assert [["present", "null", "present"]] == statuses


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_flood_of_nulls_or_nan_is_quarantined_and_yesterday_grows_older(
    tmp_path: Path, redis_url: str, missing: float | None
) -> None:
    made = opened(tmp_path, redis_url, fill_rate=0.5)
    made.clock.now = instant(D2, 3)
    land(made, frame(reading(1, 7, instant(D1, 9), 2.5)), "first")
    done(made, D1)
    made.clock.now = instant(D3, 3)
    flooded = [reading(n, n, instant(D2, 9), missing if n < 8 else 1.0) for n in range(2, 12)]
    land(made, frame(*flooded), "second")

    (outcome,) = done(made, D2)

    assert "quarantined" == outcome.status
    assert outcome.message.startswith(
        "mean is filled in 40.0% of 10 rows, less than the promised 50.0%."
    )
    assert {D1} == set(made.store.committed(usage_of(made)))
    vectors = made.store.online(FEATURES, [{"user_id": 7}])
    assert [[2.5, 2.5, 1]] == vectors.values
    assert [27 * 3600.0] == vectors.age_seconds("usage")


def test_an_empty_day_is_built_and_is_not_one_that_was_never_built(
    tmp_path: Path, redis_url: str
) -> None:
    made = opened(tmp_path, redis_url)
    land(made, frame(reading(1, 7, instant(D1, 9))), "f")

    outcomes = done(made, D1, D2)
    (missing,) = made.build(usage_of(made), D3)

    assert [("committed", 1, 1), ("committed", 1, 0)] == [
        (outcome.status, outcome.revision, outcome.rows) for outcome in outcomes
    ]
    assert 0 == view_day(usage_of(made), outcomes[1], pictures=False, zone=ZONE)["rows"]
    assert f"usage of {D3} needs readings, and {D3} is not committed." in missing.message
    assert [D1, D2] == sorted(made.store.committed(usage_of(made)))
    assert [[1.0, 1.0, 1]] == served(made, 7)
    assert made.store.parity()[0].holds


def test_ids_that_multiply_by_a_hundred_are_stopped_before_redis_holds_one_of_them(
    tmp_path: Path, redis_url: str
) -> None:
    made = opened(tmp_path, redis_url)
    days = [START + timedelta(days=n) for n in range(8)]
    usual = [reading(n * 100 + u, u, instant(d, 9)) for n, d in enumerate(days) for u in range(12)]
    exploded = [reading(10_000 + u, u, instant(days[7], 10)) for u in range(12, 1_200)]
    land(made, frame(*usual, *exploded), "f")
    take(made, *days)

    outcomes = done(made, *days)

    assert ["committed"] * 7 + ["quarantined"] == [outcome.status for outcome in outcomes]
    assert outcomes[7].message.startswith(
        "The day has 1,200 rows, 100.0 times the 12 of the 7 earlier days (their median), more "
        "than max_growth=10.0."
    )
    (cardinality,) = [v for v in outcomes[7].verdicts if v.check == "cardinality"]
    assert (0.99, 1_188) == (
        cardinality.numbers["new_entity_rate"],
        cardinality.numbers["entities_new"],
    )
    assert 12 == len(list(made.store.online_store.scan("user", "usage")))
    assert [[1.0, 1.0, 1], [None, None, None]] == served(made, 3, 500)
