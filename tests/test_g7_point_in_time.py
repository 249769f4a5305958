"""G7: a training row holds no value that was not valid at its timestamp; against a naive oracle."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockstep.errors import InputError
from lockstep.time import INSTANT, as_of, days_between
from lockstep.training import Joined, point_in_time
from tests.scenario import START, World, event, instant, world

ZONE = ZoneInfo("America/New_York")
ROWS = pl.Schema({"k": pl.Int64, "event_timestamp": INSTANT, "v": pl.Float64, "n": pl.String})
SPINE = pl.Schema({"k": pl.Int64, "at": INSTANT, "label": pl.Int64})
MOMENT = timedelta(microseconds=1)

# Ends of civil days around a change of the clocks, and the instants just beside them.
ENDS = [as_of(day, ZONE) for day in days_between(date(2026, 3, 5), date(2026, 3, 11))]
ENDS += [as_of(day, ZONE) for day in days_between(date(2026, 10, 30), date(2026, 11, 3))]
INSTANTS = st.builds(
    lambda end, off: end + off,
    st.sampled_from(ENDS),
    st.sampled_from([timedelta(0), -MOMENT, MOMENT, timedelta(hours=23), timedelta(hours=25)]),
)
KEYS = st.one_of(st.integers(1, 3), st.just(2**53 + 1))
VALUES = st.one_of(st.none(), st.just(float("nan")), st.floats(-5, 5))
VIEW_ROWS = st.lists(
    st.tuples(KEYS, INSTANTS, VALUES, st.one_of(st.none(), st.sampled_from(["", "a", "é"]))),
    max_size=25,
)
SPINE_ROWS = st.lists(
    st.tuples(st.one_of(st.none(), KEYS), st.one_of(st.none(), INSTANTS)), max_size=25
)
TTLS = st.sampled_from([None, timedelta(hours=24), timedelta(hours=25), timedelta(days=2)])


def naive(
    rows: Sequence[tuple[Any, ...]], key: int | None, at: datetime | None, ttl: timedelta | None
) -> tuple[Any, ...]:
    """Look at every row: the latest valid one, of equal ones the last; nulls if there is none."""
    best = None
    for row in rows:
        if key is None or at is None or row[0] != key or row[1] > at:
            continue
        if ttl is not None and row[1] + ttl < at:
            continue
        if best is None or row[1] >= best[1]:
            best = row
    return (None, None) if best is None else best[2:]


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether the cells agree; NaN equals NaN and differs from null."""
    return [repr(cell) for cell in one] == [repr(cell) for cell in other]


def check_against_the_oracle(
    rows: list[tuple[Any, ...]], spine: list[tuple[Any, ...]], ttl: timedelta | None
) -> None:
    frame = pl.DataFrame(
        [(*row, label) for label, row in enumerate(spine)], schema=SPINE, orient="row"
    )
    view = Joined("v", ["k"], ["v", "n"], pl.LazyFrame(rows, schema=ROWS, orient="row"), ttl)

    found = point_in_time(frame, "at", [view])

    assert frame.rows() == found.select(frame.columns).rows()
    assert ["k", "at", "label", "v:v", "v:n"] == found.columns
    for (key, at), cells in zip(spine, found.select("v:v", "v:n").rows(), strict=True):
        assert same(naive(rows, key, at, ttl), cells)


@settings(max_examples=250)
@given(VIEW_ROWS, SPINE_ROWS, TTLS)
@example([(1, ENDS[0], 1.0, "a"), (1, ENDS[0], 2.0, "b")], [(1, ENDS[0])], None)
@example([(1, ENDS[2], 9.0, "late"), (1, ENDS[0], 1.0, "a")], [(1, ENDS[1])], None)
@example([(1, ENDS[0], 1.0, "a")], [(1, ENDS[0] + timedelta(hours=24))], timedelta(hours=24))
@example([(1, ENDS[0], 1.0, "a")], [], None)
@example([], [(1, ENDS[0]), (None, None)], None)
def test_every_cell_is_what_a_naive_look_at_every_row_finds(
    rows: list[tuple[Any, ...]], spine: list[tuple[Any, ...]], ttl: timedelta | None
) -> None:
    check_against_the_oracle(rows, spine, ttl)


