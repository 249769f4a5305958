"""Rows as bytes: a header that orders writes, the contract's fingerprint, then the columns.

    offset  size  what
    0       1     kind: 1 a row, 2 a tombstone (the entity has no row; the value ends after 33)
    1       8     V, the Delta version the row was pushed from; big-endian, unsigned
    9       4     day, days since 1970-01-01; signed
    13      4     revision of that day; unsigned
    17      8     event_timestamp, microseconds since 1970-01-01 UTC; signed
    25      8     fingerprint of the columns: names, order and types
    33      …     a msgpack array with one item per column

The schema under a fingerprint says how to read the items: Date is days and Datetime microseconds
since 1970-01-01 UTC, Decimal is text in its scale ("1.50"), Struct is an array in field order.
Everything else is msgpack's own type, integers in their shortest form, Float32 in four bytes. So
any language can read it.

Keys have the same property; they live in `lockstep.keys` and are re-exported here.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any, Final, Self

import msgspec
import numpy as np
import polars as pl

from lockstep.errors import InputError, OnlineError
from lockstep.keys import MAX_KEY_BYTES, bucket_of, decode_key, encode_key, encode_keys
from lockstep.wire import column_type, fingerprint_of, schema_from, schema_to

__all__ = [
    "HEADER_BYTES",
    "MAX_KEY_BYTES",
    "MAX_VERSION",
    "ROW",
    "TOMBSTONE",
    "Header",
    "Row",
    "RowCodec",
    "bucket_of",
    "decode_key",
    "encode_key",
    "encode_keys",
    "header_of",
    "raw_header",
    "without_version",
]

HEADER_BYTES: Final = 33
MAX_VERSION: Final = 2**53 - 1  # the push function reads V as a Lua number
ROW: Final = 1
TOMBSTONE: Final = 2
_LAYOUT: Final = struct.Struct(">BQiIq8s")
_LAYOUT_NUMPY: Final = np.dtype(
    [
        ("kind", "u1"),
        ("version", ">u8"),
        ("day", ">i4"),
        ("revision", ">u4"),
        ("event_us", ">i8"),
        ("fingerprint", "V8"),
    ]
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1)
_MAX_REVISION: Final = 2**32 - 1
_MICROSECOND: Final = timedelta(microseconds=1)
_HEADER_COLUMNS: Final = {
    "day": pl.Date,
    "revision": pl.Int64,
    "event_timestamp": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True)
class Header:
    """What a stored value says about itself, before its columns.

    Attributes:
        version: Delta version the value was pushed from; newer versions replace older ones.
        day: Civil day (partition) of the row; of a tombstone, the day whose revision removed it.
        revision: Revision of that day.
        event_timestamp: Instant (UTC, microseconds) from which the row is valid.
        fingerprint: 8 bytes that name the columns' schema.
        removed: True for a tombstone: the entity has no row.
    """

    version: int
    day: date
    revision: int
    event_timestamp: datetime
    fingerprint: bytes
    removed: bool = False


@dataclass(frozen=True)
class Row:
    """One decoded value: its header and its features by name (None for a tombstone)."""

    header: Header
    values: Mapping[str, Any] | None


def raw_header(value: bytes) -> tuple[int, int, int, int, int, bytes]:
    """Kind, V, day, revision, event_timestamp in microseconds and fingerprint, as they stand there.

    Args:
        value: At least the header; whether its numbers make sense is the caller's to judge.
    """
    return _LAYOUT.unpack_from(value)


def header_of(value: bytes) -> Header:
    """The header of a stored value, whatever its columns.

    Raises:
        OnlineError: The value is not a row or tombstone of this layout.
    """
    if len(value) < HEADER_BYTES:
        raise _damaged(f"{len(value)} bytes")
    kind, version, day, revision, event_us, fingerprint = raw_header(value)
    if kind not in {ROW, TOMBSTONE}:
        raise _damaged(f"kind {kind}")
    if kind == TOMBSTONE and len(value) != HEADER_BYTES:
        raise _damaged(f"a tombstone of {len(value)} bytes")
    try:
        return Header(
            version,
            _EPOCH_DAY + timedelta(days=day),
            revision,
            _EPOCH + timedelta(microseconds=event_us),
            fingerprint,
            removed=kind == TOMBSTONE,
        )
    except OverflowError:
        raise _damaged(f"day {day}, event_timestamp {event_us}") from None


def without_version(value: bytes) -> bytes:
    """The value with V blanked: equal for two pushes of the same content (parity compares this)."""
    return value[:1] + bytes(8) + value[9:]


class RowCodec:
    """Packs the feature columns of one contract and unpacks them by name.

    Args:
        columns: Feature columns in the contract's order: name to Polars type. Keys,
            event_timestamp, day and revision are not among them.

    Raises:
        DeclarationError: A type outside the closed list of `lockstep.types`.
    """

    def __init__(self, columns: Mapping[str, pl.DataType]) -> None:
        self.columns: Final = dict(columns)
        self.schema_json: Final = schema_to(self.columns)
        self.fingerprint: Final = fingerprint_of(self.schema_json)
        self._types: Final = {name: column_type(name, dtype) for name, dtype in columns.items()}

    @classmethod
    def from_schema_json(cls, schema_json: str) -> Self:
        """The codec for a schema kept in Redis; its `schema_json` equals the argument.

        Raises:
            OnlineError: The text is not a schema that this release can read.
        """
        codec = cls(schema_from(schema_json))
        if codec.schema_json != schema_json:
            raise OnlineError(
                "A row schema kept in Redis is not in the form this release writes.",
                fix="Upgrade this process to the release that wrote it.",
            )
        return codec

    def encode(self, frame: pl.DataFrame, *, version: int) -> pl.Series:
        """The packed value of every row, in row order, as a Binary series named "value".

        Args:
            frame: One row per entity: `day` (Date), `revision` (Int64), `event_timestamp`
                (Datetime us UTC), all without nulls, and the feature columns in any order and
                exactly their declared types. Other columns are ignored.
            version: Delta version the rows come from.

        Raises:
            InputError: A column that is missing, retyped or out of range. Nothing is coerced.
        """
        from lockstep.packing import pack_rows  # readers never need it

        self._require(frame)
        return pack_rows(
            self._headers(frame, version),
            [(self._types[name], frame[name]) for name in self.columns],
        )

    def tombstone(
        self, *, version: int, day: date, revision: int, event_timestamp: datetime
    ) -> bytes:
        """The value that says "as of this version the entity has no row".

        Args:
            version: Delta version that was pushed.
            day: Civil day whose revision removed the entity.
            revision: That revision.
            event_timestamp: End of that day (UTC).

        Raises:
            InputError: A naive event_timestamp, or a number out of range.
        """
        if event_timestamp.tzinfo is None:
            raise InputError(
                "The tombstone's event_timestamp has no time zone.", fix="Pass it in UTC."
            )
        _require_version(version)
        _require_revisions(revision, revision)
        event_us = (event_timestamp - _EPOCH) // _MICROSECOND
        days = (day - _EPOCH_DAY).days
        return _LAYOUT.pack(TOMBSTONE, version, days, revision, event_us, self.fingerprint)

    def decode(self, value: bytes) -> Row:
        """The row in a stored value that carries this codec's fingerprint.

        Dates come back as `date`, timestamps as aware UTC `datetime`, decimals as `Decimal`,
        lists as lists and structs as dicts; a tombstone has no values.

        Raises:
            OnlineError: Another fingerprint (find its schema in the store), or a damaged value.
        """
        header = header_of(value)
        if header.fingerprint != self.fingerprint:
            raise OnlineError(
                "A stored row was written under another schema.",
                expected=f"fingerprint {self.fingerprint.hex()}",
                got=header.fingerprint.hex(),
                fix="Decode it with the schema that the store keeps under that fingerprint.",
            )
        if header.removed:
            return Row(header, None)
        try:
            items = self._decoder.decode(memoryview(value)[HEADER_BYTES:])
            pairs = zip(self._types.items(), items, strict=True)
            values = {name: kind.unpack(item) for (name, kind), item in pairs}
        except (msgspec.DecodeError, ValueError, ArithmeticError):
            raise _damaged("columns that do not fit their schema") from None
        return Row(header, values)

    @cached_property
    def _decoder(self) -> msgspec.msgpack.Decoder[Sequence[Any]]:
        items = tuple(kind.wire for kind in self._types.values())
        return msgspec.msgpack.Decoder(tuple.__class_getitem__(items))

    def _headers(self, frame: pl.DataFrame, version: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        _require_version(version)
        revisions = frame["revision"].to_numpy()
        if frame.height:
            _require_revisions(int(revisions.min()), int(revisions.max()))
        headers = np.zeros(frame.height, _LAYOUT_NUMPY)
        headers["kind"] = ROW
        headers["version"] = version
        headers["day"] = frame["day"].to_physical().to_numpy()
        headers["revision"] = revisions
        headers["event_us"] = frame["event_timestamp"].to_physical().to_numpy()
        headers["fingerprint"] = np.void(self.fingerprint)
        return headers.view(np.uint8).reshape(frame.height, HEADER_BYTES)

    def _require(self, frame: pl.DataFrame) -> None:
        expected: dict[str, Any] = {**self.columns, **_HEADER_COLUMNS}
        for name, dtype in expected.items():
            if name not in frame.columns or frame.schema[name] != dtype:
                got = str(frame.schema[name]) if name in frame.columns else "no such column"
                raise InputError(
                    f"The column '{name}' cannot be packed.",
                    expected=str(dtype),
                    got=got,
                    effect="Nothing was pushed.",
                )
        for name in _HEADER_COLUMNS:
            if frame[name].null_count():
                raise InputError(
                    f"The column '{name}' of rows to push holds nulls.",
                    effect="Nothing was pushed.",
                )


def _require_version(version: int) -> None:
    if not 0 <= version <= MAX_VERSION:
        raise InputError(
            f"The Delta version {version} cannot be pushed.",
            expected="0 to 2^53 - 1",
            effect="Nothing was pushed.",
        )


def _require_revisions(lowest: int, highest: int) -> None:
    if lowest < 0 or highest > _MAX_REVISION:
        raise InputError(
            "A revision cannot be pushed.",
            expected="0 to 2^32 - 1",
            got=f"{lowest} to {highest}",
            effect="Nothing was pushed.",
        )


def _damaged(got: str) -> OnlineError:
    return OnlineError(
        "A stored value is not a row of this layout.",
        expected="a 33-byte header of kind 1 or 2 and one msgpack array",
        got=got,
        fix="Rebuild the view online from Delta; if an older release must read it, upgrade that.",
    )
