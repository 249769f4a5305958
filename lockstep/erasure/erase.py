"""Erasure: one entity's rows removed online and from every place of the lake, old versions too.

    begin     a record without the key's value; from now on its rows are held back at ingestion
    days      sources, snapshots and views: a new revision of every certified day that held it
    online    a push of the views, tombstones and seals included, then the entity's whole hash
    files     what older revisions, quarantine and training sets keep: rewritten in place
    done      a record of what was removed

Each step finds by itself what is left to do, so that running it again completes what a crash left.
The push comes before the files, because it learns from the old ones which row has to go; its seals
are newer than those of any push under way, which is refused from then on, so that removing the hash
itself is safe: nobody can write the row again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final

from lockstep.catalog import Catalog
from lockstep.erasure.files import (
    below,
    day_tables,
    delete_unfinished,
    drop_profiles,
    elsewhere,
    other_data,
    rewrite,
    survey,
    void_sets,
)
from lockstep.erasure.forgetting import Forgetting
from lockstep.erasure.holdback import Erasure, Erasures
from lockstep.erasure.landing import rewrite_landed
from lockstep.erasure.online import remove_online, stored_online
from lockstep.erasure.records import complete_records
from lockstep.errors import ConflictError
from lockstep.hashing import content_hash
from lockstep.lake import Lake
from lockstep.quarantine import Quarantine
from lockstep.stores.causes import answering
from lockstep.stores.delta import DayTable
from lockstep.stores.proposal import DAY, KNOWN_AT, Proposal
from lockstep.stores.redis import OnlineStore
from lockstep.throttle import Throttle

ERASED: Final = "erased"
"""In the note of a day that an erasure committed: the hashes of the erasures so far."""

_CHUNK_DAYS: Final = 16


@dataclass(frozen=True)
class Removed:
    """Rows of one place: a file below the lake's root or the landing zone, or `online`."""

    place: str
    rows: int


@dataclass(frozen=True)
class Forgotten:
    """What an erasure removed, or would remove.

    Attributes:
        digest: Names the erasure in `erasures/`; it holds no value of the key. Empty if none took
            place.
        removed: Rows per place, all revisions counted; `online` counts rows and tombstones.
        days: Source, snapshot or view → its days that have a new revision because of it.
        voided: Training sets that cannot be rebuilt bit for bit any more.
        left: Sentences about what it did not reach.
    """

    digest: str
    removed: Sequence[Removed]
    days: Mapping[str, Sequence[date]] = field(default_factory=dict)
    voided: Sequence[str] = ()
    left: Sequence[str] = ()

    @property
    def rows(self) -> int:
        """Rows removed in all."""
        return sum(each.rows for each in self.removed)


@dataclass(frozen=True)
class Places:
    """Where an erasure works.

    Attributes:
        online: The online store; None if the project has never had one.
        now: Asked for every instant that is recorded.
        throttle: Gives what paces a push.
        landing: Rewrite the landing zone's files too; else they are named.
    """

    lake: Lake
    catalog: Catalog
    online: OnlineStore | None
    now: Callable[[], datetime]
    throttle: Callable[[], Throttle]
    landing: bool = False


def find(places: Places, whom: Forgetting) -> Forgotten:
    """Return what `forget` would remove and would not reach; nothing is written.

    Raises:
        StoreError: The lake does not answer.
        OnlineError: The online store does not answer.
    """
    lake = places.lake
    files = below(lake)
    found = survey(lake.place, files, whom.match)
    landed = survey(lake.landing, lake.landing.list(), whom.match)
    removed = [Removed(path, rows) for path, rows in found.rows.items()]
    left = [*_unreadable(found.unreadable), *_unreadable(landed.unreadable)]
    if places.landing:
        removed += [Removed(f"landing/{path}", rows) for path, rows in landed.rows.items()]
    else:
        left += _landed(landed.rows)
    left += [f"{path} is of a form that is not looked into." for path in other_data(files)]
    if places.online is not None:
        stored = stored_online(places.online, whom)
        removed += [Removed("online", stored)] if stored else []
    return Forgotten("", removed, left=left)


