"""Whom an erasure is about: which rows of a file or table are theirs, and their keys online."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from lockstep.erasure.holdback import SERVED, has_keys
from lockstep.errors import InputError
from lockstep.keys import decode_key, encode_key
from lockstep.schema import Entity

_INTEGER: Final = r"-?\d+"


@dataclass(frozen=True)
class Forgetting:
    """One entity that is to be forgotten.

    Attributes:
        entity: Its kind.
        values: Key column → value, in the order of the entity's key.
        entities: Every declared entity. Those whose key has the same columns and more are forgotten
            with it: a household's products with the household.
    """

    entity: Entity
    values: Mapping[str, int | str]
    entities: Mapping[str, Entity]

    @property
    def columns(self) -> tuple[str, ...]:
        """The key columns, in order."""
        return tuple(self.values)

    @property
    def key(self) -> bytes:
        """The encoded key."""
        return encode_key(tuple(self.values.values()))

    @property
    def positions(self) -> dict[str, tuple[int, ...]]:
        """Entity that has the key columns → where they stand in its key."""
        return {
            name: tuple(list(entity.key).index(column) for column in self.columns)
            for name, entity in self.entities.items()
            if entity.key.keys() >= set(self.columns)
        }

    def has(self, entity: str, key: bytes) -> bool:
        """Return whether an encoded key of that entity is theirs."""
        found = decode_key(key)
        wanted = [str(value) for value in self.values.values()]
        return [str(found[at]) for at in self.positions[entity]] == wanted

    def match(self, scan: pl.LazyFrame) -> pl.Expr | None:
        """Return which rows are theirs, by key columns; None if the columns cannot say."""
        schema = scan.collect_schema()
        if has_keys(schema, self.columns):
            return pl.all_horizontal(_equal(name, schema[name], v) for name, v in self._items)
        if schema.keys() >= SERVED:
            return self._served(scan)
        return None

    @property
    def _items(self) -> Sequence[tuple[str, int | str]]:
        return list(self.values.items())

    def _served(self, scan: pl.LazyFrame) -> pl.Expr:
        """Rows of the served-feature log that are theirs."""
        of_entity = pl.col("entity").is_in(list(self.positions))
        pairs = scan.filter(of_entity).select("entity", "key").unique().collect()
        theirs = [key for entity, key in pairs.iter_rows() if self.has(entity, key.encode())]
        return of_entity & pl.col("key").is_in(theirs)


def _equal(name: str, dtype: pl.DataType, value: int | str) -> pl.Expr:
    text = str(value)
    if dtype == pl.String:
        return pl.col(name) == text
    number = pl.Series([text]).str.contains(f"^{_INTEGER}$").item()
    return pl.col(name) == int(text) if number else pl.lit(value=False)


def forgetting(
    entity: Entity, given: Mapping[str, Any], entities: Mapping[str, Entity]
) -> Forgetting:
    """Return whom the given key names, its values in the entity's types and order.

    Raises:
        InputError: A key column is missing, another one is given, or a value has another type.
    """
    if given.keys() != entity.key.keys():
        raise InputError(
            f"{sorted(given)} do not name one {entity.name}.",
            expected=f"a value for each of {list(entity.key)}",
            effect="Nothing was removed.",
        )
    values: dict[str, int | str] = {}
    for name, dtype in entity.key_types.items():
        value = given[name]
        try:
            values[name] = str(value) if dtype == pl.String else int(value)
        except ValueError:
            raise InputError(
                f"{name}={value} is not usable.",
                expected=str(dtype),
                got=repr(value),
                effect="Nothing was removed.",
            ) from None
    return Forgetting(entity, values, entities)
