"""The online table in docs/benchmarks.md."""

from collections.abc import Mapping
from typing import Any

from benchmarks.online import report
from benchmarks.page import ROOT, Section, on_what
from benchmarks.table import table

RESULTS = ROOT / "benchmarks" / "results" / "online.json"


def block(found: Mapping[str, Any]) -> str:
    """What stands between the marks: the machine, then the table."""
    sizes = found["sizes"]
    entities = f"{sizes['pushed']:,} entities pushed and {sizes['read']:,} read"
    lines = [
        *on_what(found),
        f"{entities}; medians of {sizes['rounds']} rounds.",
        "",
        table(report.rows_of(found["results"])),
    ]
    return "\n".join(lines) + "\n"


SECTION = Section("online", RESULTS, block)
