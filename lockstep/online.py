"""Feature vectors: packed values decoded by name, every cell with an honest status and an age."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

import polars as pl

from lockstep.codec import RowCodec, encode_key, header_of
from lockstep.errors import InputError, MissingFeatureError, OnlineError
from lockstep.schema import UNSET, Entity
from lockstep.stores.redis import Lookup, OnlineStore
from lockstep.time import is_valid
from lockstep.view import FeatureView

CellStatus: TypeAlias = Literal["present", "null", "missing", "expired", "error"]
OnMissing: TypeAlias = Literal["null", "default", "fail"]

NO_VALUE: frozenset[str] = frozenset({"missing", "expired", "error"})


@dataclass(frozen=True)
class Vectors:
    """The answer to one request: a row per asked entity, a column per asked feature, in that order.

    Attributes:
        entities: The asked keys.
        features: `view:feature` per column.
        types: Polars type per column.
        values: Row by row; None where there is no value.
        statuses: Row by row: "present", "null" (the value is null), "missing" (never written, or
            removed), "expired" (older than its ttl; the value is withheld), or "error".
        event_timestamps: View → per row, from when the value is valid (UTC); None if there is none.
        at: The instant that ages and expiry refer to (UTC).
    """

    entities: Sequence[Mapping[str, Any]]
    features: Sequence[str]
    types: Sequence[pl.DataType]
    values: Sequence[Sequence[Any]]
    statuses: Sequence[Sequence[CellStatus]]
    event_timestamps: Mapping[str, Sequence[datetime | None]]
    at: datetime

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per entity: its keys and `view:feature` values."""
        return [
            {**entity, **dict(zip(self.features, values, strict=True))}
            for entity, values in zip(self.entities, self.values, strict=True)
        ]

    def age_seconds(self, view: str) -> list[float | None]:
        """Return per row how long ago the view's value was valid from."""
        return [
            None if instant is None else (self.at - instant).total_seconds()
            for instant in self.event_timestamps[view]
        ]

    def to_frame(self) -> pl.DataFrame:
        """Return keys and features as a frame with the declared types, rows in request order."""
        keys = pl.DataFrame(list(self.entities), infer_schema_length=None)
        columns = [
            pl.Series(name, [row[at] for row in self.values], dtype=dtype)
            for at, (name, dtype) in enumerate(zip(self.features, self.types, strict=True))
        ]
        return keys.hstack(columns)


class Codecs:
    """Decodes stored values by the schema they were written under, learnt from the store once."""

    def __init__(self, online: OnlineStore) -> None:
        self._online = online
        self._known: dict[bytes, RowCodec] = {}

    def of(self, fingerprint: bytes) -> RowCodec:
        """Return the codec for a fingerprint.

        Raises:
            OnlineError: The store keeps no schema under it.
        """
        if fingerprint not in self._known:
            texts = self._online.schemas()
            if fingerprint not in texts:
                raise OnlineError(
                    f"A stored row carries the unknown schema {fingerprint.hex()}.",
                    fix="Rebuild the view online: lockstep push VIEW --rebuild.",
                )
            self._known[fingerprint] = RowCodec.from_schema_json(texts[fingerprint])
        return self._known[fingerprint]


