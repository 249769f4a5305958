"""G10: zone, unit, precision, width, null and NaN never change silently; no window is short."""

import math
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lockstep import Feature, Features, FeatureView, Source, feature_view, local
from lockstep.errors import DeclarationError
from lockstep.ingest import ingest
from lockstep.outcome import DayOutcome
from tests.scenario import EVENTS, START, USER, World, catalog_of, event, instant, world

INF, NAN = float("inf"), float("nan")
CENT = pl.Decimal(12, 2)
HOSTILE = [
    "",
    " a ",
    "\0",
    "*3\r\n$3\r\nSET\r\n",
    "é",
    "e\u0301",
    "../../x",
    "'; --",
    "\U0001d7d8",
    "null",
]
NESTED = pl.Struct({"a": pl.Int64, "b": pl.List(pl.String)})

# Every type of the closed list, with the values that other paths lose.
COLUMNS: dict[str, tuple[pl.DataType, list[Any]]] = {
    "i8": (pl.Int8(), [-128, 127, None, 0]),
    "i16": (pl.Int16(), [-(2**15), 2**15 - 1, None, 0]),
    "i32": (pl.Int32(), [-(2**31), 2**31 - 1, None, 0]),
    "i64": (pl.Int64(), [2**53 + 1, None, -(2**63), 2**63 - 1]),
    "f32": (pl.Float32(), [0.10000000149011612, NAN, None, -INF]),
    "f64": (pl.Float64(), [0.1 + 0.2, NAN, None, INF]),
    "tiny": (pl.Float64(), [5e-324, -5e-324, 1.7976931348623157e308, 0.0]),
    "flag": (pl.Boolean(), [True, False, None, True]),
    "text": (pl.String(), ["", None, "*3\r\n$", "e\u0301"]),
    "raw": (pl.Binary(), [b"", None, b"\x00\xff\r\n", b"\xc3"]),
    "on": (pl.Date(), [date(1, 1, 1), date(9999, 12, 31), None, date(1969, 12, 31)]),
    "when": (
        pl.Datetime("us", "UTC"),
        [
            datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
            None,
            datetime(2262, 4, 12, tzinfo=UTC),
            datetime(2026, 3, 8, 7, 0, 0, 1, UTC),
        ],
    ),
    "price": (CENT, [Decimal("0.10"), None, Decimal("-9999999999.99"), Decimal("0.00")]),
    "many": (pl.List(pl.Int64), [[2**53 + 1, None], [], None, [-1]]),
    "floats": (pl.List(pl.Float64), [[NAN, INF, None], [], None, [0.0]]),
    "nested": (
        NESTED,
        [{"a": 2**53 + 1, "b": ["", None]}, {"a": None, "b": []}, None, {"a": 1, "b": None}],
    ),
}
TYPES = {name: dtype for name, (dtype, _) in COLUMNS.items()}

EVERYTHING = Source(
    "everything",
    {"user_id": pl.Int64, "at": pl.Datetime("us", "UTC"), **TYPES},
    event_time="at",
    unique_by=["user_id", "at"],
    start=START,
)


def make_view() -> FeatureView:
    columns = {name: Feature(dtype, f"A value of {dtype}.") for name, dtype in TYPES.items()}
    contract = type(
        "Everything",
        (Features,),
        {"__doc__": "Every type.", **columns},
        entity=USER,
        owner="team:tests",
        ttl=None,
        min_rows=0,
    )

    @feature_view(contract, inputs=[EVERYTHING.trailing(days=1)])
    def all_types(everything: pl.LazyFrame) -> pl.LazyFrame:
        return everything.select("user_id", *TYPES)

    return all_types


