"""The offline store: one Delta table per view, partitioned by day, written by audited days.

A table is found at its documented path, locally and on S3, before and after a rebuild:
`pl.scan_delta("<root>/offline/txn_7d")` always reads the certified head.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from lockstep.errors import NotCertifiedError, StoreError
from lockstep.hashing import content_hash
from lockstep.stores.causes import answering, not_answered, store_failed
from lockstep.stores.committing import commit_days
from lockstep.stores.day_index import DayIndex, DayRecord, Head, History
from lockstep.stores.delta_log import (
    DataFile,
    DayChange,
    LogCommit,
    commit_metadata,
    transaction_id,
)
from lockstep.stores.files import Place, open_place
from lockstep.stores.proposal import (
    DAY,
    KNOWN_AT,
    Committed,
    Live,
    Proposal,
    check_columns,
    check_contract,
    check_fixed,
    check_proposals,
    damaged_day,
    stamped,
    stored_schema,
)
from lockstep.stores.scan import scan_files
from lockstep.stores.tables import (
    CONFIGURATION,
    ONE_FILE,
    RETRIES_IN_LIBRARY,
    create_table,
    definition_of,
    existing_table,
    lost_race,
    open_table,
    table_files,
    written_as,
)

__all__ = ["Committed", "DayRecord", "DayTable", "Head", "History", "Proposal", "stored_table"]


class DayTable:
    """The certified days of one view.

    Args:
        uri: The table's local path or s3:// URI.
        columns: Keys, event_timestamp and features in order, without `known_at` and `day`.
        name: Unique in the lake, for instance `txn_7d`; names the transactions and the index.
        zone: The partition time zone, fixed when the table is created.
        contract: The contract's schema as JSON text, fixed when the table is created.
        options: AWS settings; see `lockstep.stores.files`.

    Raises:
        ConfigError: The name, or a column's name or type, cannot be used.
    """

    def __init__(
        self,
        uri: str,
        columns: Mapping[str, pl.DataType],
        *,
        name: str,
        zone: str,
        contract: str,
        options: Mapping[str, str] | None = None,
    ) -> None:
        check_columns(name, columns, reserved={DAY, KNOWN_AT})
        self.place = open_place(uri, options)
        self.uri = self.place.uri
        self.columns = dict(pl.Schema(columns))
        self.name, self.zone, self.contract = name, zone, contract
        self.around = open_place(self.uri.rpartition("/")[0], self.place.options)
        self.index = DayIndex(self.place, self.around.join("_index"), name)

    @property
    def schema(self) -> pl.Schema:
        """What the table stores: the declared columns, `known_at`, `day`."""
        return stored_schema(self.columns)

    @property
    def configuration(self) -> dict[str, str]:
        """The table's properties, fixed at creation and by a rebuild."""
        own = {"name": self.name, "zone": self.zone, "contract": self.contract}
        return CONFIGURATION | {f"lockstep.{key}": value for key, value in own.items()}

    def exists(self) -> bool:
        """Return whether the table was created."""
        return open_table(self.place) is not None

    def create(self) -> None:
        """Create the table, or check the one that exists; safe when several processes do it.

        Raises:
            ConfigError: It exists with another partition zone or name.
            ContractChangedError: It exists with another contract.
        """
        self._writable(create_table(self.place, self.definition()))

    def head(self) -> Head:
        """Return which days are certified now, from the index; reads no rows.

        Raises:
            StoreError: The table does not exist, is damaged, or was changed by something else.
            ConfigError: It was created with another partition zone or name.
        """
        return self.head_at(self.opened())

    def head_or_none(self) -> Head | None:
        """Return what `head` returns, or None when the table was never created."""
        handle = open_table(self.place)
        return None if handle is None else self.head_at(self._ours(handle))

    def scan(
        self, days: Collection[date] | None = None, *, version: int | None = None
    ) -> pl.LazyFrame:
        """Return the rows of the days (None: all), ordered by day, then as they were committed.

        Columns are those of the table at `version` (None: the newest), ending with `known_at` and
        `day`. Only the files of the asked days are read. A day without rows contributes none.

        Raises:
            StoreError: The table or the version does not exist.
        """
        handle = self.opened(version)
        wanted = None if days is None else frozenset(days)
        files = table_files(handle, DAY)
        paths = [path for day, path, _, _ in files if wanted is None or day in wanted]
        return scan_files(self.place, paths, pl.Schema(handle.schema()), {DAY: pl.Date()})

    def read_day(self, day: date) -> pl.DataFrame:
        """Return one certified day in the order it was committed, checked against its hash.

        Raises:
            NotCertifiedError: The day is not committed.
            StoreError: The rows are not those that were certified (a damaged file).
        """
        head = self.head()
        record = head.days.get(day)
        if record is None:
            raise NotCertifiedError(f"The day {day} of {self.name} is not committed.")
        try:
            frame = self.scan([day], version=head.version).collect(engine="in-memory")
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            if self.place.remote and not_answered(error):
                raise store_failed(f"The table {self.uri}", error) from None
            raise damaged_day(self.name, record, f"{type(error).__name__} on reading") from error
        found = content_hash(frame.drop(KNOWN_AT, DAY))
        if found != record.content_hash:
            raise damaged_day(self.name, record, f"content {found}")
        return frame

    def commit(
        self, proposals: Sequence[Proposal], *, now: Callable[[], datetime]
    ) -> list[Committed]:
        """Commit the days in one commit, or one by one where others write the same days.

        A day whose content hash is that of the head keeps revision, version and `known_at`. `now`
        is read just before a commit; where it is not later than the `known_at` it would replace,
        one microsecond after that is taken, so that a clock set back reorders nothing.

        Returns:
            One entry per proposal, in their order.

        Raises:
            InputError: A proposal's frame or note does not fit; nothing was written.
            ContractChangedError: The table was built by another contract; nothing was written.
            ConflictError: Others kept winning the race for a day, or certified another revision
                than the one it may replace (`Proposal.onto`).
            StoreError: The store failed; days that were committed are named.
        """
        notes = check_proposals(self.name, proposals, self.columns)
        if not proposals:
            return []
        return commit_days(_Writer(self), self.name, proposals, notes, now, lost_race)

    def history(self, version: int | None = None) -> History:
        """Return every revision of every day certified up to a version (None: the newest).

        From the index: reads no rows, and of the log only what the index has not seen.

        Raises:
            StoreError: The table or the version does not exist, or its log is damaged.
        """
        handle = self.opened(version)
        return self.index.history(str(handle.metadata().id), handle.version())

    def opened(self, version: int | None = None) -> DeltaTable:
        """Return a handle at a version (None: the newest), whatever contract it was built by.

        Raises:
            StoreError: The table or the version does not exist.
            ConfigError: It was created with another partition zone or name.
        """
        return self._ours(existing_table(self.place, version))

    def versions_of(self, days: Collection[date]) -> dict[date, dict[int, int]]:
        """Return day → revision → the Delta version that committed it, since the last rebuild."""
        head = self.head()
        since = head.eras[-1].since
        return {
            day: {record.revision: record.version for record in head.all_of(day, since)}
            for day in days
        }

    def beside(self, folder: str) -> "DayTable":
        """Return the table of the same declaration in a folder beside this one's."""
        return DayTable(
            self.around.path(folder),
            self.columns,
            name=self.name,
            zone=self.zone,
            contract=self.contract,
            options=self.place.options,
        )

    def live(self, days: Collection[date]) -> Live:
        """Return what a rebuild replaces: whatever contract and zone the table was built by.

        Raises:
            StoreError: The table does not exist.
        """
        handle = existing_table(self.place)
        with answering(f"The table {self.uri}", DeltaError):
            known = {
                day: handle.transaction_version(transaction_id(self.name, day)) for day in days
            }
        revisions = {day: revision or 0 for day, revision in known.items()}
        files = [DataFile(*file) for file in table_files(handle, DAY)]
        head = self.head_at(handle, repairing=True)
        return Live(head, files, revisions)

    def definition(self) -> dict[str, Any]:
        """Return the declared table as the `metaData` action of a commit, without its id."""
        return {"name": self.name} | definition_of(self.schema, DAY, self.configuration)

    def head_at(self, handle: DeltaTable, *, repairing: bool = False) -> Head:
        """Return what was certified at the version that the handle holds."""
        table_id = str(handle.metadata().id)
        return self.index.head(table_id, handle.version(), repairing=repairing)

    def _ours(self, handle: DeltaTable) -> DeltaTable:
        fixed = {"lockstep.zone": self.zone, "lockstep.name": self.name}
        check_fixed(self.uri, fixed, handle.metadata().configuration)
        return handle

    def open_for_writing(self) -> DeltaTable:
        """Return a handle, if the table was built by the declared contract and zone."""
        return self._writable(existing_table(self.place))

    def _writable(self, handle: DeltaTable) -> DeltaTable:
        self._ours(handle)
        check_contract(
            self.name,
            declared=self.schema,
            stored=pl.Schema(handle.schema()),
            contract=self.contract,
            stored_contract=handle.metadata().configuration.get("lockstep.contract"),
        )
        return handle


