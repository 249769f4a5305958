"""Entity keys are exact, unambiguous bytes; what cannot be one is refused."""

import zlib
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.codec import bucket_of, decode_key, encode_key, encode_keys
from lockstep.errors import InputError

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 2**53 + 1, 0])
PART = INT64 | TEXT


@given(values=st.lists(PART, min_size=1, max_size=3))
def test_a_key_survives_encoding(values: list[int | str]) -> None:
    assert decode_key(encode_key(values)) == tuple(values)


@given(left=st.lists(PART, min_size=1, max_size=3), right=st.lists(PART, min_size=1, max_size=3))
def test_different_keys_have_different_bytes(left: list[int | str], right: list[int | str]) -> None:
    assert (encode_key(left) == encode_key(right)) == (left == right)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1], ["1"]),
        (["a", "b:c"], ["a:b", "c"]),
        (["a", "b"], ["ab"]),
        (["é"], ["e\u0301"]),
        (["x"], ["x "]),
        (["a\r\n"], ["a"]),
        (["a\0b"], ["ab"]),
        (["i1:1"], [1]),
        (["", "a"], ["a", ""]),
        ([1, 23], [12, 3]),
    ],
)
def test_keys_that_look_alike_stay_apart(one: list[int | str], other: list[int | str]) -> None:
    assert encode_key(one) != encode_key(other)
    assert decode_key(encode_key(one)) == tuple(one)


def test_ordinary_keys_are_readable() -> None:
    assert encode_key([900]) == b"i3:900"
    assert encode_key(["abc"]) == b"s3:abc"
    assert encode_key([-5, "é"]) == b"i2:-5s2:\xc3\xa9"


@settings(deadline=None)
@given(rows=st.lists(st.tuples(INT64, TEXT, st.integers(-(2**15), 2**15 - 1)), max_size=5))
def test_a_column_of_keys_is_encoded_as_each_key_alone(rows: list[tuple[int, str, int]]) -> None:
    schema = {"a": pl.Int64, "b": pl.String, "c": pl.Int16}
    frame = pl.DataFrame(rows, schema=schema, orient="row")

    encoded = encode_keys(frame, ["b", "a", "c"])

    assert encoded.dtype == pl.Binary
    assert encoded.to_list() == [encode_key([b, a, c]) for a, b, c in rows]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "at least one value"),
        ([True], "a bool"),
        ([1.0], "a float"),
        ([None], "a NoneType"),
        ([2**63], "does not fit into 64 bits"),
        (["\ud800"], "not valid Unicode"),
        (["x" * 1020], "at most 1024 bytes when encoded, got 1026 bytes"),
    ],
)
def test_a_value_that_cannot_be_a_key_is_refused(values: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode_key(values)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series([1, None]), "null in 1 of 2 rows"),
        (pl.Series([1.5]), "is Float64"),
        (pl.Series([True]), "is Boolean"),
        (pl.Series([1], dtype=pl.UInt32), "is UInt32"),
        (pl.Series(["x" * 1020]), "got 1026 bytes"),
    ],
)
def test_a_column_that_cannot_be_a_key_is_refused(column: pl.Series, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        encode_keys(pl.DataFrame({"k": column}), ["k"])
    assert "Nothing was written." in str(refused.value)


def test_a_missing_key_column_is_named() -> None:
    with pytest.raises(InputError, match="'household_id' is missing"):
        encode_keys(pl.DataFrame({"k": [1]}), ["household_id"])


@given(data=st.binary(max_size=12))
def test_bytes_that_are_no_key_are_refused(data: bytes) -> None:
    try:
        values = decode_key(data)
    except InputError:
        return
    assert encode_key(values) == data


@pytest.mark.parametrize(
    "data", [b"", b"i1:", b"i2:1", b"i02:11", b"i3:+11", b"i2:01", b"x1:a", b"s-1:", b"i1:1 "]
)
def test_only_canonical_key_bytes_are_decoded(data: bytes) -> None:
    with pytest.raises(InputError, match="not an encoded entity key"):
        decode_key(data)


def test_the_bucket_is_the_crc32_of_the_key_and_buckets_fill_evenly() -> None:
    frame = pl.DataFrame({"k": range(20_000)})
    keys = encode_keys(frame, ["k"])

    buckets = bucket_of(keys, 64)

    assert buckets.to_list() == [zlib.crc32(key) % 64 for key in keys]
    assert bucket_of(b"i3:900", 64) == zlib.crc32(b"i3:900") % 64
    counts = buckets.value_counts()["count"]
    assert len(counts) == 64
    assert counts.max() < 1.3 * 20_000 / 64
    assert counts.min() > 0.7 * 20_000 / 64
