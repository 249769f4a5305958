"""The cases of `type_cases` as Polars columns."""

import re
from decimal import Decimal
from typing import Any

import polars as pl

from benchmarks.online.type_cases import CASES, ROWS

PLAIN = {
    "int8": pl.Int8(),
    "int16": pl.Int16(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    # Lockstep refuses unsigned columns, as Delta has none; this is the type that holds them all.
    "uint64": pl.Decimal(20, 0),
    "float32": pl.Float32(),
    "float64": pl.Float64(),
    "bool": pl.Boolean(),
    "string": pl.String(),
    "bytes": pl.Binary(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us", "UTC"),
}
STRUCT = {"struct<a:int64,b:list<string>>": pl.Struct({"a": pl.Int64, "b": pl.List(pl.String)})}


def polars_type(kind: str) -> pl.DataType:
    """The Polars type of a kind of `type_cases`."""
    if kind.startswith("list<"):
        return pl.List(polars_type(kind.removeprefix("list<")[:-1]))
    if decimal := re.fullmatch(r"decimal\((\d+),(\d+)\)", kind):
        return pl.Decimal(int(decimal[1]), int(decimal[2]))
    return (PLAIN | STRUCT)[kind]


TYPES = {name: polars_type(kind) for name, (kind, _) in CASES.items()}


def case_frame() -> pl.DataFrame:
    """A column per case and a row per value; cases with fewer values end with nulls."""

    def filled(kind: str, values: list[Any]) -> list[Any]:
        exact = [Decimal(value) for value in values] if kind == "uint64" else values
        return [*exact, *[None] * (ROWS - len(values))]

    columns = [
        pl.Series(name, filled(kind, values), dtype=TYPES[name], strict=True)
        for name, (kind, values) in CASES.items()
    ]
    return pl.DataFrame([pl.Series("sample_id", range(ROWS), dtype=pl.Int64), *columns])
