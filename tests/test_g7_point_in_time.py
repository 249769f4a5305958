"""G7: a training row holds no value that was not valid at its timestamp; through the whole store.

The join itself has its tests in `test_pit.py`; here stand the sentences of docs/training-sets.md.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.errors import InputError
from lockstep.time import as_of
from lockstep.training.plan import Plan, finish, join_part
from tests.scenario import START, ZONE, World, event, instant, world
from tests.training_world import (
    BIG,
    DAYS,
    FUTURE,
    HISTORY,
    MOMENT,
    TTL,
    VALUES,
    all_instants,
    expected,
    full_spine,
    same_cells,
    spine_of,
    training_world,
    usage,
)

pytestmark = pytest.mark.filterwarnings(FUTURE)

ROWS = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 3, BIG, 99, None]),
        st.sampled_from(["a", "b", "c", None]),
        st.sampled_from([*all_instants(), None]),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return training_world(tmp_path_factory.mktemp("g7"))


def values(made: World, spine: Any, mode: str = "event", **more: Any) -> list[tuple[Any, ...]]:
    """The features of a set, per row."""
    asked = {"timestamp": "at", "mode": mode} | more
    return made.store.training_set(spine, VALUES, **asked).frame.select(VALUES).rows()


@pytest.mark.parametrize("mode", ["event", "known"])
def test_every_cell_is_what_a_naive_look_at_every_revision_finds(made: World, mode: str) -> None:
    spine = full_spine()

    assert same_cells(expected(mode, spine), values(made, spine, mode))


@settings(max_examples=40)
@given(ROWS, st.sampled_from(["event", "known"]), st.sampled_from([1, 2, 7]))
def test_cells_are_right_for_any_spine_in_any_number_of_parts(
    made: World, rows: Sequence[tuple[Any, Any, Any]], mode: str, parts: int
) -> None:
    spine = spine_of(rows)
    plan = made.store.plan_training_set(spine, VALUES, mode=mode, timestamp="at", parts=parts)
    for part in reversed(range(len(plan.parts))):
        join_part(made.store, Plan.from_json(plan.to_json()), part)

    found = finish(made.store, plan).frame

    assert found.select(spine.columns).equals(spine)
    assert same_cells(expected(mode, spine), found.select(VALUES).rows())


def test_the_latest_value_not_after_the_timestamp_counts(made: World) -> None:
    for day, user in ((DAYS[3], 1), (DAYS[8], BIG)):
        end = as_of(day, ZONE)
        spine = spine_of([(user, "a", end - MOMENT), (user, "a", end), (user, "a", end + MOMENT)])
        before, at, after = values(made, spine)
        assert before != at
        assert same_cells([at], [after])


def test_both_ends_of_the_ttl_are_inside(made: World) -> None:
    end = as_of(DAYS[-1], ZONE)
    spine = spine_of([(BIG, "a", end + off) for off in (TTL, TTL + MOMENT)])

    inside, outside = values(made, spine)

    assert inside[0] is not None
    assert outside[0] is None


def test_a_ttl_is_elapsed_time_also_where_the_clocks_change(made: World) -> None:
    end = as_of(date(2026, 3, 11), ZONE)  # the last row before October
    at = [end + timedelta(hours=48), end + timedelta(hours=48) + MOMENT]

    found = values(made, spine_of([(BIG, "a", instant) for instant in at]))

    assert [False, True] == [row[0] is None for row in found]


def test_a_view_without_a_ttl_counts_for_ever(made: World) -> None:
    (found,) = values(made, spine_of([(1, "b", datetime(2126, 1, 1, tzinfo=UTC))]))

    assert found[2] is not None


def test_of_several_revisions_event_mode_takes_the_newest(made: World) -> None:
    day = DAYS[2]
    (found,) = values(made, spine_of([(BIG, "a", as_of(day, ZONE))]))
    newest = [item for item in HISTORY if item.view is usage and item.day == day][-1]

    assert found[0] == next(row[1] for row in newest.rows if row[0] == BIG)


def test_an_entity_that_a_correction_dropped_gets_the_older_day(made: World) -> None:
    day = DAYS[2]
    spine = spine_of([(2, "a", as_of(day, ZONE))])
    (found,) = values(made, spine)

    assert same_cells([found], expected("event", spine))
    older = [item for item in HISTORY if item.view is usage and item.day == DAYS[1]][-1]
    assert same_cells([found[:2]], [next(row[1:] for row in older.rows if row[0] == 2)])


def test_known_mode_holds_no_value_before_it_was_certified(made: World) -> None:
    for item in HISTORY:
        if item.view is usage and item.day > date(2026, 3, 8):
            (before,) = values(made, spine_of([(BIG, "a", item.known_at - MOMENT)]), "known")
            own = next(row[1] for row in item.rows if row[0] == BIG)
            assert before[0] != own or own in [
                row[1]
                for other in HISTORY
                if other.known_at < item.known_at
                for row in other.rows
                if row[0] == BIG
            ]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One user, days 3 and 4 of the scenario's windowed view."""
    made = world(tmp_path_factory.mktemp("g7b"))
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
    ).frame
    as_utc = built.store.training_set(spine, [FEATURE], timestamp="at", time_zone="UTC").frame

    assert str(raised.value) == (
        "The spine's 'at' is Datetime(time_unit='us', time_zone=None). Expected "
        "Datetime(time_unit='us', time_zone='UTC') or Date. Convert it; a naive time needs its "
        "zone: time_zone='America/New_York' (command line: --time-zone). Nothing was joined."
    )
    assert [10.0] == joined[FEATURE].to_list()
    assert [None] == as_utc[FEATURE].to_list()
    assert [datetime(2026, 3, 4)] == joined["at"].to_list()


