"""Online against offline, every entity, byte for byte except the version: the parity sentence."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, TypeAlias

import polars as pl

from lockstep.codec import RowCodec, decode_key, encode_keys, header_of, without_version
from lockstep.lake import Lake
from lockstep.stores.causes import answering
from lockstep.stores.day_index import Head
from lockstep.stores.redis import OnlineStore
from lockstep.time import as_of, decode_revisions, is_valid, span
from lockstep.view import FeatureView

Kind: TypeAlias = Literal["mismatch", "missing", "extra"]
EXAMPLES = 5


@dataclass(frozen=True)
class Difference:
    """One entity whose served value is not the committed one."""

    kind: Kind
    key: tuple[int | str, ...]


@dataclass(frozen=True)
class Parity:
    """The comparison of one view at one instant.

    Attributes:
        entities: Entities with a valid row on either side.
        equal: Those whose bytes agree.
        unsealed: Committed days that the online store has not sealed.
        examples: The first differences of each kind.
    """

    view: str
    at: datetime
    entities: int
    equal: int
    mismatch: int
    missing: int
    extra: int
    unsealed: Sequence[date]
    examples: Sequence[Difference]

    @property
    def holds(self) -> bool:
        """Whether online equals offline and every committed day is sealed."""
        return self.equal == self.entities and not self.unsealed

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if self.holds:
            return f"{self.view}: online equals offline for all {self.entities} entities."
        parts = [
            f"{count} {kind}"
            for kind, count in (
                ("differ", self.mismatch),
                ("are missing online", self.missing),
                ("are online only", self.extra),
            )
            if count
        ]
        behind = f"; not pushed: {span(self.unsealed)}" if self.unsealed else ""
        shown = ", ".join(f"{d.kind} {d.key}" for d in self.examples)
        return (
            f"{self.view}: of {self.entities} entities {' and '.join(parts) or 'all agree'}{behind}"
            f"{f' (e.g. {shown})' if shown else ''}. Repair: lockstep push {self.view}"
            f"{' --rebuild' if self.equal < self.entities and not self.unsealed else ''}"
        )


def valid_rows(
    lake: Lake,
    view: FeatureView,
    at: datetime,
    *,
    head: Head | None = None,
    days: Collection[date] | None = None,
    only: pl.Expr | None = None,
) -> pl.DataFrame:
    """Return, per entity, the committed row that is valid at the instant, with day and revision.

    This is the event-mode point-in-time join over the head, for every entity there is.

    Args:
        head: What is committed, if the caller has just looked.
        days: Read these days only: no row of another one may be valid.
        only: Entities for which this holds; an expression over the key columns.
    """
    table, contract = lake.table(view), view.contract
    head = head or table.head()
    valid = pl.col("event_timestamp") <= at
    if contract.ttl is not None:
        valid &= at <= pl.col("event_timestamp") + contract.ttl
    if only is not None:
        valid &= only
    revisions = pl.LazyFrame(
        {"day": list(head.days), "revision": [record.revision for record in head.days.values()]},
        schema={"day": pl.Date, "revision": pl.Int64},
    )
    scan = (
        table.scan(days, version=head.version).filter(valid).join(revisions, on="day", how="left")
    )
    with answering(f"The table {table.uri}"):
        rows = scan.collect(engine="in-memory")
    rows = rows.sort("event_timestamp", maintain_order=True)
    return rows.unique(contract.keys, keep="last", maintain_order=True)


def parity(lake: Lake, online: OnlineStore, view: FeatureView, at: datetime) -> Parity:
    """Compare every entity of the view, on both sides, at the instant (normally now)."""
    contract = view.contract
    rows = valid_rows(lake, view, at)
    packed = RowCodec(contract.feature_types).encode(rows, version=0)
    expected = dict(zip(encode_keys(rows, contract.keys).to_list(), packed.to_list(), strict=True))
    served: dict[bytes, bytes] = {}
    for key, value in online.scan(contract.entity.name, view.name):
        header = header_of(value)
        if not header.removed and is_valid(header.event_timestamp, contract.ttl, at):
            served[key] = without_version(value)
    differences = [
        Difference(_kind(key, expected, served), decode_key(key))
        for key in sorted(expected.keys() | served.keys())
        if expected.get(key) != served.get(key)
    ]
    counts = {
        kind: sum(d.kind == kind for d in differences) for kind in ("mismatch", "missing", "extra")
    }
    return Parity(
        view=view.name,
        at=at,
        entities=len(expected.keys() | served.keys()),
        equal=len(expected.keys() | served.keys()) - len(differences),
        mismatch=counts["mismatch"],
        missing=counts["missing"],
        extra=counts["extra"],
        unsealed=unsealed_days(lake, online, view, at),
        examples=differences[:EXAMPLES],
    )


def _kind(key: bytes, expected: dict[bytes, bytes], served: dict[bytes, bytes]) -> Kind:
    if key not in served:
        return "missing"
    return "mismatch" if key in expected else "extra"


def unsealed_days(
    lake: Lake, online: OnlineStore, view: FeatureView, at: datetime | None = None
) -> list[date]:
    """Return the committed days that some bucket has not sealed at their present revision.

    Args:
        at: Leave out days that have not ended then: those are never pushed.
    """
    entity, head = view.contract.entity, lake.table(view).head()
    behind: set[date] = set()
    texts = set()
    for seal in online.seals(entity.name, view.name, entity.buckets).values():
        texts.add(seal.days if seal and seal.table_id == head.table_id else "")
    for text in texts:
        sealed = decode_revisions(text)
        behind |= {day for day, record in head.days.items() if sealed.get(day) != record.revision}
    return sorted(day for day in behind if at is None or as_of(day, lake.project.zone) <= at)
