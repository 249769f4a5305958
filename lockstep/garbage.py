"""What may go: files that no reader can ask for any more. The log, and what is pinned, stays.

A file of a table stays while the newest version names it, while a version that a training set's
manifest pins does, while a commit of the last days added or removed it (somebody may be reading
that version), and while its rows were superseded and are not yet copied beside the table.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from lockstep.errors import InputError, LockstepError, StoreError
from lockstep.set_folder import MANIFEST, SETS, VOIDED, WORK, in_set, names_with
from lockstep.stores.delta import DayRecord, stored_table
from lockstep.stores.delta_log import LOG
from lockstep.stores.file_log import DATA_FILE, FileLog, read_file_log, tables_in
from lockstep.stores.files import FileInfo, Place
from lockstep.stores.history import SliceReader
from lockstep.superseded import keep_superseded, not_kept
from lockstep.time import micros
from lockstep.training.manifest import Manifest

SAFE_AGE: Final = timedelta(days=1)
"""How old a file must be that no commit names, or the folder of something interrupted."""
KINDS: Final = ("offline", "bronze", "superseded", "ledger", "profiles", "training_profiles")
_OF_A_SET: Final = re.compile(r"(?:data|spine)-[0-9a-f]{16}\.parquet|profile-[0-9a-f]{16}\.json")
"""How a set's files are called where several builds may write into one folder."""
_STAGED: Final = re.compile(r"(?:offline|bronze)/_rebuild/[^/]+/[^/]+")
_DELETERS: Final = 8
_NOTHING: Final = "Nothing was deleted."

Pins = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class Collected:
    """What gc did to one table, or to what was left by something interrupted.

    Attributes:
        place: Its folder in the lake, for instance `offline/txn_7d`.
        files: What was deleted, or would be; relative to the folder.
        bytes: The size of these files.
        copied: Superseded revisions that were copied first, or would be, as `day revision n`.
        lost: Superseded revisions that nobody can read: their file was gone before, or is damaged.
        refused: Why nothing was deleted; None if all is well.
    """

    place: str
    files: tuple[str, ...] = ()
    bytes: int = 0
    copied: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    refused: str | None = None


@dataclass(frozen=True)
class _Ages:
    """Instants in nanoseconds since 1970: what is older may go."""

    kept: int
    safe: int

    @classmethod
    def at(cls, now: datetime, keep: timedelta) -> "_Ages":
        return cls(micros(now - keep) * 1000, micros(now - max(keep, SAFE_AGE)) * 1000)


@dataclass
class _Table:
    folder: str
    files: list[FileInfo]
    log: FileLog
    copied: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def collect_garbage(
    root: Place,
    *,
    now: datetime,
    keep: timedelta,
    dry_run: bool = False,
    on_table: Callable[[str], None] | None = None,
) -> list[Collected]:
    """Delete what no reader can ask for any more; return what went, table by table.

    Safe beside readers and writers that are faster than `keep`. Interrupted, it is run again.

    Args:
        root: The lake.
        now: The present instant, by the clock of the lake's store.
        keep: How long a version that was replaced stays readable.
        dry_run: Only say what would be done; nothing is copied and nothing deleted.
        on_table: Called with the folder of every table before it is looked at.

    Raises:
        InputError: `keep` is negative, or a manifest cannot be read or contradicts a table.
            Nothing was deleted.
        StoreError: The store does not answer.
    """
    if keep < timedelta(0):
        raise InputError("Files cannot be kept for less than no time.", effect=_NOTHING)
    ages = _Ages.at(now, keep)
    listed = [info for kind in KINDS for info in root.list(kind)]
    staged = [info for info in listed if _STAGED.match(info.path)]
    tables = tables_in([info for info in listed if not _STAGED.match(info.path)])
    # After the files are listed: whoever pins a version from here on pins one that is kept.
    pins = pinned_versions(root)
    found, refused = _logs(root, tables)
    _check_pins(pins, found, tables)
    done = list(refused)
    for table in found:
        if on_table is not None:
            on_table(table.folder)
        done.append(_collect(root, table, pins, ages, dry_run=dry_run))
    work = [info for info in root.list(SETS) if info.path.startswith(f"{SETS}/{WORK}")]
    unfinished = [info for kind in (*KINDS, SETS) for info in root.unfinished(kind)]
    done += _interrupted(root, [*staged, *work], unfinished, ages, dry_run=dry_run)
    done += _outrun(root, ages, dry_run=dry_run)
    return [item for item in done if item != Collected(item.place)]


def pinned_versions(root: Place) -> Pins:
    """Return view → version → table id of everything that a training set's manifest pins.

    Raises:
        InputError: A manifest cannot be read: what it pins is not known.
    """
    pins: dict[str, dict[int, str]] = {}
    for name in names_with(root):
        data = root.read_if_exists(in_set(name, MANIFEST))
        if data is None:
            continue  # deleted since it was listed
        try:
            manifest = Manifest.from_bytes(data, root.path(in_set(name, MANIFEST)))
        except LockstepError as error:
            raise InputError(
                f"{error.culprit} What it pins is not known.",
                expected=error.expected,
                got=error.got,
                fix="Restore it, or remove its training set if nobody needs it, and run again: "
                f"lockstep training-sets remove {name}.",
                effect=_NOTHING,
            ) from error
        for view, pin in manifest.views.items():
            if pin.table_id is not None and pin.version is not None:
                pins.setdefault(view, {})[pin.version] = pin.table_id
    return pins


