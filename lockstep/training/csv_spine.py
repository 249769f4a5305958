"""A spine in a .csv file: no type is guessed from how the first rows look.

A key has the type that its view declares. The timestamp is ISO 8601, one form for all rows. Any
other column is text, unless every value of the whole file is a plain number. A row that is shorter
than the header is refused: its labels would be null.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from lockstep.errors import InputError
from lockstep.time import INSTANT
from lockstep.training.csv_rows import require_whole_rows

_NOTHING: Final = "Nothing was joined."
_SEPARATORS: Final = ";\t|"
_WHOLE: Final = r"^(0|-?[1-9][0-9]{0,17})$"
"""A number with leading zeros or more digits is a code, and stays what it is."""
_NUMBER: Final = r"^(-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?|NaN)$"
_INTEGER: Final = r"^[+-]?[0-9]+$"
_DATE: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_TIME: Final = r"^([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(:[0-5][0-9])?(\.[0-9]{1,6})?"
_ZONE: Final = r"(?:Z|([+-])([0-9]{2}):?([0-5][0-9])?)$"
_FORMS: Final = "2025-03-08, 2025-03-08T12:00:00 or 2025-03-08T12:00:00-05:00, the same in all rows"


@dataclass(frozen=True)
class _Column:
    """How a column is read, and which of its values can't be: `wrong` is true for them."""

    name: str
    read: pl.Expr
    wrong: pl.Expr
    expected: str
    fix: str


def scan_csv(
    path: str,
    options: Mapping[str, Any] | None,
    keys: Mapping[str, pl.DataType],
    timestamp: str | None,
) -> tuple[pl.LazyFrame, int]:
    """Return the rows of a file, in order, and how many they are; it is read once, in pieces.

    Args:
        options: What Polars needs to reach it.
        keys: Key column → type.
        timestamp: Name of the instant column.

    Raises:
        InputError: Two columns have one name, the separator is no comma, a row has fewer fields
            than the header, or a value of a key or of the timestamp can't be read; it names the
            first such row or value.
    """
    scan = _texts(path, options)
    header = scan.collect_schema().names()
    _require_header(path, _header(path, options), {*keys, timestamp} - {None})
    others = [name for name in header if name not in keys and name != timestamp]
    found = _facts(scan, others, timestamp if timestamp in header else None)
    if len(header) > 1 and found["open"]:
        require_whole_rows(path, options)
    columns = [_key(name, keys[name]) for name in header if name in keys]
    if timestamp in header:
        columns.append(_instants(str(timestamp), found))
    _require_values(path, scan, columns)
    read = [column.read.alias(column.name) for column in columns]
    return scan.with_columns(*read, *_numbers(others, found)), found["rows"]


def _texts(path: str, options: Mapping[str, Any] | None, **more: Any) -> pl.LazyFrame:
    given = dict(options) if options else None
    return pl.scan_csv(path, glob=False, infer_schema=False, storage_options=given, **more)


def _header(path: str, options: Mapping[str, Any] | None) -> list[str]:
    first = _texts(path, options, has_header=False, n_rows=1, truncate_ragged_lines=True).collect()
    return [str(name) for name in first.row(0)] if first.height else []


def _require_header(path: str, header: Sequence[str], wanted: set[str | None]) -> None:
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(
            f"The spine {path} has columns of the same name: {twice}.",
            fix="Rename them in its first line.",
            effect=_NOTHING,
        )
    if len(header) == 1 and header[0] not in wanted:
        other = next((sign for sign in _SEPARATORS if sign in header[0]), None)
        if other is not None:
            raise InputError(
                f"The spine {path} is separated by {other!r}.",
                expected="a comma as separator",
                fix=f"Convert it: pl.read_csv({path!r}, separator={other!r}, "
                "infer_schema=False).write_csv(…).",
                effect=_NOTHING,
            )


