"""What Redis holds for one entity, and what its bucket and the others have sealed."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from lockstep.codec import (
    RowCodec,
    bucket_of,
    encode_key,
    header_of,
    without_version,
)
from lockstep.errors import OnlineError
from lockstep.last_look import Memory
from lockstep.layout import Seal
from lockstep.stores.day_index import Head
from lockstep.stores.redis import OnlineStore
from lockstep.time import decode_revisions, is_valid
from lockstep.unready import Mark
from lockstep.why.facts import Cell, Claim, Online, cell_status
from lockstep.why.offline import Answer, Asked


def online_facts(asked: Asked, online: OnlineStore, head: Head | None, expected: Answer) -> Online:
    """Return what Redis says of the entity, compared with what Delta expects there.

    It costs six calls, the first of which fails within the store's time limit if Redis is down.
    """
    try:
        return _asked(asked, online, head, expected)
    except OnlineError as error:
        return Online(problem=str(error), cell=Cell("error"))


def _asked(asked: Asked, online: OnlineStore, head: Head | None, expected: Answer) -> Online:
    entity, name = asked.view.contract.entity, asked.view.name
    key = encode_key([asked.entity[column] for column in asked.view.contract.keys])
    bucket = int(bucket_of(key, entity.buckets))
    ((value,),) = online.fetch(entity.name, [key], [name], entity.buckets)
    seals, claims = online.seals_and_claims(entity.name, name, entity.buckets)
    marked = online.notes("unready").get(name)
    unready = None if marked is None else Mark.of(marked).reason
    nodes = list(online.nodes().values())
    table_id = head.table_id if head else ""
    wiping = any((claim or "").startswith("wiping ") for claim in claims.values())
    tables = {seal.table_id for seal in seals.values() if seal}
    ready = not wiping and None not in seals.values() and len(tables) == 1 and unready is None
    damaged = False
    try:
        cell, other_schema = _cell(asked, online, value, ready=ready)
    except OnlineError:
        online.ping()  # it answers, so what it holds cannot be read
        cell, other_schema, damaged = Cell("error"), False, True
    sealed = _revisions(seals[bucket])
    found = Online(
        cell=cell,
        equal=_equal(value, cell, expected),
        bucket=bucket,
        buckets=entity.buckets,
        sealed=sealed,
        seal_version=None if (own := seals[bucket]) is None else own.version,
        claim="being wiped" if wiping else _claim(claims, bucket, table_id),
        lost=sum(claim is None for claim in claims.values()) if table_id in claims.values() else 0,
        other_schema=other_schema,
        damaged=damaged,
        evicted_keys=sum(node.evicted_keys for node in nodes),
        policy=nodes[0].maxmemory_policy if nodes else "",
        unready=unready,
        sealed_before=_sealed_before(asked, online, table_id),
    )
    if found.equal or head is None:
        return found
    return _compared_with_others(asked, online, found, head, expected, seals)


def _cell(
    asked: Asked, online: OnlineStore, value: bytes | None, *, ready: bool
) -> tuple[Cell, bool]:
    """Return what a reader is told, and whether the row has other columns than the contract."""
    if value is None:
        return Cell("missing" if ready else "error"), False
    header = header_of(value)
    cell = Cell(
        "missing",
        None,
        header.day,
        header.revision,
        header.event_timestamp,
        header.version,
        removed=header.removed,
    )
    if header.removed:
        return cell, False
    codec = RowCodec(asked.view.contract.feature_types)
    other = header.fingerprint != codec.fingerprint
    if other:
        text = online.schemas().get(header.fingerprint)
        if text is None:
            return replace(cell, status="error"), True
        codec = RowCodec.from_schema_json(text)
    found = (codec.decode(value).values or {}).get(asked.feature)
    valid = is_valid(header.event_timestamp, asked.view.contract.ttl, asked.at)
    return replace(cell, status=cell_status(found, valid=valid), value=found), other


def _equal(value: bytes | None, cell: Cell, expected: Answer) -> bool:
    """Whether Redis holds what it must; nothing that is valid, where Delta has nothing valid."""
    if expected.cell.status in {"missing", "expired"}:
        return cell.status in {"missing", "expired"}
    return value is not None and without_version(value) == expected.packed


def _claim(claims: Mapping[int, str | None], bucket: int, table_id: str) -> Claim:
    if claims[bucket] == table_id:
        return "ours"
    if claims[bucket] is not None:
        return "another table"
    return "lost" if table_id in claims.values() else "none"


def _compared_with_others(
    asked: Asked,
    online: OnlineStore,
    found: Online,
    head: Head,
    expected: Answer,
    seals: Mapping[int, Seal | None],
) -> Online:
    """Add whether other buckets have sealed more, or a push has begun and not ended."""
    committed = {day: record.revision for day, record in head.days.items()}
    days = {day for day in (expected.cell.day, found.cell.day) if day is not None}
    unsettled = [
        day
        for day in days or {max(head.days, default=asked.at.date())}
        if found.sealed.get(day) != committed.get(day)
    ]
    further = sum(
        any(_revisions(seal).get(day) == committed.get(day) for day in unsettled)
        for bucket, seal in seals.items()
        if bucket != found.bucket and seal is not None
    )
    if further or not unsettled:
        return replace(found, further=further)
    entity = asked.view.contract.entity
    return replace(found, begun=bool(online.begun(entity.name, asked.view.name, entity.buckets)))


def _revisions(seal: Seal | None) -> Mapping[date, int]:
    return decode_revisions(seal.days) if seal else {}


def _sealed_before(asked: Asked, online: OnlineStore, table_id: str) -> bool:
    """Whether the last reconciliation saw every bucket sealed for this table."""
    memory = Memory.of_store(asked.lake.project.state, online)
    memory.load()
    seen = memory.seen(asked.view.name)
    return seen.version >= 0 and seen.table_id == table_id
