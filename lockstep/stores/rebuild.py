"""A rebuild: a new table is prepared beside the live one, then one commit puts it in its place.

    staging = start_rebuild(table)          # a DayTable; commit every day to it, in chunks
    finish_rebuild(table, staging, days, now=now)

The staged rows are copied into the folder of the live table, with the `known_at` of the swap, and
one commit at exactly the next version removes every old file and adds the new ones under a new
table id. Whoever commits in between makes that version exist, so that the swap is decided again; a
crash before it leaves files that nothing names. The table keeps its path, its version numbers go
on, and versions before the swap stay readable, because manifests may pin them.
"""

import hashlib
import io
import json
import uuid
from collections.abc import Callable, Collection
from datetime import date, datetime

import polars as pl

from lockstep.errors import ConflictError, NotCertifiedError, StoreError
from lockstep.stores.committing import LOST_RACES
from lockstep.stores.day_index import DayRecord, Head
from lockstep.stores.delta import DayTable
from lockstep.stores.delta_log import (
    DataFile,
    DayChange,
    commit_metadata,
    log_file,
    replacing_commit,
    transaction_id,
)
from lockstep.stores.files import Place
from lockstep.stores.proposal import DAY, KNOWN_AT, UTC_INSTANT, Committed, Live, certified_at

_FOLDER = "_rebuild"


def start_rebuild(table: DayTable) -> DayTable:
    """Return the table in which a rebuild of `table` is prepared, created beside it.

    `table` carries the new declaration. Days that an interrupted rebuild to the same declaration
    certified are still staged; what a rebuild to another one left is deleted. Nothing reads the
    staged table until `finish_rebuild`.

    Raises:
        StoreError: The live table does not exist.
    """
    live = table.live(()).head
    aim = json.dumps([live.table_id, sorted(table.configuration.items())])
    wanted = hashlib.sha256(aim.encode()).hexdigest()[:16]
    for info in table.around.list(f"{_FOLDER}/{table.name}"):
        if info.path.split("/")[2] != wanted:
            table.around.delete(info.path)
    staging = table.beside(f"{_FOLDER}/{table.name}/{wanted}")
    staging.create()
    return staging


def finish_rebuild(
    table: DayTable,
    staging: DayTable,
    days: Collection[date],
    *,
    now: Callable[[], datetime],
    dropping: Collection[date] = (),
) -> list[Committed]:
    """Put the staged days in the place of the live table by one commit, and delete the staging.

    A day whose content hash did not change keeps revision and `known_at`; the others get the next
    revision and the `known_at` of the swap. A crash leaves the old table or the new one.

    Args:
        table: The live table, with the new declaration.
        staging: What `start_rebuild` returned, filled by `commit`.
        days: The staged days that make the new table.
        now: Read just before the rows are copied.
        dropping: Certified days that may be gone afterwards.

    Returns:
        One entry per day, oldest first.

    Raises:
        NotCertifiedError: A day is not staged, or a certified day would be gone unasked.
        ConflictError: Others kept committing to the live table.
        StoreError: The store failed, or a staged file is damaged.
    """
    for _ in range(LOST_RACES):
        live = table.live(days)
        _check_complete(table.name, days, staging.head().days, live.head, dropping)
        swapped = _swap(table, staging, days, live, now)
        if swapped is not None:
            table.around.delete_all(f"{_FOLDER}/{table.name}")
            return swapped
    raise ConflictError(
        f"Others kept committing to {table.name} while its rebuild was to be put in place.",
        fix="Stop the runs of this view, then run the rebuild again: finished days are kept.",
        effect="The table is as it was.",
    )


def _swap(
    table: DayTable,
    staging: DayTable,
    days: Collection[date],
    live: Live,
    now: Callable[[], datetime],
) -> list[Committed] | None:
    """Return what became of the days, or None if somebody else committed first."""
    attempt, known_at = uuid.uuid4().hex, certified_at(now(), live.head.days.values())
    ready = staging.head().days
    changes = [
        _change(ready[day], live.head.days.get(day), live.revisions[day], known_at)
        for day in sorted(days)
    ]
    data = replacing_commit(
        metadata=commit_metadata(table.name, attempt, changes, replaces=True),
        table={"id": str(uuid.uuid4()), **table.definition()},
        revisions={transaction_id(table.name, item.day): item.revision for item in changes},
        removed=live.files,
        added=[
            _copy(table.place, staging.read_day(item.day), item, attempt)
            for item in changes
            if item.rows
        ],
        now=known_at,
    )
    version = live.head.version + 1
    if not table.place.write_if_absent(log_file(version), data):
        return None
    return [
        Committed(
            day=item.day,
            revision=item.revision,
            version=version,
            known_at=item.known_at,
            changed=item.revision != live.revisions[item.day],
        )
        for item in changes
    ]


def _check_complete(
    name: str,
    days: Collection[date],
    ready: Collection[date],
    head: Head,
    dropping: Collection[date],
) -> None:
    unbuilt = sorted(set(days) - set(ready))
    lost = sorted(set(head.days) - set(days) - set(dropping))
    if unbuilt:
        raise NotCertifiedError(
            f"The rebuild of {name} lacks {', '.join(map(str, unbuilt))}.",
            fix="Rebuild these days too, or leave them out.",
            effect="The table is as it was.",
        )
    if lost:
        raise NotCertifiedError(
            f"The rebuild of {name} would lose {', '.join(map(str, lost))}, which are certified.",
            fix="Rebuild these days too, or drop them by name.",
            effect="The table is as it was.",
        )


def _change(
    staged: DayRecord, record: DayRecord | None, revision: int, known_at: datetime
) -> DayChange:
    same = record is not None and record.content_hash == staged.content_hash
    return DayChange(
        day=staged.day,
        revision=revision if same else revision + 1,
        content_hash=staged.content_hash,
        known_at=record.known_at if same and record else known_at,
        rows=staged.rows,
        note=staged.note,
    )


def _copy(place: Place, rows: pl.DataFrame, change: DayChange, attempt: str) -> DataFile:
    path = f"{DAY}={change.day.isoformat()}/part-00000-{attempt}-c000.zstd.parquet"
    buffer = io.BytesIO()
    frame = rows.drop(DAY).with_columns(pl.lit(change.known_at, UTC_INSTANT).alias(KNOWN_AT))
    frame.write_parquet(buffer, compression="zstd")
    if frame.height != change.rows:
        raise StoreError(f"The rebuilt day {change.day} changed while it was being copied.")
    place.write(path, buffer.getvalue())
    return DataFile(change.day, path, buffer.tell(), change.rows)
