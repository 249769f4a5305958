"""The files of a lake that hold rows of a forgotten entity, and how each kind loses them."""

import io
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import polars as pl

from lockstep.erasure.holdback import FOLDER
from lockstep.errors import InputError
from lockstep.hashing import content_hash
from lockstep.lake import Lake
from lockstep.schema import NAME
from lockstep.set_folder import MANIFEST, SETS, VOIDED, in_set, names_with
from lockstep.stores.delta import DayTable, stored_table
from lockstep.stores.delta_log import LOG
from lockstep.stores.file_log import DATA_FILE
from lockstep.stores.files import FileInfo, Place
from lockstep.stores.rewriting import (
    Match,
    UnreadableError,
    count_rows,
    restate_log,
    without_rows,
)

_PROFILES: Final = "training_profiles"
_DAYS: Final = re.compile(r"(bronze|offline)/[^_/][^/]*")
_OWN: Final = re.compile(r"\.(json|parquet)$")


@dataclass(frozen=True)
class Survey:
    """What a walk through a place found.

    Attributes:
        rows: Path of a file → rows in it that are theirs, where there are any.
        unreadable: Paths of files that should be Parquet and cannot be read.
        tables: Folders of Delta tables whose files have the key columns.
    """

    rows: Mapping[str, int]
    unreadable: Collection[str]
    tables: Collection[str]


def below(lake: Lake) -> list[FileInfo]:
    """Return every file below the lake's root but those of the landing zone."""
    inside = _landing_inside(lake)
    return [
        info for info in lake.place.list() if inside is None or not info.path.startswith(inside)
    ]


def _landing_inside(lake: Lake) -> str | None:
    root, landing = f"{lake.place.uri}/", f"{lake.landing.uri}/"
    return landing.removeprefix(root) if landing.startswith(root) else None


def survey(place: Place, files: Collection[FileInfo], match: Match) -> Survey:
    """Return which of the files hold rows that are meant."""
    rows: dict[str, int] = {}
    unreadable: list[str] = []
    tables = {path for info in files if (path := _table_of_log(info.path))}
    concerned: set[str] = set()
    for info in files:
        if not DATA_FILE.search(info.path) or _table_of_log(info.path):
            continue
        try:
            found = count_rows(place, info.path, match)
        except UnreadableError:
            unreadable.append(info.path)
            continue
        if found is not None:
            concerned |= {table for table in tables if info.path.startswith(f"{table}/")}
        if found:
            rows[info.path] = found
    return Survey(rows, unreadable, sorted(concerned))


def _table_of_log(path: str) -> str | None:
    table, log, _ = path.partition(f"/{LOG}/")
    return table if log else None


def day_tables(place: Place, files: Collection[FileInfo]) -> Iterator[tuple[str, DayTable]]:
    """Yield folder and table of every source, snapshot and view, declared or not any more."""
    found = {path for info in files if (path := _table_of_log(info.path))}
    for folder in sorted(filter(_DAYS.fullmatch, found)):
        yield folder, stored_table(place.join(folder))


def rewrite(place: Place, found: Survey, match: Match) -> None:
    """Take the rows out of the files that a survey found, and describe them anew in their logs.

    A frame in quarantine keeps its release: what its marker says of its content is put right.
    """
    for path in found.rows:
        data = without_rows(place, path, match)
        if path.startswith("quarantine/"):
            _restate_marker(place, path, data)
        place.write(path, data)
    for path in found.unreadable:
        if "#" in path:  # a part that the library had not finished when it was killed
            place.delete(path)
    for folder in found.tables:
        restate(place, folder, found.rows)


def restate(place: Place, folder: str, rewritten: Collection[str]) -> None:
    """Make a table's log describe its files, and forget what was derived from the log before."""
    inside = {path.removeprefix(f"{folder}/") for path in rewritten}
    if restate_log(place.join(folder), inside):
        around, _, name = folder.rpartition("/")
        for info in place.list(f"{around}/_index") if around else ():
            if info.path.rpartition("/")[2].startswith(f"{name}."):
                place.delete(info.path)


def _restate_marker(place: Place, path: str, data: bytes) -> None:
    frame = pl.read_parquet(io.BytesIO(data))
    marker = f"{path.rpartition('/')[0]}/why.json"
    said = json.loads(place.read_if_exists(marker) or b"{}")
    if "content_hash" in said.get("details", {}):
        said["details"] |= {"content_hash": content_hash(frame), "rows": frame.height}
        place.write(marker, json.dumps(said, indent=2).encode())


