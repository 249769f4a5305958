"""The landing zone: which files a source has, which days they touch, and which break its schema."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from lockstep.errors import first_line
from lockstep.event_times import believable, unbelievable
from lockstep.sources import Snapshot, Source
from lockstep.stores.causes import answering, not_answered
from lockstep.stores.files import FileInfo, Place
from lockstep.time import INSTANT, assign_days, count_odd_times, to_utc

ARRIVED: Final = "lockstep:arrived"
"""A column of no source: no schema of Delta has a colon in a name."""
_READERS: Final = 8
_WHOLE: Final = 16 * 2**20
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_COLUMNS: Final = ("is missing, expected", "': expected ")
_KEYLESS: Final = "as it identifies rows"
_FAR: Final = "expected event times from"
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, and bytes of a local name that are no UTF-8 (as Python reads them)."""


@dataclass(frozen=True)
class LandedFile:
    """One file as last looked at.

    Attributes:
        path: Path below the landing zone.
        stamp: Size and modification (or etag): another stamp is another file.
        days: Days that its rows fall on; for a file without (readable) event times the date in its
            name, which says that this day was delivered; None if they can't be told.
        problem: Why it is refused; None if it keeps the schema.
        nonexistent: Rows whose wall-clock time does not exist; they moved forward.
        ambiguous: Rows whose wall-clock time occurs twice; they took the first.
        undeclared: Columns that the source does not declare; nothing of them is read.
    """

    path: str
    stamp: str
    modified_ns: int
    rows: int
    days: Sequence[str] | None
    problem: str | None = None
    nonexistent: int = 0
    ambiguous: int = 0
    undeclared: Sequence[str] = ()

    @property
    def touches(self) -> frozenset[date]:
        """The days it touches, as dates; empty if they can't be told."""
        return frozenset(date.fromisoformat(day) for day in self.days or ())


@dataclass(frozen=True)
class Landed:
    """All files of one source or snapshot."""

    files: Sequence[LandedFile]

    @property
    def good(self) -> list[LandedFile]:
        """Files that keep the schema, in order of delivery."""
        return sorted(
            (file for file in self.files if file.problem is None),
            key=lambda file: (file.modified_ns, file.path),
        )

    @property
    def refused(self) -> list[LandedFile]:
        """Files that break the schema."""
        return [file for file in self.files if file.problem is not None]

    def fingerprints(self) -> dict[date, str]:
        """Return day → hash of the good files that touch it, to notice new ones."""
        touching: dict[date, list[str]] = {}
        for file in self.good:
            for day in file.touches:
                touching.setdefault(day, []).append(f"{file.path}@{file.stamp}")
        return {day: _digest(sorted(files)) for day, files in touching.items()}

    def fingerprint(self) -> str:
        """Return the hash of all good files: what a snapshot was read from."""
        return _digest(sorted(f"{file.path}@{file.stamp}" for file in self.good))


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def look(place: Place, cache: Place, of: Source | Snapshot, zone: ZoneInfo) -> Landed:
    """List a landing folder and read what is new in it.

    What was learnt of a file is kept in `cache`, which may be lost at any time.
    """
    made_for = _digest([zone.key, *(f"{name}:{dtype}" for name, dtype in of.schema.items())])
    known = _known(cache, of.name, made_for)

    def seen(info: FileInfo) -> LandedFile | None:
        stamp = f"{info.size}-{info.etag or info.modified_ns}"
        if _UNPRINTABLE.search(info.path):
            return _unprintable(info, stamp)
        before = known.get(info.path)
        if before is not None and before.stamp == stamp:
            return before
        return _inspect(place, info, stamp, of, zone)

    listed = [info for info in place.list(of.name) if info.path.endswith(".parquet")]
    with ThreadPoolExecutor(_READERS) as pool:
        files = [file for file in pool.map(seen, listed) if file is not None]
    if {file.path: file for file in files} != known:
        found = {"made_for": made_for, "files": [asdict(file) for file in files]}
        cache.write(f"{of.name}.json", json.dumps(found).encode())
    return Landed(files)


def _unprintable(info: FileInfo, stamp: str) -> LandedFile:
    """Refuse a file by its name: it could be neither read nor written down as what it is."""
    shown = _UNPRINTABLE.sub(lambda found: _escaped(found[0]), info.path)
    problem = f"{shown}: the name of the file is no printable text in UTF-8."
    return LandedFile(shown, stamp, info.modified_ns, 0, _named(info.path), problem)


