"""What an asset depends on: one edge per table, with the partitions that its windows reach."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import dagster as dg

from lockstep.sources import Input, Snapshot
from lockstep.view import FeatureView

EVER: Final = 366 * 100
"""Days that an input without ttl reaches back: more than any table has, clipped at its start."""


def dependencies(view: FeatureView) -> list[dg.AssetDep]:
    """Return an edge to everything that the view reads; two windows on a table make one edge."""
    reach: dict[str, int] = {}
    for item in view.inputs:
        reach[item.of.name] = max(reach.get(item.of.name, 0), _days_back(view, item))
    return [_edge(name, back) for name, back in reach.items()]


def _edge(name: str, back: int) -> dg.AssetDep:
    if back == 0:
        return dg.AssetDep(dg.AssetKey(name))
    window = dg.TimeWindowPartitionMapping(
        start_offset=-back, allow_nonexistent_upstream_partitions=True
    )
    return dg.AssetDep(dg.AssetKey(name), partition_mapping=window)


def _days_back(view: FeatureView, item: Input) -> int:
    """Return how many days before the computed one the input reaches, closing day included."""
    if isinstance(item.of, Snapshot) or item.reach == "same_day":
        return 0
    if item.days is not None:
        closes = view.contract.when_absent == "empty"
        return item.days if closes and _has(item, view.contract.keys) else item.days - 1
    return EVER if item.ttl is None else -(-item.ttl // timedelta(days=1))


def _has(item: Input, columns: Iterable[str]) -> bool:
    return set(columns) <= item.of.columns.keys()
