"""`get --raw`: what Redis holds for one entity, for people and for whoever writes a client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.cli.console import emit_json, out, table
from lockstep.codec import Header, RowCodec, bucket_of, encode_key, header_of
from lockstep.errors import OnlineError
from lockstep.store import Store
from lockstep.stores.redis import Lookup
from lockstep.view import FeatureView


@dataclass(frozen=True)
class Stored:
    """One field of an entity's hash.

    Attributes:
        key: The Redis key.
        size: Bytes of the value; 0 if there is none.
        columns: By the schema that the value was written under; None for a tombstone or nothing.
    """

    view: str
    key: str
    size: int
    header: Header | None
    columns: Mapping[str, Any] | None


def show_stored(store: Store, wanted: Any, entity: Mapping[str, Any], *, as_json: bool) -> None:
    """Print header and columns of every stored value that the wanted features come from."""
    views = [store.catalog.view(name) for name in store.catalog.features(wanted)]
    found = _stored(store, views, entity)
    if as_json:
        emit_json(found)
        return
    for item in found:
        out().print(table(("", ""), _rows(item), f"{item.view} at {item.key}"))


def _stored(store: Store, views: Sequence[FeatureView], entity: Mapping[str, Any]) -> list[Stored]:
    online = store.online_store
    keys = [encode_key([entity[name] for name in view.contract.keys]) for view in views]
    lookups = [
        Lookup(view.contract.entity.name, [key], [view.name], view.contract.entity.buckets)
        for view, key in zip(views, keys, strict=True)
    ]
    schemas = online.schemas()
    return [
        _decoded(
            view.name,
            online.names.entity_key(lookup.entity, bucket_of(key, lookup.buckets), key).decode(),
            values[0][0],
            schemas,
        )
        for view, key, lookup, values in zip(
            views, keys, lookups, online.fetch_many(lookups), strict=True
        )
    ]


def _decoded(view: str, key: str, value: bytes | None, schemas: Mapping[bytes, str]) -> Stored:
    if value is None:
        return Stored(view, key, 0, None, None)
    header = header_of(value)
    if header.removed:
        return Stored(view, key, len(value), header, None)
    if header.fingerprint not in schemas:
        raise OnlineError(
            f"The stored row of {view} carries the unknown schema {header.fingerprint.hex()}.",
            fix=f"Rebuild the view online: lockstep push {view} --rebuild.",
        )
    codec = RowCodec.from_schema_json(schemas[header.fingerprint])
    return Stored(view, key, len(value), header, codec.decode(value).values)


def _rows(item: Stored) -> list[tuple[str, object]]:
    if item.header is None:
        return [("nothing", "no value was ever pushed, or it was swept")]
    header = item.header
    rows: list[tuple[str, object]] = [
        ("bytes", item.size),
        ("kind", "tombstone: the entity has no row" if header.removed else "row"),
        ("Delta version", header.version),
        ("day", header.day),
        ("revision", header.revision),
        ("event_timestamp", header.event_timestamp),
        ("fingerprint", header.fingerprint.hex()),
    ]
    return rows + [(f"column {name}", value) for name, value in (item.columns or {}).items()]
