"""A number per column of a result, alone in a process: `compare_worker REQUEST.json`.

Two results have equal numbers if every spine row has the same values, in whatever order the rows
are; which type a library stored them as does not count, and NaN for a missing number does not.
"""

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl

ROW = "spine_id"


def numbers(path: str, types: dict[str, str]) -> dict[str, int]:
    """Column → number; "rows" too."""
    scan = pl.scan_parquet(path)
    names = {name: _short(name) for name in scan.collect_schema().names()}
    scan = scan.rename(names)
    cells = [_typed(name, getattr(pl, dtype)).hash(1) for name, dtype in types.items()]
    row = pl.col(ROW).cast(pl.Int64).hash(2)
    mixed = [(cell ^ row).hash(3) for cell in cells]
    sums = [
        # Halves, so that no sum of a hundred million overflows.
        part.sum().alias(f"{name}/{half}")
        for name, cell in zip(types, mixed, strict=True)
        for half, part in enumerate((cell // 2**32, cell % 2**32))
    ]
    found = scan.select(pl.len().alias("rows"), *sums).collect(engine="streaming")
    return {name: int(value) for name, value in found.row(0, named=True).items()}


def _short(name: str) -> str:
    return name.rpartition(":")[2].rpartition("__")[2]


def _typed(name: str, dtype: type[pl.DataType]) -> pl.Expr:
    column = pl.col(name)
    if dtype in (pl.Float32, pl.Float64):
        return column.cast(dtype).fill_nan(None)
    if dtype in (pl.Int32, pl.Int64):
        # A library that has no missing integers stored them as floats.
        return column.cast(pl.Float64).fill_nan(None).cast(dtype)
    return column.cast(dtype)


def work(request: str) -> dict[str, Any]:
    """The numbers of every file that the request names."""
    asked = json.loads(Path(request).read_text("utf-8"))
    found = {name: numbers(at, asked["types"]) for name, at in asked["results"].items()}
    return {"numbers": found}


if __name__ == "__main__":
    print(json.dumps(work(*sys.argv[1:])))