def words(value: Any) -> Any:
    """Return a value in a form that tells apart NaN, -0.0, None, 1 and 1.0, to the last bit."""
    if isinstance(value, float):
        return ("nan",) if math.isnan(value) else ("float", struct.pack(">d", value))
    if isinstance(value, dict):
        return {name: words(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, pl.Series)):
        return [words(item) for item in value]
    return (type(value).__name__, value)


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> World:
    """Four users with a row of every type on the first day, built and pushed."""
    made = world(tmp_path_factory.mktemp("types"), redis_url=redis_url)
    view = make_view()
    made.store.__dict__["catalog"] = catalog_of([view])
    made.clock.now = instant(date(2026, 3, 2), 3)
    rows = pl.DataFrame(
        {
            "user_id": [1, 2, 3, 4],
            "at": [instant(START, 12)] * 4,
            **{name: pl.Series(values, dtype=TYPES[name]) for name, (_, values) in COLUMNS.items()},
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )
    path = Path(made.store.project.landing) / "everything" / "rows.parquet"
    path.parent.mkdir(parents=True)
    rows.write_parquet(path)
    (bronze,) = ingest(made.store.lake, EVERYTHING, [START], now=made.clock)
    assert ("committed", 4) == (bronze.status, bronze.rows)
    (built,) = made.build(view, START)
    assert "committed" == built.status, built.message
    made.push(view)
    return made


@pytest.mark.parametrize("name", list(COLUMNS))
def test_every_type_arrives_everywhere_exactly_as_it_left(typed: World, name: str) -> None:
    expected = [words(value) for value in COLUMNS[name][1]]
    users = [{"user_id": user} for user in (1, 2, 3, 4)]
    feature = f"all_types:{name}"
    spine = pl.DataFrame({"user_id": [1, 2, 3, 4], "at": [typed.clock.now] * 4})

    bronze = typed.store.lake.table(EVERYTHING).read_day(START).sort("user_id")
    offline = typed.rows(typed.store.views["all_types"], START)
    joined = typed.store.training_set(spine, [feature], timestamp="at").frame
    served = typed.store.online([feature], users)

    assert expected == [words(value) for value in bronze[name].to_list()]
    assert expected == [words(value) for value in offline[name].to_list()]
    assert expected == [words(value) for value in joined[feature].to_list()]
    assert expected == [words(row[0]) for row in served.values]
    assert expected == [words(value) for value in served.to_frame()[feature].to_list()]
    types = {bronze.schema[name], offline.schema[name], joined.schema[feature], served.types[0]}
    assert {TYPES[name]} == types


def test_online_equals_offline_for_every_type(typed: World) -> None:
    assert typed.store.parity()[0].holds


def test_minus_zero_and_foreign_nans_become_the_one_zero_and_the_one_nan(
    tmp_path: Path, redis_url: str
) -> None:
    made = world(tmp_path, redis_url=redis_url)
    foreign = struct.unpack(">d", b"\xff\xf8\x00\x00\x00\x00\x00\x01")[0]
    made.land("events", [event("a", 1, START, -0.0), event("b", 2, START, foreign)], "f.parquet")

    made.ingest(START, START)

    stored = made.store.lake.table(EVENTS).read_day(START).sort("user_id")["amount"]
    assert [(0.0).hex(), "nan"] == [value.hex() for value in stored]
    assert b"\x7f\xf8\0\0\0\0\0\0" == struct.pack(">d", stored[1])


def test_hostile_strings_as_values_are_exact(typed: World, tmp_path: Path) -> None:
    made = world(tmp_path)
    rows = [{**event(f"e{n}", n, START), "kind": text} for n, text in enumerate(HOSTILE)]
    made.land("events", rows, "f.parquet")

    made.ingest(START, START)

    stored = made.store.lake.table(EVENTS).read_day(START).sort("user_id")
    assert HOSTILE == stored["kind"].to_list()


DAYS = [START + timedelta(days=n) for n in range(7)]


def reasons(outcomes: Sequence[DayOutcome]) -> dict[date, str]:
    return {outcome.day: outcome.message for outcome in outcomes if outcome.status == "skipped"}


def with_a_gap(made: World) -> World:
    """Days 1 to 7 without day 4; one user who was there on day 4 only."""
    rows = [event(str(d), 1, d) for d in DAYS]
    made.land("events", [*rows, event("only", 2, DAYS[3])], "f.parquet")
    made.ingest(DAYS[0], DAYS[2])
    made.ingest(DAYS[4], DAYS[6])
    return made


def check_no_window_is_short(made: World) -> None:
    """A day missing inside the window is named, and so is the start of the source."""
    outcomes = with_a_gap(made).build(made.views.spend_3d, DAYS[0], DAYS[6])

    before = (
        "spend_3d of {} reaches before its sources begin. Expected 2026-03-03 or later. Ask for "
        "later days, or declare partial_windows=True. The day was skipped."
    )
    gap = (
        "spend_3d of {} needs events, and 2026-03-04 is not committed. Materialize events first; "
        "the day is built when the gap closes. The day was skipped."
    )
    assert reasons(outcomes) == {
        **{day: before.format(day) for day in DAYS[:2]},
        **{day: gap.format(day) for day in DAYS[3:6]},
    }
    assert {DAYS[2], DAYS[6]} == set(made.store.committed(made.views.spend_3d))


def test_no_window_is_short_and_the_missing_day_is_named(tmp_path: Path) -> None:
    check_no_window_is_short(world(tmp_path))


def test_once_the_gap_closes_every_day_is_as_if_there_had_been_none(tmp_path: Path) -> None:
    made = world(tmp_path / "gap")
    check_no_window_is_short(made)
    made.ingest(DAYS[3], DAYS[3])
    whole = world(tmp_path / "whole")
    with_a_gap(whole).ingest(DAYS[3], DAYS[3])

    made.build(made.views.spend_3d, DAYS[2], DAYS[6])
    whole.build(whole.views.spend_3d, DAYS[2], DAYS[6])

    hashes = [
        {day: record.content_hash for day, record in w.store.committed(w.views.spend_3d).items()}
        for w in (made, whole)
    ]
    assert hashes[0] == hashes[1]
    assert 5 == len(hashes[0])
    last = made.rows(made.views.spend_3d, DAYS[6]).select("user_id", "amount_3d")
    assert [(1, 3.0), (2, 0.0)] == last.rows()  # user 2 just left the window


def test_a_day_that_a_refused_file_touches_is_missing_though_it_was_committed(
    tmp_path: Path,
) -> None:
    made = world(tmp_path)
    made.land("events", [event(str(d), 1, d) for d in DAYS], "f.parquet")
    made.ingest(DAYS[0], DAYS[6])
    broken = pl.DataFrame({"at": [datetime(2026, 3, 4, 12)], "user_id": ["1"]})
    broken.write_parquet(Path(made.store.project.landing) / "events" / "broken.parquet")
    made.ingest(DAYS[0], DAYS[6])

    outcomes = made.build(made.views.spend_3d, DAYS[2], DAYS[6])

    assert DAYS[3:6] == list(reasons(outcomes))
    assert reasons(outcomes)[DAYS[3]].startswith(
        "spend_3d of 2026-03-04 needs events, and 2026-03-04 is not committed. Held back: "
        "events/broken.parquet: column 'event_id' is missing, expected String; column 'user_id': "
        "expected Int64, got String;"
    )


@pytest.mark.parametrize(
    ("column", "change", "got"),
    [
        ("at", pl.col("at").dt.cast_time_unit("ns"), "Datetime(time_unit='ns', time_zone=None)"),
        ("at", pl.col("at").dt.cast_time_unit("ms"), "Datetime(time_unit='ms', time_zone=None)"),
        (
            "at",
            pl.col("at").dt.replace_time_zone("UTC"),
            "Datetime(time_unit='us', time_zone='UTC')",
        ),
        ("at", pl.col("at").cast(pl.Date), "Date"),
        ("at", pl.col("at").cast(pl.String), "String"),
        ("amount", pl.col("amount").cast(pl.Float32), "Float32"),
        ("amount", pl.col("amount").cast(pl.Int64), "Int64"),
        ("amount", pl.col("amount").cast(CENT), "Decimal(precision=12, scale=2)"),
        ("user_id", pl.col("user_id").cast(pl.Int32), "Int32"),
        ("user_id", pl.col("user_id").cast(pl.UInt64), "UInt64"),
        ("user_id", pl.col("user_id").cast(pl.Float64), "Float64"),
        ("kind", pl.col("kind").cast(pl.Binary), "Binary"),
    ],
)
def test_a_changed_unit_zone_width_or_type_in_a_landed_file_is_refused(
    tmp_path: Path, column: str, change: pl.Expr, got: str
) -> None:
    made = world(tmp_path)
    path = made.land("events", [event("a", 1, START)], f"{START}.parquet")
    pl.read_parquet(path).with_columns(change).write_parquet(path)

    (outcome,) = made.ingest(START, START)

    assert "refused" == outcome.status
    assert outcome.message.startswith(
        f"events/{START}.parquet: column {column!r}: expected "
        f"{EVENTS.file_types[column]}, got {got}. The file is quarantined whole and events of "
        f"{START} was not written."
    )
    assert {} == dict(made.store.committed(EVENTS))


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (pl.UInt32, "Delta Lake has no unsigned integers, so the column would come back as Int32"),
        (pl.Datetime("us"), "has no time zone, so its instants are anybody's guess"),
        (pl.Datetime("ns", "UTC"), "counts ns, which Delta Lake changes to us"),
        (pl.Datetime("us", "Asia/Tokyo"), "has a zone other than UTC"),
        (pl.Categorical, "The type does not survive Delta Lake and Redis"),
        (pl.List(pl.UInt8), "Delta Lake has no unsigned integers"),
        (pl.Struct({"x": pl.Duration}), "The type does not survive Delta Lake and Redis"),
    ],
)
def test_a_type_that_would_change_on_the_way_can_not_be_declared(dtype: Any, message: str) -> None:
    class Wrong(Features, entity=USER, owner="team:tests"):
        """It has one wrong column."""

        value = Feature(dtype, "A value.")

    with pytest.raises(DeclarationError) as raised:
        feature_view(Wrong, inputs=[EVENTS.trailing(days=1)])(lambda events: events)

    assert message in str(raised.value)


