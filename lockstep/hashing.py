"""One hash for equal content: names, types, validity and values in row order, nothing else.

Chunks, offsets, sortedness flags, the bytes under a null, and the spelling of types in the library
have no influence, so the hash of a frame equals the hash of the same frame read back from a store.
"""

import hashlib
import json
from typing import Any, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lockstep.errors import InputError

_FORMAT = b"lockstep-content-1\n"
_WORDS: dict[type[pl.DataType], str] = {
    pl.Int8: "int8",
    pl.Int16: "int16",
    pl.Int32: "int32",
    pl.Int64: "int64",
    pl.Float32: "float32",
    pl.Float64: "float64",
    pl.Boolean: "boolean",
    pl.String: "string",
    pl.Binary: "binary",
    pl.Date: "date",
}


class _Sink(Protocol):
    def update(self, data: Any, /) -> None: ...


def content_hash(frame: pl.DataFrame) -> str:
    """Return the SHA-256 (hex) of a canonical frame: equal exactly when its content is equal.

    The order of rows and of columns counts; chunking does not. Pass what `canonical` returned:
    -0.0 and 0.0, or two NaN of different bits, are different here.

    Raises:
        InputError: A column has a type outside the closed list of column types.
    """
    sink = hashlib.sha256(_FORMAT)
    types = [[name, type_name(dtype)] for name, dtype in frame.schema.items()]
    header = json.dumps([frame.height, types], separators=(",", ":")).encode()
    sink.update(len(header).to_bytes(8, "little") + header)
    for column in frame.iter_columns():
        feed(sink, one_array(column))
    return sink.hexdigest()


def canonical(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with every -0.0 as 0.0 and every NaN as the one quiet NaN, nested too.

    Rows, order, types and nulls stay as they are.
    """
    changes = [
        _canonical(pl.col(name), dtype).alias(name)
        for name, dtype in frame.schema.items()
        if _has_float(dtype)
    ]
    return frame.with_columns(changes) if changes else frame


def type_name(dtype: pl.DataType) -> Any:
    """Return the type as JSON-able words of our own, which no library upgrade respells.

    Raises:
        InputError: The type is outside the closed list of column types.
    """
    if isinstance(dtype, pl.Decimal):
        return ["decimal", dtype.precision, dtype.scale]
    if isinstance(dtype, pl.List):
        return ["list", type_name(_inner(dtype))]
    if isinstance(dtype, pl.Struct):
        return ["struct", *([field.name, type_name(_field(field))] for field in dtype.fields)]
    if isinstance(dtype, pl.Datetime) and (dtype.time_unit, dtype.time_zone) == ("us", "UTC"):
        return "datetime[us,UTC]"
    word = _WORDS.get(type(dtype))
    if word is None:
        raise InputError(
            f"A column of type {dtype} cannot be hashed.",
            expected="one of the column types that survive every store",
            fix="Cast it in the view's function.",
        )
    return word


def _inner(dtype: pl.List) -> pl.DataType:
    return dtype.inner if isinstance(dtype.inner, pl.DataType) else dtype.inner()


def _field(field: pl.Field) -> pl.DataType:
    return field.dtype if isinstance(field.dtype, pl.DataType) else field.dtype()


def _has_float(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _has_float(_inner(dtype))
    if isinstance(dtype, pl.Struct):
        return any(_has_float(_field(field)) for field in dtype.fields)
    return dtype.is_float()


def _canonical(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if not _has_float(dtype):
        return value
    if isinstance(dtype, pl.List):
        return value.list.eval(_canonical(pl.element(), _inner(dtype)))
    if isinstance(dtype, pl.Struct):
        fields = [
            _canonical(value.struct.field(field.name), _field(field)).alias(field.name)
            for field in dtype.fields
        ]
        return pl.when(value.is_not_null()).then(pl.struct(fields))
    zero, nan = pl.lit(0.0, dtype), pl.lit(float("nan"), dtype)
    return pl.when(value == 0).then(zero).when(value.is_nan()).then(nan).otherwise(value)


def one_array(column: pl.Series) -> pa.Array:
    """Return a column as one Arrow array."""
    chunks = column.to_frame().to_arrow().column(0)
    if chunks.num_chunks == 1:
        return chunks.chunk(0)
    return pa.concat_arrays(chunks.chunks) if chunks.num_chunks else pa.array([], chunks.type)


def feed(sink: _Sink, array: pa.Array) -> None:
    """Feed which rows are null, then the values of the others: what lies under a null is noise."""
    sink.update(array.null_count.to_bytes(8, "little"))
    if array.null_count:
        sink.update(_fixed_bytes(array.is_valid().cast(pa.uint8())))
        array = array.drop_null()
    kind = array.type
    if pa.types.is_struct(kind):
        for child in array.flatten():
            feed(sink, child)
    elif pa.types.is_large_list(kind):
        sink.update(_fixed_bytes(pc.list_value_length(array)))
        feed(sink, array.flatten())
    elif pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        sink.update(_fixed_bytes(pc.binary_length(array)))
        sink.update(_text_bytes(array))
    elif pa.types.is_boolean(kind):
        sink.update(_fixed_bytes(array.cast(pa.uint8())))
    else:
        sink.update(_fixed_bytes(array))


def _fixed_bytes(array: pa.Array) -> memoryview:
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return memoryview(b"")
    width = array.type.bit_width // 8
    return memoryview(buffer)[array.offset * width : (array.offset + len(array)) * width]


def _text_bytes(array: pa.Array) -> memoryview:
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return memoryview(b"")
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])]
