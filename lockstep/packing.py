"""Rows become bytes a column at a time: the packed values of `lockstep.codec`, without a row loop.

Columns of numbers next to each other become one matrix of bytes, every item in its widest form with
a mask of the bytes it needs; the mask squeezes all rows at once. Text and bytes get their msgpack
heads by length. Only lists and structs are packed one by one. The result is byte for byte what
msgspec packs from the same items, except that Float32 keeps its four bytes.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from lockstep.wire import ColumnType

Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

BLOCK: Final = 16_384
"""Rows packed at a time: their matrices stay in the processor's caches."""

_NIL: Final = 0xC0
_FIXARRAY: Final = 0x90
_FIXARRAY_ITEMS: Final = 15
_FALSE: Final = 0xC2
# What precedes an integer of up to 0, 1, 2, 4 and 8 bytes, by the msgpack specification.
_LIMITS: Final = {"unsigned": (2**7, 2**8, 2**16, 2**32), "signed": (2**5, 2**7, 2**15, 2**31)}
_TAGS: Final = {"unsigned": (0, 0xCC, 0xCD, 0xCE, 0xCF), "signed": (0, 0xD0, 0xD1, 0xD2, 0xD3)}
_SIZES: Final = np.array([0, 1, 2, 4, 8])


def pack_rows(head: Bytes, columns: Sequence[tuple[ColumnType, pl.Series]]) -> pl.Series:
    """The packed value of every row: its head, then an array with one item per column.

    Args:
        head: One row of bytes per row, what precedes the array.
        columns: How each column travels, and its values in row order.

    Returns:
        A Binary series named "value", as long as the head.

    Raises:
        InputError: A date or timestamp beyond the years 1 to 9999.
    """
    blocks = [
        _pack_block(head[at : at + BLOCK], [(kind, c.slice(at, BLOCK)) for kind, c in columns])
        for at in range(0, len(head), BLOCK)
    ]
    return pl.concat(blocks) if blocks else pl.Series("value", [], dtype=pl.Binary)


def _pack_block(head: Bytes, columns: Sequence[tuple[ColumnType, pl.Series]]) -> pl.Series:
    parts: list[pl.Series] = []
    wide: list[tuple[Bytes, Mask]] = [_always(head), _always(_array_head(len(head), len(columns)))]
    for kind, column in columns:
        number = _number(kind, column)
        if number is not None:
            wide.append(number)
            continue
        if wide:
            parts.append(_squeezed(wide))
        parts.append(_text(kind, column))
        wide = []
    if wide:
        parts.append(_squeezed(wide))
    value = parts[0]
    for part in parts[1:]:
        value = value + part
    return value.alias("value")


def _array_head(rows: int, items: int) -> Bytes:
    if items <= _FIXARRAY_ITEMS:
        return np.full((rows, 1), _FIXARRAY | items, np.uint8)
    return np.tile(np.array([0xDC, items >> 8, items & 0xFF], np.uint8), (rows, 1))


def _always(matrix: Bytes) -> tuple[Bytes, Mask]:
    return matrix, np.ones(matrix.shape, np.bool_)


def _squeezed(wide: Sequence[tuple[Bytes, Mask]]) -> pl.Series:
    """The bytes that the masks leave of every row."""
    matrix = np.concatenate([part for part, _ in wide], axis=1)
    mask = np.concatenate([part for _, part in wide], axis=1)
    ends = np.zeros(len(matrix) + 1, np.int64)
    np.cumsum(mask.sum(axis=1), out=ends[1:])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(matrix[mask])]
    return pl.Series(pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(matrix), buffers))


def _number(kind: ColumnType, column: pl.Series) -> tuple[Bytes, Mask] | None:
    """Bytes and mask of a column of numbers or truth values; None for any other."""
    physical = kind.physical
    if physical.is_integer():
        kind.check(column)
        found = _integers(_filled(column.cast(pl.Int64), 0))
    elif physical == pl.Boolean:
        values = _filled(column.cast(pl.UInt8), 0).astype(np.uint8)
        found = _always((values + _FALSE).reshape(-1, 1))
    elif physical == pl.Float64:
        found = _floats(_filled(column, 0.0).astype(">f8"), 0xCB)
    elif physical == pl.Float32:
        found = _floats(_filled(column, 0.0).astype(">f4"), 0xCA)
    else:
        return None
    if column.null_count():
        matrix, mask = found
        nulls = column.is_null().to_numpy()
        mask[nulls] = False
        mask[nulls, -1] = True
        matrix[nulls, -1] = _NIL
    return found


def _filled(column: pl.Series, value: float) -> np.ndarray[Any, Any]:
    return column.fill_null(value).to_numpy()


def _floats(values: np.ndarray[Any, Any], tag: int) -> tuple[Bytes, Mask]:
    matrix = np.empty((len(values), 1 + values.itemsize), np.uint8)
    matrix[:, 0] = tag
    matrix[:, 1:] = values.view(np.uint8).reshape(len(values), values.itemsize)
    return _always(matrix)


def _integers(values: np.ndarray[Any, Any]) -> tuple[Bytes, Mask]:
    """A tag, then eight bytes of which the mask keeps the last 1, 2, 4 or 8; small ones, no tag."""
    magnitude = values ^ (values >> 63)  # of a negative one, -1 - value
    steps = {name: np.searchsorted(limits, magnitude, "right") for name, limits in _LIMITS.items()}
    tagged = {name: np.array(_TAGS[name], np.uint8)[step] for name, step in steps.items()}
    tags = np.where(values < 0, tagged["signed"], tagged["unsigned"])
    sizes = _SIZES[np.where(values < 0, steps["signed"], steps["unsigned"])]
    matrix = np.empty((len(values), 9), np.uint8)
    matrix[:, 0] = tags
    matrix[:, 1:] = values.astype(">i8").view(np.uint8).reshape(len(values), 8)
    mask = np.arange(9) >= 9 - np.maximum(sizes, 1)[:, None]
    mask[:, 0] = sizes > 0
    return matrix, mask


def _text(kind: ColumnType, column: pl.Series) -> pl.Series:
    """The items of a column of text or bytes, or of anything else one by one."""
    if kind.physical == pl.String:
        items = column.cast(pl.String).cast(pl.Binary)
        heads = _heads(items, ((31, 0xA0, 0), (0xFF, 0xD9, 1), (0xFFFF, 0xDA, 2)), 0xDB)
    elif kind.physical == pl.Binary:
        items = column
        heads = _heads(items, ((0xFF, 0xC4, 1), (0xFFFF, 0xC5, 2)), 0xC6)
    else:
        encode = msgspec.msgpack.Encoder().encode
        return pl.Series([encode(item) for item in kind.pack(column)], dtype=pl.Binary)
    return (heads + items).fill_null(bytes([_NIL]))


def _heads(items: pl.Series, ladder: Sequence[tuple[int, int, int]], last_tag: int) -> pl.Series:
    """What precedes every item: its length in the shortest form. Null where the item is."""

    def head(length: int) -> bytes:
        for limit, tag, size in ladder:
            if length <= limit:
                return bytes([tag | length]) if not size else bytes([tag]) + length.to_bytes(size)
        return bytes([last_tag]) + length.to_bytes(4)

    lengths = items.bin.size()
    distinct = lengths.drop_nulls().unique().sort()
    table = pl.Series([head(length) for length in distinct.to_list()], dtype=pl.Binary)
    if not len(table):
        return pl.Series([None], dtype=pl.Binary).new_from_index(0, len(items))
    return lengths.replace_strict(distinct, table, return_dtype=pl.Binary)
