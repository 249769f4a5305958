"""Bad input gets a clear error and loses nothing: each story with its exact message."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lockstep import Entity, Feature, Features, FeatureView, Source, feature_view
from lockstep.ingest import days_to_ingest, held_days, ingest
from lockstep.landing import breaks_schema
from lockstep.outcome import DayOutcome
from lockstep.quarantine import Quarantine, Quarantined
from lockstep.release import release_file
from tests.scenario import EVENTS, START, World, catalog_of, event, instant, world

D1, D2, D3 = (START + timedelta(days=n) for n in range(3))
BROKEN = f"{D2}.parquet"
NAIVE = "Datetime(time_unit='us', time_zone=None)"


@pytest.fixture
def made(tmp_path: Path) -> World:
    """Good files for days 1 and 3, nothing ingested."""
    made = world(tmp_path)
    made.land("events", [event("a", 1, D1)], f"{D1}.parquet")
    made.land("events", [event("c", 1, D3)], f"{D3}.parquet")
    return made


def folder(made: World) -> Path:
    return Path(made.store.project.landing) / "events"


def items(made: World) -> list[Quarantined]:
    return Quarantine(made.store.lake.quarantine).items("events")


def good_rows() -> pl.DataFrame:
    return pl.DataFrame([event("b", 1, D2), event("b2", 2, D2)], schema=EVENTS.file_types)


def change(*changes: pl.Expr) -> Callable[[Path], None]:
    return lambda path: good_rows().with_columns(changes).write_parquet(path)


def rename(path: Path) -> None:
    good_rows().rename({"amount": "value"}).write_parquet(path)


def no_parquet(path: Path) -> None:
    path.write_bytes(b"event_id,user_id\n1,2\n" * 10)


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    good_rows().write_parquet(path)
    path.write_bytes(path.read_bytes()[:-10])


def damaged(column: str) -> Callable[[Path], None]:
    """Overwrite the pages of one column; the footer stays right."""

    def write(path: Path) -> None:
        good_rows().select(column, pl.exclude(column)).write_parquet(path, compression="zstd")
        content = path.read_bytes()
        path.write_bytes(content[:4] + b"\xff" * 40 + content[44:])

    return write


STORIES = {
    "a renamed column": (
        rename,
        "column 'amount' is missing, expected Float64 (undeclared columns of the file: ['value'])",
    ),
    "a retyped column": (
        change(pl.col("user_id").cast(pl.String)),
        "column 'user_id': expected Int64, got String",
    ),
    "nanoseconds": (
        change(pl.col("at").dt.cast_time_unit("ns")),
        f"column 'at': expected {NAIVE}, got Datetime(time_unit='ns', time_zone=None)",
    ),
    "an aware time where wall clocks are declared": (
        change(pl.col("at").dt.replace_time_zone("UTC")),
        f"column 'at': expected {NAIVE}, got Datetime(time_unit='us', time_zone='UTC')",
    ),
    "a null key": (
        change(pl.Series("event_id", ["b", None])),
        "column 'event_id': expected a value in every row, as it identifies rows, got 1 nulls",
    ),
    "a null event time": (
        change(pl.lit(None, pl.Datetime("us")).alias("at")),
        "column 'at': expected a value in every row, as it identifies rows, got 2 nulls",
    ),
    "several at once": (
        change(pl.col("user_id").cast(pl.Int32), pl.col("kind").cast(pl.Binary)),
        "column 'user_id': expected Int64, got Int32; column 'kind': expected String, got Binary",
    ),
}


def check_day_2_is_refused(made: World, reason: str) -> list[DayOutcome]:
    """Only day 2 is refused, with the reason; the file is one open item of the quarantine."""
    outcomes = made.ingest(D1, D3)
    (item,) = items(made)

    assert ["committed", "refused", "committed"] == [outcome.status for outcome in outcomes]
    assert (True, "file", [str(D2)]) == (item.open, item.kind, item.days)
    assert outcomes[1].message == (
        f"{reason} The file is quarantined whole and events of {D2} was not written. Deliver it "
        "again as declared, or go on without it: lockstep quarantine release events "
        f"{item.item} --reason …"
    )
    assert {D1, D3} == set(made.store.committed(EVENTS))
    return outcomes


@pytest.mark.parametrize("story", list(STORIES))
def test_a_file_that_breaks_its_schema_is_refused_whole_and_says_how(
    made: World, story: str
) -> None:
    write, reason = STORIES[story]
    write(folder(made) / BROKEN)

    check_day_2_is_refused(made, f"events/{BROKEN}: {reason}.")
    assert ("null" not in story) == breaks_schema(items(made)[0].reason)


@pytest.mark.parametrize(
    "write",
    [no_parquet, nothing, truncated, damaged("at"), damaged("kind"), damaged("event_id")],
    ids=["text", "empty", "truncated", "damaged time", "damaged value", "damaged key"],
)
def test_a_file_that_can_not_be_read_is_refused_and_the_others_go_on(
    made: World, write: Callable[[Path], None]
) -> None:
    write(folder(made) / BROKEN)

    outcomes = made.ingest(D1, D3)

    assert ["committed", "refused", "committed"] == [outcome.status for outcome in outcomes]
    why = "is empty (0 bytes). The" if write is nothing else "can't be read as parquet: "
    assert outcomes[1].message.startswith(f"events/{BROKEN} {why}")
    assert ". The file is quarantined whole" in outcomes[1].message
    assert not breaks_schema(items(made)[0].reason)
    assert {D2} == set(held_days(made.store.lake, EVENTS))


def test_a_naive_time_where_instants_are_declared_is_refused(tmp_path: Path) -> None:
    aware = Source(
        "aware",
        {"id": pl.Int64, "at": pl.Datetime("us", "UTC")},
        event_time="at",
        unique_by=["id"],
        start=START,
    )
    made = world(tmp_path)
    path = Path(made.store.project.landing) / "aware" / f"{D1}.parquet"
    path.parent.mkdir(parents=True)
    pl.DataFrame({"id": [1], "at": [datetime(2026, 3, 1, 12)]}).write_parquet(path)

    (outcome,) = ingest(made.store.lake, aware, [D1], now=made.clock)

    assert outcome.message.startswith(
        f"aware/{D1}.parquet: column 'at': expected Datetime(time_unit='us', time_zone='UTC'), "
        "got Datetime(time_unit='us', time_zone=None)."
    )


def test_a_refused_file_stays_one_item_however_often_it_is_looked_at(made: World) -> None:
    rename(folder(made) / BROKEN)

    for _ in range(3):
        made.ingest(D1, D3)
        days_to_ingest(made.store.lake, EVENTS, made.clock.now)

    assert 1 == len(items(made))


def heal_by_replacing(made: World) -> None:
    good_rows().write_parquet(folder(made) / BROKEN)


def heal_by_delivering_another_and_removing_it(made: World) -> None:
    (folder(made) / BROKEN).unlink()
    good_rows().write_parquet(folder(made) / "again.parquet")


def heal_by_releasing(made: World) -> None:
    good_rows().write_parquet(folder(made) / "again.parquet")
    release_file(made.store.lake, items(made)[0], "delivered again", now=made.clock)


@pytest.mark.parametrize(
    "heal",
    [heal_by_replacing, heal_by_delivering_another_and_removing_it, heal_by_releasing],
)
def test_the_day_is_built_once_the_file_is_replaced_removed_or_released(
    made: World, heal: Callable[[World], None]
) -> None:
    rename(folder(made) / BROKEN)
    made.ingest(D1, D3)

    heal(made)
    waiting = days_to_ingest(made.store.lake, EVENTS, made.clock.now)
    (outcome,) = made.ingest(D2, D2)

    assert [D2] == list(waiting)
    assert ("committed", 2) == (outcome.status, outcome.rows)
    assert {} == held_days(made.store.lake, EVENTS)
    assert [False] == [item.open for item in items(made)]


def test_a_released_file_is_left_out_and_its_day_is_no_longer_held(made: World) -> None:
    made.land("events", [event("b", 1, D2)], "good.parquet")
    rename(folder(made) / BROKEN)
    made.ingest(D1, D3)

    release_file(made.store.lake, items(made)[0], "not needed", now=made.clock)
    (outcome,) = made.ingest(D2, D2)

    assert ("committed", 1) == (outcome.status, outcome.rows)


def test_a_broken_file_of_a_certified_day_changes_nothing_that_is_certified(made: World) -> None:
    made.land("events", [event("b", 1, D2)], "good.parquet")
    made.ingest(D1, D3)
    before = made.store.committed(EVENTS)

    rename(folder(made) / BROKEN)
    outcomes = made.ingest(D1, D3)

    assert ["unchanged", "refused", "unchanged"] == [outcome.status for outcome in outcomes]
    assert before == made.store.committed(EVENTS)


STRICT = replace(EVENTS, may_be_empty=False)


def test_a_day_without_rows_is_refused(made: World) -> None:
    outcomes = list(ingest(made.store.lake, STRICT, [D1, D2, D3], now=made.clock))

    assert ["committed", "refused", "committed"] == [outcome.status for outcome in outcomes]
    assert outcomes[1].message == (
        "No row of events has landed for 2026-03-02. If that is right, declare may_be_empty=True; "
        "if not, wait for the delivery. Nothing was written."
    )


def test_a_day_without_rows_is_built_if_an_empty_file_says_it_was_delivered(made: World) -> None:
    good_rows().clear().write_parquet(folder(made) / f"events-{D2}.parquet")

    outcomes = list(ingest(made.store.lake, STRICT, [D1, D2, D3], now=made.clock))

    assert ["committed", "committed", "committed"] == [outcome.status for outcome in outcomes]
    assert (0, 1) == (outcomes[1].rows, outcomes[1].revision)


def test_a_day_without_rows_is_built_if_that_is_normal(made: World) -> None:
    outcomes = made.ingest(D1, D3)

    assert [1, 0, 1] == [outcome.rows for outcome in outcomes]
    assert {D1, D2, D3} == set(made.store.committed(EVENTS))


def test_a_day_before_the_source_begins_is_refused(made: World) -> None:
    before = START - timedelta(days=1)

    (outcome,) = made.ingest(before, before)

    assert f"events starts on 2026-03-01. {before} was not written." == outcome.message


def test_duplicates_by_key_count_once_the_last_delivered_and_are_counted(made: World) -> None:
    made.land("events", [event("b", 1, D2, 1.0), event("b", 1, D2, 1.0)], "first.parquet")
    made.land("events", [event("b", 1, D2, 999.0)], "second.parquet")

    (outcome,) = made.ingest(D2, D2)

    assert (1, 2) == (outcome.rows, outcome.counts["duplicates_dropped"])
    assert outcome.frame is not None
    assert [999.0] == outcome.frame["amount"].to_list()


def test_undeclared_columns_and_other_files_are_ignored(made: World) -> None:
    change(pl.lit("x").alias("channel"), pl.lit(1).alias("Amount"))(folder(made) / BROKEN)
    (folder(made) / "_SUCCESS").write_text("")
    (folder(made) / "notes.csv").write_text("not for us")

    (outcome,) = made.ingest(D2, D2)

    assert ("committed", 2) == (outcome.status, outcome.rows)
    assert outcome.frame is not None
    assert list(EVENTS.columns) == outcome.frame.columns


def test_odd_wall_clock_times_are_moved_and_counted(tmp_path: Path) -> None:
    made = world(tmp_path)
    gap = {**event("gap", 1, date(2026, 3, 8)), "at": datetime(2026, 3, 8, 2, 30)}
    made.land("events", [gap, event("x", 1, date(2026, 3, 8))], "f.parquet")

    (outcome,) = made.ingest(date(2026, 3, 8), date(2026, 3, 8))

    assert (1, 0) == (outcome.counts["nonexistent_times"], outcome.counts["ambiguous_times"])
    assert outcome.frame is not None
    assert instant(date(2026, 3, 8), 3) + timedelta(minutes=30) == outcome.frame["event_time"][0]


HOSTILE = [
    "",
    " ",
    "\0",
    "*3\r\n$3\r\nDEL\r\n",
    "é",
    "e\u0301",
    "../../x",
    "s3:abc",
    "{a}:1",
    "a" * 900,
]
SHOP = Entity("shop", {"shop_id": pl.String}, "A shop.", buckets=4)
SALES = Source(
    "sales",
    {"shop_id": pl.String, "at": pl.Datetime("us", "UTC"), "amount": pl.Float64},
    event_time="at",
    unique_by=["shop_id", "at"],
    start=START,
)


def make_shops() -> FeatureView:
    class Shops(Features, entity=SHOP, owner="team:tests", ttl=None, min_rows=0):
        """What a shop sold."""

        amount = Feature(pl.Float64, "Sales.")

    @feature_view(Shops, inputs=[SALES.trailing(days=1)])
    def shops(sales: pl.LazyFrame) -> pl.LazyFrame:
        return sales.group_by("shop_id").agg(pl.col("amount").sum())

    return shops


def sell(made: World, names: list[str]) -> list[DayOutcome]:
    """Land, ingest and build one sale per shop; shop n sold n."""
    rows: dict[str, Any] = {"shop_id": names, "at": [instant(START, 9)] * len(names)}
    path = Path(made.store.project.landing) / "sales" / "f.parquet"
    path.parent.mkdir(parents=True)
    frame = pl.DataFrame({**rows, "amount": [float(n) for n in range(len(names))]})
    frame.cast({"at": pl.Datetime("us", "UTC")}).write_parquet(path)
    list(ingest(made.store.lake, SALES, [START], now=made.clock))
    return made.build(made.store.views["shops"], START)


def test_hostile_strings_as_keys_are_exact_offline_and_online(
    tmp_path: Path, redis_url: str
) -> None:
    made = world(tmp_path, redis_url=redis_url)
    made.store.__dict__["catalog"] = catalog_of([make_shops()])
    sell(made, HOSTILE)
    made.push(made.store.views["shops"])
    keys = [{"shop_id": name} for name in HOSTILE]
    spine = pl.DataFrame({"shop_id": HOSTILE, "at": [made.clock.now] * len(HOSTILE)})

    served = made.store.online(["shops:amount"], [*keys, {"shop_id": "a"}])
    joined = made.store.training_set(spine, ["shops:amount"], timestamp="at").frame

    expected = [float(n) for n in range(len(HOSTILE))]
    assert [*expected, None] == [row[0] for row in served.values]
    assert expected == joined["shops:amount"].to_list()
    assert made.store.parity("shops")[0].holds


def test_a_key_that_no_store_takes_is_quarantined_before_it_is_certified(tmp_path: Path) -> None:
    made = world(tmp_path)
    made.store.__dict__["catalog"] = catalog_of([make_shops()])

    (outcome,) = sell(made, ["good", "x" * 1025])

    assert outcome.message.startswith(
        "0 rows have a null key and 0 repeat another row's (shop_id), 1 are longer than 1024 "
        "bytes. A view has one row per shop. The day was quarantined as "
    )
