"""The index of a table: which days are certified, derived from its log and cached beside it.

The log is the truth. A cache is believed only if the commit it ends with is still, byte for byte,
the commit of that version in the log; otherwise the index is built again from the first commit.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final

import msgspec

from lockstep.errors import StoreError
from lockstep.stores.delta_log import (
    DayChange,
    LogCommit,
    foreign_commit,
    log_file,
    read_commit,
)
from lockstep.stores.files import Place

SAVE_EVERY: Final = 10
_READERS: Final = 8


@dataclass(frozen=True)
class DayRecord:
    """What is certified for one day.

    `version` is the Delta version of the commit that wrote it, `known_at` the instant (UTC) of
    certification, `note` what the committer recorded, `attempt` the call that committed it.
    """

    day: date
    revision: int
    content_hash: str
    version: int
    known_at: datetime
    rows: int
    note: Mapping[str, Any]
    attempt: str = ""


@dataclass(frozen=True)
class Era:
    """The life of one table id: from version `since` until the next rebuild."""

    table_id: str
    since: int


@dataclass(frozen=True)
class Head:
    """One consistent look at a table: every certified day as of `version`.

    A day without rows is listed with `rows` 0; a day that is not listed was never built.
    `digest` is the hash of the commit file of `version`. `past` holds what was replaced since the
    table was first created, oldest first; a rebuild replaces every day. Of the notes of what was
    replaced only the code version is kept. `eras` are in order of version.
    """

    table_id: str
    version: int
    days: Mapping[date, DayRecord]
    digest: str = ""
    past: Mapping[date, tuple[DayRecord, ...]] = field(default_factory=dict)
    eras: tuple[Era, ...] = ()

    def all_of(self, day: date, since: int = 0) -> list[DayRecord]:
        """Return what was ever certified for the day by a commit from `since` on, oldest first."""
        now = [self.days[day]] if day in self.days else []
        return [record for record in (*self.past.get(day, ()), *now) if record.version >= since]


@dataclass(frozen=True)
class History:
    """Every revision that was certified up to a version, across rebuilds.

    Attributes:
        table_id: Of the table at that version.
        days: Day → its revisions, ascending. `version` is that of the commit that first certified
            it; a rebuild that leaves a day's content alone makes no new revision.
        current: Day → what is certified at that version; a day that a rebuild dropped is not here.
        written: Day → every record, also those of rebuilds that left the content alone.
        eras: The table ids, in order of version.
    """

    table_id: str
    version: int
    days: Mapping[date, tuple[DayRecord, ...]]
    current: Mapping[date, DayRecord]
    written: Mapping[date, tuple[DayRecord, ...]]
    eras: tuple[Era, ...]

    @property
    def first_known_at(self) -> datetime | None:
        """When the first day ever was certified: the view went live. None if none was."""
        found = [record.known_at for records in self.days.values() for record in records]
        return min(found, default=None)

    def era_of(self, record: DayRecord) -> Era:
        """Return the life of the table under whose id a record was written."""
        return next(era for era in reversed(self.eras) if era.since <= record.version)

    def table_of(self, record: DayRecord) -> str:
        """Return the id of the table under which a record was written."""
        return self.era_of(record).table_id


def history_of(head: Head, version: int) -> History:
    """Return what was certified up to a version, which must not be newer than the head's."""
    eras = tuple(era for era in head.eras if era.since <= version)
    days, current, written = {}, {}, {}
    for day in sorted(head.past.keys() | head.days.keys()):
        records = [record for record in head.all_of(day) if record.version <= version]
        if not records:
            continue
        first: dict[int, DayRecord] = {}
        for record in records:
            known = first.setdefault(record.revision, record)
            # The newest record's note is whole; the version is that of the first.
            first[record.revision] = replace(record, version=known.version)
        days[day] = tuple(first[revision] for revision in sorted(first))
        written[day] = tuple(records)
        if records[-1].version >= eras[-1].since:
            current[day] = records[-1]
    return History(eras[-1].table_id, version, days, current, written, eras)


