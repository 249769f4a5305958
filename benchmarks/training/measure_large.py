"""More rows than fit into the memory that a contender may take: streamed to a file."""

from typing import Any

from benchmarks.training.bench import OURS, Bench
from benchmarks.training.measure_joined import Results, compared, summary

RAW = ("polars sink", "duckdb copy")
ROOM = 0.75
"""Of the memory, what DuckDB is told to take: it counts its buffers, not its whole process."""


def large(bench: Bench) -> Results:
    """Ours with a budget; plain engines, ended when they hold more than that."""
    shape, memory = bench.sizes.large, bench.sizes.memory
    taken: dict[str, list[dict[str, Any]]] = {OURS: []}
    for number in range(bench.sizes.slow_rounds):
        bench.say(f"large: {OURS}, round {number + 1}")
        to = bench.result(shape, OURS)
        to.unlink(missing_ok=True)
        taken[OURS].append(bench.ours(shape, way="stream", result=str(to), memory=memory))
    for name in RAW:
        bench.say(f"large: {name}")
        out, budget = str(bench.result(shape, name)), round(memory * ROOM)
        taken[name] = [bench.raw(shape, name, memory=memory, budget=budget, out=out)]
    found = {name: summary(rounds) for name, rounds in taken.items()}
    return compared(bench, shape, found)