def void_sets(lake: Lake, digest: str, found: Survey, now: datetime) -> list[str]:
    """Void the training sets that held the entity, or that pin what an erasure has changed.

    The manifest goes, and `voided.json` says why; so does what else was said of its columns. Its
    rows, without those that were meant, stay.

    Returns:
        Their names.
    """
    holding = {path.split("/")[1] for path in found.rows if path.startswith(f"{SETS}/")}
    voided = []
    for name in names_with(lake.place):
        manifest = json.loads(lake.place.read(in_set(name, MANIFEST)))
        if name in holding or changed_pins(lake, manifest):
            _void(lake.place, name, manifest, digest, now)
            voided.append(name)
    return voided


def _void(place: Place, name: str, manifest: Mapping[str, Any], digest: str, now: datetime) -> None:
    said = {
        "reason": "voided by an erasure",
        "erasure": digest,
        "at": now.isoformat(),
        "name": name,
        "created_at": manifest.get("created_at"),
        "features": manifest.get("features"),
        "mode": manifest.get("mode"),
    }
    if elsewhere := manifest.get("files", {}).get("to"):
        said["elsewhere"] = elsewhere
    place.write(in_set(name, VOIDED), json.dumps(said, indent=2).encode())
    for info in place.list(f"{SETS}/{name}"):
        if info.path.endswith(".json") and not info.path.endswith(f"/{VOIDED}"):
            place.delete(info.path)


def changed_pins(lake: Lake, manifest: Mapping[str, Any]) -> bool:
    """Return whether a revision that a manifest pins has other content now than it says."""
    for view, pin in manifest.get("views", {}).items():
        if not pin.get("days") or not lake.place.list(f"offline/{view}/{LOG}"):
            continue
        written = stored_table(lake.place.join(f"offline/{view}")).history().written
        for day, revisions in pin["days"].items():
            records = written.get(date.fromisoformat(day), ())
            there = {(record.revision, record.content_hash) for record in records}
            if not {(said["revision"], said["content_hash"]) for said in revisions} <= there:
                return True
    return False


def require_not_voided(lake: Lake, name: str | None, manifest: Mapping[str, Any]) -> None:
    """Return if no erasure has taken anything from what a training set was made of.

    Args:
        name: The name under which the lake keeps it, if it does.
        manifest: Its manifest as JSON; empty if the lake keeps none of that name any more.

    Raises:
        InputError: One has.
    """
    if not lake.place.list(FOLDER):
        return
    gone = name is not None and NAME.match(name) and lake.place.exists(in_set(name, VOIDED))
    if (gone and not manifest) or changed_pins(lake, manifest):
        raise InputError(
            f"The training set {name or 'of this manifest'} was voided by an erasure.",
            got="rows of somebody who had to be forgotten in what it was made of",
            fix="Make a new one: what others contributed is still there, with the same values.",
            effect="Nothing was rebuilt.",
        )


def drop_profiles(lake: Lake) -> None:
    """Rewrite the profiles of training sets without those of voided ones."""
    files = below(lake)
    voided = set(names_with(lake.place, VOIDED))
    of_sets = [info for info in files if info.path.startswith(f"{_PROFILES}/")]
    if not voided or not of_sets:
        return

    def match(_: pl.LazyFrame) -> pl.Expr | None:
        return pl.col("name").is_in(sorted(voided))

    found = survey(lake.place, of_sets, match)
    for path in found.rows:
        lake.place.write(path, without_rows(lake.place, path, match))
    restate(lake.place, _PROFILES, found.rows)


def delete_unfinished(lake: Lake) -> None:
    """Delete what writers that were killed left of files below the lake's root."""
    inside = _landing_inside(lake)
    for info in lake.place.unfinished():
        if inside is None or not info.path.startswith(inside):
            lake.place.delete(info.path)


def other_data(files: Collection[FileInfo]) -> list[str]:
    """Return files of training sets whose form is not looked into."""
    return [
        info.path
        for info in files
        if info.path.startswith(f"{SETS}/") and not _OWN.search(info.path)
    ]


def elsewhere(lake: Lake) -> list[tuple[str, str]]:
    """Return voided training sets that were written to a file elsewhere, with that file."""
    found = []
    for name in names_with(lake.place, VOIDED):
        said = json.loads(lake.place.read(in_set(name, VOIDED)))
        found += [(said["name"], said["elsewhere"])] if "elsewhere" in said else []
    return found
