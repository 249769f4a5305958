"""The table in docs/benchmarks.md, written from the JSON file so that the two never differ."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.online import report

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "online.json"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN = "<!-- the online table begins; python -m benchmarks.online --document writes it -->\n"
END = "<!-- the online table ends -->\n"


def block(found: Mapping[str, Any]) -> str:
    """What stands between the marks: the machine, then the table."""
    on, busy, sizes = found["machine"], found["load_average"], found["sizes"]
    cpu = f"{on['cpus']} × {on['cpu']}, {on['memory_gb']} GB, Python {on['python']}"
    load = f"load average {busy['median']} in the middle and {busy['most']} at most"
    entities = f"{sizes['pushed']:,} entities pushed and {sizes['read']:,} read"
    lines = [
        f"{cpu}, {found['at'][:10]}; {load};",
        f"{entities}; medians of {sizes['rounds']} rounds.",
        "",
        report.table(report.rows_of(found["results"])),
    ]
    return "\n".join(lines) + "\n"


def split(page: str) -> tuple[str, str, str]:
    """What stands before, between and after the marks."""
    before, _, rest = page.partition(BEGIN)
    between, _, after = rest.partition(END)
    return before, between, after


def write() -> None:
    """Put the results file's table into the page."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    before, _, after = split(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(before + BEGIN + block(found) + END + after, encoding="utf-8")
