"""The sibling of a view's table: the rows of its superseded revisions.

`<root>/superseded/<view>/<table id>` is a Delta table of the columns that the table of that id had,
and `revision`, partitioned by `day`. A revision is copied there once: the commit carries a
transaction for it, so that a second copy is refused, whoever makes it.
"""

from collections.abc import Collection, Sequence
from datetime import date
from typing import Final
from urllib.parse import unquote

import polars as pl

from lockstep.errors import ConflictError
from lockstep.stores.causes import answering, store_failed
from lockstep.stores.committing import LOST_RACES
from lockstep.stores.day_index import DayRecord
from lockstep.stores.files import Place, open_place
from lockstep.stores.proposal import DAY
from lockstep.stores.tables import (
    CONFIGURATION,
    append_rows,
    create_table,
    definition_of,
    lost_race,
    open_table,
    table_ranges,
    transaction_at,
)

FOLDER: Final = "superseded"
_COLUMN: Final = "revision"


def sibling_of(place: Place, name: str, table_id: str) -> "Sibling":
    """Return the sibling of the table in a folder `<root>/<kind>/<name>`; nothing is created."""
    root = place.uri.rsplit("/", 2)[0]
    return Sibling(open_place(f"{root}/{FOLDER}/{name}/{table_id}", place.options), name)


class Sibling:
    """Superseded rows of one table id of one view.

    Args:
        place: The sibling's folder.
        name: The view.
    """

    def __init__(self, place: Place, name: str) -> None:
        self.place = place
        self._name = name
        self._files: dict[date, list[tuple[str, int, int]]] | None = None

    def missing(self, records: Collection[DayRecord]) -> list[DayRecord]:
        """Return those of the revisions that are not copied here; days without rows never are."""
        wanted = [record for record in records if record.rows]
        handle = open_table(self.place) if wanted else None
        if handle is None:
            return wanted
        return [record for record in wanted if transaction_at(handle, self._id(record)) is None]

    def keep(self, items: Sequence[tuple[DayRecord, pl.DataFrame]]) -> list[DayRecord]:
        """Copy revisions in one commit, but those that are here; return what this call copied.

        Args:
            items: What was certified, and its rows in the order they were committed, without `day`.

        Raises:
            ConflictError: Others kept changing the sibling.
            StoreError: The store failed.
        """
        frames = {self._id(record): _stamped(record, rows) for record, rows in items}
        schema = next(iter(frames.values())).schema
        definition = {"name": self._name} | definition_of(schema, DAY, CONFIGURATION)
        for _ in range(LOST_RACES):
            handle = create_table(self.place, definition)
            left = [r for r, _ in items if transaction_at(handle, self._id(r)) is None]
            if not left:
                return []
            ids = [self._id(record) for record in left]
            rows = pl.concat([frames[key] for key in ids])
            failure = append_rows(handle, rows, {}, dict.fromkeys(ids, 1))
            if failure is None:
                return left
            # What failed may have arrived, and is then seen in the next round.
            if not lost_race(failure) and self.missing(left):
                raise store_failed(f"The table {self.place.uri}", failure) from None
        raise ConflictError(
            f"Others kept changing {self.place.uri}.", fix="Run again.", effect="Nothing is lost."
        )

    def read(self, day: date, revision: int, columns: Sequence[str]) -> pl.DataFrame | None:
        """Return the rows of one revision in their order, or None if it was not copied here."""
        paths = self._paths(day, revision)
        if not paths:
            return None
        with answering(f"The table {self.place.uri}"):
            scan = pl.scan_parquet(
                [self.place.path(unquote(path)) for path in paths],
                hive_partitioning=False,
                glob=False,
                storage_options=self.place.polars_options,
            )
            column = revision_column(scan.collect_schema().names(), stored=True)
            rows = scan.filter(pl.col(column) == revision).select(columns)
            return rows.collect(engine="in-memory")

    def _paths(self, day: date, revision: int) -> list[str]:
        for listed in (self._files, None):
            self._files = listed or self._listed()
            found = [
                path for path, low, high in self._files.get(day, ()) if low <= revision <= high
            ]
            if found:
                return found
        return []

    def _listed(self) -> dict[date, list[tuple[str, int, int]]]:
        handle = open_table(self.place)
        found: dict[date, list[tuple[str, int, int]]] = {}
        if handle is not None:
            column = revision_column(pl.Schema(handle.schema()).names(), stored=True)
            for day, path, low, high in table_ranges(handle, DAY, column):
                found.setdefault(day, []).append((path, low, high))
        return found

    def _id(self, record: DayRecord) -> str:
        return f"lockstep/{FOLDER}/{self._name}/{record.day.isoformat()}/{record.revision}"


def _stamped(record: DayRecord, rows: pl.DataFrame) -> pl.DataFrame:
    column = revision_column(rows.columns)
    return rows.with_columns(
        pl.lit(record.revision, pl.Int64).alias(column), pl.lit(record.day, pl.Date).alias(DAY)
    )


def revision_column(columns: Collection[str], *, stored: bool = False) -> str:
    """Return what a sibling calls its column of revisions: a name that the view does not use.

    Args:
        columns: The view's columns; the sibling's, if `stored`.
    """
    name = _COLUMN
    while name in columns:
        name += "_"
    return name[:-1] if stored else name
