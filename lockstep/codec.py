"""Rows as bytes: a header that orders writes, the contract's fingerprint, then the columns.

    offset  size  what
    0       4     big-endian: in the two highest bits the kind, 1 a row, 2 a tombstone (the entity
                  has no row; the value ends after the header); in the others V, the Delta version
                  that the row was pushed from
    4       5     event_timestamp, whole seconds since 1970-01-01 UTC; big-endian, signed
    9       1     how many days before the UTC date of event_timestamp the day lies
    10      2     revision of that day; big-endian
    12      4     fingerprint of the columns: names, order and types
    16      …     a msgpack array with one item per column

Sixteen bytes, because three views of ten numbers then fit a smaller class of the server's allocator
(docs/adr/0014-a-header-of-sixteen-bytes.md).

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
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import polars as pl

from lockstep.errors import InputError, OnlineError
from lockstep.keys import MAX_KEY_BYTES, bucket_of, decode_key, encode_key, encode_keys
from lockstep.wire import column_type, fingerprint_of, schema_from, schema_to

if TYPE_CHECKING:
    import numpy as np

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

HEADER_BYTES: Final = 16
MAX_VERSION: Final = 2**30 - 1
ROW: Final = 1
TOMBSTONE: Final = 2
_LAYOUT: Final = struct.Struct(">IbIBH4s")
_LAYOUT_NUMPY: Final = [
    ("kind_and_version", ">u4"),
    ("event_high", "i1"),
    ("event_low", ">u4"),
    ("days_before", "u1"),
    ("revision", ">u2"),
    ("fingerprint", "V4"),
]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1)
_MAX_REVISION: Final = 2**16 - 1
_KIND_SHIFT: Final = 30
_SECOND: Final = timedelta(seconds=1)
_MICROSECONDS: Final = 1_000_000
_DAY_SECONDS: Final = 86_400
_LOW: Final = 2**32
_MOST_DAYS_BEFORE: Final = 255
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
        event_timestamp: Instant (UTC, whole seconds) from which the row is valid.
        fingerprint: 4 bytes that name the columns' schema.
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
    word, high, low, days_before, revision, fingerprint = _LAYOUT.unpack_from(value)
    seconds = high * _LOW + low
    day = seconds // _DAY_SECONDS - days_before
    kind, version = word >> _KIND_SHIFT, word & MAX_VERSION
    return kind, version, day, revision, seconds * _MICROSECONDS, fingerprint


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
    return bytes([value[0] & 0xC0, 0, 0, 0]) + value[4:]


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
        seconds, rest = divmod(event_timestamp - _EPOCH, _SECOND)
        before = seconds // _DAY_SECONDS - (day - _EPOCH_DAY).days
        _require_instants(not rest, before, before)
        return _LAYOUT.pack(
            TOMBSTONE << _KIND_SHIFT | version,
            seconds // _LOW,
            seconds % _LOW,
            before,
            revision,
            self.fingerprint,
        )

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

    def _headers(self, frame: pl.DataFrame, version: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        import numpy as np  # a tenth of a second that readers, which never pack, do without

        _require_version(version)
        revisions = frame["revision"].to_numpy()
        if frame.height:
            _require_revisions(int(revisions.min()), int(revisions.max()))
        event_us = frame["event_timestamp"].to_physical().to_numpy()
        seconds = event_us // _MICROSECONDS
        before = seconds // _DAY_SECONDS - frame["day"].to_physical().to_numpy()
        if frame.height:
            whole = not (event_us % _MICROSECONDS).any()
            _require_instants(whole, int(before.min()), int(before.max()))
        headers = np.zeros(frame.height, _LAYOUT_NUMPY)
        headers["kind_and_version"] = ROW << _KIND_SHIFT | version
        headers["event_high"] = seconds >> 32
        headers["event_low"] = seconds & (_LOW - 1)
        headers["days_before"] = before
        headers["revision"] = revisions
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
            expected="0 to 2^30 - 1",
            effect="Nothing was pushed.",
        )


def _require_revisions(lowest: int, highest: int) -> None:
    if lowest < 0 or highest > _MAX_REVISION:
        raise InputError(
            "A revision cannot be pushed.",
            expected="0 to 65535",
            got=f"{lowest} to {highest}",
            effect="Nothing was pushed.",
        )


def _require_instants(whole: bool, least: int, most: int) -> None:  # noqa: FBT001 - of a column
    if not whole or least < 0 or most > _MOST_DAYS_BEFORE:
        raise InputError(
            "An event_timestamp cannot be pushed.",
            expected=f"whole seconds, 0 to {_MOST_DAYS_BEFORE} days after the row's day",
            got=f"{'whole seconds' if whole else 'parts of seconds'}, {least} to {most} days",
            effect="Nothing was pushed.",
        )


def _damaged(got: str) -> OnlineError:
    return OnlineError(
        "A stored value is not a row of this layout.",
        expected="a 16-byte header of kind 1 or 2 and one msgpack array",
        got=got,
        fix="Rebuild the view online from Delta; if an older release must read it, upgrade that.",
    )
