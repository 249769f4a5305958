"""Delta → Redis: which entities a change affects, their latest rows or tombstones, and the seals.

Everything pushed is read from one pinned version of the committed table, so nothing that failed an
audit can get here, whoever asks.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Final

from lockstep.codec import RowCodec, header_of
from lockstep.crash import crash_point
from lockstep.errors import ConflictError, NotCertifiedError, OnlineError
from lockstep.facts import corrected, publish
from lockstep.lake import Lake
from lockstep.layout import PushRows, Receipt, Seal, ServerInfo
from lockstep.push_rows import RowsToPush, ended, keep_ms
from lockstep.room import require_room, require_room_after_wipe
from lockstep.stores.day_index import Head
from lockstep.stores.redis import OnlineStore
from lockstep.throttle import Throttle
from lockstep.time import as_of, decode_revisions, encode_revisions, micros, span
from lockstep.view import FeatureView

ATTEMPTS: Final = 5
SAMPLE: Final = 32
SAMPLE_OF_LATER_BLOCKS: Final = 2


@dataclass(frozen=True)
class Pushed:
    """What one push did.

    Attributes:
        days: The days that the seals now cover because of it; empty if all were sealed before.
        version: Delta version that was pushed.
        receipt: Rows written, superseded by newer ones, removed, expired; and buckets sealed.
        wiped: Rows removed first, because they came from another table or nobody knew from which.
        seconds: How long it took, from the plan to the sample that was read back.
    """

    view: str
    days: list[date]
    version: int
    receipt: Receipt
    wiped: int = 0
    seconds: float = 0.0

    @property
    def rows_per_second(self) -> float | None:
        """Rows that were answered per second; None if there were none."""
        rows = self.receipt.written + self.receipt.removed + self.receipt.superseded
        return rows / self.seconds if rows and self.seconds else None

    @property
    def sentence(self) -> str:
        """What happened, for a log."""
        done, rate = self.receipt, self.rows_per_second
        if not self.days:
            return f"{self.view}: everything was sealed before, at version {self.version} or later."
        speed = "" if rate is None else f", {rate:,.0f} rows/s"
        return (
            f"{self.view}: {done.written} written, {done.removed} removed, {done.superseded} "
            f"superseded, {done.expired} expired, {done.failed} failed of version {self.version}"
            f"{speed}; {len(done.sealed)} buckets sealed for {span(self.days)}."
        )


def push(
    lake: Lake,
    online: OnlineStore,
    view: FeatureView,
    days: Collection[date] | None = None,
    *,
    now: Callable[[], datetime],
    on_rows: Callable[[int], None] | None = None,
    rebuild: bool = False,
    throttle: Throttle | None = None,
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
    nodes = prepare(online, view)
    attempt = _Attempt(lake, online, view, days, on_rows, throttle)
    wiped = 0
    if rebuild:
        wiped = attempt.wipe(now(), nodes)
        nodes = online.nodes()  # there is more room now
    for _ in range(ATTEMPTS - 1):
        try:
            pushed = attempt.run(now, nodes)
        except ConflictError:
            # Plan again, from the seals that somebody else has set; the server may be another one.
            nodes = prepare(online, view)
            continue
        return replace(pushed, wiped=pushed.wiped + wiped)
    pushed = attempt.run(now, nodes)
    return replace(pushed, wiped=pushed.wiped + wiped)


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


def prepare(online: OnlineStore, view: FeatureView) -> Mapping[str, ServerInfo]:
    """Make the online store ready for rows of the view: functions, buckets, schema.

    Returns:
        Address of every master → what it said about itself.
    """
    entity = view.contract.entity
    nodes = online.ready_nodes()
    online.declare_entity(entity.name, entity.buckets)
    online.learn_schema(RowCodec(view.contract.feature_types))
    return nodes


@dataclass(frozen=True)
class _Attempt:
    """One plan and its execution; to be run again when others were faster."""

    lake: Lake
    online: OnlineStore
    view: FeatureView
    days: Collection[date] | None
    on_rows: Callable[[int], None] | None
    throttle: Throttle | None

    def run(self, clock: Callable[[], datetime], nodes: Mapping[str, ServerInfo]) -> Pushed:
        """Plan from the present seals, push and seal; `nodes` is what `prepare` returned."""
        view, online = self.view, self.online
        entity, table = view.contract.entity, self.lake.table(view)
        where = (entity.name, view.name, entity.buckets)
        # Seals before head: another's newer seal must not look like a future Delta does not know.
        seals, claims = online.seals_and_claims(*where)
        head = table.head()
        # The clock after the head: every push of one version knows the same days as ended.
        now = clock()
        wiped = 0
        ahead = any(seal is not None and seal.version > head.version for seal in seals.values())
        # Of a bucket that belongs to no table or to another one, nobody knows what is left in it.
        if ahead or set(claims.values()) != {head.table_id}:
            self._require_room_after_wipe(head, now, nodes)
            wiped = online.wipe(*where, table_id=head.table_id, own_rows_too=ahead)
            seals, nodes = online.seals(*where), online.nodes()
        wanted = self._wanted(head, now)
        sealed = {bucket: _sealed(seal) for bucket, seal in seals.items()}
        changed = {
            day: min(known.get(day, 0) for known in sealed.values())
            for day, revision in wanted.items()
            if any(known.get(day) != revision for known in sealed.values())
        }
        if not changed:
            self._restore_facts(head, seals, now)
            return Pushed(view.name, [], head.version, Receipt(), wiped)
        rows = RowsToPush(view, table, head, self.lake.project.zone, changed, now)
        require_room(online, rows, _settled(head, sealed.values()), nodes)
        renewed = {
            bucket: Seal(
                head.table_id, head.version, encode_revisions({**known, **wanted}), micros(now)
            )
            for bucket, known in sealed.items()
        }
        sample = _Sample(online, view)
        receipt = online.push(
            *where,
            sample.of(rows),
            seals=renewed,
            started_from=seals,
            keep_ms=keep_ms(view),
            ready=True,
            throttle=self.throttle,
            on_rows=self.on_rows,
        )
        sample.read_back()
        publish(self.lake, online, view, now, head=head, seals=renewed)
        crash_point("sealed")
        seconds = (clock() - now).total_seconds()
        return Pushed(view.name, sorted(changed), head.version, receipt, wiped, seconds)

    def wipe(self, now: datetime, nodes: Mapping[str, ServerInfo]) -> int:
        """Remove the view's rows and seals, if all that is committed would fit; return how many."""
        entity, head = self.view.contract.entity, self.lake.table(self.view).head()
        self._require_room_after_wipe(head, now, nodes)
        where = (entity.name, self.view.name, entity.buckets)
        return self.online.wipe(*where, table_id=head.table_id)

    def _require_room_after_wipe(
        self, head: Head, now: datetime, nodes: Mapping[str, ServerInfo]
    ) -> None:
        zone, everything = self.lake.project.zone, dict.fromkeys(self._wanted(head, now), 0)
        rows = RowsToPush(self.view, self.lake.table(self.view), head, zone, everything, now)
        require_room_after_wipe(self.online, rows, nodes)

    def _wanted(self, head: Head, now: datetime) -> dict[date, int]:
        """Return the days to be sealed → their committed revisions."""
        asked = ended(head, self.lake.project.zone, now) if self.days is None else self.days
        return {day: head.days[day].revision for day in asked}

    def _restore_facts(self, head: Head, seals: Mapping[int, Seal | None], at: datetime) -> None:
        kept = self.online.notes("facts").get(self.view.name)
        text = corrected(kept, self.lake, self.view, head, seals, at)
        if text is not None:
            self.online.note("facts", self.view.name, text)


