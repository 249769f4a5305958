"""Rows taken out of Parquet files in place, and the Delta logs that then describe those files.

A file keeps its name, so that whatever refers to it, an older version of a table too, reads it
without these rows. The file goes first, its log after it: a log that still describes what a file
was is noticed by the file's size, so that a run that died is completed by the next one.
"""

import io
import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import polars as pl

from lockstep.hashing import content_hash
from lockstep.stores.causes import answering
from lockstep.stores.delta_log import LOG, METADATA_KEY
from lockstep.stores.files import Place
from lockstep.stores.proposal import DAY, KNOWN_AT
from lockstep.stores.tables import existing_table

Match: TypeAlias = Callable[[pl.LazyFrame], pl.Expr | None]
"""Which rows of a file are meant; None if its columns cannot say."""

_COMMIT: Final = re.compile(rf"{LOG}/\d{{20}}\.json")
_REVISION: Final = re.compile(r"revision_*")
_CHECKPOINT: Final = re.compile(rf"{LOG}/(_last_checkpoint|.*\.checkpoint\..*)")


class UnreadableError(Exception):
    """A file is no Parquet, or a damaged one."""


def count_rows(place: Place, path: str, match: Match) -> int | None:
    """Return how many rows of a Parquet file are meant; None if its columns cannot say.

    Raises:
        UnreadableError: It is no Parquet file, or a damaged one.
        StoreError: The store does not answer.
    """
    scan = _scan(place, path)
    with answering(f"The file {place.path(path)}") if place.remote else nullcontext():
        try:
            wanted = match(scan)
            if wanted is None:
                return None
            return int(scan.filter(wanted).select(pl.len()).collect().item())
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise UnreadableError(path) from error


def without_rows(place: Place, path: str, match: Match) -> bytes:
    """Return a Parquet file's bytes without the rows that are meant, the others in order."""
    scan = _scan(place, path)
    wanted = match(scan)
    if wanted is not None:
        scan = scan.filter(~wanted.fill_null(value=False))
    buffer = io.BytesIO()
    with answering(f"The file {place.path(path)}"):
        scan.collect(engine="in-memory").write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def _scan(place: Place, path: str) -> pl.LazyFrame:
    return pl.scan_parquet(
        place.path(path),
        storage_options=place.polars_options,
        hive_partitioning=False,
        glob=False,
    )


def restate_log(table: Place, rewritten: Collection[str]) -> bool:
    """Make a Delta log describe the files that are there; return whether it did not before.

    Of a file that was rewritten the log says its size, rows, revisions and (of a day) content hash;
    of one that is gone how many rows it had. Neither keeps the least and greatest values of other
    columns, which are values of rows.

    Args:
        table: The table's folder.
        rewritten: Paths of files that are known to have changed.

    Raises:
        StoreError: The store does not answer.
    """
    sizes = {info.path: info.size for info in table.list()}
    restated: dict[str, bytes] = {}
    for path in sorted(filter(_COMMIT.fullmatch, sizes)):
        before = table.read(path)
        after = _restated(table, before, sizes, rewritten)
        if after != before:
            restated[path] = after
    if not restated:
        return False
    # First, as they repeat what the commits said; the newest one's pointer before the others.
    checkpoints = sorted(filter(_CHECKPOINT.fullmatch, sizes), key=lambda p: "_last_" not in p)
    for path in checkpoints:
        table.delete(path)
    for path, data in restated.items():
        table.write(path, data)
    if checkpoints:
        existing_table(table).create_checkpoint()
    return True


def _restated(
    table: Place, data: bytes, sizes: Mapping[str, int], rewritten: Collection[str]
) -> bytes:
    actions = [json.loads(line) for line in data.splitlines() if line]
    days: dict[str, bytes] = {}
    changed = False
    for action in actions:
        add = action.get("add")
        if add is None:
            continue
        path = unquote(add["path"])
        if path not in sizes:
            changed |= _only_rows(add)
        elif path in rewritten or sizes[path] != add["size"]:
            content = table.read(path)
            add |= {"size": len(content), "stats": json.dumps(_stats(content))}
            changed = True
            if day := add["partitionValues"].get(DAY):
                days[day] = content
    if not changed:
        return data
    for action in actions:
        _restate_days(action.get("commitInfo", {}).get(METADATA_KEY, {}).get("days", {}), days)
    return b"".join(json.dumps(a, separators=(",", ":")).encode() + b"\n" for a in actions)


def _stats(content: bytes) -> dict[str, Any]:
    """Rows of a file, and the range of revisions in it, by which superseded ones are found."""
    scan = pl.scan_parquet(io.BytesIO(content))
    revisions = [name for name in scan.collect_schema() if _REVISION.fullmatch(name)]
    ends = scan.select(
        pl.len().alias("rows"),
        *(pl.min(name).alias(f"min {name}") for name in revisions),
        *(pl.max(name).alias(f"max {name}") for name in revisions),
    )
    found = ends.collect().row(0, named=True)
    stats = {"numRecords": found["rows"]}
    if not found["rows"]:
        return stats
    low = {name: found[f"min {name}"] for name in revisions}
    high = {name: found[f"max {name}"] for name in revisions}
    return {**stats, "minValues": low, "maxValues": high} if revisions else stats


def _restate_days(said: dict[str, Any], days: Mapping[str, bytes]) -> None:
    for day in said.keys() & days.keys():
        frame = pl.read_parquet(io.BytesIO(days[day]))
        digest = content_hash(frame.drop(KNOWN_AT, DAY, strict=False))
        said[day] |= {"hash": digest, "rows": frame.height}


def _only_rows(add: dict[str, Any]) -> bool:
    """Leave of a file's statistics how many rows it had; return whether there was more."""
    stats = json.loads(add.get("stats") or "{}")
    kept = {"numRecords": stats["numRecords"]} if "numRecords" in stats else {}
    if stats == kept:
        return False
    add["stats"] = json.dumps(kept)
    return True
