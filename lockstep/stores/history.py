"""Rows of any revision that was ever certified, as one pinned version of a table saw it."""

from collections.abc import Sequence
from datetime import date
from itertools import accumulate
from typing import TYPE_CHECKING
from urllib.parse import unquote

import polars as pl

from lockstep.errors import StoreError
from lockstep.stores.causes import not_answered, store_failed
from lockstep.stores.day_index import DayRecord, Era, History
from lockstep.stores.delta import DayTable
from lockstep.stores.delta_log import added_paths, log_file
from lockstep.stores.proposal import DAY, KNOWN_AT, damaged_day
from lockstep.stores.sibling import Sibling, sibling_of
from lockstep.stores.tables import schema_set_by, table_files

if TYPE_CHECKING:
    from lockstep.training.timeline import Slice

__all__ = ["History", "SliceReader"]


class SliceReader:
    """Reads slices of one table pinned at a version; may be asked by several threads at once.

    A revision that is current at that version is read from its file. One that was superseded is
    read from the file that was removed from the table, while it is there, else from the sibling.

    Args:
        table: The table.
        version: The Delta version; None for the newest.

    Attributes:
        version: The pinned version.
        table_id: Of the table at that version.
        schema: Its stored columns at that version, ending with `known_at` and `day`.
        history: Every revision certified up to it.

    Raises:
        StoreError: The table or the version does not exist, or its log is damaged.
        ConfigError: It was created with another partition zone or name.
    """

    def __init__(self, table: DayTable, version: int | None = None) -> None:
        handle = table.opened(version)
        self.version = handle.version()
        self.table_id = str(handle.metadata().id)
        self.schema = pl.Schema(handle.schema())
        self.history = table.index.history(self.table_id, self.version)
        self._name, self._place = table.name, table.place
        self._files = {day: path for day, path, _, _ in table_files(handle, DAY)}
        self._schemas: dict[int, pl.Schema] = {self.history.eras[-1].since: self.schema}
        self._added: dict[int, dict[str, str]] = {}
        self._siblings: dict[str, Sibling] = {}

    def read(self, piece: "Slice", columns: Sequence[str]) -> pl.DataFrame:
        """Return the rows of one revision in the order they were committed.

        A column that the revision's table did not have, or had with another type than the pinned
        one has, is absent; the others are in the asked order.

        Raises:
            StoreError: The revision is not of this version, or its rows are damaged or gone.
        """
        return self.rows(piece.day, piece.revision, columns)

    def read_many(self, pieces: Sequence["Slice"], columns: Sequence[str]) -> list[pl.DataFrame]:
        """Return what `read` returns of each of the slices, in order, decoding files side by side.

        Twice as fast as one after the other; all of the rows are in memory at once.

        Raises:
            StoreError: As `read`.
        """
        near = [piece for piece in pieces if self._is_plain(piece)]
        wanted = [name for name in columns if name in self.schema]
        if DAY in wanted or not wanted or not near:
            return [self.read(piece, columns) for piece in pieces]
        try:
            rows = pl.scan_parquet(
                [self._place.path(unquote(self._files[piece.day])) for piece in near],
                glob=False,
                hive_partitioning=False,
                storage_options=self._place.polars_options,
            )
            found = rows.select(wanted).collect(engine="in-memory")
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
            return [self.read(piece, columns) for piece in pieces]  # names what is wrong
        heights = [self.history.current[piece.day].rows for piece in near]
        if found.height != sum(heights):
            return [self.read(piece, columns) for piece in pieces]
        ends = list(accumulate(heights))
        parts = {
            piece: found.slice(end - height, height)
            for piece, end, height in zip(near, ends, heights, strict=True)
        }
        return [parts[p] if p in parts else self.read(p, columns) for p in pieces]

    def _is_plain(self, piece: "Slice") -> bool:
        """Whether the slice is the content of a file of the pinned version."""
        record = self.history.current.get(piece.day)
        return record is not None and record.revision == piece.revision and record.rows > 0

    def rows(self, day: date, revision: int, columns: Sequence[str]) -> pl.DataFrame:
        """Return what `read` returns, by day and revision."""
        written = self._written(day, revision)
        schema = self._schema_of(self.history.era_of(written[0]))
        types = {
            name: self.schema[name]
            for name in columns
            if name in self.schema and schema.get(name) == self.schema[name]
        }
        if not written[0].rows:
            return pl.DataFrame(schema=types)
        # With no column at all a frame would not know its height.
        stored = [name for name in types if name != DAY] or [KNOWN_AT]
        frame = self._from_files(written, stored)
        if frame is None:
            frame = self._from_siblings(written, stored)
        if frame is None:
            raise self._gone(written[0])
        if frame.height != written[0].rows:
            raise damaged_day(self._name, written[0], f"{frame.height} rows")
        if list(types) == stored:
            return frame
        return frame.with_columns(pl.lit(day, pl.Date).alias(DAY)).select(list(types))

    def original(self, record: DayRecord) -> pl.DataFrame | None:
        """Return a revision's rows as its file holds them, without `day`; None if that is gone.

        Raises:
            StoreError: The file is damaged, or the store does not answer.
        """
        return self._from_files(self._written(record.day, record.revision), None)

    def paths_of(self, record: DayRecord) -> list[str]:
        """Return every file that was written for a revision, relative to the table, newest first.

        More than one after a rebuild that left the content alone; some may be gone.
        """
        written = reversed(self._written(record.day, record.revision))
        return [unquote(path) for item in written if (path := self._path_added(item)) is not None]

    def _written(self, day: date, revision: int) -> list[DayRecord]:
        """Return every record of one revision, oldest first; more than one after a rebuild."""
        found = [r for r in self.history.written.get(day, ()) if r.revision == revision]
        if not found:
            raise StoreError(
                f"Revision {revision} of {self._name} for {day} is not known.",
                expected=f"a revision certified up to version {self.version}",
                fix="Ask the history of the same version for what there is.",
            )
        return found

    def _schema_of(self, era: Era) -> pl.Schema:
        if era.since not in self._schemas:
            self._schemas[era.since] = schema_set_by(self._place, era.since)
        return self._schemas[era.since]

    def _from_files(
        self, written: Sequence[DayRecord], columns: list[str] | None
    ) -> pl.DataFrame | None:
        record = written[0]
        current = self.history.current.get(record.day)
        if current is not None and current.revision == record.revision:
            frame = self._read_file(self._files.get(record.day), record, columns)
            if frame is not None:
                return frame
        for item in reversed(written):
            frame = self._read_file(self._path_added(item), record, columns)
            if frame is not None:
                return frame
        return None

    def _path_added(self, record: DayRecord) -> str | None:
        if record.version not in self._added:
            data = self._place.read(log_file(record.version))
            self._added[record.version] = added_paths(self._place.uri, record.version, data)
        return self._added[record.version].get(record.day.isoformat())

    def _read_file(
        self, path: str | None, record: DayRecord, columns: list[str] | None
    ) -> pl.DataFrame | None:
        """Return the rows of a file, or None if it is gone."""
        if path is None:
            return None
        file = unquote(path)
        try:
            return pl.read_parquet(
                self._place.path(file),
                columns=columns,
                glob=False,
                hive_partitioning=False,
                storage_options=self._place.polars_options,
            )
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            if self._place.remote and not_answered(error):
                raise store_failed(f"The file {self._place.path(file)}", error) from None
            if not self._place.exists(file):
                return None
            raise damaged_day(
                self._name, record, f"{type(error).__name__} on reading {file}"
            ) from error

    def _from_siblings(
        self, written: Sequence[DayRecord], columns: Sequence[str]
    ) -> pl.DataFrame | None:
        for table_id in dict.fromkeys(self.history.table_of(record) for record in written):
            if table_id not in self._siblings:
                self._siblings[table_id] = sibling_of(self._place, self._name, table_id)
            record = written[0]
            frame = self._siblings[table_id].read(record.day, record.revision, columns)
            if frame is not None:
                return frame
        return None

    def _gone(self, record: DayRecord) -> StoreError:
        return StoreError(
            f"The rows of {self._name} for {record.day}, revision {record.revision}, are gone.",
            expected=f"the file that version {record.version} of {self._place.uri} added, or a "
            "copy among the superseded rows",
            got="neither",
            fix="Restore the file from a backup. `lockstep gc` deletes none before its rows are "
            "copied: was something else used to clean up?",
            effect="Nothing was read in its place.",
        )
