"""Measures what the audit of a day costs beside its materialization, and a year of PSI.

Prints a table to standard output, progress to standard error, and writes JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.audit import data, document, measure, report
from benchmarks.machine import load, machine
from benchmarks.table import as_json, table

PACKAGES = ("polars", "deltalake", "duckdb", "numpy", "pandera", "soda-core")


def run(folder: Path, sizes: measure.Sizes, *, quick: bool) -> dict[str, Any]:
    """What the JSON file says."""
    began, loads = datetime.now(UTC), [load()]

    def say(text: str) -> None:
        loads.append(load())
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    results = measure.run(measure.opened(folder, sizes, say))
    loads.append(load())
    return {
        "machine": machine(PACKAGES),
        "at": began.isoformat(timespec="seconds"),
        "minutes": round((datetime.now(UTC) - began).total_seconds() / 60, 1),
        "load_average": {"median": round(statistics.median(loads), 2), "most": max(loads)},
        "sizes": asdict(sizes),
        "seed": data.SEED,
        "quick": quick,
        "rows": as_json(report.rows_of(results)),
        "results": results,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked."""
    parser = argparse.ArgumentParser("python -m benchmarks.audit", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs")
    parser.add_argument(
        "--out", type=Path, help="JSON file; benchmarks/results/audit.json of a full run"
    )
    parser.add_argument(
        "--document", action="store_true", help="measure nothing; write the table into the page"
    )
    asked = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if asked.document:
        document.SECTION.write()
        return 0
    sizes = measure.QUICK if asked.quick else measure.Sizes()
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
        found = run(Path(folder), sizes, quick=asked.quick)
    out = asked.out or (None if asked.quick else document.RESULTS)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(table(report.rows_of(found["results"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
