"""Small files of an append-only table are put together by one commit that changes no rows.

The commit is written for exactly the next version: whoever appends in between makes that version
exist, and the files are then put together again on top of it. An append that comes later passes,
because a compaction changes no data.
"""

import io
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

import polars as pl

from lockstep.errors import ConflictError, StoreError
from lockstep.stores.causes import not_answered, store_failed
from lockstep.stores.committing import LOST_RACES
from lockstep.stores.delta_log import LogFile, compacting_commit, log_file
from lockstep.stores.files import Place
from lockstep.stores.sibling import revision_column
from lockstep.stores.tables import checkpoint, existing_table, partition_of, table_files

SMALL: Final = 128 * 1024 * 1024
"""Bytes; files of this size are left alone, and what is put together does not grow far beyond."""


@dataclass(frozen=True)
class _Group:
    """Files of one partition that are to become one."""

    value: str
    files: Sequence[LogFile]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(file.path for file in self.files)


def small_files(place: Place) -> tuple[int, int]:
    """Return how many files of a table would be put together, and into how many."""
    groups = _groups(place)[2]
    return sum(len(group.files) for group in groups), len(groups)


def compact_table(place: Place, *, now: Callable[[], datetime]) -> tuple[int, int]:
    """Put the small files of every partition together; return how many there were and are now.

    Raises:
        ConflictError: Others kept changing the table.
        StoreError: The store failed, or a file is damaged; the table is as it was.
    """
    written: dict[tuple[str, ...], LogFile] = {}
    for _ in range(LOST_RACES):
        version, by, groups = _groups(place)
        if not groups:
            _drop(place, written.values())
            return 0, 0
        for group in groups:
            if group.paths not in written:
                written[group.paths] = _together(place, group)
        data = compacting_commit(
            by=by,
            removed=[file for group in groups for file in group.files],
            added=[written[group.paths] for group in groups],
            now=now(),
        )
        if place.write_if_absent(log_file(version + 1), data):
            used = {group.paths for group in groups}
            _drop(place, [file for paths, file in written.items() if paths not in used])
            checkpoint(existing_table(place))
            return sum(len(group.files) for group in groups), len(groups)
    _drop(place, written.values())
    raise ConflictError(
        f"Others kept changing {place.uri} while its files were being put together.",
        fix="Run it again when fewer runs are under way.",
        effect="The table is as it was.",
    )


def _groups(place: Place) -> tuple[int, str, list[_Group]]:
    """Return the table's version, its partition column, and what is to be put together."""
    handle = existing_table(place)
    by = partition_of(handle)
    found: dict[str, list[LogFile]] = {}
    for value, path, size, rows in table_files(handle, by):
        if size < SMALL:
            found.setdefault(str(value), []).append(LogFile(str(value), path, size, rows))
    groups = [
        _Group(value, part)
        for value, files in found.items()
        for part in _parts(files)
        if len(part) > 1
    ]
    return handle.version(), by, groups


def _parts(files: Sequence[LogFile]) -> list[list[LogFile]]:
    """Divide files, in their order, so that no part is larger than `SMALL` by more than one."""
    parts: list[list[LogFile]] = [[]]
    for file in files:
        if sum(other.size for other in parts[-1]) >= SMALL:
            parts.append([])
        parts[-1].append(file)
    return parts


def _together(place: Place, group: _Group) -> LogFile:
    rows = pl.concat([_read(place, file) for file in group.files])
    limits: Mapping[str, Any] = {}
    column = revision_column(rows.columns, stored=True)
    if column in rows.columns:
        # Of a sibling: a reader picks the file and the rows of one revision by these.
        rows = rows.sort(column, maintain_order=True)
        limits = {
            "minValues": {column: rows[column].min()},
            "maxValues": {column: rows[column].max()},
        }
    buffer = io.BytesIO()
    rows.write_parquet(buffer, compression="zstd")
    folder = group.files[0].path.rpartition("/")[0]
    path = f"{folder}/part-00000-{uuid.uuid4()}-c000.zstd.parquet"
    place.write(unquote(path), buffer.getvalue())
    return LogFile(group.value, path, buffer.tell(), rows.height, limits)


def _read(place: Place, file: LogFile) -> pl.DataFrame:
    path = place.path(unquote(file.path))
    try:
        frame = pl.read_parquet(
            path, glob=False, hive_partitioning=False, storage_options=place.polars_options
        )
        got = f"{frame.height} rows"
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        if place.remote and not_answered(error):
            raise store_failed(f"The table {place.uri}", error) from None
        frame, got = pl.DataFrame(), f"{type(error).__name__} on reading"
    if frame.height != file.rows:
        raise StoreError(
            f"The file {path} is damaged.",
            expected=f"{file.rows} rows",
            got=got,
            fix="Restore it from a backup.",
            effect="The table is as it was.",
        )
    return frame


def _drop(place: Place, files: Iterable[LogFile]) -> None:
    for file in files:
        place.delete(unquote(file.path))
