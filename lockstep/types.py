"""The closed list of column types: those that survive Polars, Delta, Redis and JSON unchanged."""

from typing import Final

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
