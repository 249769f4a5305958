"""Measures training sets beside Feast, plain engines and decoding alone.

Prints tables to standard output, progress to standard error, and writes JSON.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.table import table
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
    head = command.Head(PACKAGES, bench.sizes, SEED, bench.quick)
    results: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for part in parts:
        results[part] = PARTS[part](bench)
        found = head.above(results, report.rows_of(results), bench.loads)
        command.write(found, out)
    return found


def sizes_of(asked: argparse.Namespace) -> Sizes:
    """How much is measured."""
    chosen = quick_sizes() if asked.quick else sizes()
    if asked.rounds is None:
        return chosen
    slow = min(chosen.slow_rounds, asked.rounds)
    return replace(chosen, rounds=asked.rounds, slow_rounds=slow)


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked."""
    parser = command.parser_of(document.SECTION, __doc__)
    command.add_parts(parser, PARTS)
    asked = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    parts = command.chosen_parts(parser, asked, PARTS)
    if asked.document:
        document.SECTION.write()
        return 0
    with command.work_folder(asked) as work:
        feast = command.feast_python(asked, work)
        bench = Bench(sizes_of(asked), work, feast, quick=asked.quick)
        found = run(bench, parts, command.results_file(asked, document.SECTION))
    print(table(report.rows_of(found["results"])))
    print(f"\n{report.contenders(found['results'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
