"""The content hash: equal for equal content however it is stored, different for any change."""

import io
import math
import struct
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import InputError
from lockstep.hashing import canonical, content_hash

UTC_US = pl.Datetime("us", "UTC")
NAN = float("nan")
STRANGE_NAN = struct.unpack("<d", struct.pack("<Q", 0xFFF0_0000_0000_0001))[0]

_ints = st.integers(-(2**63), 2**63 - 1)
_floats = st.floats() | st.sampled_from([0.0, -0.0, NAN, STRANGE_NAN])
_texts = st.text(st.characters(codec="utf-8"), max_size=5)
_instants = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(
    lambda instant: instant.replace(tzinfo=UTC)
)
_decimals = st.integers(-(10**17), 10**17).map(lambda number: Decimal(number).scaleb(-3))

SCALARS: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "int8": (pl.Int8(), st.integers(-128, 127)),
    "int16": (pl.Int16(), st.integers(-(2**15), 2**15 - 1)),
    "int32": (pl.Int32(), st.integers(-(2**31), 2**31 - 1)),
    "int64": (pl.Int64(), _ints),
    "float32": (pl.Float32(), st.floats(width=32)),
    "float64": (pl.Float64(), _floats),
    "boolean": (pl.Boolean(), st.booleans()),
    "string": (pl.String(), _texts),
    "binary": (pl.Binary(), st.binary(max_size=5)),
    "date": (pl.Date(), st.dates(date(1900, 1, 1), date(2200, 1, 1))),
    "instant": (UTC_US, _instants),
    "decimal": (pl.Decimal(20, 3), _decimals),
}
ONE_FIELD = pl.Struct({"x": pl.Int64()})
PAIR = pl.Struct({"a": pl.Float64(), "b": pl.List(pl.String())})
NESTED: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "list of floats": (pl.List(pl.Float64()), st.lists(st.none() | _floats, max_size=3)),
    "list of text": (pl.List(pl.String()), st.lists(st.none() | _texts, max_size=3)),
    "list of lists": (
        pl.List(pl.List(pl.Int64())),
        st.lists(st.none() | st.lists(st.none() | _ints, max_size=2), max_size=2),
    ),
    "struct": (
        PAIR,
        st.fixed_dictionaries(
            {
                "a": st.none() | _floats,
                "b": st.none() | st.lists(st.none() | _texts, max_size=2),
            }
        ),
    ),
    "list of structs": (
        pl.List(pl.Struct({"x": pl.Float64()})),
        st.lists(st.none() | st.fixed_dictionaries({"x": st.none() | _floats}), max_size=2),
    ),
}
ALL = SCALARS | NESTED


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    kinds = draw(st.lists(st.sampled_from(sorted(ALL)), min_size=1, max_size=4))
    height = draw(st.integers(0, 12))
    return pl.DataFrame(
        [
            pl.Series(
                f"c{number}",
                draw(st.lists(st.none() | ALL[kind][1], min_size=height, max_size=height)),
                ALL[kind][0],
            )
            for number, kind in enumerate(kinds)
        ]
    )


@given(frames(), st.data())
def test_chunks_and_slices_do_not_matter(frame: pl.DataFrame, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, frame.height))
    padded = pl.concat([frame, frame, frame], rechunk=True)

    in_two = pl.concat([frame[:cut], frame[cut:]], rechunk=False)
    sliced = padded.slice(frame.height, frame.height)

    assert content_hash(in_two) == content_hash(frame)
    assert content_hash(sliced) == content_hash(frame)


@given(frames())
def test_a_trip_through_parquet_does_not_matter(frame: pl.DataFrame) -> None:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    buffer.seek(0)

    again = pl.read_parquet(buffer)

    assert content_hash(again) == content_hash(frame)


@given(frames(), st.data())
def test_any_changed_cell_changes_the_hash(frame: pl.DataFrame, data: st.DataObject) -> None:
    if frame.is_empty():
        return
    column = data.draw(st.sampled_from(frame.columns))
    row = data.draw(st.integers(0, frame.height - 1))
    dtype = frame.schema[column]
    values = next(values for kind, values in ALL.values() if kind == dtype)
    cells = frame[column].to_list()
    old, cells[row] = cells[row], data.draw(st.none() | values)
    changed = canonical(frame.with_columns(pl.Series(column, cells, dtype)))

    same = _plain(canonical(frame)[column][row]) == _plain(changed[column][row])

    assert (content_hash(canonical(frame)) == content_hash(changed)) == same, (old, cells[row])


def _plain(value: Any) -> str:
    """Spell a value so that NaN equals NaN, and 0.0 differs from -0.0 and from 0."""
    return repr(value.to_list() if isinstance(value, pl.Series) else value)