def forget(places: Places, whom: Forgetting) -> Forgotten:
    """Remove one entity everywhere, and hold back what is ingested of it from now on.

    Every other entity keeps its rows and values, bit for bit. Run again after a crash, it
    completes; run again after it was done, it finds nothing. A run that computes days of the same
    views meanwhile may bring rows back that it has read before: it is noticed, and said.

    Raises:
        ConflictError: Rows of the entity are there again, or others kept changing a view.
        StoreError: The lake does not answer, or a day is damaged.
        OnlineError: The online store does not answer. What was not reached is as it was.
    """
    lake, now = places.lake, places.now
    lake.require_safe_commits()
    erasures = Erasures(lake.place)
    digest = erasures.digest_of(tuple(whom.values.values()))
    begun = Erasure(digest, whom.entity.name, whom.columns, whom.positions, now().isoformat())
    erasures.begin(begun)
    before = find(places, whom)
    for _, table in day_tables(lake.place, below(lake)):
        _erase_days(table, whom, digest, now)
    days = _erased_days(lake, digest)
    complete_records(lake, places.catalog, days, now())
    left = [*before.left]
    if places.online is not None:
        left += remove_online(lake, places.catalog, places.online, whom, now, places.throttle)
    voided = _files(places, whom, digest)
    left += [f"{file} was written elsewhere from {name}." for name, file in elsewhere(lake)]
    if places.landing:
        _landing(places, whom, digest)
    after = find(places, whom)
    if after.removed:
        raise ConflictError(
            f"Rows of the {whom.entity.name} are there again, in "
            f"{', '.join(each.place for each in after.removed[:5])}.",
            fix="A run that was under way has committed what it had read before. Wait until no run "
            "is under way, then run it again.",
            effect="All that was found before is removed.",
        )
    said: dict[str, Any] = {
        "rows": before.rows,
        "days": {name: len(found) for name, found in days.items()},
        "voided": voided,
    }
    if before.removed:
        erasures.finish(digest, said, now())
    return replace(
        before,
        digest=digest,
        days={name: sorted(found) for name, found in days.items()},
        voided=voided,
        left=left,
    )


def _erase_days(
    table: DayTable, whom: Forgetting, digest: str, now: Callable[[], datetime]
) -> None:
    """Commit every certified day that holds the entity anew, without it."""
    head = table.head_or_none()
    if head is None:
        return
    scan = table.scan(version=head.version)
    wanted = whom.match(scan)
    if wanted is None:
        return
    with answering(f"The table {table.uri}"):
        found = scan.filter(wanted).select(DAY).unique().collect().to_series().sort().to_list()
    for start in range(0, len(found), _CHUNK_DAYS):
        proposals = []
        for day in found[start : start + _CHUNK_DAYS]:
            rows = table.read_day(day).drop(KNOWN_AT, DAY)
            match = whom.match(rows.lazy())
            kept = rows if match is None else rows.filter(~match.fill_null(value=False))
            note = dict(head.days[day].note)
            note[ERASED] = sorted({*note.get(ERASED, ()), digest})
            kept = kept.rechunk()
            proposals.append(Proposal(day, kept, content_hash(kept), note))
        table.commit(proposals, now=now)


def _erased_days(lake: Lake, digest: str) -> dict[str, dict[date, int]]:
    """Return table → day → revision of the days that this erasure, or one after it, committed."""
    days: dict[str, dict[date, int]] = {}
    for folder, table in day_tables(lake.place, below(lake)):
        head = table.head()
        found = {
            day: record.revision
            for day, record in head.days.items()
            if digest in record.note.get(ERASED, ())
        }
        if found:
            days[folder.rpartition("/")[2]] = found
    return days


def _files(places: Places, whom: Forgetting, digest: str) -> list[str]:
    """Rewrite what older revisions, quarantine and training sets keep; return the voided sets."""
    lake = places.lake
    found = survey(lake.place, below(lake), whom.match)
    # Before their rows go, as those say which sets held the entity; and after, as then the logs say
    # which pins have changed.
    voided = void_sets(lake, digest, found, places.now())
    rewrite(lake.place, found, whom.match)
    delete_unfinished(lake)
    voided += void_sets(lake, digest, found, places.now())
    drop_profiles(lake)
    return sorted(set(voided))


def _landing(places: Places, whom: Forgetting, digest: str) -> None:
    lake = places.lake
    files = lake.landing.list()
    landed = survey(lake.landing, files, whom.match)
    items = Quarantine(lake.quarantine).items()
    refused = {str(item.details.get("path")) for item in items if item.kind == "file"}
    plan = Erasures(lake.place).place.join(digest)
    rewrite_landed(
        lake.landing,
        files,
        landed,
        whom.match,
        plan=plan,
        cache=lake.landing_cache,
        refused=refused,
    )


def _landed(rows: Mapping[str, int]) -> list[str]:
    return [
        f"landing/{path} still holds {count} rows, as delivered; what is ingested of them is held "
        "back. Remove them there: --landing"
        for path, count in rows.items()
    ]


def _unreadable(paths: Sequence[str] | Any) -> list[str]:
    return [f"{path} cannot be read, so nobody knows what it holds." for path in paths]