def check_local_hours_are_those_of_the_wall_clock() -> None:
    """Around both changes of the clocks in the project's zone, New York."""
    noons = [datetime(2026, *day, 12) for day in ((3, 7), (3, 8), (10, 31), (11, 1))]
    frame = pl.DataFrame({"event_time": [instant(noon.date(), 12) for noon in noons]})

    hours = frame.select(local("event_time").dt.hour())["event_time"].to_list()

    assert [12, 12, 12, 12] == hours
    assert [17, 16, 16, 17] == frame["event_time"].dt.hour().to_list()


def test_local_hours_are_those_of_the_wall_clock() -> None:
    check_local_hours_are_those_of_the_wall_clock()


def test_a_day_that_has_not_ended_is_neither_ingested_nor_built(tmp_path: Path) -> None:
    """Its rows are still to come: the day, and every window with it, would be short."""
    made = world(tmp_path)
    made.land("events", [event(str(d), 1, d) for d in DAYS], "f.parquet")
    made.clock.now = instant(DAYS[4]) - timedelta(microseconds=1)

    landed = made.ingest(DAYS[0], DAYS[3])
    built = made.build(made.views.spend_3d, DAYS[2], DAYS[3])
    made.clock.now = instant(DAYS[4])
    later = made.ingest(DAYS[3], DAYS[3])

    assert ["committed"] * 3 + ["refused"] == [outcome.status for outcome in landed]
    assert "2026-03-04 has not ended. events of it was not written." == landed[3].message
    assert ["committed", "skipped"] == [outcome.status for outcome in built]
    assert "spend_3d of 2026-03-04 was skipped: the day has not ended." == built[1].message
    assert ["committed"] == [outcome.status for outcome in later]
