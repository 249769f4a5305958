"""The training tables in docs/benchmarks.md."""

from collections.abc import Mapping
from typing import Any

from benchmarks.page import ROOT, Section, on_what
from benchmarks.table import table
from benchmarks.training import report

RESULTS = ROOT / "benchmarks" / "results" / "training.json"


def block(found: Mapping[str, Any]) -> str:
    """What stands between the marks: the machine, what was asked for, every contender."""
    sizes = found["sizes"]
    rounds = f"medians of {sizes['rounds']} rounds, of {sizes['slow_rounds']} where one takes long."
    parts = [
        "\n".join([*on_what(found), rounds]),
        table(report.rows_of(found["results"])),
        "Time and memory of every contender, each alone in its process:",
        report.contenders(found["results"]),
    ]
    return "\n\n".join(parts) + "\n"


SECTION = Section("training", RESULTS, block)
