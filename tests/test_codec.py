"""Rows survive the way to bytes and back, exactly; what would not is refused."""

import struct
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import inf, nan
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.codec import (
    HEADER_BYTES,
    MAX_VERSION,
    Header,
    RowCodec,
    header_of,
    without_version,
)
from lockstep.errors import DeclarationError, InputError, OnlineError

UTC_US = pl.Datetime("us", "UTC")
DAY = date(2026, 11, 1)
EVENT = datetime(2026, 11, 2, 5, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)


def integers(bits: int) -> st.SearchStrategy[int]:
    edges = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0, -1]
    return st.integers(edges[0], edges[1]) | st.sampled_from(edges)


SCALARS: list[tuple[pl.DataType, st.SearchStrategy[Any]]] = [
    (pl.Int8(), integers(8)),
    (pl.Int16(), integers(16)),
    (pl.Int32(), integers(32)),
    (pl.Int64(), integers(64) | st.just(2**53 + 1)),
    (pl.Float32(), st.floats(width=32, allow_nan=False) | st.just(nan)),
    (pl.Float64(), st.floats(allow_nan=False) | st.sampled_from([nan, inf, -inf, -0.0, 5e-324])),
    (pl.Boolean(), st.booleans()),
    (pl.String(), TEXT | st.sampled_from(["\0", "a\r\n", "é", "e\u0301", "x ", "😀"])),
    (pl.Binary(), st.binary(max_size=20)),
    (pl.Date(), st.dates()),
    (UTC_US, st.datetimes(timezones=st.just(UTC))),
    (pl.Decimal(38, 0), st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal)),
    (
        pl.Decimal(10, 2),
        st.integers(-(10**10) + 1, 10**10 - 1).map(lambda n: Decimal(n).scaleb(-2)),
    ),
]


def typed(depth: int) -> st.SearchStrategy[tuple[pl.DataType, st.SearchStrategy[Any]]]:
    """A column type of the closed list with a strategy for its values, nulls included."""
    scalar = st.sampled_from(SCALARS).map(lambda pair: (pair[0], st.none() | pair[1]))
    if depth == 0:
        return scalar
    inner = typed(depth - 1)
    lists = inner.map(lambda pair: (pl.List(pair[0]), st.none() | st.lists(pair[1], max_size=3)))
    structs = st.lists(inner, min_size=1, max_size=3).map(
        lambda pairs: (
            pl.Struct({f"f{n}": dtype for n, (dtype, _) in enumerate(pairs)}),
            st.none()
            | st.fixed_dictionaries({f"f{n}": values for n, (_, values) in enumerate(pairs)}),
        )
    )
    return scalar | lists | structs


def framed(columns: dict[str, pl.Series], height: int) -> pl.DataFrame:
    """Feature columns with the columns that a header needs."""
    header = [
        pl.Series("day", [DAY] * height, dtype=pl.Date),
        pl.Series("revision", [3] * height, dtype=pl.Int64),
        pl.Series("event_timestamp", [EVENT] * height, dtype=UTC_US),
    ]
    return pl.DataFrame([*header, *(s.alias(name) for name, s in columns.items())])


def bits(value: Any) -> Any:
    """The value in a form whose equality is equality of bits and types."""
    if isinstance(value, float):
        return "float", struct.pack(">d", value)
    if isinstance(value, list):
        return [bits(item) for item in value]
    if isinstance(value, dict):
        return {name: bits(item) for name, item in value.items()}
    return type(value), value


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_every_type_survives_packing_bit_for_bit(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(typed(2), min_size=1, max_size=4))
    height = data.draw(st.integers(0, 4))
    columns = {
        f"c{n}": pl.Series(
            data.draw(st.lists(values, min_size=height, max_size=height)), dtype=dtype
        )
        for n, (dtype, values) in enumerate(kinds)
    }
    codec = RowCodec({name: column.dtype for name, column in columns.items()})
    frame = framed(columns, height)

    rows = [codec.decode(value) for value in codec.encode(frame, version=9)]

    for row, expected in zip(rows, frame.select(list(columns)).iter_rows(named=True), strict=True):
        assert row.values is not None
        assert bits(dict(row.values)) == bits(expected)
        assert row.header == Header(9, DAY, 3, EVENT, codec.fingerprint)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_frame_rebuilt_from_decoded_rows_packs_to_the_same_bytes(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(typed(1), min_size=1, max_size=3))
    columns = {
        f"c{n}": pl.Series(data.draw(st.lists(values, min_size=2, max_size=2)), dtype=dtype)
        for n, (dtype, values) in enumerate(kinds)
    }
    codec = RowCodec({name: column.dtype for name, column in columns.items()})
    packed = codec.encode(framed(columns, 2), version=1)

    rows = [codec.decode(value).values or {} for value in packed]
    again = {
        name: pl.Series([row[name] for row in rows], dtype=columns[name].dtype) for name in columns
    }

    assert codec.encode(framed(again, 2), version=1).to_list() == packed.to_list()


