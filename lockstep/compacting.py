"""Many small files of the ledger, the profiles and the superseded rows become few; rows stay."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from lockstep.stores.compaction import compact_table, small_files
from lockstep.stores.file_log import tables_in
from lockstep.stores.files import Place

KINDS = ("ledger", "profiles", "training_profiles", "superseded")


@dataclass(frozen=True)
class Compacted:
    """What became of one table.

    Attributes:
        place: Its folder in the lake.
        before: Files that were, or would be, put together.
        after: Files that they became, or would become.
    """

    place: str
    before: int
    after: int


def compact(
    root: Place,
    *,
    now: Callable[[], datetime],
    dry_run: bool = False,
    on_table: Callable[[str], None] | None = None,
) -> list[Compacted]:
    """Put small files together, table by table; return the tables in which there was one to.

    Tables of views, sources and snapshots hold one file per day and are left alone. The old files
    stay where they are until `lockstep gc` finds that nobody can be reading them. Safe beside
    appends and other compactions; interrupted, it is run again.

    Args:
        root: The lake.
        now: For the log's own timestamps, which decide nothing.
        dry_run: Only say what would be done.
        on_table: Called with the folder of every table before it is looked at.

    Raises:
        ConflictError: Others kept changing a table.
        StoreError: The store failed, or a file is damaged; tables done before stay done.
    """
    listed = [info for kind in KINDS for info in root.list(kind)]
    done = []
    for folder in tables_in(listed):
        if on_table is not None:
            on_table(folder)
        place = root.join(folder)
        before, after = small_files(place) if dry_run else compact_table(place, now=now)
        if before:
            done.append(Compacted(folder, before, after))
    return done
