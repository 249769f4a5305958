"""What is wrong with what a view reads, through the views between, in the days that count."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import polars as pl

from lockstep.compute import inputs_of, left_days
from lockstep.erasure.holdback import Erasures
from lockstep.errors import StoreError
from lockstep.lake import Lake
from lockstep.landing import Landed, breaks_schema, look, read_landed
from lockstep.quarantine import Quarantine
from lockstep.quarantine import Quarantined as Item
from lockstep.reader import Reader
from lockstep.sources import Readable, Snapshot, Source
from lockstep.time import (
    SNAPSHOT_DAY,
    as_of,
    assign_days,
    day_start,
    days_between,
    decode_revisions,
)
from lockstep.view import FeatureView
from lockstep.why.facts import Held, Quarantined, Shifted, Upstream
from lockstep.why.offline import Asked
from lockstep.zone_shift import zone_shift


@dataclass
class Windows:
    """What the days that count read, source by source and view by view.

    Attributes:
        past: Name → the days that committed days of the asked view were computed from.
        coming: Name → the days that its missing days need.
    """

    of: dict[str, Readable] = field(default_factory=dict)
    past: dict[str, set[date]] = field(default_factory=dict)
    coming: dict[str, set[date]] = field(default_factory=dict)

    @classmethod
    def reaching(
        cls, view: FeatureView, made: Collection[date], missing: Collection[date], reader: Reader
    ) -> "Windows":
        """Return the windows of committed and of missing days, through every view between."""
        found = cls()
        found._add(view, made, found.past, reader)
        found._add(view, missing, found.coming, reader)
        return found

    def _add(
        self,
        view: FeatureView,
        days: Collection[date],
        into: dict[str, set[date]],
        reader: Reader,
    ) -> None:
        if not days:
            return
        left: dict[str, set[date]] = {}
        # A day that left the window and is not there closes nobody; it keeps no day from coming.
        for day in days if into is self.past else ():
            for item, gone in left_days(view, day):
                left.setdefault(item.name, set()).add(gone)
        for item in view.inputs:
            live = min(reader.head(item.of).days, default=None)
            needed = {d for day in days for d in item.days_read(day, live=live)}
            needed |= left.get(item.name, set())
            self.of[item.of.name] = item.of
            into.setdefault(item.of.name, set()).update(needed)
            if isinstance(item.of, FeatureView):
                self._add(item.of, needed, into, reader)

    def all_of(self, name: str) -> set[date]:
        """Return every day of one table that counts."""
        return self.past.get(name, set()) | self.coming.get(name, set())


@dataclass
class _Seen:
    """What was found so far."""

    not_landed: dict[str, list[date]] = field(default_factory=dict)
    not_ingested: dict[str, list[date]] = field(default_factory=dict)
    arrived: dict[str, list[date]] = field(default_factory=dict)
    restated: dict[str, list[date]] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    shifted: list[Shifted] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def upstream_facts(asked: Asked, windows: Windows, reader: Reader, *, past: bool) -> Upstream:
    """Return what is wrong with sources, snapshots and views between.

    Args:
        past: Look at what was committed at the asked instant instead of what has landed by now.
    """
    seen = _Seen()
    for name, of in windows.of.items():
        if isinstance(of, FeatureView):
            _look_at_view(asked, of, windows, reader, seen, past=past)
        elif past:
            _look_back(asked, of, windows, reader, seen)
        else:
            try:
                _look_at_source(asked, of, windows, reader, seen)
            except StoreError as error:
                seen.problems.append(f"What has landed of {name} cannot be told: {error}")
        if isinstance(of, Source):
            _look_at_times(asked, of, windows.all_of(name), seen)
    order = {name: at for at, name in enumerate(windows.of)}
    seen.incomplete.sort(key=lambda name: (isinstance(windows.of[name], FeatureView), order[name]))
    return Upstream(
        not_landed=seen.not_landed,
        not_ingested=seen.not_ingested,
        arrived=seen.arrived,
        restated=seen.restated,
        held=seen.held,
        shifted=seen.shifted,
        incomplete=seen.incomplete,
        problems=seen.problems,
    )


def never_landed(view: FeatureView, day: date, lake: Lake, reader: Reader) -> dict[str, list[date]]:
    """Return source → uncommitted days that a day of the view needs and of which nothing landed.

    Through every view between. Sources that may be empty are left out, and so are those of which a
    file is refused that may hold any day.
    """
    needed = Windows.reaching(view, (), [day], reader)
    found = {}
    for name, days in needed.coming.items():
        of = needed.of[name]
        if not isinstance(of, Source) or of.may_be_empty:
            continue
        landed = look(lake.landing, lake.landing_cache, of, lake.project.zone)
        if any(file.days is None for file in landed.refused):
            continue
        there = {day for file in [*landed.good, *landed.refused] for day in file.touches}
        there |= set(reader.head(of).days)
        if absent := sorted(day for day in days - there if day >= of.start):
            found[name] = absent
    return found


def _look_at_source(
    asked: Asked, of: Source | Snapshot, windows: Windows, reader: Reader, seen: _Seen
) -> None:
    lake, zone = asked.lake, asked.lake.project.zone
    landed = look(lake.landing, lake.landing_cache, of, zone)
    committed = reader.head(of).days
    held = list(_held(asked, of, landed, windows, committed))
    seen.held += held
    blocked = {day for each in held for day in each.days}
    fingerprints = (
        {SNAPSHOT_DAY: landed.fingerprint()}
        if isinstance(of, Snapshot) and landed.good
        else landed.fingerprints()
    )
    start = date.min if isinstance(of, Snapshot) else of.start
    missing = sorted(
        day
        for day in windows.coming.get(of.name, ())
        if day not in committed and day not in blocked and day >= start
    )
    empty = isinstance(of, Source) and of.may_be_empty
    there = [day for day in missing if day in fingerprints or empty]
    absent = [day for day in missing if day not in there]
    if there:
        seen.not_ingested[of.name] = there
    if absent and not held:
        seen.not_landed[of.name] = absent
    if missing:
        seen.incomplete.append(of.name)
    wanted = sorted(windows.past.get(of.name, set()) & fingerprints.keys() & committed.keys())
    entries = lake.latest_entries(of.name, wanted) if wanted else {}
    arrived = [
        day
        for day in wanted
        if day in entries and entries[day].inputs.get("files") != fingerprints[day]
    ]
    if arrived and _concerns(asked, of, landed, arrived, reader):
        seen.arrived[of.name] = arrived


def _held(
    asked: Asked,
    of: Source | Snapshot,
    landed: Landed,
    windows: Windows,
    committed: Collection[date],
) -> Iterable[Held]:
    """Yield the refused files that hold back days that count, released ones left out."""
    released = {
        item.details["path"]: item.details["stamp"]
        for item in Quarantine(asked.lake.quarantine).items(of.name)
        if item.kind == "file" and item.released is not None
    }
    wanted = windows.all_of(of.name)
    for file in landed.refused:
        if released.get(file.path) == file.stamp:
            continue
        touched = sorted(file.touches & wanted)
        open_days = windows.coming.get(of.name, set()) - set(committed)
        if touched or (file.days is None and open_days):
            reason = file.problem or ""
            yield Held(of.name, reason, touched, breaks_schema(reason))


def _concerns(
    asked: Asked, of: Source | Snapshot, landed: Landed, days: Sequence[date], reader: Reader
) -> bool:
    """Whether what has landed of the days has other rows of the entity than what is committed.

    Of a source that does not know the entity, every row counts.
    """
    keys = [key for key in asked.view.contract.keys if key in of.columns]
    mine = asked.chosen(keys) if keys else pl.lit(value=True)
    only = mine
    files = landed.good
    if isinstance(of, Source):
        zone = asked.lake.project.zone
        files = [file for file in files if file.touches & frozenset(days)]
        first, last = day_start(min(days), zone), as_of(max(days), zone)
        only &= pl.col("event_time").is_between(first, last, closed="left")
    rows = Erasures(asked.lake.place).hold_back(
        read_landed(asked.lake.landing, files, of, keep=only)
    )
    if isinstance(of, Source):
        rows = rows.with_columns(assign_days(rows["event_time"], asked.lake.project.zone))
        rows = rows.filter(pl.col("day").is_in(list(days)))
    else:
        rows = rows.with_columns(pl.lit(SNAPSHOT_DAY).alias("day"))
    key = ["day", *of.order]
    now = rows.unique(key, keep="last", maintain_order=True).sort(key)
    before = reader.rows(of, days).filter(mine).select(now.columns).sort(key)
    return not now.equals(before)


def _look_at_view(
    asked: Asked,
    of: FeatureView,
    windows: Windows,
    reader: Reader,
    seen: _Seen,
    *,
    past: bool,
) -> None:
    records = reader.head(of).days
    missing = [day for day in windows.coming.get(of.name, ()) if _absent(records, day, asked, past)]
    if any(day >= of.start for day in missing):
        seen.incomplete.append(of.name)
    if past:
        return
    days = sorted(windows.past.get(of.name, set()) & records.keys())
    entries = asked.lake.latest_entries(of.name, days) if days else {}
    stale = []
    for day in days:
        entry = entries.get(day)
        known = entry is not None and entry.content_hash == records[day].content_hash
        read = entry.inputs if entry and known else records[day].note.get("inputs", {})
        if dict(read) != inputs_of(of, day, reader):
            stale.append(day)
    if stale:
        seen.restated[of.name] = stale


def _look_back(
    asked: Asked, of: Source | Snapshot, windows: Windows, reader: Reader, seen: _Seen
) -> None:
    """Note the days of a source that were not committed at the asked instant."""
    start = date.min if isinstance(of, Snapshot) else of.start
    history = asked.lake.table(of).history().days if reader.head(of).days else {}
    absent = sorted(
        day
        for day in windows.coming.get(of.name, ())
        if day >= start and (day not in history or history[day][0].known_at > asked.at)
    )
    if absent:
        seen.not_landed[of.name] = absent


def _absent(records: Mapping[date, object], day: date, asked: Asked, past: bool) -> bool:  # noqa: FBT001
    if day not in records:
        return True
    known: datetime = getattr(records[day], "known_at")  # noqa: B009
    return past and known > asked.at


def _look_at_times(asked: Asked, of: Source, days: Collection[date], seen: _Seen) -> None:
    shift = zone_shift(asked.lake, of, asked.at)
    if shift is None:
        return
    affected = sorted(set(days_between(shift.first, shift.last)) & set(days))
    if affected:
        seen.shifted.append(Shifted(of.name, shift.sentence, affected))


def quarantined_frames(
    asked: Asked,
    windows: Windows,
    after: date | None,
    committed: Mapping[date, int],
) -> list[Quarantined]:
    """Return the frames in quarantine that keep the entity from another value, newest day first.

    Args:
        after: The day of the row that counts: what failed of earlier days changes nothing.
        committed: Day → revision of the asked view.
    """
    found = []
    for name in [asked.view.name, *_views(windows)]:
        for item in Quarantine(asked.lake.quarantine).items(name):
            if item.kind != "frame" or not _waited(item, asked.at):
                continue
            for day in item.touches:
                own = name == asked.view.name
                counts = (after is None or day >= after) if own else day in windows.all_of(name)
                if counts and not (own and day in committed and _same(asked, item, day)):
                    instant = datetime.fromisoformat(item.found_at)
                    found.append(Quarantined(name, item.item, day, item.reason, instant))
    return sorted(found, key=lambda each: (each.day, each.view == asked.view.name), reverse=True)


def _views(windows: Windows) -> list[str]:
    return [name for name, of in windows.of.items() if isinstance(of, FeatureView)]


def _waited(item: Item, at: datetime) -> bool:
    """Whether the item waited for a fix or a person at the instant."""
    ends = [said["at"] for said in (item.released, item.closed) if said is not None]
    return datetime.fromisoformat(item.found_at) <= at and not any(
        datetime.fromisoformat(end) <= at for end in ends
    )


def _same(asked: Asked, item: Item, day: date) -> bool:
    """Whether what is in quarantine of a committed day has the entity's committed value."""
    frame = Quarantine(asked.lake.quarantine).frame(item)
    head = asked.table.head()
    committed = asked.table.scan([day], version=head.version).filter(asked.matches).collect()
    return repr(asked.value_in(frame)) == repr(asked.value_in(committed))


def revisions_of(inputs: Mapping[str, str], now: Mapping[str, str]) -> dict[str, list[date]]:
    """Return input → days whose revision differs between two readings."""
    found: dict[str, list[date]] = {}
    for name in {*inputs, *now}:
        before, after = decode_revisions(inputs.get(name, "")), decode_revisions(now.get(name, ""))
        days = sorted(d for d in {*before, *after} if before.get(d) != after.get(d))
        if days:
            found[name] = days
    return found
