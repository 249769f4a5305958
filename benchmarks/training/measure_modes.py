"""What was true against what was known, and what reproducibility costs."""

from typing import Any

from benchmarks.training.bench import Bench
from benchmarks.training.measure_joined import Results, summary

WAYS: dict[str, dict[str, str]] = {
    "event": {"way": "join"},
    "known": {"way": "join", "mode": "known"},
    "event, with manifest and profile": {"way": "described"},
    "kept by name": {"way": "keep"},
    "rebuilt and compared": {"way": "rebuild"},
    "leakage report": {"way": "leakage"},
}
"""What the table calls it → how it is asked for; a kept set is there when it is rebuilt."""


def modes(bench: Bench) -> Results:
    """Way → medians; the usual training set with one day in a hundred restated."""
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for number in range(bench.sizes.rounds):
        for name, how in WAYS.items():
            bench.say(f"modes: {name}, round {number + 1}")
            taken[name].append(bench.ours(bench.sizes.joined, label=name, **how))
    return {name: summary(rounds) for name, rounds in taken.items()}
