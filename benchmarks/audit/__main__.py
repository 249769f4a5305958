"""Measures what the audit of a day costs beside its materialization, and a year of PSI.

Prints a table to standard output, progress to standard error, and writes JSON.
"""

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.audit import data, document, measure, report
from benchmarks.machine import load
from benchmarks.table import table

PACKAGES = ("polars", "deltalake", "duckdb", "numpy", "pandera", "soda-core")


def run(folder: Path, sizes: measure.Sizes, *, quick: bool) -> dict[str, Any]:
    """What the JSON file says."""
    head = command.Head(PACKAGES, sizes, data.SEED, quick)
    loads = [load()]

    def say(text: str) -> None:
        loads.append(load())
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    results = measure.run(measure.opened(folder, sizes, say))
    loads.append(load())
    return head.above(results, report.rows_of(results), loads)


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked."""
    parser = command.parser_of(document.SECTION, __doc__)
    asked = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if asked.document:
        document.SECTION.write()
        return 0
    sizes = measure.QUICK if asked.quick else measure.Sizes()
    with command.work_folder(asked) as folder:
        found = run(folder, sizes, quick=asked.quick)
    command.write(found, command.results_file(asked, document.SECTION))
    print(table(report.rows_of(found["results"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