def check_unsorted_rows_leak_nothing() -> None:
    """Rows of two keys in falling order: the earlier spine row must not see the later value."""
    falling = [
        (k, end, float(n), "x") for n, end in reversed(list(enumerate(ENDS))) for k in (1, 2)
    ]
    check_against_the_oracle(falling, [(1, ENDS[3]), (2, ENDS[1]), (1, ENDS[0] - MOMENT)], None)


def check_of_equal_rows_the_last_counts() -> None:
    twice = [(1, ENDS[0], 1.0, "first"), (1, ENDS[0], 2.0, "last"), (2, ENDS[0], 3.0, "other")]
    check_against_the_oracle(twice, [(1, ENDS[1]), (2, ENDS[0])], None)


def check_both_ends_of_the_ttl_are_inside() -> None:
    ttl = timedelta(days=2)
    spine = [(1, ENDS[0] + off) for off in (-MOMENT, timedelta(0), ttl, ttl + MOMENT)]
    check_against_the_oracle([(1, ENDS[0], 1.0, "a")], spine, ttl)


@pytest.mark.parametrize(
    "check",
    [
        check_unsorted_rows_leak_nothing,
        check_of_equal_rows_the_last_counts,
        check_both_ends_of_the_ttl_are_inside,
    ],
)
def test_the_join_keeps_its_rules(check: Any) -> None:
    check()


def test_views_of_several_keys_are_joined_by_their_own() -> None:
    pairs = pl.LazyFrame(
        {"k": [1, 1], "shop": ["a", "b"], "event_timestamp": [ENDS[0]] * 2, "v": [1.0, 2.0]},
        schema_overrides={"event_timestamp": INSTANT},
    )
    rows = pl.LazyFrame([(1, ENDS[0], 7.0, None)], schema=ROWS, orient="row")
    spine = pl.DataFrame(
        {"shop": ["b", "c"], "k": [1, 1], "at": [ENDS[1]] * 2}, schema_overrides={"at": INSTANT}
    )
    views = [Joined("p", ["k", "shop"], ["v"], pairs, None), Joined("v", ["k"], ["v"], rows, None)]

    found = point_in_time(spine, "at", views)

    assert [2.0, None] == found["p:v"].to_list()
    assert [7.0, 7.0] == found["v:v"].to_list()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One user, days 3 and 4 of the scenario's windowed view."""
    made = world(tmp_path_factory.mktemp("g7"))
    made.land("events", [event("a", 1, START, 10.0), event("b", 1, date(2026, 3, 4))], "f.parquet")
    made.ingest(START, date(2026, 3, 4))
    made.build(made.views.spend_3d, date(2026, 3, 3), date(2026, 3, 4))
    return made


FEATURE = "spend_3d:amount_3d"


def test_a_naive_timestamp_is_refused_unless_its_zone_is_given(built: World) -> None:
    spine = pl.DataFrame({"user_id": [1], "at": [datetime(2026, 3, 4, 0, 0)]})

    with pytest.raises(InputError) as raised:
        built.store.training_set(spine, [FEATURE], timestamp="at")
    joined = built.store.training_set(
        spine, [FEATURE], timestamp="at", time_zone="America/New_York"
    )
    as_utc = built.store.training_set(spine, [FEATURE], timestamp="at", time_zone="UTC")

    assert str(raised.value) == (
        "The spine's 'at' is Datetime(time_unit='us', time_zone=None). Expected "
        "Datetime(time_unit='us', time_zone='UTC'). Convert it; a naive time needs its zone: "
        "time_zone='America/New_York' (command line: --time-zone). Nothing was joined."
    )
    assert [10.0] == joined[FEATURE].to_list()
    assert [None] == as_utc[FEATURE].to_list()
    assert [datetime(2026, 3, 4)] == joined["at"].to_list()


