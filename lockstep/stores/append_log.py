"""Append-only tables of the lake: the ledger, the profiles."""

import uuid
from collections.abc import Mapping
from typing import Final

import polars as pl

from lockstep.errors import ConfigError, ConflictError, InputError
from lockstep.stores.causes import store_failed
from lockstep.stores.committing import LOST_RACES
from lockstep.stores.delta_log import METADATA_KEY, log_file
from lockstep.stores.files import open_place
from lockstep.stores.proposal import check_columns, check_contract, check_frame
from lockstep.stores.scan import scan_files
from lockstep.stores.tables import (
    CONFIGURATION,
    append_rows,
    create_table,
    definition_of,
    existing_table,
    lost_race,
    open_table,
    table_files,
)

_PARTITION: Final = "view"
# What Delta and Hive write for a null in a partition column, and read back as one.
_READ_AS_NULL: Final = pl.Series([None, "", "__HIVE_DEFAULT_PARTITION__"], dtype=pl.String)


class AppendLog:
    """An append-only table, partitioned by `view` (String).

    Args:
        uri: The table's local path or s3:// URI.
        columns: Column names and types in order; one of them is `view`, a String.
        options: AWS settings; see `lockstep.stores.files`.

    Raises:
        ConfigError: A column cannot be stored, or there is no `view`.
    """

    def __init__(
        self,
        uri: str,
        columns: Mapping[str, pl.DataType],
        *,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.place = open_place(uri, options)
        self.uri = self.place.uri
        self.columns = dict(pl.Schema(columns))
        check_columns("log", self.columns, reserved=())
        if self.columns.get(_PARTITION) != pl.String():
            raise ConfigError(f"The log {uri} needs a String column `view`.")

    def append(self, frame: pl.DataFrame) -> None:
        """Append the rows in one commit, creating the table at first use; nothing for no rows.

        Safe under concurrent appends. Rows are there once, also when the store's answer was lost.

        Raises:
            InputError: The frame has other columns, or a row without `view`.
            ContractChangedError: The table was created with other columns.
            ConflictError: Others kept changing the table in a way that appends cannot pass.
            StoreError: The store failed.
        """
        check_frame(self.uri, frame, self.columns)
        # Imploded here: at import it would start Polars' threads, and no fork outlives those.
        if frame[_PARTITION].is_in(_READ_AS_NULL.implode(), nulls_equal=True).any():
            raise InputError(f"A row for {self.uri} has no view.", effect="Nothing was written.")
        if frame.is_empty():
            return
        schema, attempt = pl.Schema(self.columns), uuid.uuid4().hex
        for _ in range(LOST_RACES):
            handle = create_table(self.place, definition_of(schema, _PARTITION, CONFIGURATION))
            check_contract(self.uri, declared=schema, stored=pl.Schema(handle.schema()))
            start = handle.version()
            failure = append_rows(handle, frame, {METADATA_KEY: {"attempt": attempt}})
            if failure is None or self._landed(attempt, start):
                return
            if not lost_race(failure):
                raise store_failed(f"The table {self.uri}", failure) from None
        raise ConflictError(
            f"Others kept changing {self.uri}.", fix="Run again.", effect="Nothing was appended."
        )

    def scan(self) -> pl.LazyFrame:
        """Return every row, in no order; an empty frame of the columns when there is no table."""
        handle = open_table(self.place)
        if handle is None:
            return pl.LazyFrame(schema=pl.Schema(self.columns))
        paths = [path for _, path, _, _ in table_files(handle, _PARTITION)]
        return scan_files(self.place, paths, pl.Schema(handle.schema()), {_PARTITION: pl.String()})

    def _landed(self, attempt: str, start: int) -> bool:
        until = existing_table(self.place).version()
        commits = (self.place.read(log_file(version)) for version in range(start + 1, until + 1))
        return any(attempt.encode() in commit for commit in commits)
