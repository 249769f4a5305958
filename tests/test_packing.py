"""Rows packed a column at a time are, byte for byte, what msgspec packs row by row."""

import math
import struct
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep import packing
from lockstep.codec import HEADER_BYTES, RowCodec
from lockstep.errors import InputError

EVENT = datetime(2026, 11, 22, 5, tzinfo=UTC)
EDGES = [
    edge + step
    for power in (5, 7, 8, 15, 16, 31, 32, 63)
    for edge in (2**power, -(2**power))
    for step in (-1, 0, 1)
    if -(2**63) <= edge + step < 2**63
]
INTEGERS = st.none() | st.sampled_from([0, *EDGES]) | st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.none() | st.floats() | st.sampled_from([-0.0, math.inf, -math.inf, math.nan])
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
KINDS: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "int": (pl.Int64(), INTEGERS),
    "small": (pl.Int16(), st.none() | st.integers(-(2**15), 2**15 - 1)),
    "real": (pl.Float64(), NUMBERS),
    "true": (pl.Boolean(), st.none() | st.booleans()),
    "text": (pl.String(), TEXTS),
    "bytes": (pl.Binary(), st.none() | st.binary(max_size=40)),
    "list": (pl.List(pl.Int64()), st.none() | st.lists(INTEGERS, max_size=4)),
}


def packed(columns: dict[str, pl.Series]) -> list[bytes]:
    """What follows the header, of every row."""
    rows = len(next(iter(columns.values())))
    frame = pl.DataFrame(columns).with_columns(
        pl.lit(EVENT.date()).alias("day"),
        pl.lit(1, pl.Int64).alias("revision"),
        pl.lit(EVENT, pl.Datetime("us", "UTC")).alias("event_timestamp"),
    )
    codec = RowCodec({name: column.dtype for name, column in columns.items()})
    values = codec.encode(frame, version=1)
    assert len(values) == rows
    return [value[HEADER_BYTES:] for value in values.to_list()]


def row_by_row(columns: dict[str, pl.Series]) -> list[bytes]:
    encode = msgspec.msgpack.Encoder().encode
    rows = zip(*(column.to_list() for column in columns.values()), strict=True)
    return [encode(list(row)) for row in rows]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_columns_in_any_order_pack_as_msgspec_packs_them(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=18))
    rows = data.draw(st.integers(1, 8))
    columns = {}
    for at, name in enumerate(names):
        dtype, values = KINDS[name]
        drawn = data.draw(st.lists(values, min_size=rows, max_size=rows))
        columns[f"{name}_{at}"] = pl.Series(drawn, dtype=dtype)

    assert packed(columns) == row_by_row(columns)


@pytest.mark.parametrize("length", [0, 31, 32, 255, 256, 65_535, 65_536])
def test_text_and_bytes_of_every_length_class_carry_the_shortest_head(length: int) -> None:
    columns = {"text": pl.Series(["x" * length, None]), "data": pl.Series([b"y" * length, b""])}

    assert packed(columns) == row_by_row(columns)


def test_float32_keeps_its_four_bytes() -> None:
    columns = {"f": pl.Series([0.1, None], dtype=pl.Float32)}

    assert packed(columns) == [b"\x91\xca" + struct.pack(">f", 0.1), b"\x91\xc0"]
    assert msgspec.msgpack.decode(packed(columns)[0]) == columns["f"].to_list()[:1]


def test_the_payload_of_a_nan_is_kept() -> None:
    columns = {"f": pl.Series([math.nan])}

    assert packed(columns) == [b"\x91\xcb" + struct.pack(">d", columns["f"][0])]


def test_many_rows_are_packed_in_blocks_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = {"a": pl.Series(range(1000)), "b": pl.Series([None, *map(str, range(999))])}
    whole = packed(columns)

    monkeypatch.setattr(packing, "BLOCK", 7)

    assert packed(columns) == whole == row_by_row(columns)


def test_no_rows_are_no_values() -> None:
    assert packed({"a": pl.Series([], dtype=pl.Int64), "b": pl.Series([], dtype=pl.String)}) == []


def test_a_contract_without_features_packs_an_empty_array() -> None:
    frame = pl.DataFrame(
        {"day": [EVENT.date()], "revision": [1], "event_timestamp": [EVENT]},
        schema_overrides={"event_timestamp": pl.Datetime("us", "UTC")},
    )

    assert RowCodec({}).encode(frame, version=1)[0][HEADER_BYTES:] == b"\x90"


@pytest.mark.parametrize("edge", [-1, 1])
@pytest.mark.parametrize(
    ("dtype", "physical", "far"),
    [(pl.Date(), pl.Int32(), 2**31 - 1), (pl.Datetime("us", "UTC"), pl.Int64(), 2**62)],
)
def test_an_instant_beyond_the_calendar_is_refused_wherever_it_stands(
    dtype: pl.DataType, physical: pl.DataType, far: int, edge: int
) -> None:
    column = pl.Series([0, edge * far, None], dtype=physical)

    with pytest.raises(InputError, match="dates in the years 1 to 9999"):
        packed({"when": column.cast(dtype)})
