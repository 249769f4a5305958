"""Parquet files of a lake, scanned in a given order."""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

import polars as pl

from lockstep.stores.files import Place


def scan_files(
    place: Place, paths: Sequence[str], schema: pl.Schema, partition: Mapping[str, pl.DataType]
) -> pl.LazyFrame:
    """Return the rows of the files, in their order, with the columns of `schema` in its order.

    Not `pl.scan_delta`: that fails on a path with a space, and promises no order of the files.

    Args:
        place: The table's folder.
        paths: Paths below it as the log spells them (URL-encoded), each with a `column=value`
            folder per partition column.
        schema: The table's schema.
        partition: The partition columns' types.
    """
    if not paths:
        return pl.LazyFrame(schema=schema)
    scan = pl.scan_parquet(
        [place.path(unquote(path)) for path in paths],
        hive_schema=partition,
        hive_partitioning=True,
        glob=False,
        storage_options=place.polars_options,
    )
    return scan.select(list(schema))
