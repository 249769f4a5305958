"""Any Delta table of the lake: opened, created, appended to. Days are `stores/delta.py`'s."""

import uuid
from collections.abc import Mapping
from itertools import takewhile
from typing import Any, Final

import msgspec
import polars as pl
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Schema,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from lockstep.errors import StoreError
from lockstep.stores.causes import answering
from lockstep.stores.delta_log import creating_commit, log_file
from lockstep.stores.files import Place

RETRIES_IN_LIBRARY: Final = 100
# One file per day, so that a day is read back in the order in which it was written.
ONE_FILE: Final = 1 << 40
CONFIGURATION: Final = {
    # Pinned versions must stay readable; `lockstep gc` decides what goes.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}


def written_as(columns: Mapping[str, pl.DataType]) -> WriterProperties:
    """Return how rows sorted by the columns before `event_timestamp` are written.

    Whole numbers that only grow are stored as differences: smaller than a dictionary of values that
    occur once, and read in less than half the time.
    """
    keys = takewhile(lambda name: name != "event_timestamp", columns)
    differences = ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED")
    return WriterProperties(
        compression="ZSTD",
        column_properties={
            key: differences for key in keys if columns[key] in {pl.Int32(), pl.Int64()}
        },
    )


def append_rows(
    handle: DeltaTable,
    frame: pl.DataFrame,
    metadata: Mapping[str, Any],
    transactions: Mapping[str, int] | None = None,
) -> Exception | None:
    """Append the rows in one commit; return what went wrong, though it may have arrived.

    Each partition becomes one file in which the rows keep their order. Of two commits that carry
    the same transaction, the later fails.
    """
    properties = CommitProperties(
        custom_metadata=dict(metadata),
        max_commit_retries=RETRIES_IN_LIBRARY,
        app_transactions=[Transaction(key, at) for key, at in (transactions or {}).items()],
    )
    try:
        write_deltalake(
            handle,
            frame,
            mode="append",
            target_file_size=ONE_FILE,
            writer_properties=WriterProperties(compression="ZSTD"),
            commit_properties=properties,
        )
    except (DeltaError, OSError) as error:
        return error
    return None


def lost_race(failure: Exception) -> bool:
    """Return whether a write failed because somebody else committed first."""
    return isinstance(failure, CommitFailedError)


def open_table(place: Place, version: int | None = None) -> DeltaTable | None:
    """Return the table held at a version (None: the newest), or None when there is no table.

    Raises:
        StoreError: It is damaged, has no such version, or the store does not answer.
    """
    with answering(f"The table {place.uri}", DeltaError):
        try:
            return DeltaTable(place.uri, version=version, storage_options=place.delta_options)
        except TableNotFoundError:
            return None


def existing_table(place: Place, version: int | None = None) -> DeltaTable:
    """Return what `open_table` returns, of a table that must exist.

    Raises:
        StoreError: It does not, or is damaged, or the store does not answer.
    """
    handle = open_table(place, version)
    if handle is None:
        raise StoreError(
            f"The table {place.uri} does not exist.",
            fix="Materialize the view first: `lockstep materialize VIEW`.",
        )
    return handle


def create_table(place: Place, definition: Mapping[str, Any]) -> DeltaTable:
    """Return the table, created if it does not exist; of several processes doing it one succeeds.

    Raises:
        StoreError: The store does not answer as it should.
    """
    handle = open_table(place)
    if handle is None:
        place.write_if_absent(log_file(0), creating_commit({"id": str(uuid.uuid4()), **definition}))
        handle = existing_table(place)
    return handle


def definition_of(
    schema: pl.Schema, partition: str, configuration: Mapping[str, str]
) -> dict[str, Any]:
    """Return a table as the `metaData` action of a commit, without its id."""
    return {
        "schemaString": Schema.from_arrow(schema).to_json(),
        "partitionColumns": [partition],
        "configuration": dict(configuration),
    }


def table_files(handle: DeltaTable, by: str) -> list[tuple[Any, str, int, int]]:
    """Return (partition value, path as logged, size in bytes, rows) of every file, in order."""
    with answering(f"The table {handle.table_uri}", DeltaError):
        found = pl.DataFrame(handle.get_add_actions(flatten=True))
    return sorted(found.select(f"partition.{by}", "path", "size_bytes", "num_records").rows())


def schema_set_by(place: Place, version: int) -> pl.Schema:
    """Return the columns of the table that a commit created or replaced, in order.

    Raises:
        StoreError: There is no such commit, or it sets no columns.
    """
    for line in place.read(log_file(version)).splitlines():
        action = msgspec.json.decode(line) if line else {}
        if "metaData" in action:
            return pl.Schema(Schema.from_json(action["metaData"]["schemaString"]))
    raise StoreError(
        f"Version {version} of the table {place.uri} sets no columns.",
        expected="the commit that created or rebuilt the table",
        fix="Restore the log from a backup.",
    )


def transaction_at(handle: DeltaTable, key: str) -> int | None:
    """Return the version of an application's last transaction; None if it never committed."""
    with answering(f"The table {handle.table_uri}", DeltaError):
        return handle.transaction_version(key)


def table_ranges(handle: DeltaTable, by: str, column: str) -> list[tuple[Any, str, int, int]]:
    """Return (partition value, path as logged, least and greatest value of a column) per file."""
    with answering(f"The table {handle.table_uri}", DeltaError):
        found = pl.DataFrame(handle.get_add_actions(flatten=True))
    if found.is_empty():
        return []
    return found.select(f"partition.{by}", "path", f"min.{column}", f"max.{column}").rows()


def partition_of(handle: DeltaTable) -> str:
    """Return the column that a table is partitioned by."""
    return str(handle.metadata().partition_columns[0])


def checkpoint(handle: DeltaTable) -> None:
    """Write what the log says so far into one file, so that opening reads no more than that."""
    with answering(f"The table {handle.table_uri}", DeltaError):
        handle.create_checkpoint()
