"""`POST /get-online-features` in Feast's words, but with true statuses.

The key columns come first, as results of their own. Feast has no status for a cell that could not
be read: those are INVALID. Its timestamps are whole seconds since 1970; dates are too.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec

from lockstep.errors import InputError
from lockstep.online import Vectors
from lockstep.serving.plan import Plan
from lockstep.serving.responses import encode, instant
from lockstep.serving.settings import NonFinite
from lockstep.serving.shape import Kind, shape_of
from lockstep.serving.values import JsonValues

STATUSES: Final[Mapping[str, str]] = {
    "present": "PRESENT",
    "null": "NULL_VALUE",
    "missing": "NOT_FOUND",
    "expired": "OUTSIDE_MAX_AGE",
    "error": "INVALID",
}
_NEVER: Final = "1970-01-01T00:00:00Z"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1)
_DAY_SECONDS: Final = 86_400
_SECOND: Final = timedelta(seconds=1)


def answer(
    plan: Plan, vectors: Vectors, *, full_names: bool, with_versions: bool, non_finite: NonFinite
) -> bytes:
    """Return the body of the answer.

    Args:
        full_names: Whether features are named `view__feature`.
        with_versions: Whether the views are listed with a version, as newer Feast clients ask.

    Raises:
        InputError: Two features have one name, and the names are short.
        NonFiniteError: `non_finite="error"`, and a value is NaN or infinite.
    """
    names = _names(plan, full=full_names)
    shape = shape_of(plan)
    count = len(next(iter(vectors.key_columns.values()), ()))
    results: list[dict[str, Any]] = [
        {
            "values": column,
            "statuses": _repeated("PRESENT", count),
            "event_timestamps": _repeated(_NEVER, count),
        }
        for column in vectors.key_columns.values()
    ]
    instants = {view: _instants(micros) for view, micros in vectors.event_us.items()}
    columns = JsonValues("number", non_finite).columns(plan, shape, vectors.columns)
    described = zip(plan.features, shape.kinds, columns, vectors.cells, strict=True)
    for name, kind, column, cells in described:
        results.append(
            {
                "values": _plain(kind, column),
                "statuses": [STATUSES[status] for status in cells],
                "event_timestamps": instants[name.partition(":")[0]],
            }
        )
    metadata: dict[str, Any] = {"feature_names": [*vectors.key_columns, *names]}
    if with_versions:
        metadata["feature_view_metadata"] = [{"name": v.name, "version": 0} for v in plan.views]
    return encode({"metadata": metadata, "results": results})


@lru_cache(maxsize=256)
def _repeated(value: str, count: int) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode([value] * count))


def _instants(micros: Sequence[int | None]) -> msgspec.Raw:
    return msgspec.Raw(
        msgspec.json.encode([_NEVER if us is None else instant(us) for us in micros])
    )


def _plain(kind: Kind, column: Sequence[Any]) -> Sequence[Any]:
    """Return the column with Feast's own form of instants, whole seconds since 1970."""
    if kind not in {"text", "nested"}:
        return column
    return [_whole_seconds(value) for value in column]


def _whole_seconds(value: Any) -> Any:
    match value:
        case datetime():
            return (value - _EPOCH) // _SECOND
        case date():
            return (value - _EPOCH_DAY).days * _DAY_SECONDS
        case Decimal():
            return str(value)
        case list():
            return [_whole_seconds(item) for item in value]
        case dict():
            return {name: _whole_seconds(item) for name, item in value.items()}
    return value


def _names(plan: Plan, *, full: bool) -> list[str]:
    split = [name.partition(":") for name in plan.features]
    if full:
        return [f"{view}__{feature}" for view, _, feature in split]
    short = [feature for _, _, feature in split]
    if len(set(short)) != len(short):
        twice = sorted({name for name in short if short.count(name) > 1})
        raise InputError(
            f"Features of several views have the names {twice}.",
            fix='Ask with "full_feature_names": true.',
        )
    return short