@pytest.mark.parametrize("dtype", [pl.Date, pl.String, pl.Int64])
def test_what_is_no_instant_is_refused(built: World, dtype: type[pl.DataType]) -> None:
    spine = pl.DataFrame({"user_id": [1], "at": [None]}, schema_overrides={"at": dtype})

    with pytest.raises(
        InputError, match=r"The spine's 'at' is (Date|String|Int64)\. Expected Date"
    ):
        built.store.training_set(spine, [FEATURE], timestamp="at")


@pytest.mark.parametrize("dtype", [pl.Int32, pl.String, pl.UInt64, pl.Float64])
def test_a_key_of_another_type_is_refused_and_says_so(
    built: World, dtype: type[pl.DataType]
) -> None:
    spine = pl.DataFrame({"user_id": [1], "at": [instant(date(2026, 3, 5))]}).with_columns(
        pl.col("user_id").cast(dtype)
    )

    with pytest.raises(InputError) as raised:
        built.store.training_set(spine, [FEATURE], timestamp="at")

    assert str(raised.value) == (
        f"The spine can't be joined with spend_3d: its key column 'user_id' is {dtype}. Expected "
        "Int64. Add or cast the column: pl.col('user_id').cast(pl.Int64). Nothing was joined."
    )


def test_a_key_that_is_not_there_and_a_timestamp_that_is_not_there_are_named(built: World) -> None:
    at = pl.Series("at", [instant(date(2026, 3, 5))])

    with pytest.raises(InputError, match="its key column 'user_id' is missing"):
        built.store.training_set(at.to_frame(), [FEATURE], timestamp="at")
    with pytest.raises(InputError, match="The spine has no column 'event_timestamp'"):
        built.store.training_set(at.to_frame(), [FEATURE])


@pytest.mark.parametrize(
    "at",
    [
        pl.Series("at", [datetime(2026, 3, 4, 5, tzinfo=UTC)]).dt.cast_time_unit("ms"),
        pl.Series("at", [datetime(2026, 3, 4, 5, tzinfo=UTC)]).dt.cast_time_unit("ns"),
        pl.Series("at", [datetime(2026, 3, 4, 5, tzinfo=UTC)]).dt.convert_time_zone("Asia/Tokyo"),
    ],
    ids=["ms", "ns", "Tokyo"],
)
def test_an_instant_in_any_unit_or_zone_is_the_same_instant(built: World, at: pl.Series) -> None:
    spine = pl.DataFrame({"user_id": [1]}).with_columns(at)

    found = built.store.training_set(spine, [FEATURE], timestamp="at")

    assert [10.0] == found[FEATURE].to_list()
    assert at.to_list() == found["at"].to_list()
    assert at.dtype == found["at"].dtype


def test_a_lazy_spine_is_as_good_and_an_empty_one_stays_empty(built: World) -> None:
    spine = pl.DataFrame({"user_id": [1], "at": [instant(date(2026, 3, 5))]})

    lazy = built.store.training_set(spine.lazy(), [FEATURE], timestamp="at")
    empty = built.store.training_set(spine.clear(), [FEATURE], timestamp="at")

    assert [1.0] == lazy[FEATURE].to_list()
    assert (0, ["user_id", "at", FEATURE]) == (empty.height, empty.columns)


def test_a_view_that_was_never_built_gives_nulls_of_its_types(built: World) -> None:
    spine = pl.DataFrame({"user_id": [1], "at": [instant(date(2026, 3, 5))]})

    found = built.store.training_set(spine, ["pace:per_event"], timestamp="at")

    assert [None] == found["pace:per_event"].to_list()
    assert found.schema["pace:per_event"] == pl.Float64
