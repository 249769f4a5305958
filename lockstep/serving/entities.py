"""The entities of a request: rows, columns or a frame, checked and encoded column by column."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import polars as pl

from lockstep.errors import InputError
from lockstep.keys import MAX_KEY_BYTES, encode_key
from lockstep.schema import Entity

Entities: TypeAlias = Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | pl.DataFrame
"""A mapping per entity, a sequence per key column, or a frame; other columns are ignored."""

_NOTHING: Final = "Nothing was fetched."
_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_BEFORE_DIGITS: Final = [b"i%d:" % length for length in range(21)]


@dataclass(frozen=True)
class Asked:
    """Whose features are wanted.

    Attributes:
        key_columns: Key column → a value per entity.
        count: Number of entities.
        keys: Per entity type the encoded key of every entity.
    """

    key_columns: Mapping[str, Sequence[int | str]]
    count: int
    keys: Sequence[list[bytes]]


def read_entities(types: Iterable[Entity], entities: Entities) -> Asked:
    """Check and encode the keys of every entity type, in request order.

    Raises:
        InputError: A key column is absent, holds a value of another type, or of another length.
    """
    found: dict[str, list[int | str]] = {}
    keys: list[list[bytes]] = []
    for entity in types:
        columns = [
            found.setdefault(name, _column(entities, name, dtype, entity.name))
            for name, dtype in entity.key_types.items()
        ]
        keys.append(_encoded(columns))
    lengths = {name: len(column) for name, column in found.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(
            "The request's key columns differ in length.",
            expected="a value per entity in each",
            got=str(lengths),
            effect=_NOTHING,
        )
    return Asked(found, max(lengths.values(), default=0), keys)


def _column(entities: Entities, name: str, dtype: pl.DataType, entity: str) -> list[Any]:
    """The values of one key column, all of them exactly int or str."""
    wanted = str if dtype == pl.String else int
    values = _values(entities, name)
    if values is None:
        raise _unusable(name, dtype, entity, "no such column")
    if set(map(type, values)) <= {wanted}:
        return values
    for row, value in enumerate(values):
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise _unusable(name, dtype, entity, f"{value!r:.80} in row {row}")
    return [wanted(value) for value in values]  # subclasses, such as an IntEnum


def _values(entities: Entities, name: str) -> list[Any] | None:
    if isinstance(entities, pl.DataFrame):
        return entities[name].to_list() if name in entities.columns else None
    if not isinstance(entities, Mapping):
        return [row.get(name) for row in entities]
    column = entities.get(name)
    if column is None or isinstance(column, str | bytes):
        return None
    tolist = getattr(column, "tolist", None) or getattr(column, "to_list", None)
    return list(tolist() if tolist else column)


def _encoded(columns: Sequence[Sequence[Any]]) -> list[bytes]:
    try:
        parts = [_encoded_part(column) for column in columns]
    except UnicodeEncodeError:
        parts = []
    keys = parts[0] if len(parts) == 1 else list(map(b"".join, zip(*parts, strict=False)))
    if (columns[0] and not parts) or (keys and len(max(keys, key=len)) > MAX_KEY_BYTES):
        for values in zip(*columns, strict=False):
            encode_key(values)  # raises for the first that is wrong
    return keys


def _encoded_part(column: Sequence[Any]) -> list[bytes]:
    if column and isinstance(column[0], str):
        texts = [value.encode() for value in column]
        return [b"s%d:%b" % (len(text), text) for text in texts]
    if column and not _INT64_MIN <= min(column) <= max(column) <= _INT64_MAX:
        return [encode_key([value]) for value in column]
    digits = [b"%d" % value for value in column]
    return [_BEFORE_DIGITS[len(text)] + text for text in digits]


def _unusable(name: str, dtype: pl.DataType, entity: str, got: str) -> InputError:
    return InputError(
        f"The request has no usable {name!r}.",
        expected=f"{dtype} in every row, as {entity} is looked up by it",
        got=got,
        effect=_NOTHING,
    )
