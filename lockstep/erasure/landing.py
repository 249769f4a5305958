"""Landed files without a forgotten entity's rows, in the order in which they were delivered."""

import json
from collections.abc import Collection
from typing import Final

from lockstep.erasure.files import Survey
from lockstep.stores.files import FileInfo, Place
from lockstep.stores.rewriting import Match, without_rows

_PLAN: Final = "landing.json"


def rewrite_landed(
    landing: Place,
    files: Collection[FileInfo],
    found: Survey,
    match: Match,
    *,
    plan: Place,
    cache: Place,
    refused: Collection[str],
) -> None:
    """Take the rows out of landed files, and keep which of two files was delivered later.

    Of rows that are equal in `unique_by` the last delivered one counts, and a file that is written
    anew is a late one. So those that came after it are written anew after it, as they are. What is
    to be written is kept first: a run that died goes on with the same order.

    Args:
        plan: Where the order is kept until all is written.
        cache: What was learnt of landed files. Of one with the same content it would go on to say
            when it was delivered before.
        refused: Files that break their schema: nobody asks for their order.
    """
    order = _planned(plan) or _order(files, found, refused)
    if not order:
        return
    plan.write(_PLAN, json.dumps(order).encode())
    for paths in order:
        before: tuple[int, str] | None = None
        for path in paths:
            data = without_rows(landing, path, match) if path in found.rows else landing.read(path)
            at = _written(landing, path, data)
            while before is not None and at <= before:  # the clock of a disk ticks slowly
                at = _written(landing, path, data)
            before = at
        cache.delete(f"{paths[0].partition('/')[0]}.json")
    plan.delete(_PLAN)


def _planned(plan: Place) -> list[list[str]]:
    kept = plan.read_if_exists(_PLAN)
    return json.loads(kept) if kept else []


def _order(files: Collection[FileInfo], found: Survey, refused: Collection[str]) -> list[list[str]]:
    """Return, per folder, its files from the first that holds such rows on, as delivered."""
    by_folder: dict[str, list[FileInfo]] = {}
    for info in files:
        if info.path.endswith(".parquet") and (info.path in found.rows or info.path not in refused):
            by_folder.setdefault(info.path.partition("/")[0], []).append(info)
    orders = []
    for infos in by_folder.values():
        paths = [i.path for i in sorted(infos, key=lambda info: (info.modified_ns, info.path))]
        first = next((at for at, path in enumerate(paths) if path in found.rows), None)
        if first is not None:
            orders.append(paths[first:])
    return orders


def _written(landing: Place, path: str, data: bytes) -> tuple[int, str]:
    landing.write(path, data)
    folder = path.rpartition("/")[0]
    (info,) = [info for info in landing.list(folder) if info.path == path]
    return info.modified_ns, path
