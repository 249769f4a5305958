"""What an entity with three views of ten features takes in Redis."""

from typing import Any

from benchmarks.online import data
from benchmarks.online.bench import Bench
from benchmarks.online.read_views import FEAST, LOADED, ON_VALKEY, ReadViews


def measure(bench: Bench, views: ReadViews) -> dict[str, Any]:
    """Ours on each engine, and Feast's."""
    ours = f"*{{{data.ENTITIES[data.READ[0]]}:*}}:*"
    found = {"lockstep": views.bytes_per_entity(LOADED, ours)}
    if ON_VALKEY in views.grown:
        found["lockstep on valkey"] = views.bytes_per_entity(ON_VALKEY, ours)
    if bench.feast_python:
        found["feast"] = views.bytes_per_entity(FEAST, "*")
    return found
