"""Which rows a push carries: of every affected entity its latest row, else a tombstone.

Days are read one at a time, newest first, and huge ones in groups of keys, so that a view of any
size streams through a bounded memory.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import polars as pl

from lockstep.codec import RowCodec, encode_keys
from lockstep.layout import PushRows
from lockstep.stores.causes import answering
from lockstep.stores.day_index import Head
from lockstep.stores.delta import DayTable
from lockstep.stores.history import SliceReader
from lockstep.time import as_of
from lockstep.view import FeatureView

GRACE: Final = timedelta(days=1)
"""How long an expired row is kept online, so that "expired" can be told from "never written"."""

BLOCK_ROWS: Final = 8_192
GROUP_ROWS: Final = 2_000_000
"""A day with more rows is read in several groups of keys."""


@dataclass(frozen=True)
class RowsToPush:
    """The rows of one push, in blocks.

    Args:
        head: The pinned look at the table; everything is read from its version.
        zone: The partition zone.
        changed: Day whose sealed revision is not the committed one → the oldest revision that a
            bucket has sealed of it; 0 if one has sealed none.
        now: Rows past their ttl and grace at this instant count as none.
    """

    view: FeatureView
    table: DayTable
    head: Head
    zone: ZoneInfo
    changed: Mapping[date, int]
    now: datetime

    def __iter__(self) -> Iterator[PushRows]:
        relevant = self._relevant
        for only in self._groups() if relevant else ():
            yield from self._group(relevant, only)

    @property
    def most(self) -> int:
        """How many entities it carries at most, if no key came twice; costs nothing.

        That is the rows of every revision after the sealed one. What was sealed is there already.
        """
        head = self.head
        since = head.eras[-1].since if head.eras else 0
        return sum(
            record.rows
            for day in self._relevant
            for record in head.all_of(day, since)
            if self.changed[day] < record.revision <= head.days[day].revision
        )

    def newcomers(self, settled: Collection[object]) -> int:
        """Return how many different entities it carries that no settled day has; reads only keys.

        Args:
            settled: Days that every bucket has sealed as they are committed.
        """
        keys, relevant = self.view.contract.keys, self._relevant
        sealed = [day for day in self.alive if day in settled]
        count = 0
        for only in self._groups() if relevant else ():
            there = self.table.scan(sealed, version=self.head.version).select(keys)
            there = there if only is None else there.filter(only)
            wanted = self._affected_keys(relevant, relevant, only).lazy()
            with answering(f"The table {self.table.uri}"):
                new = wanted.join(there, on=keys, how="anti").select(pl.len())
                count += new.collect(engine="streaming").item()
        return count

    @property
    def _relevant(self) -> list[date]:
        return sorted(set(self.changed) & set(self.alive))

    def _groups(self) -> Iterator[pl.Expr | None]:
        """What chooses the keys of each group; None chooses all of them."""
        largest = max(self.head.days[day].rows for day in self.alive)
        groups = max(1, -(-largest // GROUP_ROWS))
        for group in range(groups):
            yield None if groups == 1 else self._hashed % groups == group

    @property
    def alive(self) -> list[date]:
        """Committed days that have ended and whose rows still matter, oldest first."""
        ttl, ends = self.view.contract.ttl, ended(self.head, self.zone, self.now)
        return sorted(day for day, end in ends.items() if _matters(end, ttl, self.now))

    def _group(self, relevant: Sequence[date], only: pl.Expr | None) -> Iterator[PushRows]:
        newest, *older = reversed(self.alive)
        wanted = self._affected_keys([day for day in relevant if day != newest], relevant, only)
        keys = self.view.contract.keys
        rows = self._read(newest, only)
        if newest not in relevant:
            rows = rows.join(wanted, on=keys, how="semi", maintain_order="left")
        yield from self._packed(newest, rows)
        wanted = wanted.join(rows, on=keys, how="anti")
        for day in older:
            if not wanted.height:
                return
            rows = self._read(day, only).join(wanted, on=keys, how="semi", maintain_order="left")
            yield from self._packed(day, rows)
            wanted = wanted.join(rows, on=keys, how="anti")
        yield from self._removed(max(relevant), wanted)

    def _read(self, day: date, only: pl.Expr | None) -> pl.DataFrame:
        contract = self.view.contract
        columns = [*contract.keys, "event_timestamp", *contract.features]
        scan = self.table.scan([day], version=self.head.version).select(columns)
        if only is not None:
            scan = scan.filter(only)
        with answering(f"The table {self.table.uri}"):
            # No float is aggregated, so the order in which the engine works changes nothing.
            return scan.collect(engine="in-memory" if only is None else "streaming")

    def _affected_keys(
        self, current: Sequence[date], relevant: Sequence[date], only: pl.Expr | None
    ) -> pl.DataFrame:
        """Return the keys in the current revision of some days and in older ones of others.

        Older ones are those from the sealed revision on, also those between, which may have been
        pushed in part and never sealed.
        """
        keys, head = self.view.contract.keys, self.head
        scan = self.table.scan(current, version=head.version).select(keys)
        if only is not None:
            scan = scan.filter(only)
        with answering(f"The table {self.table.uri}"):
            found = scan.unique().collect(engine="streaming")
        restated = [day for day in relevant if head.days[day].revision > 1]
        older = [
            (day, revision)
            for day, versions in (self.table.versions_of(restated) if restated else {}).items()
            for revision in versions
            if self.changed[day] <= revision < head.days[day].revision
        ]
        # Its file may have been deleted since; then the rows are among those that were kept.
        if not older:
            return found
        reader = SliceReader(self.table, head.version)
        for day, revision in older:
            rows = reader.rows(day, revision, keys)
            rows = rows if only is None else rows.filter(only)
            found = pl.concat([found, rows.join(found, on=keys, how="anti")])
        return found

    def _packed(self, day: date, rows: pl.DataFrame) -> Iterator[PushRows]:
        contract, revision = self.view.contract, self.head.days[day].revision
        codec = RowCodec(contract.feature_types)
        for block in rows.iter_slices(BLOCK_ROWS):
            dated = block.with_columns(
                pl.lit(day).alias("day"), pl.lit(revision, pl.Int64).alias("revision")
            )
            yield PushRows(
                keys=encode_keys(block, contract.keys),
                values=codec.encode(dated, version=self.head.version),
            )

    def _removed(self, day: date, gone: pl.DataFrame) -> Iterator[PushRows]:
        """Tombstones for the entities that are in no committed day any more."""
        contract = self.view.contract
        value = RowCodec(contract.feature_types).tombstone(
            version=self.head.version,
            day=day,
            revision=self.head.days[day].revision,
            event_timestamp=ended(self.head, self.zone, self.now)[day],
        )
        for block in gone.iter_slices(BLOCK_ROWS):
            values = pl.Series([value], dtype=pl.Binary).new_from_index(0, block.height)
            yield PushRows(keys=encode_keys(block, contract.keys), values=values)

    @property
    def _hashed(self) -> pl.Expr:
        return pl.struct(self.view.contract.keys).hash()


def ended(head: Head, zone: ZoneInfo, now: datetime) -> dict[date, datetime]:
    """Return the committed days that have ended → their ends: no row is served before it is valid.

    A day ends where the next one begins in the partition zone; ends are UTC.
    """
    ends = {day: as_of(day, zone) for day in head.days}
    return {day: end for day, end in ends.items() if end <= now}


def keep_ms(view: FeatureView) -> int:
    """Return how long after its event_timestamp a row is kept online, in ms; 0 for ever."""
    ttl = view.contract.ttl
    return 0 if ttl is None else (ttl + GRACE) // timedelta(milliseconds=1)


def _matters(event_timestamp: datetime, ttl: timedelta | None, now: datetime) -> bool:
    return ttl is None or now <= event_timestamp + ttl + GRACE
