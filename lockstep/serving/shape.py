"""What of an answer depends on the features alone, worked out once per plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import msgspec
import polars as pl

from lockstep.schema import Feature
from lockstep.serving.plan import Plan
from lockstep.serving.requests import Policy

Kind: TypeAlias = Literal["plain", "float", "int64", "text", "nested"]
_TEXT: Final = (pl.Date, pl.Datetime, pl.Decimal)


@dataclass(frozen=True, eq=False)
class Shape:
    """A plan's features, one item each, in the plan's order.

    Attributes:
        kinds: What a value needs on its way: nothing, the policy for NaN, digits as text, ISO or
            decimal text, or a walk through its parts.
        floats: Positions of floats; int64s, texts and nested of the others.
        pii: Whether the feature identifies a person.
        policies: What its contract says of a cell without a value.
        views: View → the positions of its features.
        features_json: The names, as JSON.
        types_json: The types' names, as JSON.
    """

    kinds: Sequence[Kind]
    floats: Sequence[int]
    int64s: Sequence[int]
    texts: Sequence[int]
    nested: Sequence[int]
    pii: Sequence[bool]
    policies: Mapping[str, Policy]
    views: Mapping[str, Sequence[int]]
    features_json: msgspec.Raw
    types_json: msgspec.Raw
    type_names: Sequence[str]


@lru_cache(maxsize=1024)
def shape_of(plan: Plan) -> Shape:
    """Return the shape of a plan."""
    declared = features_of(plan)
    views: dict[str, list[int]] = {view.name: [] for view in plan.views}
    for position, name in enumerate(plan.features):
        views[name.partition(":")[0]].append(position)
    names = [str(dtype) for dtype in plan.types]
    policies = {name: declared[at].on_missing for at, name in enumerate(plan.features)}
    kinds = [kind_of(dtype) for dtype in plan.types]
    return Shape(
        kinds=kinds,
        floats=_places(kinds, "float"),
        int64s=_places(kinds, "int64"),
        texts=_places(kinds, "text"),
        nested=_places(kinds, "nested"),
        pii=[feature.pii for feature in declared],
        policies=policies,
        views=views,
        features_json=msgspec.Raw(msgspec.json.encode(plan.features)),
        types_json=msgspec.Raw(msgspec.json.encode(names)),
        type_names=names,
    )


def _places(kinds: Sequence[Kind], wanted: Kind) -> tuple[int, ...]:
    return tuple(position for position, kind in enumerate(kinds) if kind == wanted)


def features_of(plan: Plan) -> list[Feature]:
    """Return the declared feature of every column."""
    by_name = {view.name: view for view in plan.views}
    split = (name.partition(":") for name in plan.features)
    return [by_name[view].contract.features[feature] for view, _, feature in split]


def kind_of(dtype: pl.DataType) -> Kind:
    """Return what values of the type need on their way."""
    if isinstance(dtype, pl.List | pl.Struct):
        return "nested"
    if dtype.is_float():
        return "float"
    if dtype == pl.Int64:
        return "int64"
    return "text" if isinstance(dtype, _TEXT) else "plain"


def inner_types(dtype: pl.DataType) -> Any:
    """Return the parts of a nested type: the item's type, or field → type."""
    if isinstance(dtype, pl.List):
        return dtype.inner
    return (
        {field.name: field.dtype for field in dtype.fields} if isinstance(dtype, pl.Struct) else {}
    )