def _settled(head: Head, sealed: Collection[Mapping[date, int]]) -> set[date]:
    """Return the days that every bucket has sealed as they are committed."""
    committed = head.days.items()
    return {d for d, record in committed if all(k.get(d) == record.revision for k in sealed)}


def _sealed(seal: Seal | None) -> Mapping[date, int]:
    return decode_revisions(seal.days) if seal else {}


@dataclass
class _Sample:
    """A few rows of every block, to be compared with what the store answers afterwards."""

    online: OnlineStore
    view: FeatureView
    rows: dict[bytes, bytes] = field(default_factory=dict)

    def of(self, blocks: RowsToPush) -> Iterator[PushRows]:
        """Yield the blocks and remember rows of each."""
        for block in blocks:
            share = SAMPLE if not self.rows else SAMPLE_OF_LATER_BLOCKS
            step = max(1, len(block) // share)
            keys, values = block.keys.gather_every(step), block.values.gather_every(step)
            self.rows |= dict(zip(keys.to_list(), values.to_list(), strict=True))
            yield block

    def read_back(self) -> None:
        """Do nothing if every remembered row is stored, or superseded by a newer version.

        Raises:
            OnlineError: A row is neither there nor superseded.
        """
        entity = self.view.contract.entity
        stored = self.online.fetch(entity.name, list(self.rows), [self.view.name], entity.buckets)
        for (key, value), (found,) in zip(self.rows.items(), stored, strict=True):
            if found == value or (found and header_of(found).version > header_of(value).version):
                continue
            raise OnlineError(
                f"A row of {self.view.name} that was just pushed does not read back: key {key!r}.",
                expected=f"{len(value)} bytes of version {header_of(value).version}",
                got="nothing" if found is None else f"version {header_of(found).version}",
                fix=f"See lockstep status, then: lockstep push {self.view.name} --rebuild",
                effect="The view is sealed but not complete.",
            )
