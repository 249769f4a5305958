"""What each type of the closed list looks like in a packed row and in a schema text."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

import polars as pl

from lockstep.errors import DeclarationError, InputError, OnlineError
from lockstep.types import canonical_type, type_problem

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1)
_MIN_DAY: Final = (date.min - _EPOCH_DAY).days
_MAX_DAY: Final = (date.max - _EPOCH_DAY).days
_MICROSECOND: Final = timedelta(microseconds=1)
_MIN_US: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_MAX_US: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_UTC_MICROSECONDS: Final = pl.Datetime("us", "UTC")
_SCHEMA_FORMAT: Final = 1

_PLAIN: Final[Mapping[str, tuple[pl.DataType, type]]] = {
    "Int8": (pl.Int8(), int),
    "Int16": (pl.Int16(), int),
    "Int32": (pl.Int32(), int),
    "Int64": (pl.Int64(), int),
    "Float32": (pl.Float32(), float),
    "Float64": (pl.Float64(), float),
    "Boolean": (pl.Boolean(), bool),
    "String": (pl.String(), str),
    "Binary": (pl.Binary(), bytes),
}


@dataclass(frozen=True)
class ColumnType:
    """How one column travels.

    Attributes:
        spec: Its place in a schema text: a name, or a list that starts with one.
        dtype: The Polars type.
        physical: The Polars type it is cast to before packing (lossless).
        wire: The Python type annotation that its items must have after unpacking.
        to_wire: One physical value (never None) to the packed item; None when they are the same.
        from_wire: One unpacked item (never None) to the Python value; None when the same.
    """

    spec: Any
    dtype: pl.DataType
    physical: pl.DataType
    wire: Any
    to_wire: Callable[[Any], Any] | None = None
    from_wire: Callable[[Any], Any] | None = None

    def pack(self, column: pl.Series) -> list[Any]:
        """The items of a whole column, nulls as None, in row order.

        Raises:
            InputError: A date or timestamp beyond the years 1 to 9999.
        """
        items = column.cast(self.physical).to_list()
        convert = self.to_wire
        if convert is None:
            return items
        try:
            return [None if item is None else convert(item) for item in items]
        except OverflowError as error:
            raise _beyond_calendar(column, str(error)) from None

    def check(self, column: pl.Series) -> None:
        """Do nothing if Python can read every value of a column of numbers.

        Raises:
            InputError: A date or timestamp beyond the years 1 to 9999.
        """
        if self.to_wire is None or not column.len():
            return
        physical = column.cast(self.physical)
        try:
            for value in (physical.min(), physical.max()):
                if value is not None:
                    self.to_wire(value)
        except OverflowError as error:
            raise _beyond_calendar(column, str(error)) from None

    def unpack(self, item: Any) -> Any:
        """The Python value of one unpacked item; None stays None."""
        if item is None or self.from_wire is None:
            return item
        return self.from_wire(item)


def column_type(name: str, dtype: pl.DataType) -> ColumnType:
    """How a column of that type travels.

    Raises:
        DeclarationError: A type outside the closed list, naming the column and the fix.
    """
    for spec, (plain, wire) in _PLAIN.items():
        if dtype == plain:
            return ColumnType(spec, plain, plain, wire | None)
    if dtype == pl.Date:
        return ColumnType("Date", pl.Date(), pl.Int32(), int | None, _checked_day, _day)
    if dtype == _UTC_MICROSECONDS:
        us = _UTC_MICROSECONDS
        return ColumnType("Datetime(us, UTC)", us, pl.Int64(), int | None, _checked_us, _instant)
    if isinstance(dtype, pl.Decimal):
        spec_ = ["Decimal", dtype.precision, dtype.scale]
        return ColumnType(spec_, dtype, pl.String(), str | None, None, Decimal)
    if isinstance(dtype, pl.List):
        return _list_of(column_type(name, canonical_type(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        return _struct_of(
            {f.name: column_type(name, canonical_type(f.dtype)) for f in dtype.fields}
        )
    raise DeclarationError([type_problem(name, dtype) or f"'{name}' is {dtype}."])


def schema_to(columns: Mapping[str, pl.DataType]) -> str:
    """The canonical schema text of the columns: the same text for the same names, order, types.

    Raises:
        DeclarationError: A type outside the closed list.
    """
    specs = [[name, column_type(name, dtype).spec] for name, dtype in columns.items()]
    document = {"columns": specs, "format": _SCHEMA_FORMAT}
    return json.dumps(document, ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def schema_from(text: str) -> dict[str, pl.DataType]:
    """The columns of a schema text, in order.

    Raises:
        OnlineError: The text is damaged or of a later format.
    """
    try:
        document = json.loads(text)
        if document["format"] != _SCHEMA_FORMAT:
            raise _unreadable(f"format {document['format']}")
        return {name: _dtype_of(spec) for name, spec in document["columns"]}
    except (ValueError, KeyError, TypeError, IndexError):
        raise _unreadable(text[:80]) from None


def fingerprint_of(schema_json: str) -> bytes:
    """The 4 bytes that name a schema: the start of the SHA-256 of its text."""
    return sha256(schema_json.encode()).digest()[:4]


def _list_of(inner: ColumnType) -> ColumnType:
    pack, unpack = inner.to_wire, inner.from_wire
    return ColumnType(
        ["List", inner.spec],
        pl.List(inner.dtype),
        pl.List(inner.physical),
        list[inner.wire] | None,  # type: ignore[name-defined]
        pack and (lambda items: [None if item is None else pack(item) for item in items]),
        unpack and (lambda items: [None if item is None else unpack(item) for item in items]),
    )


def _struct_of(fields: Mapping[str, ColumnType]) -> ColumnType:
    def to_wire(item: Mapping[str, Any]) -> list[Any]:
        return [
            value if value is None or kind.to_wire is None else kind.to_wire(value)
            for kind, value in zip(fields.values(), item.values(), strict=True)
        ]

    def from_wire(items: tuple[Any, ...]) -> dict[str, Any]:
        pairs = zip(fields.items(), items, strict=True)
        return {name: kind.unpack(item) for (name, kind), item in pairs}

    wires = tuple(kind.wire for kind in fields.values())
    return ColumnType(
        ["Struct", [[name, kind.spec] for name, kind in fields.items()]],
        pl.Struct({name: kind.dtype for name, kind in fields.items()}),
        pl.Struct({name: kind.physical for name, kind in fields.items()}),
        tuple.__class_getitem__(wires) | None,
        to_wire,
        from_wire,
    )


def _dtype_of(spec: Any) -> pl.DataType:
    match spec:
        case "Date":
            return pl.Date()
        case "Datetime(us, UTC)":
            return _UTC_MICROSECONDS
        case ["Decimal", precision, scale]:
            return pl.Decimal(precision, scale)
        case ["List", inner]:
            return pl.List(_dtype_of(inner))
        case ["Struct", fields]:
            return pl.Struct({name: _dtype_of(inner) for name, inner in fields})
    return _PLAIN[spec][0]


def _checked_day(days: int) -> int:
    if _MIN_DAY <= days <= _MAX_DAY:
        return days
    raise OverflowError(f"a date {days} days from 1970-01-01")


def _checked_us(us: int) -> int:
    if _MIN_US <= us <= _MAX_US:
        return us
    raise OverflowError(f"a timestamp {us} us from 1970-01-01")


def _day(days: int) -> date:
    return _EPOCH_DAY + timedelta(days=days)


def _instant(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _beyond_calendar(column: pl.Series, what: str) -> InputError:
    return InputError(
        f"The column '{column.name}' holds {what}, which no Python client can read.",
        expected="dates in the years 1 to 9999",
        effect="Nothing was pushed.",
    )


def _unreadable(got: str) -> OnlineError:
    return OnlineError(
        "A row schema kept in Redis cannot be read.",
        expected=f"format {_SCHEMA_FORMAT}",
        got=got,
        fix="Upgrade this process to the release that wrote it.",
    )
