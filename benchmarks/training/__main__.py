"""Measures training sets beside Feast, plain engines and decoding alone.

Prints tables to standard output, progress to standard error, and writes JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.feast_environment import install_feast
from benchmarks.machine import machine
from benchmarks.table import as_json, table
from benchmarks.training import (
    document,
    measure_joined,
    measure_large,
    measure_modes,
    measure_views,
    report,
)
from benchmarks.training.bench import Bench
from benchmarks.training.data import SEED
from benchmarks.training.shapes import Sizes, quick_sizes, sizes

PACKAGES = ("polars", "deltalake", "duckdb", "numpy", "pyarrow")
PARTS: dict[str, Callable[[Bench], Any]] = {
    "joined": measure_joined.joined,
    "long": measure_joined.long,
    "large": measure_large.large,
    "views": measure_views.views,
    "modes": measure_modes.modes,
}


def run(bench: Bench, parts: list[str], out: Path | None) -> dict[str, Any]:
    """Measure the parts; what the JSON file says, which is written anew after every part."""
    began = datetime.now(UTC)
    results: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for part in parts:
        results[part] = PARTS[part](bench)
        found = {
            "machine": machine(PACKAGES),
            "at": began.isoformat(timespec="seconds"),
            "minutes": round((datetime.now(UTC) - began).total_seconds() / 60, 1),
            "load_average": {"median": statistics.median(bench.loads), "most": max(bench.loads)},
            "sizes": asdict(bench.sizes),
            "seed": SEED,
            "quick": bench.quick,
            "rows": as_json(report.rows_of(results)),
            "results": results,
        }
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return found


def options(arguments: list[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser("python -m benchmarks.training", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs")
    parser.add_argument("--work", type=Path, help="folder for data and Feast; kept and used again")
    parser.add_argument("--feast-python", help="Python of an environment with Feast 0.67")
    parser.add_argument("--no-feast", action="store_true", help="leave Feast out")
    parser.add_argument(
        "--out", type=Path, help="JSON file; benchmarks/results/training.json of a full run"
    )
    parser.add_argument(
        "--document", action="store_true", help="measure nothing; write the tables into the page"
    )
    parser.add_argument("--rounds", type=int, help="repetitions")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    return asked


def sizes_of(asked: argparse.Namespace) -> Sizes:
    """How much is measured."""
    chosen = quick_sizes() if asked.quick else sizes()
    if asked.rounds is None:
        return chosen
    slow = min(chosen.slow_rounds, asked.rounds)
    return replace(chosen, rounds=asked.rounds, slow_rounds=slow)


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked."""
    asked = options(sys.argv[1:] if arguments is None else arguments)
    if asked.document:
        document.SECTION.write()
        return 0
    parts = [part for part in PARTS if part in asked.parts or not asked.parts]
    out = asked.out or (None if asked.quick or asked.parts else document.RESULTS)
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
        work = (asked.work or Path(folder)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        feast = None if asked.no_feast else asked.feast_python or install_feast(work)
        found = run(Bench(sizes_of(asked), work, feast, quick=asked.quick), parts, out)
    print(table(report.rows_of(found["results"])))
    print(f"\n{report.contenders(found['results'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
