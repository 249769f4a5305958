"""Spines whose values need care: .csv files, instants at the edge, dates without a value."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lockstep.errors import InputError
from lockstep.time import INSTANT, as_of
from lockstep.training.column_hash import BLOCK
from lockstep.training.spine import Spine, instants, open_spine
from tests.scenario import ZONE, World
from tests.training_world import DAYS, FUTURE, VALUES, spine_of, training_world

pytestmark = pytest.mark.filterwarnings(FUTURE)

AT = as_of(DAYS[3], ZONE)
KEYS: dict[str, pl.DataType] = {"shop": pl.String(), "user_id": pl.Int32()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return training_world(tmp_path_factory.mktemp("csv"))


def read(folder: Path, text: str) -> Spine:
    (folder / "spine.csv").write_text(text, "utf-8")
    return open_spine(folder / "spine.csv", None, KEYS, "at")


def refused(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as told:
        read(folder, text)
    assert "Nothing was joined." in str(told.value)
    return str(told.value)


def test_in_a_csv_file_a_key_has_the_type_that_its_view_declares(tmp_path: Path) -> None:
    found = read(tmp_path, "shop,user_id,at\n007,7,2025-03-08\n2025-01-01,,2025-03-08\n").collect()

    assert KEYS == {key: found.schema[key] for key in KEYS}
    assert [("007", 7), ("2025-01-01", None)] == found.select("shop", "user_id").rows()
    for value in ("seven", "5.0", "3000000000", " 7"):
        told = refused(tmp_path, f"user_id,at\n1,2025-03-08\n{value},2025-03-08\n")
        assert f"row 2 has {value!r} as 'user_id'. Expected a key of type Int32" in told


def test_a_timestamp_in_a_csv_file_is_iso_8601_or_refused_with_its_row(tmp_path: Path) -> None:
    dates = read(tmp_path, "at\n2025-03-08\n2025-12-31\n").collect()["at"]
    naive = read(tmp_path, "at\n2025-03-08 12:00\n2025-03-08T12:00:01.5\n").collect()["at"]
    zoned = read(tmp_path, 'at\n2025-03-08T12:00-0530\n""\n2025-03-08 12:00:00Z\n').collect()["at"]

    assert [date(2025, 3, 8), date(2025, 12, 31)] == dates.to_list()
    noon = datetime(2025, 3, 8, 12)
    assert [noon, noon + timedelta(seconds=1.5)] == naive.to_list()
    assert zoned.dtype == INSTANT
    utc = noon.replace(tzinfo=UTC)
    assert [utc + timedelta(hours=5, minutes=30), None, utc] == zoned.to_list()
    for value in (
        "03/08/2025 12:00",
        "2025-13-08",
        "2025-03-08T12:00",
        "2025-03-08T12:00:00.123456789Z",
        "noon",
    ):
        told = refused(tmp_path, f"at\n2025-03-08\n{value}\n")
        assert f"row 2 has {value!r} as 'at'. Expected ISO 8601: 2025-03-08, " in told
    assert "row 1 has '03/08/2025'" in refused(tmp_path, "at\n03/08/2025\n03/09/2025\n")


def test_another_column_of_a_csv_file_is_text_unless_all_its_values_are_plain_numbers(
    tmp_path: Path,
) -> None:
    late = [f"{n},{n}" for n in range(20_000)]
    text = "\n".join(["label,n", *late, "0.5,1", "NaN,2", ","])
    numbers = read(tmp_path, f"{text}\n").collect()
    texts = read(
        tmp_path, f"zip,day,flag,long,none\n02134,2025-03-08,true,{10**19},\n1,2,0,1,\n"
    ).collect()

    assert [pl.Float64, pl.Int64] == numbers.dtypes
    assert ["0.5", "nan", "None"] == [str(value) for value in numbers["label"].tail(3).to_list()]
    assert [pl.String] * 5 == texts.dtypes
    assert ("02134", "2025-03-08", "true", str(10**19), None) == texts.row(0)


def test_a_csv_file_with_two_columns_of_one_name_or_another_separator_is_refused(
    tmp_path: Path,
) -> None:
    assert "columns of the same name: ['at']" in refused(tmp_path, "at,x,at\n2025-03-08,1,2\n")
    told = refused(tmp_path, "user_id;at\n1;2025-03-08\n")
    assert "is separated by ';'. Expected a comma as separator." in told
    assert "can't be read. Got empty CSV." in refused(tmp_path, "")


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ("1,2025-03-08,0\n2,2025-03-08\n3,2025-03-08,1\n", 2),
        ("1,2025-03-08,0\n2,2025-0", 2),
        ("1,2025-03-08,0\n2", 2),
        ('1,2025-03-08,"a, b\n""c"\n\n2,2025-03-08,\n"3,3",2025-03-08', 4),
        ("1,2025-03-08,0\r\n2,2025-03-08\r\n", 2),
    ],
)
def test_a_row_of_a_csv_file_with_fewer_fields_than_its_header_is_refused(
    tmp_path: Path, rows: str, row: int
) -> None:
    told = refused(tmp_path, f"shop,at,label\n{rows}")

    assert f"row {row} has fewer fields than the header. Expected 3 fields, got " in told


def test_empty_fields_and_an_empty_line_are_values_that_are_missing(tmp_path: Path) -> None:
    rows = '1,2025-03-08,\n\n,2025-03-08,"x, y"\n,,\n"4, 5",2025-03-08,""\n'

    found = read(tmp_path, f"shop,at,label\n{rows}").collect()

    assert [None, None, "x, y", None, ""] == found["label"].to_list()


@pytest.mark.parametrize("memory", [None, 1_000_000_000], ids=["default", "stated"])
def test_a_csv_file_of_a_header_only_is_an_empty_spine(
    made: World, tmp_path: Path, memory: int | None
) -> None:
    (tmp_path / "spine.csv").write_text("user_id,shop,at\n")

    found = made.store.training_set(
        tmp_path / "spine.csv", VALUES, timestamp="at", memory=memory
    ).frame

    assert 0 == found.height
    assert INSTANT == found.schema["at"]


def test_a_spine_in_csv_gives_what_its_frame_gives(made: World, tmp_path: Path) -> None:
    spine = spine_of([(1, "a", AT), (2, "b", AT + timedelta(hours=1)), (None, "a", AT)])
    spine.write_csv(tmp_path / "SPINE.CSV")

    found = made.store.training_set(tmp_path / "SPINE.CSV", VALUES, timestamp="at").frame

    expected = made.store.training_set(spine, VALUES, timestamp="at").frame
    assert expected.select(VALUES).equals(found.select(VALUES))


@pytest.mark.parametrize("days", [[], [None], [None] * (BLOCK + 1)])
def test_dates_without_a_value_are_nulls(made: World, days: list[None]) -> None:
    at = pl.Series("at", days, dtype=pl.Date)
    spine = pl.DataFrame({"user_id": pl.Series([1] * len(days), dtype=pl.Int64), "at": at})

    found = instants(at, None, ZONE)
    joined = made.store.training_set(spine, VALUES[:1], timestamp="at").frame
    plan = made.store.plan_training_set(spine, VALUES[:1], timestamp="at", parts=2)

    assert (pl.Int64, len(days)) == (found.dtype, found.null_count())
    assert len(days) == joined["usage:amount"].null_count() == plan.spine.rows


@pytest.mark.parametrize("dtype", ["ms", "us", "ns", "date"])
def test_an_instant_outside_the_years_1_to_9999_or_finer_than_a_microsecond_is_refused(
    made: World, dtype: Any
) -> None:
    """Rounding a nanosecond down passes the end of the ttl, rounding it up sees the future."""
    if dtype == "date":
        far = pl.Series("at", [0, None, 2**31 - 1], dtype=pl.Int32).cast(pl.Date)
    else:
        count = pl.Series("at", [0, None, 2**62 + 1], dtype=pl.Int64)
        far = count.cast(pl.Datetime(dtype, "UTC"))
    spine = pl.DataFrame({"user_id": [1, 1, 1], "at": far})

    for zone in (None, "America/New_York"):
        naive = spine
        if zone and dtype != "date":
            naive = spine.with_columns(pl.col("at").dt.replace_time_zone(None))
        with pytest.raises(InputError, match="'at' of row 3 can't be used") as told:
            made.store.training_set(naive, VALUES[:1], timestamp="at", time_zone=zone)
        expected = "whole microseconds" if dtype == "ns" else "in the years 1 to 9999"
        assert expected in str(told.value)


def test_the_row_of_a_later_block_is_named() -> None:
    with pytest.raises(InputError, match=f"of row {BLOCK + 1} can't be used"):
        instants(pl.Series("at", [2**62]).cast(pl.Datetime("ms", "UTC")), None, ZONE, BLOCK)


def test_sentinels_of_never_and_for_ever_are_instants_like_others(made: World) -> None:
    dates = pl.DataFrame({"user_id": [1, 1], "at": [date(1, 1, 1), date(9999, 12, 31)]})
    naive = dates.with_columns(pl.col("at").cast(pl.Datetime("us")))
    late = dates.with_columns(at=pl.lit(AT + timedelta(days=300))).select("user_id", "at")

    for spine in (dates, naive, naive.cast({"at": pl.Datetime("ms")})):
        found = made.store.training_set(
            spine, ["usage:amount"], timestamp="at", time_zone="Pacific/Auckland"
        )
        assert [None, None] == found.frame["usage:amount"].to_list()
        assert spine.equals(found.frame.select(spine.columns))
    shops = dates.with_columns(shop=pl.lit("a"))
    found = made.store.training_set(shops, ["visits:count"], timestamp="at")
    newest = made.store.training_set(
        late.with_columns(shop=pl.lit("a")), ["visits:count"], timestamp="at"
    )
    assert [None, newest.frame["visits:count"][0]] == found.frame["visits:count"].to_list()
    assert newest.frame["visits:count"][0] is not None


@pytest.mark.parametrize("column", ["user_id", "at"])
def test_what_stands_in_the_index_of_a_pandas_frame_is_hinted_at(made: World, column: str) -> None:
    frame = spine_of([(1, "a", AT)]).to_pandas()
    assert isinstance(frame, pd.DataFrame)

    with pytest.raises(InputError, match=r"pass spine\.reset_index\(\)"):
        made.store.training_set(frame.set_index(column), VALUES, timestamp="at")

    made.store.training_set(frame.set_index(column).reset_index(), VALUES, timestamp="at")


ODD: dict[str, pd.Series] = {
    "period": pd.Series([pd.Period("2026-01")]),
    "interval": pd.Series(pd.arrays.IntervalArray.from_tuples([(0, 1)])),
    "bucket": pd.Series(pd.cut([1.0], [0.0, 2.0])),
    "sparse": pd.Series(pd.arrays.SparseArray([0.0])),
}


@pytest.mark.parametrize("name", ODD)
def test_a_pandas_column_that_only_pandas_can_read_is_refused(made: World, name: str) -> None:
    frame = spine_of([(1, "a", AT)]).to_pandas().assign(**{name: ODD[name]})

    with pytest.raises(InputError, match=rf"column '{name}' is .*Convert it: spine\['{name}'\]"):
        made.store.training_set(frame, VALUES, timestamp="at")
    if name != "sparse":
        table = pa.Table.from_pandas(frame)
        with pytest.raises(InputError, match=f"column '{name}' is "):
            made.store.training_set(table, VALUES, timestamp="at")
        with pytest.raises(InputError, match=f"The column '{name}' is "):
            made.store.training_set(pl.from_pandas(frame), VALUES, timestamp="at", name="odd")
    dense = frame[name].astype(str)
    assert 1 == made.store.training_set(frame.assign(**{name: dense}), VALUES, timestamp="at").rows


def test_a_set_never_replaces_its_own_spine(made: World, tmp_path: Path) -> None:
    file = tmp_path / "spine.parquet"
    spine_of([(1, "a", AT)]).write_parquet(file)
    (tmp_path / "same.parquet").symlink_to(file)
    before = file.read_bytes()

    for to in (file, tmp_path / "same.parquet"):
        with pytest.raises(InputError, match="would replace its own spine"):
            made.store.training_set(file, VALUES, timestamp="at", to=to)

    assert before == file.read_bytes()


def test_an_end_in_capitals_is_read_and_told_of(made: World, tmp_path: Path) -> None:
    spine = spine_of([(1, "a", AT)])
    spine.write_parquet(tmp_path / "X.PARQUET")

    assert 1 == made.store.training_set(tmp_path / "X.PARQUET", VALUES, timestamp="at").rows
    with pytest.raises(InputError, match=r"Write its end in small letters\."):
        made.store.training_set(spine, VALUES, timestamp="at", to=tmp_path / "Y.PARQUET")