def _escaped(character: str) -> str:
    # Python reads the byte E9 of a name that is no UTF-8 as U+DCE9.
    return character.encode("unicode_escape").decode().replace("\\udc", "\\x")


def _named(path: str) -> Sequence[str] | None:
    """Return the last date in a file's name, if there is one."""
    for found in reversed(_DATE.findall(path.rpartition("/")[2])):
        with suppress(ValueError):  # such as a thirteenth month
            return [str(date.fromisoformat(found))]
    return None


def _known(cache: Place, name: str, made_for: str) -> dict[str, LandedFile]:
    stored = cache.read_if_exists(f"{name}.json")
    if stored is None:
        return {}
    try:
        data = json.loads(stored)
        files = data["files"] if data["made_for"] == made_for else []
        return {file["path"]: LandedFile(**file) for file in files}
    except (ValueError, TypeError, KeyError):
        return {}  # a damaged cache is an empty one


def _inspect(
    place: Place, info: FileInfo, stamp: str, of: Source | Snapshot, zone: ZoneInfo
) -> LandedFile | None:
    """Return what one file holds, or None if it was removed since it was listed.

    Raises:
        StoreError: The store does not answer, which says nothing about the file.
    """
    content = _content(place, info)
    if content is None:
        return None
    with answering(f"The landed file {place.path(info.path)}") if place.remote else nullcontext():
        return _judge(place, content, info, stamp, of, zone)


def _content(place: Place, info: FileInfo) -> str | bytes | None:
    """Return a small remote file's bytes, else the path: reading it in parts is many requests."""
    if place.remote and info.size <= _WHOLE:
        return place.read_if_exists(info.path)
    return info.path


def _judge(
    place: Place,
    content: str | bytes,
    info: FileInfo,
    stamp: str,
    of: Source | Snapshot,
    zone: ZoneInfo,
) -> LandedFile:
    named = _named(info.path)
    try:
        return _looked_through(place, content, info, stamp, of, zone, named)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        if place.remote and not_answered(error):
            raise
        why = f"can't be read as parquet: {first_line(error).rstrip('.')}"
        problem = f"{info.path} {why if info.size else 'is empty (0 bytes)'}."
        return LandedFile(info.path, stamp, info.modified_ns, 0, named, problem)


def _looked_through(
    place: Place,
    content: str | bytes,
    info: FileInfo,
    stamp: str,
    of: Source | Snapshot,
    zone: ZoneInfo,
    named: Sequence[str] | None,
) -> LandedFile:
    def refuse(problem: str, days: Sequence[str] | None = named, rows: int = 0) -> LandedFile:
        return LandedFile(info.path, stamp, info.modified_ns, rows, days, problem)

    schema = _scan(place, [content]).collect_schema()
    types = of.file_types if isinstance(of, Source) else of.columns
    problems = _schema_problems(info.path, schema, types)
    if isinstance(of, Snapshot):
        problems += _null_keys(info.path, _scan(place, [content]), of) if not problems else ""
        good = LandedFile(info.path, stamp, info.modified_ns, 0, ())
        return refuse(problems) if problems else good
    if schema.get(of.event_time) != types[of.event_time]:
        return refuse(problems)
    scanned = _scan(place, [content]).with_columns(_instant(of))
    times = _scan(place, [content]).select(of.event_time).collect()
    meant = times.filter(believable(of.event_time, info.modified_ns))
    rows = meant.select(_instant(of)).to_series()
    touched = [str(day) for day in assign_days(rows, zone).unique().sort()]
    days = touched or named or []
    problems += _far_times(info, times.to_series()) if not problems else ""
    problems += _null_keys(info.path, scanned, of) if not problems else ""
    if problems:
        return refuse(problems, touched or named, times.height)
    nonexistent, ambiguous = _odd_times(place, content, of)
    good = LandedFile(info.path, stamp, info.modified_ns, times.height, days)
    undeclared = sorted(schema.keys() - types.keys())
    return replace(good, nonexistent=nonexistent, ambiguous=ambiguous, undeclared=undeclared)


