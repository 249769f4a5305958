"""Values on their way out: exact in every format, and never a bare NaN in JSON."""

import base64
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import polars as pl

from lockstep.errors import InputError
from lockstep.serving.plan import Plan
from lockstep.serving.settings import NonFinite
from lockstep.serving.shape import Kind, Shape, inner_types, kind_of


class NonFiniteError(InputError):
    """A value is NaN or infinite, and the policy is to refuse it."""


_WORDS: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}


class JsonValues:
    """Columns as what msgspec writes as JSON.

    Instants, dates and decimals become text and bytes base64 there by themselves.

    Args:
        int64: "string" writes 64-bit integers as text of digits.
        non_finite: What NaN and infinities become.
    """

    def __init__(self, int64: str, non_finite: NonFinite) -> None:
        self._digits: Final = int64 == "string"
        self._policy: Final = non_finite

    def columns(
        self, plan: Plan, shape: Shape, columns: Sequence[Sequence[Any]]
    ) -> list[Sequence[Any]]:
        """Return the values of every feature, each as it is written exactly.

        Raises:
            NonFiniteError: By policy, naming the feature.
        """
        shaped = list(columns)
        for position in shape.floats:
            if not _all_finite(columns[position]):
                shaped[position] = self._column(plan, shape, position, columns)
        for position in (*shape.nested, *(shape.int64s if self._digits else ())):
            shaped[position] = self._column(plan, shape, position, columns)
        return shaped

    def value(self, value: Any, dtype: pl.DataType) -> Any:
        """Return one value."""
        return None if value is None else self._value(value, dtype, kind_of(dtype))

    def _column(
        self, plan: Plan, shape: Shape, position: int, columns: Sequence[Sequence[Any]]
    ) -> list[Any]:
        dtype, kind = plan.types[position], shape.kinds[position]
        try:
            return [
                None if value is None else self._value(value, dtype, kind)
                for value in columns[position]
            ]
        except _NotFiniteHereError:
            raise NonFiniteError(
                f"{plan.features[position]} holds NaN or an infinity.",
                fix="Ask with non_finite 'string' or 'null', or for msgpack or Arrow.",
            ) from None

    def _value(self, value: Any, dtype: Any, kind: Kind) -> Any:
        if value is None:
            return None
        if kind == "float":
            return value if math.isfinite(value) else self._non_finite(value)
        if kind == "int64":
            return str(value) if self._digits else value
        if kind != "nested":
            return value
        inner = inner_types(dtype)
        if isinstance(inner, dict):
            return {
                name: self._value(value.get(name), part, kind_of(part))
                for name, part in inner.items()
            }
        part = kind_of(inner)
        return [self._value(item, inner, part) for item in value]

    def _non_finite(self, value: float) -> str | None:
        if self._policy == "error":
            raise _NotFiniteHereError
        return None if self._policy == "null" else _WORDS.get(value, "NaN")


def msgpack_columns(shape: Shape, columns: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Return the values of every feature for msgpack: numbers and bytes native, NaN as it is.

    Instants, dates and decimals are the same text as in JSON, so that no reader needs an extension.
    """
    shaped = list(columns)
    for position in (*shape.texts, *shape.nested):
        shaped[position] = msgspec.to_builtins(columns[position], builtin_types=(bytes,))
    return shaped


class _NotFiniteHereError(Exception):
    pass


def _all_finite(column: Sequence[float | None]) -> bool:
    """Return whether no value is NaN or infinite; also False for sums beyond what a float holds."""
    total: float
    if len(column) == 1:
        total = column[0] or 0.0
        return total - total == 0.0
    try:
        total = sum(column)  # type: ignore[arg-type]
    except TypeError:
        total = sum([value for value in column if value is not None])
    return total - total == 0.0


def exact_text(value: Any, dtype: pl.DataType) -> str | None:
    """Return a value's exact text; None for null and for floats, which have none that is shorter.

    Integers are digits, Booleans true or false, instants ISO 8601, bytes base64, lists and structs
    JSON with "NaN", "Infinity" and "-Infinity".
    """
    if value is None or dtype.is_float():
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(dtype, pl.List | pl.Struct):
        return msgspec.json.encode(JsonValues("number", "string").value(value, dtype)).decode()
    return str(msgspec.to_builtins(value))
