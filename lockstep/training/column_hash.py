"""The hash of a frame that is seen block by block: the same for any number of parts and threads.

Blocks have a fixed number of rows, so how the work was divided has no influence. Every column has
a hash of its own, so that a difference can be named.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import polars as pl
import pyarrow as pa

from lockstep.errors import InputError
from lockstep.hashing import feed, one_array, type_name

BLOCK: Final = 131_072
"""Rows of a block: also the row groups of a written set."""
_FORMAT: Final = "lockstep-columns-1"
_NUMBERED: Final = (pl.Categorical, pl.Enum)
_UNHASHABLE: Final = (pl.Object, pl.Int128, pl.UInt128, pl.Null, pl.Unknown)


def any_type_name(dtype: pl.DataType) -> Any:
    """Return a type as JSON-able words, also one that a view can't have but a spine can."""
    try:
        return type_name(dtype)
    except InputError:
        return str(dtype)


class ColumnHashes:
    """A SHA-256 per column, fed with blocks of `BLOCK` rows, the last one shorter.

    Args:
        schema: Columns in order. Values count bit by bit: 0.0 and -0.0 are different.

    Raises:
        InputError: A column can't be hashed (see `require_hashable`).
    """

    def __init__(self, schema: Mapping[str, pl.DataType]) -> None:
        require_hashable(schema)
        self._words = {name: any_type_name(dtype) for name, dtype in schema.items()}
        start = {name: json.dumps([_FORMAT, word]) for name, word in self._words.items()}
        self._sinks = {name: hashlib.sha256(text.encode()) for name, text in start.items()}
        self._rows = 0

    def update(self, block: pl.DataFrame) -> None:
        """Take in the next block.

        Raises:
            ValueError: The block before it was not a whole one.
        """
        if self._rows % BLOCK:
            raise ValueError("a shorter block must be the last one")
        self._rows += block.height
        for name in self._sinks:
            self._feed(name, block[name])

    def _feed(self, name: str, values: pl.Series) -> None:
        sink = self._sinks[name]
        sink.update(len(values).to_bytes(8, "little"))
        feed(sink, _array(values))

    @property
    def rows(self) -> int:
        """Rows taken in."""
        return self._rows

    @property
    def columns(self) -> dict[str, dict[str, Any]]:
        """Column → its type in words and its hash (hex), in order."""
        return {
            name: {"type": word, "hash": self._sinks[name].hexdigest()}
            for name, word in self._words.items()
        }

    @property
    def total(self) -> str:
        """The hash (hex) of rows, names, types, order and values of all columns."""
        return total_hash(self._rows, self.columns)


def total_hash(rows: int, columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the hash (hex) of a frame whose columns hash so."""
    named = [[name, column["type"], column["hash"]] for name, column in columns.items()]
    return hashlib.sha256(json.dumps([_FORMAT, rows, named]).encode()).hexdigest()


def hashed(blocks: Iterable[pl.DataFrame], schema: Mapping[str, pl.DataType]) -> ColumnHashes:
    """Return the hashes of a frame given in blocks."""
    found = ColumnHashes(schema)
    for block in blocks:
        found.update(block)
    return found


def blocks_of(frame: pl.DataFrame) -> Iterable[pl.DataFrame]:
    """Return the frame's blocks, in order; they share its memory."""
    return (frame.slice(start, BLOCK) for start in range(0, frame.height, BLOCK))


def require_hashable(schema: Mapping[str, pl.DataType]) -> None:
    """Return if every column can be hashed and written to a file.

    Raises:
        InputError: A column can't; the message names it.
    """
    for name, dtype in schema.items():
        if not (isinstance(dtype, pl.Null) or _is_hashable(dtype)):
            raise InputError(
                f"The column {name!r} is {dtype}, which no file can hold so that it is hashed.",
                fix="Cast or drop it.",
                effect="Nothing was joined.",
            )


def _is_hashable(dtype: Any, *, inside: bool = False) -> bool:
    """Whether a type has hashable bytes; arrays only at the top, nulls and no fields nowhere."""
    if isinstance(dtype, pl.Array):
        return not inside and dtype.size > 0 and _is_hashable(dtype.inner, inside=True)
    if isinstance(dtype, pl.List):
        return _is_hashable(dtype.inner, inside=True)
    if isinstance(dtype, pl.Struct):
        fields = [_is_hashable(field.dtype, inside=True) for field in dtype.fields]
        return bool(fields) and all(fields)
    if inside and dtype in _NUMBERED:
        return False  # inside, the numbering of categories would be hashed
    # Whoever reads the file without the extension's library gets what it is stored as.
    return dtype not in _UNHASHABLE and not isinstance(dtype, pl.BaseExtension)


def _array(values: pl.Series) -> pa.Array:
    dtype = values.dtype
    if isinstance(dtype, pl.Null):
        return pa.array([], pa.int8())  # its length was fed
    if isinstance(dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)  # the numbering of categories is no content
    elif isinstance(dtype, pl.Array):
        values = values.arr.to_list()
    return one_array(values)
