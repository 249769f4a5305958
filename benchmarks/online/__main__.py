"""Measures the online side beside Feast and beside what the parts can do at best.

Prints a table to standard output, progress to standard error, and writes JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.feast_environment import install_feast
from benchmarks.machine import machine
from benchmarks.online import (
    document,
    measure_fetch,
    measure_http,
    measure_memory,
    measure_push,
    measure_readers,
    measure_types,
    report,
)
from benchmarks.online.bench import QUICK, Bench, Sizes
from benchmarks.online.data import SEED
from benchmarks.online.read_views import ReadViews
from benchmarks.table import as_json, table

PACKAGES = ("polars", "deltalake", "redis", "hiredis", "msgspec", "uvloop")
PARTS = ("push", "memory", "fetch", "http", "readers", "types")


class Measurements:
    """The parts by name; the views that several read are loaded once."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    @cached_property
    def views(self) -> ReadViews:
        """The loaded views."""
        return ReadViews(self.bench)

    def of(self, part: str) -> Any:
        """The results of one part."""
        measures = {
            "push": lambda: measure_push.measure(self.bench),
            "memory": lambda: measure_memory.measure(self.bench, self.views),
            "fetch": lambda: measure_fetch.measure(self.bench, self.views),
            "http": lambda: measure_http.measure(self.bench, self.views),
            "readers": lambda: measure_readers.measure(self.bench, self.views),
            "types": lambda: measure_types.measure(self.bench, self.views),
        }
        return measures[part]()


def run(
    parts: list[str], sizes: Sizes, work: Path, feast_python: str | None, *, quick: bool
) -> dict[str, Any]:
    """Measure the parts; what the JSON file says."""
    began = datetime.now(UTC)
    work.mkdir(parents=True, exist_ok=True)
    with Bench(sizes, work, feast_python, quick=quick) as bench:
        measurements = Measurements(bench)
        results = {part: measurements.of(part) for part in parts}
    return {
        "machine": machine(PACKAGES),
        "at": began.isoformat(timespec="seconds"),
        "minutes": round((datetime.now(UTC) - began).total_seconds() / 60, 1),
        "load_average": {
            "median": statistics.median(bench.loads),
            "most": max(bench.loads),
        },
        "sizes": vars(sizes),
        "seed": SEED,
        "quick": quick,
        "notes": bench.notes,
        "rows": as_json(report.rows_of(results)),
        "results": results,
    }


def options(arguments: list[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser("python -m benchmarks.online", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs")
    parser.add_argument("--work", type=Path, help="folder for data, servers and Feast; kept")
    parser.add_argument("--feast-python", help="Python of an environment with Feast 0.67")
    parser.add_argument("--no-feast", action="store_true", help="leave Feast out")
    parser.add_argument(
        "--out", type=Path, help="JSON file; benchmarks/results/online.json of a full run"
    )
    parser.add_argument(
        "--document", action="store_true", help="measure nothing; write the table into the page"
    )
    parser.add_argument("--pushed", type=int, help="entities of the push")
    parser.add_argument("--read", type=int, help="entities of the views that are read")
    parser.add_argument("--rounds", type=int, help="repetitions")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    return asked


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked."""
    asked = options(sys.argv[1:] if arguments is None else arguments)
    if asked.document:
        document.SECTION.write()
        return 0
    sizes = QUICK if asked.quick else Sizes()
    given = {name: getattr(asked, name) for name in ("pushed", "read", "rounds")}
    sizes = Sizes(**{**vars(sizes), **{name: n for name, n in given.items() if n is not None}})
    parts = [part for part in PARTS if part in asked.parts or not asked.parts]
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
        work = asked.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        feast = None if asked.no_feast else asked.feast_python or install_feast(work)
        with tempfile.TemporaryDirectory(prefix="run-", dir=work) as inner:
            found = run(parts, sizes, Path(inner), feast, quick=asked.quick)
    print(table(report.rows_of(found["results"])))
    out = asked.out or (None if asked.quick or asked.parts else document.RESULTS)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