def fetch_vectors(
    online: OnlineStore,
    codecs: Codecs,
    wanted: Mapping[FeatureView, Sequence[str]],
    entities: Sequence[Mapping[str, Any]],
    *,
    at: datetime,
    on_missing: OnMissing = "null",
) -> Vectors:
    """Fetch features of entities in one round trip.

    Args:
        wanted: View → feature names, in column order.
        entities: The key columns of every entity type that the features describe.
        at: The instant that decides what has expired; normally now.
        on_missing: For a cell without a value: None ("null"), the feature's `empty=` value if it
            declares one ("default"), or raise ("fail").

    Raises:
        InputError: A key is absent or has the wrong type.
        MissingFeatureError: `on_missing="fail"` and a cell is missing, expired or unreadable; lists
            them.
        OnlineError: The store does not answer.
    """
    by_entity: dict[str, list[FeatureView]] = {}
    for view in wanted:
        by_entity.setdefault(view.contract.entity.name, []).append(view)
    lookups = [
        Lookup(
            name,
            [_key(row, views[0].contract.entity) for row in entities],
            [view.name for view in views],
            views[0].contract.entity.buckets,
        )
        for name, views in by_entity.items()
    ]
    stored: dict[str, list[bytes | None]] = {}
    for lookup, answer in zip(lookups, online.fetch_many(lookups), strict=True):
        for position, name in enumerate(lookup.views):
            stored[name] = [row[position] for row in answer]
    columns = [
        column
        for view, features in wanted.items()
        for column in _columns(view, features, stored[view.name], codecs, at, on_missing)
    ]
    vectors = Vectors(
        entities=entities,
        features=[f"{view.name}:{name}" for view, names in wanted.items() for name in names],
        types=[view.contract.features[n].type for view, names in wanted.items() for n in names],
        values=[list(row) for row in zip(*(values for values, _ in columns), strict=True)],
        statuses=[list(row) for row in zip(*(statuses for _, statuses in columns), strict=True)],
        event_timestamps={
            view.name: [_event_timestamp(value) for value in stored[view.name]] for view in wanted
        },
        at=at,
    )
    if on_missing == "fail":
        _require_values(vectors)
    return vectors


def _key(row: Mapping[str, Any], entity: Entity) -> bytes:
    values: list[int | str] = []
    for column, dtype in entity.key_types.items():
        value = row.get(column)
        expected = str if dtype == pl.String else int
        if not isinstance(value, expected) or isinstance(value, bool):
            raise InputError(
                f"The request has no usable {column!r}.",
                expected=f"{dtype} in every row, as {entity.name} is looked up by it",
                got=repr(value)[:80],
                effect="Nothing was fetched.",
            )
        values.append(value)
    return encode_key(values)


def _columns(
    view: FeatureView,
    features: Sequence[str],
    stored: Sequence[bytes | None],
    codecs: Codecs,
    at: datetime,
    on_missing: OnMissing,
) -> Iterator[tuple[list[Any], list[CellStatus]]]:
    """Yield values and statuses of one view, a pair per feature."""
    decoded = [_decode(view, value, codecs, at) for value in stored]
    for name in features:
        empty = view.contract.features[name].empty
        fallback = empty if on_missing == "default" and empty is not UNSET else None
        values: list[Any] = []
        statuses: list[CellStatus] = []
        for status, row in decoded:
            value = row.get(name)
            values.append(fallback if status in NO_VALUE else value)
            statuses.append("null" if status == "present" and value is None else status)
        yield values, statuses


def _decode(
    view: FeatureView, value: bytes | None, codecs: Codecs, at: datetime
) -> tuple[CellStatus, Mapping[str, Any]]:
    if value is None:
        return "missing", {}
    try:
        header = header_of(value)
        if header.removed:
            return "missing", {}
        if not is_valid(header.event_timestamp, view.contract.ttl, at):
            return "expired", {}
        return "present", codecs.of(header.fingerprint).decode(value).values or {}
    except OnlineError:
        return "error", {}


def _event_timestamp(value: bytes | None) -> datetime | None:
    try:
        header = header_of(value) if value else None
    except OnlineError:
        return None
    return None if header is None or header.removed else header.event_timestamp


def _require_values(vectors: Vectors) -> None:
    lacking = [
        f"{feature} of {dict(entity)} is {status}"
        for entity, statuses in zip(vectors.entities, vectors.statuses, strict=True)
        for feature, status in zip(vectors.features, statuses, strict=True)
        if status in NO_VALUE
    ]
    if lacking:
        shown = "; ".join(lacking[:10])
        more = f"; and {len(lacking) - 10} more" if len(lacking) > 10 else ""  # noqa: PLR2004
        raise MissingFeatureError(
            f"{len(lacking)} of {len(vectors.entities) * len(vectors.features)} cells have no "
            f"value: {shown}{more}.",
            fix="Ask with on_missing='null' or 'default', or push the views.",
        )
