"""The audit's table in docs/benchmarks.md."""

from collections.abc import Mapping
from typing import Any

from benchmarks.audit import report
from benchmarks.page import ROOT, Section, on_what
from benchmarks.table import table

RESULTS = ROOT / "benchmarks" / "results" / "audit.json"


def block(found: Mapping[str, Any]) -> str:
    """What stands between the marks: the machine, then the table."""
    sizes = found["sizes"]
    lines = [
        *on_what(found),
        f"{sizes['customers']:,} rows x 10 features; medians of {sizes['rounds']} days.",
        "",
        table(report.rows_of(found["results"])),
    ]
    return "\n".join(lines) + "\n"


SECTION = Section("audit", RESULTS, block)
