"""The rows an analyst brings, of whatever kind: read, checked, and their instants in UTC."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

import polars as pl

from lockstep.errors import InputError, first_line
from lockstep.stores.files import Place, open_place
from lockstep.stores.plain_table import scan_table
from lockstep.time import INSTANT, day_start, micros, to_utc, zone_named
from lockstep.training.csv_spine import scan_csv
from lockstep.training.widths import widths_in

AnySpine: TypeAlias = Any
"""A Polars frame or LazyFrame, a pandas frame, an Arrow table, or a path: .parquet, .csv, Delta."""

FILES: Final = (".parquet", ".csv")
_NOTHING: Final = "Nothing was joined."
_PER_SECOND: Final = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH: Final = date(1970, 1, 1)
_MOST: Final = 2**63 - 1
# A spine's sentinels for "never" and "for ever" count as these: whatever is before or after every
# day of a view gets the same, and no calculation leaves the calendar.
_EARLY: Final = date(100, 1, 1)
_LATE: Final = date(9900, 1, 1)
_RESET: Final = "It is in the index of the pandas frame: pass spine.reset_index()."
_YEARS: Final = "an instant in the years 1 to 9999"


@dataclass(frozen=True)
class Spine:
    """A spine that was found but not necessarily read.

    Attributes:
        schema: Columns → types, in order.
        rows: How many rows it has.
        index: What a pandas frame has in its index, which is no column.
    """

    schema: pl.Schema
    rows: int
    _rows: pl.DataFrame | pl.LazyFrame
    _where: str
    index: tuple[str, ...] = ()

    @property
    def in_memory(self) -> bool:
        """Whether its rows are in memory anyway."""
        return isinstance(self._rows, pl.DataFrame)

    def collect(self) -> pl.DataFrame:
        """Return all rows, in order.

        Raises:
            InputError: A file can't be read.
        """
        if isinstance(self._rows, pl.DataFrame):
            return self._rows
        with _reading(self._where):
            return self._rows.collect()

    @cached_property
    def widths(self) -> Mapping[str, int]:
        """Column → bytes of a value, where the type doesn't say; by the first rows."""
        return widths_in(self._rows.lazy(), self.schema)

    def write(self, path: Path, block: int) -> None:
        """Write all rows, in order, to a Parquet file with row groups of `block` rows.

        Raises:
            InputError: A file can't be read, or the rows can't be written.
        """
        with _reading(self._where):
            self._rows.lazy().sink_parquet(
                path, compression="zstd", compression_level=1, row_group_size=block
            )


def open_spine(
    given: AnySpine,
    place: Place | None = None,
    keys: Mapping[str, pl.DataType] | None = None,
    timestamp: str | None = None,
) -> Spine:
    """Return what was given as a spine; a file's rows are counted and not read.

    Args:
        given: See `AnySpine`. A LazyFrame is collected: name a file if it is larger than memory.
        place: Whose settings reach an s3:// path.
        keys: Key column → type; what stands in a .csv file has no types.
        timestamp: Name of its instant column, for the same reason.

    Raises:
        InputError: It is of another kind, or can't be read.
    """
    if isinstance(given, pl.DataFrame):
        return Spine(given.schema, given.height, given, "frame")
    if isinstance(given, pl.LazyFrame):
        with _reading("given as a LazyFrame"):
            frame = given.collect()
        return Spine(frame.schema, frame.height, frame, "frame")
    if isinstance(given, str | Path):
        return _from_path(str(given), place, keys or {}, timestamp)
    frame = _converted(given)
    names = given.index.names if hasattr(given, "index") else []
    index = tuple(str(name) for name in names if name is not None)
    return Spine(frame.schema, frame.height, frame, "frame", index)


def _converted(given: Any) -> pl.DataFrame:
    kind = f"{type(given).__module__.partition('.')[0]}.{type(given).__name__}"
    try:
        if kind == "pandas.DataFrame":
            # NaN is a value of its own: a label that passes through keeps it.
            _require_dense(given)
            return _plain(pl.from_pandas(given, nan_to_null=False))
        if hasattr(given, "__arrow_c_stream__"):
            return _plain(pl.DataFrame(given))
    except (pl.exceptions.PolarsError, ValueError, TypeError) as error:
        raise InputError(
            f"The spine, a {kind}, can't be converted.", got=_said(error), effect=_NOTHING
        ) from error
    raise InputError(
        f"The spine is a {kind}.",
        expected="a Polars frame or LazyFrame, a pandas frame, an Arrow table, or the path of a "
        ".parquet or .csv file or of a Delta table's folder",
        effect=_NOTHING,
    )


