"""A small entity and view to push: every key's value follows from the version it is packed from."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import polars as pl

from lockstep.codec import RowCodec, encode_key, header_of
from lockstep.errors import ConflictError
from lockstep.layout import PushRows, Receipt, Seal
from lockstep.stores.redis import OnlineStore

ENTITY = "household"
VIEW = "txn_7d"
BUCKETS = 3
TABLE = "table-a"
EVENT = datetime(2026, 11, 22, 5, tzinfo=UTC)
FAR = 4_102_444_800_000  # 2100-01-01, in ms
CODEC = RowCodec({"sum_amt_7d": pl.Float64(), "version_seen": pl.Int64()})
IDS = tuple(range(40))


def packed(version: int, ids: Sequence[int] = IDS, *, codec: RowCodec = CODEC) -> list[bytes]:
    frame = pl.DataFrame(
        {
            "day": [EVENT.date()] * len(ids),
            "revision": [1] * len(ids),
            "event_timestamp": [EVENT] * len(ids),
            "sum_amt_7d": [float(i) for i in ids],
            "version_seen": [version] * len(ids),
        },
        schema_overrides={
            "event_timestamp": pl.Datetime("us", "UTC"),
            "revision": pl.Int64,
            "day": pl.Date,
            "version_seen": pl.Int64,
            "sum_amt_7d": pl.Float64,
        },
    )
    return codec.encode(frame, version=version).to_list()


def tombstone(version: int) -> bytes:
    return CODEC.tombstone(version=version, day=EVENT.date(), revision=2, event_timestamp=EVENT)


def push_rows(keys: Iterable[bytes], values: Iterable[bytes]) -> PushRows:
    of_keys = pl.Series("keys", list(keys), dtype=pl.Binary)
    return PushRows(of_keys, pl.Series("values", list(values), dtype=pl.Binary))


def keep_ms_until(expire_at_ms: int) -> int:
    """How long rows of EVENT are kept so that they expire then; 0, never, stays 0."""
    return max(1, expire_at_ms - int(EVENT.timestamp() * 1000)) if expire_at_ms else 0


def keys_of(ids: Iterable[int] = IDS) -> list[bytes]:
    return [encode_key([i]) for i in ids]


def seals_of(version: int, *, table: str = TABLE, at: int = 0) -> dict[int, Seal]:
    return dict.fromkeys(range(BUCKETS), Seal(table, version, f"up to {version}", at))


def push(
    store: OnlineStore,
    version: int,
    ids: Sequence[int] = IDS,
    *,
    started_from: Mapping[int, Seal | None] | None = None,
    table: str = TABLE,
    expire_at_ms: int = FAR,
    view: str = VIEW,
) -> Receipt:
    """Push the rows of one version from the present seals, or from the given ones."""
    present = store.seals(ENTITY, view, BUCKETS) if started_from is None else started_from
    return store.push(
        ENTITY,
        view,
        BUCKETS,
        push_rows(keys_of(ids), packed(version, ids)),
        seals=seals_of(version, table=table),
        started_from=present,
        keep_ms=keep_ms_until(expire_at_ms),
    )


def push_one(
    store: OnlineStore, key: int, value: bytes, expire_at_ms: int = FAR, *, view: str = VIEW
) -> Receipt:
    """Push one packed value or tombstone; the version is the value's own."""
    version = header_of(value).version
    return store.push(
        ENTITY,
        view,
        BUCKETS,
        push_rows(keys_of([key]), [value]),
        seals=seals_of(version),
        started_from=store.seals(ENTITY, view, BUCKETS),
        keep_ms=keep_ms_until(expire_at_ms),
    )


def push_until_done(store: OnlineStore, version: int, *, attempts: int = 100) -> bool:
    """Push as a planner does: again after a conflict, not at all below the sealed version."""
    for _ in range(attempts):
        present = store.seals(ENTITY, VIEW, BUCKETS)
        if all(seal is not None and seal.version >= version for seal in present.values()):
            return True
        sealed = max((seal.version for seal in present.values() if seal), default=0)
        target = max(version, sealed)
        try:
            push(store, target, started_from=present)
        except ConflictError:
            continue
        return True
    return False


def versions(store: OnlineStore, ids: Sequence[int] = IDS, *, view: str = VIEW) -> set[int | None]:
    """The versions of the stored rows as read from their columns; None for an absent row."""
    found = store.fetch(ENTITY, keys_of(ids), [view], BUCKETS)
    rows = [CODEC.decode(value[0]) if value[0] is not None else None for value in found]
    return {row.values["version_seen"] if row and row.values else None for row in rows}