class _Writer:
    """A day table held at one version: what `commit_days` needs of it."""

    def __init__(self, table: DayTable) -> None:
        self._table = table
        self._handle = table.open_for_writing()

    def head(self) -> Head:
        return self._table.head_at(self._handle)

    def commits(self, after: int) -> list[LogCommit]:
        return self._table.index.commits(after, self._handle.version())

    def revision(self, day: date) -> int:
        with answering(f"The table {self._table.uri}", DeltaError):
            return self._handle.transaction_version(transaction_id(self._table.name, day)) or 0

    def write(
        self, chunk: Sequence[Proposal], changes: Sequence[DayChange], attempt: str
    ) -> Exception | None:
        name = self._table.name
        frames = [
            stamped(item, change.known_at) for item, change in zip(chunk, changes, strict=True)
        ]
        days = ", ".join(f"'{item.day.isoformat()}'" for item in chunk)
        transactions = [
            Transaction(transaction_id(name, change.day), change.revision) for change in changes
        ]
        try:
            write_deltalake(
                self._handle,
                pl.concat(frames),
                mode="overwrite",
                # Exactly these days: a range would erase a day in its middle that failed.
                predicate=f"{DAY} IN ({days})",
                target_file_size=ONE_FILE,
                writer_properties=written_as(self._table.columns),
                commit_properties=CommitProperties(
                    custom_metadata=commit_metadata(name, attempt, changes),
                    max_commit_retries=RETRIES_IN_LIBRARY,
                    app_transactions=transactions,
                ),
            )
        except (DeltaError, OSError) as error:
            return error
        return None

    def reopen(self) -> None:
        self._handle = self._table.open_for_writing()


def stored_table(place: Place) -> DayTable:
    """Return the table of days in a folder by the declaration that it was last built by.

    Raises:
        StoreError: The folder holds no table of days.
    """
    handle = existing_table(place)
    said = handle.metadata().configuration
    columns = pl.Schema(handle.schema())
    try:
        return DayTable(
            place.uri,
            {name: dtype for name, dtype in columns.items() if name not in {DAY, KNOWN_AT}},
            name=said["lockstep.name"],
            zone=said["lockstep.zone"],
            contract=said["lockstep.contract"],
            options=place.options,
        )
    except KeyError as error:
        raise StoreError(
            f"The table {place.uri} holds no days of Lockstep.",
            expected=f"the property {error} that its creation sets",
            fix="Move what is not Lockstep's out of the lake.",
            effect="Nothing was written.",
        ) from error
