"""The commits of a Delta log as this project reads them, and the one kind it writes by itself.

What a commit says about days stands in its commitInfo under `lockstep`. Commits are read from their
files and not through the library's `history`, because that numbers entries by counting down from
the newest: one commit that lost its first line shifts the number of every older one.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import msgspec

from lockstep.errors import StoreError

LOG: Final = "_delta_log"
METADATA_KEY: Final = "lockstep"
_PARQUET: Final = {"format": {"provider": "parquet", "options": {}}}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class DayChange:
    """What one commit certifies about one day; `known_at` is UTC, `note` is JSON-able."""

    day: date
    revision: int
    content_hash: str
    known_at: datetime
    rows: int
    note: Mapping[str, Any]


@dataclass(frozen=True)
class LogCommit:
    """One commit: `attempt` names the call that wrote it, `digest` is the hash of its file.

    `table_id` is set when the commit carries the table's metadata; `operation` is the library's
    word for what it did.

    `replaces` is set when the commit starts the table anew, so that days before it are gone.
    `foreign` is set when something else changed the data.
    """

    version: int
    digest: str
    operation: str
    table_id: str | None
    attempt: str
    changes: tuple[DayChange, ...]
    replaces: bool
    foreign: bool = False


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a table: `path` relative to the table, `size` in bytes."""

    day: date
    path: str
    size: int
    rows: int


@dataclass(frozen=True)
class LogFile:
    """One Parquet file of a table that is partitioned by anything.

    `value` is the partition's, `path` as the log spells it, `size` in bytes; `limits` are the least
    and greatest values of columns, as the log words them.
    """

    value: str
    path: str
    size: int
    rows: int
    limits: Mapping[str, Any] = field(default_factory=dict)


def log_file(version: int) -> str:
    """Return the path of a commit, relative to its table."""
    return f"{LOG}/{version:020d}.json"


def transaction_id(name: str, day: date) -> str:
    """Return the application id whose transaction version is the revision of that day."""
    return f"lockstep/{name}/{day.isoformat()}"


def commit_metadata(
    name: str, attempt: str, changes: Iterable[DayChange], *, replaces: bool = False
) -> dict[str, Any]:
    """Return the JSON-able entry for a commit's metadata, under METADATA_KEY."""
    days = {
        change.day.isoformat(): {
            "revision": change.revision,
            "hash": change.content_hash,
            "known_at_us": microseconds(change.known_at),
            "rows": change.rows,
            "note": dict(change.note),
        }
        for change in changes
    }
    return {METADATA_KEY: {"name": name, "attempt": attempt, "replaces": replaces, "days": days}}