class DayIndex:
    """The cached index of one table.

    Args:
        table: The table's folder.
        caches: The folder of cache files.
        name: The table's name, which names the file.
    """

    def __init__(self, table: Place, caches: Place, name: str) -> None:
        self._table = table
        self._caches = caches
        self._file = f"{name}.json"
        self._known: Head | None = None
        self._saved = -1

    def head(self, table_id: str, version: int, *, repairing: bool = False) -> Head:
        """Return the index as of `version`; costs one small read per commit since the last call.

        Args:
            table_id: The id of the table at that version.
            version: The Delta version.
            repairing: Say what was last certified even where something else changed the data.

        Raises:
            StoreError: The log is damaged, or something else changed the table's data.
        """
        base = self._believed(self._known, version) or self._believed(self._load(), version)
        commits = self.commits(base.version if base else -1, version)
        head, foreign = _fold(base, commits)
        if foreign is not None and not repairing:
            raise foreign_commit(self._table.uri, foreign.version, foreign.operation)
        if head is None or head.table_id != table_id:
            raise self._another(table_id, head.table_id if head else "no commits")
        if foreign is not None:
            return head
        self._known = head
        if head.version - self._saved >= SAVE_EVERY:
            self._save(head)
        return head

    def history(self, table_id: str, version: int) -> History:
        """Return every revision certified up to `version`; costs what `head` costs, or less.

        Raises:
            StoreError: As `head`.
        """
        head = self._trusted(self._known) or self._trusted(self._load())
        if head is None or head.version < version:
            head = self.head(table_id, version)
        found = history_of(head, version)
        if found.table_id != table_id:
            raise self._another(table_id, found.table_id)
        return found

    def _another(self, expected: str, got: str) -> StoreError:
        return StoreError(
            f"The log of the table {self._table.uri} belongs to another table.",
            expected=f"the table id {expected}",
            got=got,
            fix="Check whether two tables were copied into one folder.",
        )

    def commits(self, after: int, until: int) -> list[LogCommit]:
        """Return the commits with `after < version <= until`, oldest first."""
        versions = range(after + 1, until + 1)
        if len(versions) <= _READERS:
            return [self._commit(version) for version in versions]
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._commit, versions))

    def _commit(self, version: int) -> LogCommit:
        data = self._table.read_if_exists(log_file(version))
        if data is None:
            raise StoreError(
                f"The log of the table {self._table.uri} lacks version {version}.",
                expected="every commit to be kept (delta.enableExpiredLogCleanup=false)",
                fix="Restore the file from a backup, or rebuild the view.",
            )
        return read_commit(self._table.uri, version, data)

    def _believed(self, base: Head | None, version: int) -> Head | None:
        return None if base is None or base.version > version else self._trusted(base)

    def _trusted(self, base: Head | None) -> Head | None:
        if base is None:
            return None
        data = self._table.read_if_exists(log_file(base.version))
        same = data is not None and hashlib.sha256(data).hexdigest() == base.digest
        return base if same else None

    def _load(self) -> Head | None:
        stored = None
        # Only a cache: one that cannot be read is one that is not there.
        with contextlib.suppress(StoreError):
            stored = self._caches.read_if_exists(self._file)
        digest, _, body = (stored or b"").partition(b"\n")
        if digest.decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
            return None
        try:
            head = msgspec.json.decode(body, type=Head)
        except msgspec.MsgspecError:  # written by another release
            return None
        if not head.eras:  # likewise
            return None
        self._saved = head.version
        return head

    def _save(self, head: Head) -> None:
        body = msgspec.json.encode(head)
        data = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        # Only a cache: whoever may not write here, an analyst for instance, does without.
        with contextlib.suppress(StoreError):
            self._caches.write(self._file, data)
            self._saved = head.version


def _fold(base: Head | None, commits: Iterable[LogCommit]) -> tuple[Head | None, LogCommit | None]:
    """Return the index, and the first commit of something else since the table was last built."""
    days = dict(base.days) if base else {}
    past = dict(base.past) if base else {}
    eras = base.eras if base else ()
    table_id = base.table_id if base else None
    last, foreign = None, None
    for last in commits:
        if table_id is None or last.replaces:
            _leave(past, days.values())
            table_id, days, foreign = last.table_id, {}, None
            eras = (*eras, Era(table_id or "", last.version))
        elif last.foreign or last.table_id not in {None, table_id}:
            foreign, table_id = foreign or last, last.table_id or table_id
        _leave(past, (days[change.day] for change in last.changes if change.day in days))
        days.update((change.day, _record(last, change)) for change in last.changes)
    if last is None or table_id is None:
        return base, foreign
    return Head(table_id, last.version, days, last.digest, past, eras), foreign


def _leave(past: dict[date, tuple[DayRecord, ...]], records: Iterable[DayRecord]) -> None:
    """Add what is replaced to the past."""
    for record in records:
        note = {key: value for key, value in record.note.items() if key == "code_version"}
        past[record.day] = (*past.get(record.day, ()), replace(record, note=note))


def _record(commit: LogCommit, change: DayChange) -> DayRecord:
    return DayRecord(
        day=change.day,
        revision=change.revision,
        content_hash=change.content_hash,
        version=commit.version,
        known_at=change.known_at,
        rows=change.rows,
        note=change.note,
        attempt=commit.attempt,
    )
