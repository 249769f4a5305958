"""Delta → Redis: which entities a change affects, their latest rows or tombstones, and the seals.

Everything pushed is read from one pinned version of the committed table, so nothing that failed an
audit can get here, whoever asks.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final

import polars as pl

from lockstep.codec import RowCodec, encode_keys, header_of
from lockstep.crash import crash_point
from lockstep.errors import ConflictError, NotCertifiedError, OnlineError
from lockstep.lake import Lake
from lockstep.stores.causes import answering
from lockstep.stores.day_index import Head
from lockstep.stores.delta import DayTable
from lockstep.stores.redis import OnlineStore, PushRows, Receipt, Seal
from lockstep.time import as_of, decode_revisions, encode_revisions, span
from lockstep.view import FeatureView

GRACE: Final = timedelta(days=1)
"""How long an expired row is kept online, so that "expired" can be told from "never written"."""

ATTEMPTS: Final = 5
SAMPLE: Final = 32


@dataclass(frozen=True)
class Pushed:
    """What one push did.

    Attributes:
        days: The days that the seals now cover because of it; empty if all were sealed before.
        version: Delta version that was pushed.
        receipt: Rows written, superseded by newer ones, removed, expired; and buckets sealed.
        wiped: Rows removed first because they came from another table.
    """

    view: str
    days: list[date]
    version: int
    receipt: Receipt
    wiped: int = 0


def push(
    lake: Lake,
    online: OnlineStore,
    view: FeatureView,
    days: Collection[date] | None = None,
    *,
    now: Callable[[], datetime],
    on_rows: Callable[[int], None] | None = None,
    rebuild: bool = False,
) -> Pushed:
    """Bring the online store in step with the committed days (all that have ended, unless named).

    Running it twice, late, or beside another push is harmless: older never replaces newer.

    Args:
        rebuild: Remove the view's rows and seals first and push everything: the repair of rows
            that were lost or changed under an intact seal.

    Raises:
        NotCertifiedError: A named day is not committed in Delta, or has not ended. Nothing is
            pushed.
        OnlineError: The online store does not answer or refuses; nothing more is sealed.
        ConflictError: Others kept pushing the same view; try again.
    """
    require_certified(lake, view, days, now())
    prepare(online, view)
    wiped = _wipe(lake, online, view) if rebuild else 0
    for _ in range(ATTEMPTS - 1):
        try:
            pushed = _push_once(lake, online, view, days, now(), on_rows)
        except ConflictError:
            continue  # plan again from the seals that somebody else has set
        return replace(pushed, wiped=pushed.wiped + wiped)
    pushed = _push_once(lake, online, view, days, now(), on_rows)
    return replace(pushed, wiped=pushed.wiped + wiped)


def _wipe(lake: Lake, online: OnlineStore, view: FeatureView) -> int:
    entity, head = view.contract.entity, lake.table(view).head()
    return online.wipe(entity.name, view.name, entity.buckets, table_id=head.table_id)


def require_certified(
    lake: Lake, view: FeatureView, days: Collection[date] | None, now: datetime
) -> None:
    """Raise NotCertifiedError if a named day is not committed in Delta, or has not ended."""
    head = lake.table(view).head_or_none()
    missing = sorted(set(days or ()) - (head.days.keys() if head else set()))
    early = [day for day in days or () if as_of(day, lake.project.zone) > now]
    if missing or early or head is None:
        what = f"{span(missing or early)} " if days else ""
        raise NotCertifiedError(
            f"{view.name} {what}{'has not ended' if early else 'is not certified'}.",
            expected="a day committed in Delta",
            fix=f"Materialize it: lockstep materialize {view.name} --days …; if it is quarantined, "
            f"see lockstep quarantine list {view.name}.",
            effect="Nothing was pushed.",
        )


def prepare(online: OnlineStore, view: FeatureView) -> None:
    """Make the online store ready for rows of the view: functions, buckets, schema."""
    entity = view.contract.entity
    online.ensure_ready()
    online.declare_entity(entity.name, entity.buckets)
    online.learn_schema(RowCodec(view.contract.feature_types))


def _push_once(
    lake: Lake,
    online: OnlineStore,
    view: FeatureView,
    days: Collection[date] | None,
    now: datetime,
    on_rows: Callable[[int], None] | None,
) -> Pushed:
    entity, table = view.contract.entity, lake.table(view)
    where = (entity.name, view.name, entity.buckets)
    # Seals before head: another run's newer seal must not look like a future Delta does not know.
    seals, tables = online.seals(*where), online.table_ids(*where)
    head = table.head()
    wiped = 0
    if _foreign(seals, tables, head):
        wiped = online.wipe(*where, table_id=head.table_id)
        seals = online.seals(*where)
    asked = _ended(lake, head, now) if days is None else days
    wanted = {day: head.days[day].revision for day in asked}
    sealed = {bucket: _sealed(seal) for bucket, seal in seals.items()}
    changed = {
        day: min(known.get(day, 0) for known in sealed.values())
        for day, revision in wanted.items()
        if any(known.get(day) != revision for known in sealed.values())
    }
    if not changed:
        return Pushed(view.name, [], head.version, Receipt(0, 0, 0, 0, sealed=()), wiped)
    rows = rows_to_push(lake, view, table, head, changed, now)
    renewed = {
        bucket: Seal(head.table_id, head.version, encode_revisions({**known, **wanted}), _us(now))
        for bucket, known in sealed.items()
    }
    receipt = online.push(*where, rows, seals=renewed, started_from=seals, on_chunk=on_rows)
    _read_back(online, view, rows)
    crash_point("sealed")
    return Pushed(view.name, sorted(changed), head.version, receipt, wiped)


def _foreign(seals: Mapping[int, Seal | None], tables: set[str], head: Head) -> bool:
    """Whether what is online belongs to another table, or to a future that Delta does not know."""
    ahead = any(seal is not None and seal.version > head.version for seal in seals.values())
    return bool(tables - {head.table_id}) or ahead


def _sealed(seal: Seal | None) -> Mapping[date, int]:
    return decode_revisions(seal.days) if seal else {}


def rows_to_push(
    lake: Lake,
    view: FeatureView,
    table: DayTable,
    head: Head,
    changed: Mapping[date, int],
    now: datetime,
) -> PushRows:
    """Return, per entity in any revision of the changed days, its latest row, else a tombstone.

    Args:
        changed: Day whose sealed revision is not the committed one → the oldest revision that a
            bucket has sealed of it; 0 if one has sealed none.
        now: Rows past their ttl and grace at this instant count as none.
    """
    contract, zone = view.contract, lake.project.zone
    ended = _ended(lake, head, now)
    alive = [day for day in ended if _matters(as_of(day, zone), contract.ttl, now)]
    relevant = sorted(set(changed) & set(alive))
    affected = _affected_keys(view, table, head, {day: changed[day] for day in relevant})
    codec = RowCodec(contract.feature_types)
    with answering(f"The table {table.uri}"):
        rows = (
            table.scan(alive, version=head.version)
            .join(affected.lazy(), on=contract.keys, how="semi")
            .collect(engine="in-memory")
        )
    latest = (
        rows.sort("event_timestamp", maintain_order=True)
        .unique(contract.keys, keep="last", maintain_order=True)
        .join(_revisions(head), on="day", how="left", maintain_order="left")
    )
    gone = affected.join(latest, on=contract.keys, how="anti")
    values = codec.encode(latest, version=head.version)
    expiry = [_expire_at(instant, contract.ttl) for instant in latest["event_timestamp"]]
    if gone.height:
        day = max(relevant)
        instant = as_of(day, zone)
        removed = codec.tombstone(
            version=head.version,
            day=day,
            revision=head.days[day].revision,
            event_timestamp=instant,
        )
        values = pl.concat([values, pl.Series("value", [removed] * gone.height, dtype=pl.Binary)])
        expiry += [_expire_at(instant, contract.ttl)] * gone.height
    keys = pl.concat([latest.select(contract.keys), gone.select(contract.keys)])
    return PushRows(
        keys=encode_keys(keys, contract.keys),
        values=values,
        expire_at_ms=pl.Series(expiry, dtype=pl.Int64),
    )


def _ended(lake: Lake, head: Head, now: datetime) -> list[date]:
    """Return the committed days that have ended: a row is not served before it is valid."""
    return [day for day in head.days if as_of(day, lake.project.zone) <= now]


def _revisions(head: Head) -> pl.DataFrame:
    return pl.DataFrame(
        {"day": list(head.days), "revision": [record.revision for record in head.days.values()]},
        schema={"day": pl.Date, "revision": pl.Int64},
    )


def _affected_keys(
    view: FeatureView, table: DayTable, head: Head, changed: Mapping[date, int]
) -> pl.DataFrame:
    """Return the keys in any revision of the days from the sealed one to the current one.

    Also in those between, which may have been pushed in part and never sealed.
    """
    keys = view.contract.keys
    frames = [table.scan(changed.keys(), version=head.version).select(keys)]
    restated = [day for day in changed if head.days[day].revision > 1]
    older: dict[int, list[date]] = {}
    for day, versions in (table.versions_of(restated) if restated else {}).items():
        for revision, version in versions.items():
            if changed[day] <= revision < head.days[day].revision:
                older.setdefault(version, []).append(day)
    frames += [table.scan(days, version=version).select(keys) for version, days in older.items()]
    with answering(f"The table {table.uri}"):
        return pl.concat(frames).unique().collect(engine="in-memory")


def _matters(event_timestamp: datetime, ttl: timedelta | None, now: datetime) -> bool:
    return ttl is None or now <= event_timestamp + ttl + GRACE


def _expire_at(event_timestamp: datetime, ttl: timedelta | None) -> int:
    return 0 if ttl is None else _us(event_timestamp + ttl + GRACE) // 1000


def _us(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000_000 + instant.microsecond


def _read_back(online: OnlineStore, view: FeatureView, rows: PushRows) -> None:
    """Compare a sample of what was written with what the store now answers.

    Raises:
        OnlineError: A row is neither there nor superseded by a newer version.
    """
    entity = view.contract.entity
    step = max(1, len(rows.keys) // SAMPLE)
    keys = rows.keys.gather_every(step).to_list()
    values = rows.values.gather_every(step).to_list()
    stored = online.fetch(entity.name, keys, [view.name], entity.buckets)
    for key, value, (found,) in zip(keys, values, stored, strict=True):
        if found == value or (found and header_of(found).version > header_of(value).version):
            continue
        raise OnlineError(
            f"A row of {view.name} that was just pushed does not read back: key {key!r}.",
            expected=f"{len(value)} bytes of version {header_of(value).version}",
            got="nothing" if found is None else f"version {header_of(found).version}",
            fix=f"See lockstep status, then: lockstep push {view.name} --rebuild",
            effect="The view is sealed but not complete.",
        )
