"""Values that stores are known to change: Delta → push → Redis → HTTP → JSON → Python."""

import base64
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from benchmarks.online.bench import Bench
from benchmarks.online.polars_types import TYPES
from benchmarks.online.project_files import TYPES as TYPES_VIEW
from benchmarks.online.read_views import FEAST, ReadViews
from benchmarks.online.services import start_ours
from benchmarks.online.type_cases import CASES, ROWS, SAME_AS_FEASTS, same

FROM_TEXT: dict[type[pl.DataType], Callable[[Any], Any]] = {
    pl.Binary: base64.b64decode,
    pl.Date: date.fromisoformat,
    pl.Datetime: datetime.fromisoformat,
    pl.Decimal: Decimal,
    pl.Float32: float,  # "NaN", "Infinity" and "-Infinity" are text, as JSON has no word for them
    pl.Float64: float,
}


def measure(bench: Bench, views: ReadViews) -> dict[str, Any]:
    """How many cases come back exactly, and what came of those that do not."""
    bench.say(f"type cases, pushed to {' and '.join(views.ours)}")
    found = {"lockstep": _counted(_over_http(bench))}
    if bench.feast_python:
        bench.say("type cases through Feast")
        with bench.feast(FEAST) as worker:
            found["feast"] = _counted(worker.ask("types"))
    return found


def _over_http(bench: Bench) -> dict[str, str]:
    """Case → "exact", or what came back over HTTP as JSON."""
    bench.say("type cases over HTTP")
    service, *_ = start_ours(bench)
    features = [f"{TYPES_VIEW}:{name}" for name in CASES]
    body = {"features": features, "entities": {"sample_id": list(range(ROWS))}}
    said = service.ask(body)
    results = {}
    for (name, (kind, values)), column in zip(CASES.items(), said["values"], strict=True):
        got = [from_json(value, TYPES[name]) for value in column][: len(values)]
        if kind == "uint64":
            got = [int(value) for value in got]
        results[name] = "exact" if same(values, got) else repr(got)[:120]
    return results


def from_json(value: Any, dtype: pl.DataType) -> Any:
    """A value as a client reads it that knows the type, which every answer names."""
    if value is None:
        return None
    if isinstance(dtype, pl.List):
        return [from_json(item, dtype.inner) for item in value]  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        types = {field.name: field.dtype for field in dtype.fields}
        return {name: from_json(item, types[name]) for name, item in value.items()}  # type: ignore[arg-type]
    read = FROM_TEXT.get(type(dtype))
    return value if read is None else read(value)


def _counted(results: dict[str, str]) -> dict[str, Any]:
    def exact(names: Any) -> int:
        return sum(results.get(name) == "exact" for name in names)

    found: dict[str, Any] = {"exact": exact(SAME_AS_FEASTS), "of": len(SAME_AS_FEASTS)}
    if results.keys() == CASES.keys():
        found |= {"exact_with_more": exact(CASES), "of_with_more": len(CASES)}
    return found | {"changed": {name: got for name, got in results.items() if got != "exact"}}