def test_a_naive_time_that_the_clocks_skip_moves_forward_and_of_two_the_first_counts(
    made: World,
) -> None:
    at = [datetime(2026, 3, 8, 2, 30), datetime(2026, 11, 1, 1, 30)]
    spine = pl.DataFrame({"user_id": [BIG] * 2, "shop": ["a"] * 2, "at": at})
    instants = [datetime(2026, 3, 8, 7, 30, tzinfo=UTC), datetime(2026, 11, 1, 5, 30, tzinfo=UTC)]

    found = values(made, spine, time_zone="America/New_York")

    assert same_cells(found, values(made, spine_of([(BIG, "a", t) for t in instants])))


def test_a_date_means_the_start_of_that_local_day(made: World) -> None:
    days = [*DAYS[1:], None]
    spine = pl.DataFrame(
        {"user_id": [BIG] * len(days), "shop": ["a"] * len(days), "at": days},
        schema_overrides={"at": pl.Date},
    )
    starts = [as_of(day - timedelta(days=1), ZONE) if day else None for day in days]

    found = made.store.training_set(spine, VALUES, timestamp="at").frame

    assert found["at"].equals(spine["at"])
    assert same_cells(
        found.select(VALUES).rows(), values(made, spine_of([(BIG, "a", t) for t in starts]))
    )


@pytest.mark.parametrize("dtype", [pl.String, pl.Int64, pl.Time])
def test_what_is_no_instant_is_refused(built: World, dtype: type[pl.DataType]) -> None:
    spine = pl.DataFrame({"user_id": [1], "at": [None]}, schema_overrides={"at": dtype})

    with pytest.raises(
        InputError, match=r"The spine's 'at' is (Time|String|Int64)\. Expected Date"
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
    spine = at.to_frame().with_columns(user_id=pl.lit(1, pl.Int64), **{FEATURE: pl.lit(1)})
    with pytest.raises(InputError, match=r"The spine already has columns \['spend_3d:amount_3d'\]"):
        built.store.training_set(spine, [FEATURE], timestamp="at")


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

    found = built.store.training_set(spine, [FEATURE], timestamp="at").frame

    assert [10.0] == found[FEATURE].to_list()
    assert at.to_list() == found["at"].to_list()
    assert at.dtype == found["at"].dtype


def test_a_lazy_spine_is_as_good_and_an_empty_one_stays_empty(built: World) -> None:
    spine = pl.DataFrame({"user_id": [1], "at": [instant(date(2026, 3, 5))]})

    lazy = built.store.training_set(spine.lazy(), [FEATURE], timestamp="at").frame
    empty = built.store.training_set(spine.clear(), [FEATURE], timestamp="at").frame

    assert [1.0] == lazy[FEATURE].to_list()
    assert (0, ["user_id", "at", FEATURE]) == (empty.height, empty.columns)


def test_a_view_that_was_never_materialized_gives_nulls_of_its_types(built: World) -> None:
    spine = pl.DataFrame({"user_id": [1], "at": [instant(date(2026, 3, 5))]})

    found = built.store.training_set(spine, ["pace:per_event"], timestamp="at")

    assert [None] == found.frame["pace:per_event"].to_list()
    assert found.frame.schema["pace:per_event"] == pl.Float64
    assert "pace was never materialized: its features are null everywhere." in found.warnings
