"""The closed list of column types: those that survive Polars, Delta, Redis and JSON unchanged."""

import struct
from datetime import UTC, date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, Final

import polars as pl
from polars._typing import PolarsDataType

_SCALARS: Final[frozenset[type[pl.DataType]]] = frozenset(
    {
        pl.Int8,
        pl.Int16,
        pl.Int32,
        pl.Int64,
        pl.Float32,
        pl.Float64,
        pl.Boolean,
        pl.String,
        pl.Binary,
        pl.Date,
    }
)
_UNSIGNED: Final[dict[type[pl.DataType], str]] = {
    pl.UInt8: "Int8",
    pl.UInt16: "Int16",
    pl.UInt32: "Int32",
    pl.UInt64: "Int64",
}

_BITS: Final[dict[type[pl.DataType], int]] = {pl.Int8: 8, pl.Int16: 16, pl.Int32: 32, pl.Int64: 64}
_PYTHON: Final[dict[type[pl.DataType], type]] = {
    pl.Boolean: bool,
    pl.String: str,
    pl.Binary: bytes,
    pl.Date: date,
}


def canonical_type(dtype: PolarsDataType) -> pl.DataType:
    """Return the type as an instance (`pl.Int64` → `pl.Int64()`)."""
    return dtype() if isinstance(dtype, type) else dtype


def type_problem(culprit: str, dtype: pl.DataType) -> str | None:
    """Say why a column can't have the type, with what to declare instead; None if it can."""
    kind = type(dtype)
    if kind in _SCALARS:
        return None
    if isinstance(dtype, pl.List):
        return type_problem(f"{culprit}[]", canonical_type(dtype.inner))
    if isinstance(dtype, pl.Struct):
        inner = (type_problem(f"{culprit}.{f.name}", canonical_type(f.dtype)) for f in dtype.fields)
        return next((problem for problem in inner if problem), None)
    if isinstance(dtype, pl.Decimal):
        return None
    if isinstance(dtype, pl.Datetime):
        return _datetime_problem(culprit, dtype)
    if kind in _UNSIGNED:
        return (
            f"'{culprit}' is {dtype}. Delta Lake has no unsigned integers, so the column would "
            f"come back as {_UNSIGNED[kind]}. Declare pl.Int64 and cast in the function: "
            "pl.len().cast(pl.Int64)."
        )
    hints: dict[type[pl.DataType], str] = {
        pl.Categorical: "Declare pl.String and cast in the function.",
        pl.Enum: "Declare pl.String with one_of=(…) and cast in the function.",
        pl.Array: "Declare pl.List of the same type.",
        pl.Duration: "Declare pl.Int64 with unit='us' (or seconds, days) and convert.",
        pl.Time: "Declare pl.Int64 (microseconds since midnight) and convert.",
    }
    hint = hints.get(kind, "Declare one of the types that do.")
    return f"'{culprit}' is {dtype}. The type does not survive Delta Lake and Redis. {hint}"


def _datetime_problem(culprit: str, dtype: pl.Datetime) -> str | None:
    if dtype.time_unit == "us" and dtype.time_zone == "UTC":
        return None
    if dtype.time_zone is None:
        what = "has no time zone, so its instants are anybody's guess"
    elif dtype.time_zone != "UTC":
        what = "has a zone other than UTC, which Delta Lake does not keep"
    else:
        what = f"counts {dtype.time_unit}, which Delta Lake changes to us"
    return f"'{culprit}' is {dtype}: it {what}. Declare pl.Datetime('us', 'UTC') and convert."


def fitted(dtype: pl.DataType, value: Any) -> Any:
    """Return a declared value as a column of the type would give it back; None stays None.

    A whole number fits a float, an aware timestamp of any zone fits UTC; nothing is rounded but to
    Float32.

    Raises:
        ValueError: It does not fit.
    """
    if value is None:
        return None
    if dtype.is_integer():
        return _whole(value, _BITS[type(dtype)])
    if dtype.is_float():
        return _floating(dtype, value)
    if isinstance(dtype, pl.Decimal):
        return _decimal(dtype, value)
    if isinstance(dtype, pl.List | pl.Struct):
        return _nested(dtype, value)
    if isinstance(dtype, pl.Datetime) and isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if type(value) is not _PYTHON.get(type(dtype)):
        raise ValueError(f"{value!r} is no {dtype}")
    return value


def _nested(dtype: pl.List | pl.Struct, value: Any) -> Any:
    if isinstance(dtype, pl.List) and isinstance(value, list | tuple):
        return [fitted(canonical_type(dtype.inner), item) for item in value]
    if isinstance(dtype, pl.Struct) and isinstance(value, dict):
        fields = {item.name: canonical_type(item.dtype) for item in dtype.fields}
        if fields.keys() == value.keys():
            return {name: fitted(inner, value[name]) for name, inner in fields.items()}
    raise ValueError(f"{value!r} is no {dtype}")


def _whole(value: Any, bits: int) -> int:
    if type(value) is not int or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise ValueError(f"{value!r} is no integer of {bits} bits")
    return value


def _floating(dtype: pl.DataType, value: Any) -> float:
    if type(value) not in {int, float}:
        raise ValueError(f"{value!r} is no number")
    if isinstance(dtype, pl.Float64):
        return float(value)
    narrow: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return narrow


def _decimal(dtype: pl.Decimal, value: Any) -> Decimal:
    if type(value) not in {int, Decimal} or not Decimal(value).is_finite():
        raise ValueError(f"{value!r} is no decimal")
    return Decimal(value).quantize(
        Decimal((0, (1,), -dtype.scale)),
        context=Context(prec=dtype.precision or 38, traps=[Inexact, InvalidOperation]),
    )