def _schema_problems(path: str, schema: Mapping[str, Any], types: Mapping[str, Any]) -> str:
    """Name every column that is missing or has another type; extra columns are ignored."""
    extra = sorted(schema.keys() - types.keys())
    sentences = []
    for column, dtype in types.items():
        if column not in schema:
            hint = f" (undeclared columns of the file: {extra})" if extra else ""
            sentences.append(f"column {column!r} is missing, expected {dtype}{hint}")
        elif schema[column] != dtype:
            sentences.append(f"column {column!r}: expected {dtype}, got {schema[column]}")
    return f"{path}: {'; '.join(sentences)}." if sentences else ""


def breaks_schema(problem: str) -> bool:
    """Whether a file was refused for columns that are missing or of another type than declared."""
    others = (_KEYLESS in problem, _FAR in problem)
    return any(words in problem for words in _COLUMNS) and not any(others)


def _null_keys(path: str, scanned: pl.LazyFrame, of: Source | Snapshot) -> str:
    """Name the columns that identify rows and have nulls."""
    # Every declared column is decoded: a damaged page must not end the ingestion of other files.
    nulls = scanned.select(pl.col(list(of.columns)).null_count()).collect()
    counts = nulls.select(of.order).row(0, named=True)
    sentences = [
        f"column {of.event_time if isinstance(of, Source) and name == 'event_time' else name!r}: "
        f"expected a value in every row, {_KEYLESS}, got {count} nulls"
        for name, count in counts.items()
        if count
    ]
    return f"{path}: {'; '.join(sentences)}." if sentences else ""


def _far_times(info: FileInfo, times: pl.Series) -> str:
    found = unbelievable(times, info.modified_ns)
    return f"{info.path}: {found}." if found else ""


def _odd_times(place: Place, content: str | bytes, source: Source) -> tuple[int, int]:
    if source.time_zone is None:
        return 0, 0
    counts = count_odd_times(source.event_time, source.time_zone)
    counted = _scan(place, [content]).select(*counts).collect()
    return counted["nonexistent"].item(), counted["ambiguous"].item()


def _instant(source: Source) -> pl.Expr:
    column = pl.col(source.event_time)
    zone = source.time_zone
    return (column if zone is None else to_utc(source.event_time, zone)).alias("event_time")


def _scan(
    place: Place,
    contents: Sequence[str | bytes],
    types: Mapping[str, pl.DataType] | None = None,
) -> pl.LazyFrame:
    files: list[Any] = [item if isinstance(item, bytes) else place.path(item) for item in contents]
    return pl.scan_parquet(
        files,
        storage_options=place.polars_options,
        schema=None if types is None else dict(types),
        extra_columns="ignore",
        hive_partitioning=False,
        glob=False,
    )


def read_landed(
    place: Place, files: Sequence[LandedFile], of: Source | Snapshot, keep: pl.Expr | None = None
) -> pl.DataFrame:
    """Return the rows of files that keep the schema, in order of delivery, in ingested columns.

    Args:
        keep: Rows to keep, by ingested columns.
    """
    if not files:
        return pl.DataFrame(schema=of.columns)
    return _read(place, files, of, keep, list(of.columns))


def read_arrived(
    place: Place, files: Sequence[LandedFile], source: Source, keep: pl.Expr
) -> pl.DataFrame:
    """Return what `read_landed` does, with `ARRIVED`: when the file of the row was written, UTC."""
    if not files:
        return pl.DataFrame(schema={**source.columns, ARRIVED: INSTANT})
    rows = _read(place, files, source, keep, [*source.columns, ARRIVED])
    # The files are read one after the other, so the number of a row tells its file.
    ends = np.cumsum([file.rows for file in files])
    at = np.searchsorted(ends, rows[ARRIVED].to_numpy(), side="right")
    written = np.array([file.modified_ns // 1_000 for file in files], dtype=np.int64)
    arrived = pl.Series(ARRIVED, written[np.minimum(at, len(files) - 1)]).cast(INSTANT)
    return rows.with_columns(arrived)


def _read(
    place: Place,
    files: Sequence[LandedFile],
    of: Source | Snapshot,
    keep: pl.Expr | None,
    columns: Sequence[str],
) -> pl.DataFrame:
    types = of.file_types if isinstance(of, Source) else of.columns
    frame = _scan(place, [file.path for file in files], types)
    if ARRIVED in columns:
        frame = frame.with_row_index(ARRIVED)
    if isinstance(of, Source):
        frame = frame.with_columns(_instant(of))
    frame = frame.select(columns)
    with answering(f"The landing zone {place.uri}"):
        return (frame if keep is None else frame.filter(keep)).collect(engine="in-memory")