@given(frames(), st.data())
def test_the_order_of_rows_matters_exactly_when_rows_differ(
    frame: pl.DataFrame, data: st.DataObject
) -> None:
    frame = canonical(frame)
    order = data.draw(st.permutations(range(frame.height)))
    moved = frame[list(order)]

    assert (content_hash(moved) == content_hash(frame)) == (
        repr(moved.rows()) == repr(frame.rows())
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([0], [None]),
        ([0.0], [None]),
        ([0.0], [NAN]),
        ([None], [NAN]),
        ([False], [None]),
        ([""], [None]),
        ([b""], [None]),
        (["a", ""], ["", "a"]),
        (["ab", "c"], ["a", "bc"]),
        ([[]], [None]),
        ([[]], [[None]]),
        ([[[1], []]], [[[], [1]]]),
        ([[1], [2, 3]], [[1, 2], [3]]),
        ([{"x": None}], [None]),
        ([{"x": 0}], [{"x": None}]),
        ([1, None], [None, 1]),
    ],
)
def test_what_looks_alike_is_told_apart(one: list[Any], other: list[Any]) -> None:
    dtype = pl.Series([*one, *other], strict=False).dtype
    untyped = {pl.List(pl.Null): pl.List(pl.Int64), pl.Struct({"x": pl.Null}): ONE_FIELD}
    dtype = untyped.get(dtype, dtype)
    frames = [pl.DataFrame({"c": pl.Series(values, dtype=dtype)}) for values in (one, other)]

    assert content_hash(frames[0]) != content_hash(frames[1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pl.Int32(), pl.Int64()),
        (pl.Float32(), pl.Float64()),
        (pl.String(), pl.Binary()),
        (pl.Date(), pl.Int32()),
        (UTC_US, pl.Int64()),
        (pl.Decimal(10, 2), pl.Decimal(11, 2)),
        (pl.Decimal(10, 2), pl.Decimal(10, 3)),
        (pl.List(pl.Int32()), pl.List(pl.Int64())),
        (pl.Struct({"a": pl.Int64()}), pl.Struct({"b": pl.Int64()})),
        (pl.Struct({"a,b": pl.Int64()}), pl.Struct({"a": pl.Int64(), "b": pl.Int64()})),
    ],
)
def test_another_type_is_another_hash_even_of_no_rows(one: pl.DataType, other: pl.DataType) -> None:
    assert content_hash(pl.DataFrame(schema={"c": one})) != content_hash(
        pl.DataFrame(schema={"c": other})
    )


def test_names_and_order_of_columns_matter() -> None:
    frame = pl.DataFrame({"a": [1], "b": [1]})

    hashes = {
        content_hash(frame),
        content_hash(frame.rename({"b": "c"})),
        content_hash(frame[:, ::-1]),
    }

    assert len(hashes) == 3


def test_the_number_of_rows_matters_without_columns_that_tell() -> None:
    assert content_hash(pl.DataFrame({"a": [None]}, schema={"a": pl.Int64})) != content_hash(
        pl.DataFrame({"a": [None, None]}, schema={"a": pl.Int64})
    )


def test_a_sortedness_flag_does_not_matter() -> None:
    frame = pl.DataFrame({"a": [1, 2, 3]})

    assert content_hash(frame.set_sorted("a")) == content_hash(frame)


def test_the_hash_is_the_same_in_every_release() -> None:
    frame = pl.DataFrame(
        {
            "household_id": [1, 2],
            "event_timestamp": [datetime(2026, 11, 1, 5, tzinfo=UTC)] * 2,
            "sum_amt_7d": [1.5, None],
            "labels": [["a", None], None],
        },
        schema_overrides={"event_timestamp": UTC_US},
    )

    assert content_hash(frame) == (
        "ff190994cad8930967066be669b949792f7b500e49037102de93bd1ecd7e6388"
    )


@pytest.mark.parametrize(
    "dtype",
    [
        pl.UInt32(),
        pl.Duration(),
        pl.Time(),
        pl.Null(),
        pl.Datetime("us"),
        pl.Datetime("ns", "UTC"),
        pl.Datetime("us", "Europe/Berlin"),
        pl.Categorical(),
        pl.Array(pl.Int64(), 2),
        pl.List(pl.UInt8()),
        pl.Struct({"a": pl.Time()}),
    ],
)
def test_a_type_outside_the_list_is_refused(dtype: pl.DataType) -> None:
    with pytest.raises(InputError, match="cannot be hashed"):
        content_hash(pl.DataFrame(schema={"c": dtype}))


@given(frames())
def test_canonical_keeps_everything_but_negative_zero_and_odd_nan(frame: pl.DataFrame) -> None:
    result = canonical(frame)

    assert result.schema == frame.schema
    assert [[_canonical_value(cell) for cell in row] for row in frame.rows()] == [
        [_bits(cell) for cell in row] for row in result.rows()
    ]
    assert content_hash(canonical(result)) == content_hash(result)


def _canonical_value(value: Any) -> Any:
    """Do naively, cell by cell, what `canonical` promises."""
    if isinstance(value, float):
        return _bits(NAN if math.isnan(value) else value + 0.0)
    if isinstance(value, list):
        return [_canonical_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _canonical_value(item) for key, item in value.items()}
    return value


def _bits(value: Any) -> Any:
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, list):
        return [_bits(item) for item in value]
    if isinstance(value, dict):
        return {key: _bits(item) for key, item in value.items()}
    return value


def test_zeros_and_nans_of_any_bits_hash_alike_once_canonical() -> None:
    one = pl.DataFrame({"x": [0.0, NAN], "l": [[0.0], [NAN]], "s": [{"y": 0.0}, {"y": NAN}]})
    other = pl.DataFrame(
        {"x": [-0.0, STRANGE_NAN], "l": [[-0.0], [STRANGE_NAN]], "s": [{"y": -0.0}, {"y": -NAN}]}
    )

    assert content_hash(one) != content_hash(other)
    assert content_hash(canonical(one)) == content_hash(canonical(other))