def _require_dense(frame: Any) -> None:
    """Return if no column of a pandas frame is sparse, which Arrow does not know.

    Raises:
        InputError: One is; it is named.
    """
    for name, dtype in frame.dtypes.items():
        if type(dtype).__name__ == "SparseDtype":
            raise InputError(
                f"The spine's column {name!r} is {dtype}.",
                expected="values that a file can hold",
                fix=f"Convert it: spine[{name!r}].sparse.to_dense().",
                effect=_NOTHING,
            )


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame without columns whose meaning is only known to another library.

    A period or an interval of pandas would be a number wherever that library is not.

    Raises:
        InputError: It has one; it is named.
    """
    for name, dtype in frame.schema.items():
        if isinstance(dtype, pl.BaseExtension):
            raise InputError(
                f"The spine's column {name!r} is {dtype}.",
                expected="values that a file can hold",
                fix=f"Convert it: spine[{name!r}].astype(str), or a period to the instant of its "
                f"start: spine[{name!r}].dt.to_timestamp().",
                effect=_NOTHING,
            )
    return frame


def _from_path(
    path: str, place: Place | None, keys: Mapping[str, pl.DataType], timestamp: str | None
) -> Spine:
    options = place.polars_options if place is not None and "://" in path else None
    if "://" not in path and not Path(path).exists():
        raise InputError(
            f"The spine {path} does not exist.",
            fix="Correct the path; it is taken from the working directory.",
            effect=_NOTHING,
        )
    with _reading(path):
        if path.lower().endswith(".parquet"):
            scan = pl.scan_parquet(path, glob=False, storage_options=options)
        elif path.lower().endswith(".csv"):
            scan, rows = scan_csv(path, options, keys, timestamp)
            return Spine(scan.collect_schema(), rows, scan, path)
        else:
            found = scan_table(open_place(path, place.options if options and place else None))
            if found is None:
                raise InputError(
                    f"The spine {path} is of no known kind.",
                    expected="a .parquet or .csv file, or the folder of a Delta table",
                    effect=_NOTHING,
                )
            scan = found
        schema = scan.collect_schema()
        rows = scan.select(pl.len()).collect().item()
    return Spine(schema, rows, scan, path)


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn what Polars raises about a spine into an InputError that names it."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"The spine {where} can't be read.", got=_said(error), effect=_NOTHING
        ) from error


def _said(error: BaseException) -> str:
    return first_line(error).rstrip(".")


def require_spine(
    schema: Mapping[str, pl.DataType],
    timestamp: str,
    time_zone: str | None,
    views: Mapping[str, Mapping[str, pl.DataType]],
    features: Sequence[str],
    index: Sequence[str] = (),
) -> None:
    """Return if the spine can be joined.

    Args:
        timestamp: Name of its instant column.
        time_zone: In which a naive timestamp is to be read.
        views: View → key column → type.
        features: `view:feature`, the names of the columns to come.
        index: What a pandas frame has in its index.

    Raises:
        InputError: A column is missing, has another type, or is taken. Nothing was joined.
        ConfigError: There is no such time zone.
    """
    _require_instants(schema, timestamp, time_zone, index)
    for view, keys in views.items():
        for key, dtype in keys.items():
            got = schema.get(key)
            if got != dtype:
                raise InputError(
                    f"The spine can't be joined with {view}: its key column {key!r} is "
                    f"{'missing' if got is None else got}.",
                    expected=str(dtype),
                    fix=_RESET
                    if got is None and key in index
                    else f"Add or cast the column: pl.col({key!r}).cast(pl.{dtype}).",
                    effect=_NOTHING,
                )
    if clash := sorted(set(features) & set(schema)):
        raise InputError(
            f"The spine already has columns {clash}.", fix="Rename them.", effect=_NOTHING
        )


def _require_instants(
    schema: Mapping[str, pl.DataType],
    timestamp: str,
    time_zone: str | None,
    index: Sequence[str],
) -> None:
    dtype = schema.get(timestamp)
    if dtype is None:
        raise InputError(
            f"The spine has no column {timestamp!r}.",
            expected="the instant of every row",
            got=f"columns {list(schema)}",
            fix=_RESET
            if timestamp in index
            else "Name the column: timestamp='…' (command line: --timestamp).",
            effect=_NOTHING,
        )
    if time_zone is not None:
        zone_named(time_zone)
    naive = isinstance(dtype, pl.Datetime) and dtype.time_zone is None
    if isinstance(dtype, pl.Date) or (isinstance(dtype, pl.Datetime) and not naive):
        return
    if naive and time_zone is not None:
        return
    raise InputError(
        f"The spine's {timestamp!r} is {dtype}.",
        expected=f"{INSTANT} or Date",
        fix="Convert it; a naive time needs its zone: time_zone='America/New_York' "
        "(command line: --time-zone).",
        effect=_NOTHING,
    )


def instants(
    values: pl.Series, time_zone: str | None, zone: ZoneInfo, first_row: int = 0
) -> pl.Series:
    """Return a spine's timestamps as microseconds since 1970 UTC (Int64), nulls kept, in order.

    Args:
        values: Datetimes of any unit and zone, or dates.
        time_zone: In which naive ones are read: nonexistent times move forward, of two the first.
        zone: The partition zone: a date is the start of that day in it.
        first_row: How many rows of the spine stand before these, for messages.

    Raises:
        InputError: An instant is in no year from 1 to 9999, or is no whole microsecond: rounded
            down it would count longer than the ttl, rounded up it would see a value too early.
    """
    if isinstance(values.dtype, pl.Date):
        return _day_starts(values, zone, first_row)
    unit = values.dtype.time_unit if isinstance(values.dtype, pl.Datetime) else "us"
    day = 86_400 * _PER_SECOND[unit or "us"]
    count = values.to_physical()
    _require(values, _in_calendar(count, day), _YEARS, "", first_row)
    if unit == "ns":
        fix = f"Cut it: pl.col({values.name!r}).dt.cast_time_unit('us')."
        _require(values, count % 1_000 == 0, "whole microseconds", fix, first_row)
    # In the years 100 and 9900 no zone leads out of the calendar.
    within = count.clip(*_counted(day, _EARLY, _LATE)).cast(values.dtype).to_frame("at")
    if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is None:
        within = within.select(to_utc("at", time_zone or "UTC"))
    # An instant counts from 1970 UTC whatever zone it is shown in.
    return within.select(pl.col("at").dt.cast_time_unit("us").cast(pl.Int64))["at"]


def _in_calendar(count: pl.Series, day: int) -> pl.Series:
    """Return which values, of which a day has `day`, are in the years 1 to 9999."""
    least, last = _counted(day, date.min, date.max)
    return count.is_between(least, min(last + day - 1, _MOST))


def _counted(day: int, *dates: date) -> list[int]:
    """Return the midnights (UTC) of dates, where a day has `day`, as far as 64 bits reach."""
    return [max(-_MOST, min(_MOST, (at - _EPOCH).days * day)) for at in dates]


def _require(values: pl.Series, fits: pl.Series, expected: str, fix: str, first_row: int) -> None:
    """Return if all that is not null fits; else name the first row that does not.

    Raises:
        InputError: One does not.
    """
    if fits.all():  # nulls are ignored
        return
    row = int((~fits).arg_true()[0])
    # Polars itself can't print every instant that a column may hold.
    got = f"{values.to_physical()[row]} as stored, of type {values.dtype}"
    raise InputError(
        f"The spine's {values.name!r} of row {first_row + row + 1} can't be used.",
        expected=expected,
        got=got,
        fix=fix or "Correct it, or leave it null: such a row gets nulls.",
        effect=_NOTHING,
    )


def _day_starts(values: pl.Series, zone: ZoneInfo, first_row: int) -> pl.Series:
    count = values.to_physical()
    _require(values, _in_calendar(count, 1), _YEARS, "", first_row)
    within = count.clip(*_counted(1, _EARLY, _LATE)).cast(pl.Date)
    days = within.drop_nulls().unique().to_list()
    if not days:
        # An empty mapping would give dates.
        return pl.Series("at", [None], dtype=pl.Int64).new_from_index(0, len(values))
    starts = [micros(day_start(day, zone)) for day in days]
    return within.replace_strict(
        pl.Series(days, dtype=pl.Date), pl.Series(starts, dtype=pl.Int64), return_dtype=pl.Int64
    ).alias("at")
