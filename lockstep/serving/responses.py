"""Vectors as bytes: JSON by default, msgpack or an Arrow stream where the caller accepts it."""

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import msgspec
import polars as pl

from lockstep.online import Vectors
from lockstep.serving.cells import Column, missing_cells
from lockstep.serving.plan import Plan
from lockstep.serving.requests import ARROW, JSON, MSGPACK, MSGPACK_NAMES
from lockstep.serving.settings import NonFinite
from lockstep.serving.shape import shape_of
from lockstep.serving.values import JsonValues, msgpack_columns

Format: TypeAlias = Literal["json", "msgpack", "arrow"]

CONTENT_TYPES: Final[Mapping[Format, bytes]] = {
    "json": JSON.encode(),
    "msgpack": MSGPACK.encode(),
    "arrow": ARROW.encode(),
}
UNREAD: Final = "The online store could not be read, so every cell is an error."
"""To whoever may ask, so without its address; the log says the rest."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_JSON: Final = msgspec.json.Encoder()
_MSGPACK: Final = msgspec.msgpack.Encoder()


def negotiated(accept: bytes | None) -> Format | None:
    """Return the format that an Accept header prefers; None if it accepts none of the three."""
    if accept is None or accept in {b"*/*", b"application/json"}:
        return "json"
    return _negotiated(accept)


@lru_cache(maxsize=64)
def _negotiated(accept: bytes) -> Format | None:
    best: tuple[float, Format | None] = (0.0, None)
    for item in accept.decode("latin-1").split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        found = _format_of(kind)
        weight = _weight(parameters)
        if found is not None and weight > best[0]:
            best = weight, found
    return best[1]


def _format_of(kind: str) -> Format | None:
    if kind in {JSON, "application/*", "*/*"}:
        return "json"
    if kind in MSGPACK_NAMES:
        return "msgpack"
    return "arrow" if kind == ARROW else None


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0 <= weight <= 1 else 0.0
    return 1.0


def encode(document: Mapping[str, Any], kind: Format = "json") -> bytes:
    """Return a document as JSON, or as msgpack if that was asked for."""
    return _MSGPACK.encode(document) if kind == "msgpack" else _JSON.encode(document)


def rendered(
    plan: Plan,
    vectors: Vectors,
    cells: Sequence[Column],
    *,
    kind: Format,
    trace_id: str,
    int64: str = "number",
    non_finite: NonFinite = "string",
) -> bytes:
    """Return the answer's body: a list per feature, with a value per entity in request order.

    Raises:
        NonFiniteError: JSON, `non_finite="error"`, and a value is NaN or infinite.
    """
    if kind == "arrow":
        return _arrow(plan, vectors)
    shape = shape_of(plan)
    document: dict[str, Any] = {
        "feature_set": _feature_set(plan),
        "entities": vectors.key_columns,
        "features": plan.features,
        "types": shape.type_names,
        "values": (),
        "statuses": vectors.cells,
        "views": {
            name: {
                "event_timestamp": instants(vectors.event_us[name]),
                "age_seconds": ages(vectors.event_us[name], vectors.at),
            }
            for name in shape.views
        },
        "not_ready": vectors.not_ready,
        "problem": None if vectors.outage is None else UNREAD,
        "missing": missing_cells(plan.features, cells),
        "trace_id": trace_id,
    }
    if kind == "msgpack":
        document["values"] = msgpack_columns(shape, vectors.columns)
        return _MSGPACK.encode(document)
    if int64 == "string":
        document["entities"] = _digits(vectors.key_columns)
    document["features"] = shape.features_json
    document["types"] = shape.types_json
    document["values"] = JsonValues(int64, non_finite).columns(plan, shape, vectors.columns)
    document["statuses"] = [column.json for column in cells]
    return _JSON.encode(document)


def _feature_set(plan: Plan) -> dict[str, str | None] | None:
    if plan.feature_set is None:
        return None
    return {"name": plan.feature_set, "version": plan.version}


def _digits(keys: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[str]]:
    return {name: [str(value) for value in column] for name, column in keys.items()}


def instants(micros: Sequence[int | None]) -> list[str | None]:
    """Return instants in microseconds since 1970 as ISO 8601 text with Z."""
    return [None if us is None else instant(us) for us in micros]


@lru_cache(maxsize=4096)
def instant(us: int) -> str:
    """Return one instant in microseconds since 1970 as ISO 8601 text with Z."""
    text: str = msgspec.to_builtins(_EPOCH + timedelta(microseconds=us))
    return text


def ages(micros: Sequence[int | None], at: datetime) -> list[float | None]:
    """Return how many seconds before `at` each instant was."""
    now = (at - _EPOCH) // _MICROSECOND
    return [None if us is None else (now - us) / 1e6 for us in micros]


def _arrow(plan: Plan, vectors: Vectors) -> bytes:
    """Return an IPC stream of one batch: keys, then per feature value and status, then ages.

    Names with `::` are ours; no feature has one.
    """
    keys = {name: dtype for entity in plan.entities for name, dtype in entity.key_types.items()}
    columns = [
        pl.Series(name, vectors.key_columns[name], dtype=dtype) for name, dtype in keys.items()
    ]
    found = zip(plan.features, plan.types, vectors.columns, vectors.cells, strict=True)
    for name, dtype, values, cells in found:
        columns.append(pl.Series(name, values, dtype=dtype))
        columns.append(pl.Series(f"{name}::status", cells, dtype=pl.String))
    for view, micros in vectors.event_us.items():
        column = pl.Series(f"{view}::event_timestamp", micros, dtype=pl.Int64)
        columns.append(column.cast(pl.Datetime("us", "UTC")))
        seconds = ages(micros, vectors.at)
        columns.append(pl.Series(f"{view}::age_seconds", seconds, dtype=pl.Float64))
    stream = io.BytesIO()
    # The oldest level is what every Arrow library reads: no string views.
    pl.DataFrame(columns).write_ipc_stream(stream, compat_level=pl.CompatLevel.oldest())
    return stream.getvalue()