def _logs(
    root: Place, tables: Mapping[str, list[FileInfo]]
) -> tuple[list[_Table], list[Collected]]:
    """Return the tables with their logs, and those whose log is damaged."""
    found, refused = [], []
    for folder, files in tables.items():
        try:
            found.append(_Table(folder, files, read_file_log(root.join(folder), files)))
        except StoreError as error:
            refused.append(Collected(folder, refused=str(error)))
    return found, refused


def _check_pins(pins: Pins, tables: Collection[_Table], folders: Collection[str]) -> None:
    """Raise InputError if a pin contradicts its table: what it needs is then not known."""
    logs = {table.folder: table.log for table in tables}
    for view, versions in pins.items():
        folder = f"offline/{view}"
        if folder not in folders:
            continue  # there is nothing to keep
        for version, table_id in versions.items():
            got = logs[folder].table_at(version) if folder in logs else "a damaged log"
            if got != table_id:
                raise InputError(
                    f"A training set pins version {version} of {view}, which is not there.",
                    expected=f"the table id {table_id}",
                    got=got or "no such version",
                    fix="Restore the table from a backup, or delete the training sets that pin it "
                    "(`lockstep rebuild` cannot build them any more).",
                    effect=_NOTHING,
                )


def _collect(root: Place, table: _Table, pins: Pins, ages: _Ages, *, dry_run: bool) -> Collected:
    kind, _, name = table.folder.partition("/")
    needed = table.log.files_at(table.log.version) | table.log.named_since(ages.kept)
    try:
        if kind == "offline":
            for version in pins.get(name, {}):
                needed |= table.log.files_at(version)
            needed |= _uncopied(root.join(table.folder), table, dry_run=dry_run)
    except LockstepError as error:
        return Collected(table.folder, copied=tuple(table.copied), refused=str(error))
    ever = table.log.ever()
    going = [
        info
        for info in table.files
        if DATA_FILE.search(info.path)
        and not info.path.startswith(f"{LOG}/")
        and info.path not in needed
        and info.modified_ns < (ages.kept if info.path in ever else ages.safe)
    ]
    if not dry_run:
        _delete(root.join(table.folder), going)
    return Collected(
        table.folder,
        tuple(info.path for info in going),
        sum(info.size for info in going),
        tuple(table.copied),
        tuple(table.lost),
    )


def _uncopied(place: Place, table: _Table, *, dry_run: bool) -> set[str]:
    """Copy what was superseded; return the files of revisions that are not copied for all that."""
    days = stored_table(place)
    if dry_run:
        waiting = not_kept(days, days.history())
        table.copied += [_named(record) for _, records in waiting for record in records]
        return set()
    kept = keep_superseded(days)
    table.copied += map(_named, kept.copied)
    table.lost += map(_named, kept.lost)
    left = [record for _, records in not_kept(days, days.history()) for record in records]
    reader = SliceReader(days) if left else None
    return {path for record in left if reader for path in reader.paths_of(record)}


def _named(record: DayRecord) -> str:
    return f"{record.day} revision {record.revision}"


def _interrupted(
    root: Place,
    grouped: Iterable[FileInfo],
    unfinished: Iterable[FileInfo],
    ages: _Ages,
    *,
    dry_run: bool,
) -> Iterator[Collected]:
    """Delete folders in which nothing has happened for long, and files nobody finished."""
    folders: dict[str, list[FileInfo]] = {}
    for info in grouped:
        depth = 2 if info.path.startswith(f"{SETS}/") else 4
        folders.setdefault("/".join(info.path.split("/")[:depth]), []).append(info)
    groups = [files for files in folders.values() if max(f.modified_ns for f in files) < ages.safe]
    alone = [info for info in unfinished if info.modified_ns < ages.safe]
    by_place: dict[str, list[FileInfo]] = {}
    for info in (*(info for files in groups for info in files), *alone):
        folder = next((name for name in folders if info.path.startswith(f"{name}/")), None)
        by_place.setdefault(folder or info.path.rpartition("/")[0], []).append(info)
    for folder, files in sorted(by_place.items()):
        if not dry_run:
            _delete(root, files)
        names = tuple(info.path.removeprefix(f"{folder}/") for info in files)
        yield Collected(folder, names, sum(info.size for info in files))


def _outrun(root: Place, ages: _Ages, *, dry_run: bool) -> Iterator[Collected]:
    """Delete what builds of training sets left whose name another one took, or that ended early."""
    folders: dict[str, list[FileInfo]] = {}
    for info in root.list(SETS):
        folder, _, name = info.path.rpartition("/")
        if _OF_A_SET.fullmatch(name) and info.modified_ns < ages.safe:
            folders.setdefault(folder, []).append(info)
    for folder, files in folders.items():
        # After the files are listed: those of a set that is finished now are younger.
        data = root.read_if_exists(f"{folder}/{MANIFEST}")
        if data is None and root.exists(f"{folder}/{VOIDED}"):
            continue  # what an erasure left of a set stays
        kept = Manifest.from_bytes(data, root.path(folder)) if data else None
        named = {*kept.files.values(), kept.profile_file} if kept else set()
        going = [info for info in files if info.path.removeprefix(f"{folder}/") not in named]
        if not dry_run:
            _delete(root, going)
        names = tuple(info.path.removeprefix(f"{folder}/") for info in going)
        yield Collected(folder, names, sum(info.size for info in going))


def _delete(place: Place, files: Iterable[FileInfo]) -> None:
    with ThreadPoolExecutor(_DELETERS) as pool:
        list(pool.map(lambda info: place.delete(info.path), files))
