"""Which input columns a feature is made of, asked of Polars' own projection pushdown."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from lockstep.sources import Input
from lockstep.view import FeatureView


def column_lineage(view: FeatureView) -> dict[str, dict[str, list[str]]]:
    """Return feature → name of the read source or view → its columns, sorted.

    The view's function is planned once per feature on inputs without rows that note which columns
    the optimizer asks for. Key columns are part of every answer.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for feature in view.contract.features:
        asked: dict[str, set[str]] = {}
        arguments: dict[str, Any] = {item.name: _listening(item, asked) for item in view.inputs}
        if view.wants_as_of:
            arguments["as_of"] = datetime(2000, 1, 1, tzinfo=UTC)
        view.function(**arguments).select(*view.contract.keys, feature).collect(engine="in-memory")
        found[feature] = {name: sorted(columns) for name, columns in sorted(asked.items())}
    return found


def _listening(item: Input, asked: dict[str, set[str]]) -> pl.LazyFrame:
    schema: Mapping[str, pl.DataType] = item.of.columns
    if item.is_view and item.reach == "trailing":
        schema = {**schema, "day": pl.Date()}
    empty = pl.DataFrame(schema=dict(schema))

    def rows(
        with_columns: list[str] | None, _predicate: Any, _rows: Any, _batch: Any
    ) -> Iterator[pl.DataFrame]:
        asked.setdefault(item.of.name, set()).update(with_columns or schema)
        yield empty if with_columns is None else empty.select(with_columns)

    return register_io_source(rows, schema=dict(schema))