def microseconds(instant: datetime) -> int:
    """Return microseconds since 1970 UTC, exactly (a float timestamp would round)."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def read_commit(uri: str, version: int, data: bytes) -> LogCommit:
    """Return what a commit file says, if it is complete.

    Commits that change no data (create, optimize, vacuum, set properties) have no changes.

    Raises:
        StoreError: The file lost lines, or cannot be read.
    """
    try:
        actions = [msgspec.json.decode(line) for line in data.splitlines() if line]
        found = _Actions(actions)
        entry = found.info.get(METADATA_KEY)
        changes = tuple(_change(*item) for item in entry["days"].items()) if entry else ()
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(uri, version, "a line that cannot be read") from error
    if not found.info:
        raise _damaged(uri, version, "a file without its first line")
    digest, operation = hashlib.sha256(data).hexdigest(), str(found.info.get("operation"))
    if entry is None:
        return LogCommit(
            version=version,
            digest=digest,
            operation=operation,
            table_id=found.table_id,
            attempt="",
            changes=(),
            replaces=False,
            foreign=found.changes_data,
        )
    missing = [
        change.day.isoformat()
        for change in changes
        if found.transactions.get(transaction_id(entry["name"], change.day), 0) != change.revision
        or (change.rows and change.day.isoformat() not in found.days)
    ]
    if missing:
        raise _damaged(uri, version, f"a file that ends before the rows of {', '.join(missing)}")
    return LogCommit(
        version=version,
        digest=digest,
        operation=operation,
        table_id=found.table_id,
        attempt=entry["attempt"],
        changes=changes,
        replaces=entry["replaces"],
    )


def added_paths(uri: str, version: int, data: bytes) -> dict[str, str]:
    """Return day (ISO) → the path of the file that a commit added for it, as the log spells it.

    Raises:
        StoreError: The commit cannot be read.
    """
    try:
        actions = [msgspec.json.decode(line) for line in data.splitlines() if line]
        adds = [action["add"] for action in actions if "add" in action]
        return {add["partitionValues"]["day"]: add["path"] for add in adds}
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise _damaged(uri, version, "a line that cannot be read") from error


class _Actions:
    """The parts of a commit that matter here, gathered from its lines."""

    def __init__(self, actions: Iterable[dict[str, Any]]) -> None:
        self.info: dict[str, Any] = {}
        self.table_id: str | None = None
        self.transactions: dict[str, int] = {}
        self.days: set[str] = set()
        self.changes_data = False
        for action in actions:
            if "commitInfo" in action:
                self.info = action["commitInfo"]
            elif "metaData" in action:
                self.table_id = action["metaData"]["id"]
            elif "txn" in action:
                self.transactions[action["txn"]["appId"]] = action["txn"]["version"]
            elif "add" in action:
                self.days.update(filter(None, action["add"]["partitionValues"].values()))
                self.changes_data |= action["add"]["dataChange"]
            elif "remove" in action:
                self.changes_data |= action["remove"]["dataChange"]


def _change(day: str, entry: Mapping[str, Any]) -> DayChange:
    return DayChange(
        day=date.fromisoformat(day),
        revision=entry["revision"],
        content_hash=entry["hash"],
        known_at=_EPOCH + timedelta(microseconds=entry["known_at_us"]),
        rows=entry["rows"],
        note=entry["note"],
    )


def _damaged(uri: str, version: int, got: str) -> StoreError:
    return StoreError(
        f"Version {version} of the table {uri} is damaged.",
        expected="a complete commit",
        got=got,
        fix=f"After a power loss, restore {log_file(version)} from a backup, or delete it if it is "
        "the newest and run the days again.",
        effect="Nothing was written.",
    )


def foreign_commit(uri: str, version: int, operation: str) -> StoreError:
    """Return the error about a commit that this project did not write."""
    return StoreError(
        f"Version {version} of the table {uri} was not written by Lockstep.",
        expected="every change of rows to be audited and recorded",
        got=f"the operation {operation}",
        fix="Build the view again with `lockstep materialize VIEW --rebuild`.",
        effect="Nothing was written; the table is not served as certified.",
    )


def creating_commit(table: Mapping[str, Any]) -> bytes:
    """Return the file of version 0 of a table without rows.

    Put in place only if absent, it makes one table of any number of concurrent creations. The
    library's own creation lets the second of them replace the table id, as version 1.

    Args:
        table: The `metaData` action: id, name, schemaString, partitionColumns, configuration.
    """
    return _lines(
        {"commitInfo": _info("CREATE TABLE", time.time_ns() // 1_000_000)},
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": _PARQUET | dict(table)},
    )


def replacing_commit(
    *,
    metadata: Mapping[str, Any],
    table: Mapping[str, Any],
    revisions: Mapping[str, int],
    removed: Iterable[DataFile],
    added: Iterable[DataFile],
    now: datetime,
) -> bytes:
    """Return the file of a commit that replaces a table's schema, properties and all its files.

    The library has no such operation that is checked against the version it was decided on.

    Args:
        metadata: What `commit_metadata` returned.
        table: The `metaData` action: id, name, schemaString, partitionColumns, configuration.
        revisions: Application id to its new transaction version.
        removed: Every file of the version before.
        added: Every file of the new table, already written.
        now: The instant for the log's own timestamps, which decide nothing.
    """
    at = microseconds(now) // 1000
    gone = {"dataChange": True, "deletionTimestamp": at, "extendedFileMetadata": True}
    new = {"dataChange": True, "modificationTime": at}
    return _lines(
        {"commitInfo": _info("CREATE OR REPLACE TABLE", at) | dict(metadata)},
        {"metaData": _PARQUET | dict(table)},
        *({"remove": _file(file) | gone} for file in removed),
        *({"add": _file(file) | new | {"stats": _stats(file)}} for file in added),
        *({"txn": {"appId": key, "version": revisions[key]}} for key in revisions),
    )


def compacting_commit(
    *, by: str, removed: Iterable[LogFile], added: Iterable[LogFile], now: datetime
) -> bytes:
    """Return the file of a commit that puts the same rows into other files.

    Args:
        by: The partition column.
        removed: Files whose rows the added ones hold.
        added: Files that are written already.
        now: The instant for the log's own timestamps, which decide nothing.
    """
    at = microseconds(now) // 1000
    gone = {"dataChange": False, "deletionTimestamp": at, "extendedFileMetadata": True}
    new = {"dataChange": False, "modificationTime": at}

    def described(file: LogFile) -> dict[str, Any]:
        return {"path": file.path, "partitionValues": {by: file.value}, "size": file.size}

    def stats(file: LogFile) -> str:
        return msgspec.json.encode({"numRecords": file.rows, **file.limits}).decode()

    return _lines(
        {"commitInfo": _info("OPTIMIZE", at)},
        *({"remove": described(file) | gone} for file in removed),
        *({"add": described(file) | new | {"stats": stats(file)}} for file in added),
    )


def _info(operation: str, at: int) -> dict[str, Any]:
    return {
        "timestamp": at,
        "operation": operation,
        "operationParameters": {},
        "engineInfo": "lockstep",
    }


def _file(file: DataFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "partitionValues": {"day": file.day.isoformat()},
        "size": file.size,
    }


def _stats(file: DataFile) -> str:
    return msgspec.json.encode({"numRecords": file.rows}).decode()


def _lines(*actions: Mapping[str, Any]) -> bytes:
    return b"".join(msgspec.json.encode(action) + b"\n" for action in actions)
