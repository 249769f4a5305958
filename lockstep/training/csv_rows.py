"""Rows of a .csv file that end before the header does: a file that was cut off, or a lost field."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.csv

from lockstep.errors import InputError

_BLOCK_BYTES: Final = 1 << 22
_FIRST: Final = "f0"


def require_whole_rows(path: str, options: Mapping[str, Any] | None) -> None:
    """Return if no row has fewer fields than the header; a line without any is a row of nulls.

    The file is read once, in pieces: Polars fills such rows up and does not say so.

    Args:
        options: What Polars needs to reach it.

    Raises:
        InputError: A row has fewer; it names the first.
    """
    if "://" not in path:
        _require_whole(path, path)
        return
    with tempfile.TemporaryDirectory(prefix="lockstep-csv-") as folder:
        local = str(Path(folder, "spine.csv"))
        lines = pl.scan_lines(path, glob=False, storage_options=dict(options) if options else None)
        lines.sink_csv(local, include_header=False, quote_style="never")
        _require_whole(local, path)


def _require_whole(local: str, path: str) -> None:
    short: list[pyarrow.csv.InvalidRow] = []

    def noted(row: pyarrow.csv.InvalidRow) -> str:
        if row.actual_columns < row.expected_columns:
            short.append(row)
        return "skip"

    try:
        reader = pyarrow.csv.open_csv(
            local,
            # With threads, a row's number is not known.
            pyarrow.csv.ReadOptions(
                autogenerate_column_names=True, block_size=_BLOCK_BYTES, use_threads=False
            ),
            pyarrow.csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=noted
            ),
            pyarrow.csv.ConvertOptions(
                include_columns=[_FIRST], column_types={_FIRST: pa.binary()}, check_utf8=False
            ),
        )
        while not short:
            reader.read_next_batch()
    except StopIteration:
        pass
    except pa.ArrowInvalid as error:
        raise InputError(
            f"The spine {path} can't be read.", got=str(error), effect="Nothing was joined."
        ) from error
    if short:
        first = short[0]
        raise InputError(
            f"The spine {path} can't be read: row {first.number - 1} has fewer fields than the "
            "header.",
            expected=f"{first.expected_columns} fields",
            got=str(first.actual_columns),
            fix="Correct it, or copy the whole file again if it ends there; an empty field needs "
            "its comma.",
            effect="Nothing was joined.",
        )
