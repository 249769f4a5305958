"""How wide values are whose type doesn't say: texts, lists, and what holds them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import polars as pl

from lockstep.training.memory import has_fixed_width

if TYPE_CHECKING:
    from lockstep.stores.day_index import History
    from lockstep.stores.delta import DayTable

_LOOKED_AT: Final = 4_096
"""Rows from which the width of all of them is taken."""
_OVERHEAD: Final = 16


def widths_in(rows: pl.LazyFrame, types: Mapping[str, pl.DataType]) -> dict[str, int]:
    """Return column → bytes per value, by the first rows; only of columns without a fixed width.

    Nothing is returned of rows that can't be read: who reads them all says what is wrong.
    """
    try:
        there = rows.collect_schema()
        wanted = [n for n, dtype in types.items() if n in there and not has_fixed_width(dtype)]
        if not wanted:
            return {}
        frame = rows.select(wanted).head(_LOOKED_AT).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return {}
    if not frame.height:
        return {}
    # Arrow counts what a slice holds, and not what it was cut from.
    return {
        column.name: -(-column.to_arrow().nbytes // frame.height) + _OVERHEAD
        for column in frame.iter_columns()
    }


def widths_of(
    table: "DayTable", history: "History", types: Mapping[str, pl.DataType]
) -> dict[str, int]:
    """Return feature → bytes per value on the view's newest day that has rows.

    Args:
        types: Feature → type; a table is only read where one has no fixed width.
    """
    days = [day for day, record in history.current.items() if record.rows]
    if not days or all(has_fixed_width(dtype) for dtype in types.values()):
        return {}
    return widths_in(table.scan([max(days)], version=history.version), types)