def _facts(scan: pl.LazyFrame, others: Sequence[str], timestamp: str | None) -> dict[str, Any]:
    """Return what one pass over the file tells: rows, which columns are numbers, which forms.

    "open" is whether the last column lacks a value: a row that is too short does.
    """
    asked = [pl.len().alias("rows"), pl.last().is_null().any().alias("open")]
    for number, name in enumerate(others):
        column = pl.col(name)
        asked += [
            column.str.contains(_WHOLE).all().alias(f"whole{number}"),
            column.str.contains(_NUMBER).all().alias(f"number{number}"),
            column.is_not_null().any().alias(f"any{number}"),
        ]
    if timestamp is not None:
        asked += [_filled(timestamp).drop_nulls().first().alias("first")]
    return scan.select(asked).collect(engine="streaming").row(0, named=True)


def _numbers(others: Sequence[str], found: Mapping[str, Any]) -> Iterator[pl.Expr]:
    for number, name in enumerate(others):
        if not found[f"any{number}"]:
            continue
        if found[f"whole{number}"]:
            yield pl.col(name).cast(pl.Int64)
        elif found[f"number{number}"]:
            yield pl.col(name).cast(pl.Float64)


def _filled(name: str) -> pl.Expr:
    # "" in quotation marks is a text without letters, and otherwise no value.
    return pl.when(pl.col(name) != "").then(pl.col(name))


def _key(name: str, dtype: pl.DataType) -> _Column:
    column = pl.col(name)
    if isinstance(dtype, pl.String):
        return _Column(name, column, pl.lit(value=False), "", "")
    column = _filled(name)
    read = column.cast(dtype, strict=False)
    whole = column.str.contains(_INTEGER) if dtype.is_integer() else pl.lit(value=True)
    wrong = column.is_not_null() & (read.is_null() | ~whole)
    return _Column(name, read, wrong, f"a key of type {dtype}", "Correct it in the file.")


def _instants(name: str, found: Mapping[str, Any]) -> _Column:
    """Return how a timestamp is read: the first value says which form all must have."""
    text, first = _filled(name), found["first"]
    if first is None:
        return _Column(name, text.cast(INSTANT, strict=False), pl.lit(value=False), "", "")
    kind = pl.Series([first])
    date = text.str.contains(_DATE)
    zoned = text.str.contains(_TIME + _ZONE)
    if kind.str.contains(_DATE).item():
        form, read = date, text.str.to_date("%Y-%m-%d", strict=False)
    elif kind.str.contains(_TIME + _ZONE).item():
        form, read = zoned, (_naive(text) - _offset(text)).dt.replace_time_zone("UTC")
    else:
        form, read = text.str.contains(_TIME + "$"), _naive(text)
    return _Column(
        name,
        read,
        text.is_not_null() & (~form | read.is_null()),
        f"ISO 8601: {_FORMS}",
        "Write all of them so, to the microsecond at most.",
    )


def _naive(text: pl.Expr) -> pl.Expr:
    parts = [text.str.extract(_TIME, group) for group in (1, 2, 3, 4)]
    whole = pl.concat_str(
        parts[0], pl.lit("T"), parts[1], parts[2].fill_null(":00"), parts[3].fill_null(".0")
    )
    return whole.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)


def _offset(text: pl.Expr) -> pl.Expr:
    sign, hours, minutes = (text.str.extract(_TIME + _ZONE, group) for group in (5, 6, 7))
    total = hours.cast(pl.Int64) * 60 + minutes.cast(pl.Int64).fill_null(0)
    signed = pl.when(sign == "-").then(-total).otherwise(total).fill_null(0)
    return pl.duration(minutes=signed)


def _require_values(path: str, scan: pl.LazyFrame, columns: Sequence[_Column]) -> None:
    if not columns:
        return
    bad = [column.wrong.any().alias(column.name) for column in columns]
    found = scan.select(bad).collect(engine="streaming").row(0, named=True)
    for column in columns:
        if not found[column.name]:
            continue
        rows = scan.select(column.name).with_row_index("row", offset=1)
        row, value = rows.filter(column.wrong).head(1).collect(engine="streaming").row(0)
        raise InputError(
            f"The spine {path} can't be read: row {row} has {value!r} as {column.name!r}.",
            expected=column.expected,
            fix=column.fix,
            effect=_NOTHING,
        )