@given(kinds=st.lists(typed(2), min_size=1, max_size=4))
def test_a_codec_is_rebuilt_from_its_schema_text(
    kinds: list[tuple[pl.DataType, st.SearchStrategy[Any]]],
) -> None:
    codec = RowCodec({f"c{n}": dtype for n, (dtype, _) in enumerate(kinds)})

    again = RowCodec.from_schema_json(codec.schema_json)

    assert again.columns == codec.columns
    assert again.fingerprint == codec.fingerprint


def test_the_layout_is_the_documented_one_byte_for_byte() -> None:
    codec = RowCodec(
        {
            "n": pl.Int64(),
            "x": pl.Float64(),
            "d": pl.Date(),
            "t": UTC_US,
            "m": pl.Decimal(10, 2),
            "s": pl.Struct({"a": pl.String(), "b": pl.Binary()}),
            "missing": pl.Int8(),
        }
    )
    row = {
        "n": [2**53 + 1],
        "x": [-0.0],
        "d": [date(1970, 1, 3)],
        "t": [EPOCH + timedelta(microseconds=5)],
        "m": [Decimal("1.50")],
        "s": [{"a": "é", "b": b"\0"}],
        "missing": [None],
    }
    frame = framed({n: pl.Series(v, dtype=codec.columns[n]) for n, v in row.items()}, 1)

    value = codec.encode(frame, version=258).item()

    assert value[:HEADER_BYTES] == (
        b"\x40\0\x01\x02"  # kind 1 in the highest two bits, version 258
        + int((EVENT - EPOCH).total_seconds()).to_bytes(5, "big", signed=True)
        + b"\x01"  # the row is valid from the day after its own
        + (3).to_bytes(2, "big")
        + codec.fingerprint
    )
    items = msgspec.msgpack.decode(value[HEADER_BYTES:])
    assert items == [2**53 + 1, -0.0, 2, 5, "1.50", ["é", b"\0"], None]
    assert struct.pack(">d", items[1]) == b"\x80" + bytes(7)


def test_fingerprints_differ_by_name_order_and_type_and_never_change() -> None:
    base = RowCodec({"a": pl.Int64(), "b": pl.Float64()})
    others = [
        RowCodec({"b": pl.Float64(), "a": pl.Int64()}),
        RowCodec({"a": pl.Int32(), "b": pl.Float64()}),
        RowCodec({"a": pl.Int64(), "c": pl.Float64()}),
        RowCodec({"a": pl.Int64()}),
        RowCodec({"a": pl.Int64(), "b": pl.List(pl.Float64())}),
    ]

    assert len({codec.fingerprint for codec in [base, *others]}) == 6
    assert base.schema_json == '{"columns":[["a","Int64"],["b","Float64"]],"format":1}'
    assert base.fingerprint.hex() == "b7618cd7"


def test_a_null_struct_and_a_struct_of_nulls_stay_apart() -> None:
    codec = RowCodec({"s": pl.Struct({"a": pl.Int64()})})
    frame = framed({"s": pl.Series([None, {"a": None}], dtype=codec.columns["s"])}, 2)

    rows = [codec.decode(value).values for value in codec.encode(frame, version=1)]

    assert rows == [{"s": None}, {"s": {"a": None}}]


def test_a_tombstone_has_a_header_and_no_values() -> None:
    codec = RowCodec({"a": pl.Int64()})

    value = codec.tombstone(version=4, day=DAY, revision=2, event_timestamp=EVENT)

    row = codec.decode(value)
    assert row.values is None
    assert row.header == Header(4, DAY, 2, EVENT, codec.fingerprint, removed=True)
    assert len(value) == HEADER_BYTES


@pytest.mark.parametrize(
    "event",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
        EPOCH,
        datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC),
        datetime(9999, 12, 31, 23, tzinfo=UTC),
    ],
)
@pytest.mark.parametrize("version", [0, MAX_VERSION])
def test_every_instant_of_the_calendar_and_every_version_fits_the_header(
    event: datetime, version: int
) -> None:
    codec = RowCodec({"a": pl.Int64()})
    frame = framed({"a": pl.Series([1])}, 1).with_columns(
        event_timestamp=pl.lit(event, UTC_US), day=event.date(), revision=pl.lit(65_535, pl.Int64)
    )

    for value in (
        codec.encode(frame, version=version).item(),
        codec.tombstone(version=version, day=event.date(), revision=65_535, event_timestamp=event),
    ):
        header = header_of(value)
        assert (event, event.date()) == (header.event_timestamp, header.day)
        assert (version, 65_535) == (header.version, header.revision)


def test_values_of_two_versions_are_equal_but_for_the_version() -> None:
    codec = RowCodec({"a": pl.Int64()})
    frame = framed({"a": pl.Series([1])}, 1)
    old, new = codec.encode(frame, version=1).item(), codec.encode(frame, version=2).item()

    assert old != new
    assert without_version(old) == without_version(new)
    assert header_of(new).version == 2


def test_a_row_of_another_schema_is_not_decoded_by_position() -> None:
    written = RowCodec({"a": pl.Int64()})
    reading = RowCodec({"b": pl.Int64()})
    value = written.encode(framed({"a": pl.Series([1])}, 1), version=1).item()

    with pytest.raises(OnlineError, match="written under another schema"):
        reading.decode(value)


