"""Blocks, hashes and parts of a spine: what makes the result independent of how it was made."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.errors import InputError
from lockstep.time import day_start, micros
from lockstep.training.column_hash import BLOCK, ColumnHashes, blocks_of, hashed
from lockstep.training.parts import Split
from lockstep.training.profile import Profiler
from lockstep.training.spine import instants

CAIRO = ZoneInfo("Africa/Cairo")
"""Its clocks jump over midnight."""


def hash_of(frame: pl.DataFrame) -> str:
    return hashed(blocks_of(frame), frame.schema).total


def test_the_hash_sees_names_types_order_values_and_nulls_and_nothing_else() -> None:
    frame = pl.DataFrame({"a": [1, 2, None], "b": ["x", None, "yz"], "c": [0.0, None, 1.5]})
    chunked = pl.concat([frame[:1], frame[1:]], rechunk=False)
    sliced = pl.concat([frame.head(1), frame, frame.tail(2)])[1:4]

    assert hash_of(frame) == hash_of(chunked) == hash_of(sliced)
    assert hash_of(frame) == hash_of(frame.sort("a", nulls_last=True))
    others = [
        frame.rename({"a": "z"}),
        frame.cast({"a": pl.Int32}),
        frame.reverse(),
        frame.select("b", "a", "c"),
        frame.with_columns(c=pl.Series([-0.0, None, 1.5])),
        frame.with_columns(a=pl.Series([1, 2, 0])),
        frame.with_columns(b=pl.Series(["x", None, "y"])),
        frame.with_columns(b=pl.Series(["", "x", "yz"])),
        frame.head(2),
        frame.clear(),
    ]
    assert len(others) + 1 == len({hash_of(frame), *map(hash_of, others)})


def test_the_hash_of_each_column_says_which_one_differs() -> None:
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    one = hashed(blocks_of(frame), frame.schema).columns
    changed = frame.with_columns(b=pl.lit("x"))
    other = hashed(blocks_of(changed), frame.schema).columns

    assert one["a"] == other["a"]
    assert one["b"] != other["b"]


def test_categories_are_hashed_by_their_words() -> None:
    words = pl.DataFrame({"c": ["p", "q", None]})
    one = words.cast(pl.Enum(["p", "q"]))

    assert hash_of(one) == hash_of(one.clone())
    assert hash_of(one) != hash_of(one.reverse())
    assert hash_of(words.cast(pl.Categorical)) == hash_of(
        pl.concat([words.head(1).cast(pl.Categorical), words.tail(2).cast(pl.Categorical)])
    )


def test_a_block_after_a_short_one_is_a_mistake_and_objects_are_refused() -> None:
    hashes = ColumnHashes({"a": pl.Int64()})
    hashes.update(pl.DataFrame({"a": [1]}))

    with pytest.raises(ValueError, match="must be the last one"):
        hashes.update(pl.DataFrame({"a": [1]}))
    with pytest.raises(InputError, match="which no file can hold"):
        ColumnHashes({"a": pl.Object()})


def test_a_date_is_the_first_instant_of_its_day_also_where_midnight_does_not_exist() -> None:
    days = [date(2024, 4, 26), date(2024, 4, 27), None, date(1969, 12, 31)]

    found = instants(pl.Series("at", days, dtype=pl.Date), None, CAIRO)

    assert [micros(day_start(day, CAIRO)) if day else None for day in days] == found.to_list()


@given(st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), max_size=5))
def test_instants_are_microseconds_in_utc(times: list[datetime]) -> None:
    utc = [time.replace(tzinfo=UTC) for time in times]
    series = pl.Series("at", utc, dtype=pl.Datetime("us", "UTC"))
    expected = [micros(time) for time in utc]

    assert expected == instants(series, None, CAIRO).to_list()
    tokyo = series.dt.convert_time_zone("Asia/Tokyo")
    assert expected == instants(tokyo, None, CAIRO).to_list()
    naive = series.dt.replace_time_zone(None)
    assert expected == instants(naive, "UTC", CAIRO).to_list()


@settings(max_examples=50)
@given(
    st.lists(st.one_of(st.none(), st.integers(-(10**4), 10**4)), min_size=1, max_size=200),
    st.integers(1, 9),
    st.integers(1, 40),
)
def test_parts_are_of_equal_size_and_in_order_of_time(
    hours: list[int | None], parts: int, block: int
) -> None:
    at = pl.Series(
        [None if hour is None else hour * 3_600_000_000 + 7 for hour in hours], dtype=pl.Int64
    )
    counts: dict[int, int] = {}
    nothing = np.iinfo(np.int64).min // 3_600_000_000
    for hour in hours:
        key = nothing if hour is None else hour
        counts[key] = counts.get(key, 0) + 1
    split = Split(counts, parts)

    found = np.concatenate(
        [split.of(at[start : start + block]) for start in range(0, len(at), block)]
    )

    sizes = np.bincount(found, minlength=parts)
    assert len(sizes) == parts
    assert sizes.max() - sizes.min() <= 1
    order = np.argsort([nothing if hour is None else hour for hour in hours], kind="stable")
    assert (np.diff(found[order]) >= 0).all()


def test_the_profile_of_a_set_in_blocks_is_that_of_the_whole() -> None:
    from lockstep.training.join import Found, Joined

    rows = BLOCK + 1000
    numbers = np.random.default_rng(3)
    features = pl.DataFrame(
        {"v:x": numbers.normal(size=rows), "v:s": numbers.choice(["a", "b"], rows)}
    )
    status = numbers.integers(0, 3, rows).astype(np.uint8)
    ages = numbers.integers(-1, 10**9, rows)
    joined = Joined(features, [Found("v", features, status, ages)])

    def profile(blocks: list[int]) -> object:
        profiler = Profiler(features.schema, rows)
        start = 0
        for size in blocks:
            end = start + size
            part = features[start:end]
            profiler.add(Joined(part, [Found("v", part, status[start:end], ages[start:end])]))
            start = end
        return profiler.profile()

    found = profile([BLOCK, 1000])
    assert found == profile([BLOCK, 1000])
    assert joined.features.height == rows
    one = found["v:x"]  # type: ignore[index]
    assert one.unmatched == int((status == 1).sum())
    assert one.expired == int((status == 2).sum())
    assert one.values.minimum == features["v:x"].min()
    assert abs(one.values.sketch[32]) < 0.1
    assert {"a", "b"} == set(found["v:s"].top)  # type: ignore[index]
    assert timedelta(0) <= timedelta(seconds=one.age_seconds["0.5"])
