"""Entity keys as bytes: typed, length-prefixed, exact, the same in any language.

`900` becomes `i3:900`, `"abc"` becomes `s3:abc` (the length counts bytes of UTF-8), and the parts
of a composite key follow each other. So `1` and `"1"` differ, `("a", "b:c")` and `("a:b", "c")`
differ, nothing is normalized or trimmed, and ordinary keys stay readable in `redis-cli`.
"""

from collections.abc import Sequence
from typing import Final, overload
from zlib import crc32

import polars as pl

from lockstep.errors import InputError

MAX_KEY_BYTES: Final = 1024
_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_INTEGERS: Final = frozenset({pl.Int8, pl.Int16, pl.Int32, pl.Int64})
_NOTHING_WRITTEN: Final = "Nothing was written."


def encode_keys(frame: pl.DataFrame, key: Sequence[str]) -> pl.Series:
    """The encoded entity key of every row, in row order.

    Args:
        frame: Any frame with the key columns; other columns are ignored.
        key: Names of the key columns, in the entity's order.

    Returns:
        A Binary series named "key", as long as the frame, without nulls. Equal keys of two rows
        mean equal values in every key column; uniqueness is not checked.

    Raises:
        InputError: No key column, a column that is absent or neither integer nor text, a null, or
            an encoded key longer than 1 KiB.
    """
    _require_columns(frame, key)
    encoded = _encoded(frame, key)
    longest = encoded.bin.size().max() if frame.height else 0
    if isinstance(longest, int) and longest > MAX_KEY_BYTES:
        raise _too_long(f"An entity key in {list(key)}", longest)
    return encoded


def count_long_keys(frame: pl.DataFrame, key: Sequence[str]) -> int:
    """Return how many rows have a key that `encode_keys` refuses as too long."""
    return int(long_keys(frame, key).sum())


def long_keys(frame: pl.DataFrame, key: Sequence[str]) -> pl.Series:
    """Return of each row whether its key is one that `encode_keys` refuses as too long."""
    return (_encoded(frame, key).bin.size() > MAX_KEY_BYTES).fill_null(value=False)


def _encoded(frame: pl.DataFrame, key: Sequence[str]) -> pl.Series:
    """Return the encoded keys, null where a part is."""
    parts: list[pl.Expr] = []
    for name in key:
        text = pl.col(name).cast(pl.String)
        kind = "s" if frame.schema[name] == pl.String else "i"
        length = text.str.len_bytes().cast(pl.String)
        parts += [pl.lit(kind), length, pl.lit(":"), text]
    return frame.select(pl.concat_str(parts).cast(pl.Binary).alias("key")).to_series()


def encode_key(values: Sequence[int | str]) -> bytes:
    """The encoded entity key of one entity: the same bytes as `encode_keys` gives for its row.

    Raises:
        InputError: No value, a value that is neither int nor str (a bool is no int here), an int
            beyond 64 bits, text that is not valid Unicode, or more than 1 KiB.
    """
    if not values:
        raise InputError(
            "An entity key needs at least one value.", fix="Pass one value per key column."
        )
    data = b"".join(_encode_part(value) for value in values)
    if len(data) > MAX_KEY_BYTES:
        raise _too_long("An entity key", len(data))
    return data


def decode_key(data: bytes) -> tuple[int | str, ...]:
    """The values of an encoded entity key, in the entity's order.

    Raises:
        InputError: The bytes are not what `encode_key` gives for any values.
    """
    values: list[int | str] = []
    at = 0
    while at < len(data):
        colon = data.find(b":", at)
        digits = data[at + 1 : colon]
        if colon < 0 or not digits.isdigit():
            raise _not_a_key(data)
        end = colon + 1 + int(digits)
        values.append(_decode_part(data[at : at + 1], data[colon + 1 : end], data))
        at = end
    if not values or encode_key(values) != data:
        raise _not_a_key(data)
    return tuple(values)


@overload
def bucket_of(keys: bytes, buckets: int) -> int: ...
@overload
def bucket_of(keys: pl.Series, buckets: int) -> pl.Series: ...
def bucket_of(keys: pl.Series | bytes, buckets: int) -> pl.Series | int:
    """The bucket of a key, or of every key of a Binary series: its CRC-32 modulo `buckets`.

    CRC-32 is the one of zlib and PNG, so that any client finds the bucket. The series is Int64,
    named "bucket", in the order of the keys.
    """
    if isinstance(keys, bytes):
        return crc32(keys) % buckets
    found = [crc32(key) % buckets for key in keys.to_list()]
    return pl.Series("bucket", found, dtype=pl.Int64)


def _encode_part(value: int | str) -> bytes:
    if isinstance(value, str):
        try:
            text = value.encode()
        except UnicodeEncodeError:
            raise InputError(
                "An entity key holds text that is not valid Unicode (a lone surrogate).",
                fix="Decode the key as UTF-8.",
            ) from None
        return b"s%d:%b" % (len(text), text)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(
            f"An entity key holds a {type(value).__name__}.",
            expected="int or str",
            got=type(value).__name__,
        )
    if not _INT64_MIN <= value <= _INT64_MAX:
        raise InputError(
            f"The entity key {value} does not fit into 64 bits.",
            fix="Declare the key column as String.",
        )
    digits = b"%d" % value
    return b"i%d:%b" % (len(digits), digits)


def _decode_part(kind: bytes, text: bytes, whole: bytes) -> int | str:
    try:
        if kind == b"s":
            return text.decode()
        if kind == b"i":
            return int(text)
    except ValueError:
        pass
    raise _not_a_key(whole)


def _require_columns(frame: pl.DataFrame, key: Sequence[str]) -> None:
    if not key:
        raise InputError(
            "An entity key needs at least one column.",
            fix="Declare the entity's key.",
            effect=_NOTHING_WRITTEN,
        )
    for name in key:
        if name not in frame.columns:
            message = f"The key column '{name}' is missing."
            raise InputError(
                message, expected=str(list(key)), got=str(frame.columns), effect=_NOTHING_WRITTEN
            )
        dtype = frame.schema[name]
        if dtype != pl.String and dtype not in _INTEGERS:
            raise InputError(
                f"The key column '{name}' is {dtype}.",
                expected="String or a signed integer",
                got=str(dtype),
                fix=f"Cast it in the view: pl.col({name!r}).cast(pl.Int64).",
                effect=_NOTHING_WRITTEN,
            )
        nulls = frame[name].null_count()
        if nulls:
            raise InputError(
                f"The key column '{name}' is null in {nulls} of {frame.height} rows.",
                fix="Drop or repair those rows in the source or in the view.",
                effect=_NOTHING_WRITTEN,
            )


def _too_long(culprit: str, size: int) -> InputError:
    return InputError(
        f"{culprit} is too long.",
        expected=f"at most {MAX_KEY_BYTES} bytes when encoded",
        got=f"{size} bytes",
        fix="Use a shorter key, for example a hash of this one.",
        effect=_NOTHING_WRITTEN,
    )


def _not_a_key(data: bytes) -> InputError:
    shown = data[:40]
    return InputError(
        f"{shown!r} is not an encoded entity key.",
        expected="parts such as i3:900 or s3:abc",
        fix="Encode keys with encode_key().",
    )
