"""Measures the online side beside Feast and beside what the parts can do at best.

Prints a table to standard output, progress to standard error, and writes JSON.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import command
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
from benchmarks.table import table

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
    head = command.Head(PACKAGES, sizes, SEED, quick)
    with Bench(sizes, work, feast_python, quick=quick) as bench:
        measurements = Measurements(bench)
        results = {part: measurements.of(part) for part in parts}
    return head.above(results, report.rows_of(results), bench.loads, notes=bench.notes)


def sizes_of(asked: argparse.Namespace) -> Sizes:
    """How much is measured."""
    given = {name: getattr(asked, name) for name in ("pushed", "read", "rounds")}
    chosen = {name: number for name, number in given.items() if number is not None}
    return replace(QUICK if asked.quick else Sizes(), **chosen)


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked."""
    parser = command.parser_of(document.SECTION, __doc__)
    command.add_parts(parser, PARTS)
    parser.add_argument("--pushed", type=int, help="entities of the push")
    parser.add_argument("--read", type=int, help="entities of the views that are read")
    asked = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    parts = command.chosen_parts(parser, asked, PARTS)
    if asked.document:
        document.SECTION.write()
        return 0
    with command.work_folder(asked) as work:
        feast = command.feast_python(asked, work)
        with tempfile.TemporaryDirectory(prefix="run-", dir=work) as inner:
            found = run(parts, sizes_of(asked), Path(inner), feast, quick=asked.quick)
    print(table(report.rows_of(found["results"])))
    command.write(found, command.results_file(asked, document.SECTION))
    return 0


if __name__ == "__main__":
    sys.exit(main())