CODEC = RowCodec({"a": pl.Int8(), "b": pl.String()})
GOOD = CODEC.encode(
    framed({"a": pl.Series([1], dtype=pl.Int8), "b": pl.Series(["x"])}, 1), version=1
).item()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        GOOD[:15],
        GOOD[:-1],
        GOOD + b"\0",
        bytes([GOOD[0] & 0x3F]) + GOOD[1:],
        bytes([GOOD[0] | 0xC0]) + GOOD[1:],
        bytes([GOOD[0] & 0x3F | 0x80]) + GOOD[1:],
        GOOD[:HEADER_BYTES],
        GOOD[:HEADER_BYTES] + msgspec.msgpack.encode([1]),
        GOOD[:HEADER_BYTES] + msgspec.msgpack.encode(["x", "x"]),
        GOOD[:HEADER_BYTES] + msgspec.msgpack.encode([1.5, "x"]),
        GOOD[:4] + b"\x7f\xff\xff\xff\xff" + GOOD[9:],
    ],
)
def test_a_damaged_value_is_an_error_never_a_row(value: bytes) -> None:
    with pytest.raises(OnlineError, match="not a row of this layout"):
        CODEC.decode(value)


@given(value=st.binary(max_size=60))
def test_random_bytes_never_crash_the_decoder(value: bytes) -> None:
    for data in (value, GOOD[:HEADER_BYTES] + value):
        try:
            CODEC.decode(data)
        except OnlineError:
            continue


@pytest.mark.parametrize(
    "text", ["", "{}", '{"format":2,"columns":[]}', '{"format":1,"columns":[["a","UInt8"]]}']
)
def test_a_schema_text_from_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(OnlineError, match="row schema kept in Redis"):
        RowCodec.from_schema_json(text)


@pytest.mark.parametrize(
    "dtype",
    [
        pl.UInt32(),
        pl.Duration(),
        pl.Time(),
        pl.Datetime("ns", "UTC"),
        pl.Datetime("us"),
        pl.List(pl.UInt8()),
        pl.Struct({"a": pl.Categorical()}),
        pl.Null(),
    ],
)
def test_a_type_outside_the_closed_list_is_refused(dtype: pl.DataType) -> None:
    with pytest.raises(DeclarationError, match="'spend"):
        RowCodec({"spend": dtype})


SMALL = framed({"a": pl.Series([1], dtype=pl.Int8)}, 1)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (SMALL.with_columns(a=pl.lit(1, pl.Int64)), "Expected Int8, got Int64"),
        (SMALL.drop("a"), "Expected Int8, got no such column"),
        (SMALL.with_columns(day=pl.lit(None, pl.Date)), "'day' of rows to push holds nulls"),
        (SMALL.with_columns(event_timestamp=pl.lit(EVENT.replace(tzinfo=None))), "time_zone=None"),
        (SMALL.with_columns(revision=pl.lit(-1, pl.Int64)), "got -1 to -1"),
        (SMALL.with_columns(revision=pl.lit(65_536, pl.Int64)), "expected 0 to 65535|65536"),
        (SMALL.with_columns(event_timestamp=EVENT + timedelta(milliseconds=1)), "parts of seconds"),
        (SMALL.with_columns(day=EVENT.date() + timedelta(days=1)), "got whole seconds, -1 to -1"),
        (SMALL.with_columns(day=EVENT.date() - timedelta(days=256)), "256 to 256 days"),
    ],
)
def test_a_frame_that_is_not_as_declared_is_refused_not_cast(
    frame: pl.DataFrame, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        RowCodec({"a": pl.Int8()}).encode(frame, version=1)


@pytest.mark.parametrize("version", [-1, MAX_VERSION + 1])
def test_a_version_that_redis_could_not_compare_is_refused(version: int) -> None:
    codec = RowCodec({"a": pl.Int64()})
    with pytest.raises(InputError, match="cannot be pushed"):
        codec.encode(framed({"a": pl.Series([1])}, 1), version=version)
    with pytest.raises(InputError, match="cannot be pushed"):
        codec.tombstone(version=version, day=DAY, revision=1, event_timestamp=EVENT)


@pytest.mark.parametrize("dtype", [UTC_US, pl.Date(), pl.List(UTC_US), pl.Struct({"t": UTC_US})])
def test_an_instant_that_no_client_can_read_is_refused(dtype: pl.DataType) -> None:
    inner = UTC_US if dtype != pl.Date else pl.Date()
    beyond = (
        pl.Series([2**62 if inner == UTC_US else 2**30])
        .cast(pl.Int64 if inner == UTC_US else pl.Int32)
        .cast(inner)
    )
    column = beyond
    if dtype == pl.List(UTC_US):
        column = pl.DataFrame({"x": beyond}).select(pl.concat_list("x")).to_series()
    elif isinstance(dtype, pl.Struct):
        column = pl.DataFrame({"t": beyond}).to_struct("x")

    with pytest.raises(InputError, match="no Python client can read"):
        RowCodec({"x": dtype}).encode(framed({"x": column}, 1), version=1)
