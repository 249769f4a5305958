"""Which files a Delta table consists of, version by version, from every commit of its log."""

import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from lockstep.errors import StoreError
from lockstep.stores.delta_log import LOG
from lockstep.stores.files import FileInfo, Place

DATA_FILE: Final = re.compile(r"\.parquet(#\d+)?$")
"""How a data file ends; `#1` and so on is one that a killed writer left."""
_DIGITS: Final = 20
_READERS: Final = 8


@dataclass(frozen=True)
class FileCommit:
    """What one commit did to a table's files; paths are those on the disk.

    `modified_ns` is when the store wrote the commit; `table_id` is set if the commit sets it.
    """

    version: int
    modified_ns: int
    added: frozenset[str]
    removed: frozenset[str]
    table_id: str | None


@dataclass(frozen=True)
class FileLog:
    """Every commit of a table, from version 0 on."""

    uri: str
    commits: tuple[FileCommit, ...]

    @property
    def version(self) -> int:
        """The newest version."""
        return self.commits[-1].version

    def files_at(self, version: int) -> set[str]:
        """Return the files that the table consists of at a version."""
        files: set[str] = set()
        for commit in self.commits[: version + 1]:
            files = (files - commit.removed) | commit.added
        return files

    def named_since(self, instant_ns: int) -> set[str]:
        """Return the files that commits since an instant added or removed.

        With the newest version's files they are those of every version that was the newest since.
        """
        recent = (commit for commit in self.commits if commit.modified_ns >= instant_ns)
        return {path for commit in recent for path in commit.added | commit.removed}

    def ever(self) -> set[str]:
        """Return every file that was ever part of the table."""
        return {path for commit in self.commits for path in commit.added}

    def table_at(self, version: int) -> str | None:
        """Return the table's id at a version; None if there is no such version."""
        if version > self.version:
            return None
        ids = [commit.table_id for commit in self.commits[: version + 1] if commit.table_id]
        return ids[-1] if ids else None


def read_file_log(place: Place, files: Iterable[FileInfo]) -> FileLog:
    """Return the log of a table.

    Args:
        place: The table's folder.
        files: What was listed in it; commits that came later are not read.

    Raises:
        StoreError: A commit is missing or damaged.
    """
    found = {version: info for info in files if (version := _version_of(info.path)) is not None}
    if sorted(found) != list(range(len(found))) or not found:
        raise StoreError(
            f"The log of the table {place.uri} is not complete.",
            expected="every commit from version 0 on",
            got=f"{len(found)} of them",
            fix="Restore the missing files from a backup.",
            effect="Nothing of the table was deleted.",
        )
    with ThreadPoolExecutor(_READERS) as pool:
        commits = pool.map(lambda version: _read(place, version, found[version]), sorted(found))
        return FileLog(place.uri, tuple(commits))


def tables_in(files: Collection[FileInfo]) -> Mapping[str, list[FileInfo]]:
    """Return folder → the files in it, of every Delta table, paths relative to that folder."""
    folders = {
        folder for info in files if (folder := info.path.partition(f"/{LOG}/")[0]) != info.path
    }
    found: dict[str, list[FileInfo]] = {folder: [] for folder in sorted(folders)}
    for info in files:
        parts = info.path.split("/")
        for length in range(len(parts) - 1, 0, -1):
            folder = "/".join(parts[:length])
            if folder in found:
                inside = info.path.removeprefix(f"{folder}/")
                found[folder].append(FileInfo(inside, info.size, info.modified_ns, info.etag))
                break
    return found


def _version_of(path: str) -> int | None:
    folder, _, name = path.rpartition("/")
    digits, _, ending = name.partition(".")
    known = folder == LOG and ending == "json" and len(digits) == _DIGITS and digits.isdigit()
    return int(digits) if known else None


def _read(place: Place, version: int, info: FileInfo) -> FileCommit:
    try:
        lines = place.read(info.path).splitlines()
        actions: list[dict[str, Any]] = [msgspec.json.decode(line) for line in lines if line]
        if not any("commitInfo" in action for action in actions):
            raise KeyError("commitInfo")  # noqa: TRY301 - one message for whatever is wrong
        return FileCommit(
            version=version,
            modified_ns=info.modified_ns,
            added=frozenset(unquote(a["add"]["path"]) for a in actions if "add" in a),
            removed=frozenset(unquote(a["remove"]["path"]) for a in actions if "remove" in a),
            table_id=next((a["metaData"]["id"] for a in actions if "metaData" in a), None),
        )
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"Version {version} of the table {place.uri} is damaged.",
            expected="a complete commit",
            fix=f"Restore {info.path} from a backup.",
            effect="Nothing of the table was deleted.",
        ) from error
