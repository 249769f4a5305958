"""Which entities were forgotten, as hashes of their keys, and the rows held back because of it.

    erasures/salt                    random, of this lake
    erasures/<hash>/begun.json       written before the first row is removed; never changed
    erasures/<hash>/done-<n>.json    written after the last one, once per completed erasure

Nothing here holds a key's value. Whoever can read the lake can still try keys against a hash, as
against any hash of few possible values: the folder is no place to hide one, only not to state it.
"""

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

import polars as pl

from lockstep.keys import decode_key
from lockstep.stores.files import Place

FOLDER: Final = "erasures"
SERVED: Final = frozenset({"served_at", "entity", "key"})
"""Columns by which the served-feature log is known; its keys are encoded ones."""

_SALT: Final = "salt"
_BEGUN: Final = "begun.json"


@dataclass(frozen=True)
class Erasure:
    """One erasure.

    Attributes:
        digest: Salted hash of the key's values, in the order of `columns`.
        entity: The entity that was named.
        columns: Its key columns. Rows of anything that has them all are held back.
        positions: Entity → where in its encoded key those columns stand.
        begun_at: When it was asked for first, ISO 8601 in UTC.
    """

    digest: str
    entity: str
    columns: tuple[str, ...]
    positions: Mapping[str, tuple[int, ...]]
    begun_at: str


class Erasures:
    """The erasures of one lake.

    Args:
        root: The lake's root.
    """

    def __init__(self, root: Place) -> None:
        self.place: Final = root.join(FOLDER)

    def all(self) -> list[Erasure]:
        """Return every erasure that was begun, by hash."""
        begun = [info.path for info in self.place.list() if info.path.endswith(f"/{_BEGUN}")]
        return [_erasure(json.loads(self.place.read(path))) for path in begun]

    def digest_of(self, values: Sequence[int | str]) -> str:
        """Return the salted hash of a key's values, whatever their type; creates the salt."""
        if self.place.read_if_exists(_SALT) is None:
            self.place.write_if_absent(_SALT, secrets.token_hex(32).encode())
        return _digest(_framed([str(value) for value in values]), self.place.read(_SALT))

    def begin(self, erasure: Erasure) -> Erasure:
        """Record that an erasure begins; from then on its rows are held back. Once is enough.

        Returns:
            What is recorded: of a repeated erasure, when it was begun first.
        """
        name = f"{erasure.digest}/{_BEGUN}"
        self.place.write_if_absent(name, json.dumps(asdict(erasure), indent=2).encode())
        return _erasure(json.loads(self.place.read(name)))

    def finish(self, digest: str, said: Mapping[str, Any], now: datetime) -> None:
        """Record that nothing of it is left, and what was removed; older records stay."""
        number = 1 + sum("/done-" in info.path for info in self.place.list(digest))
        body = {**said, "done_at": now.isoformat()}
        self.place.write_if_absent(
            f"{digest}/done-{number}.json", json.dumps(body, indent=2).encode()
        )

    def hold_back(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of a source or snapshot without those of forgotten entities, in order."""
        found = self.all() if frame.height else []
        if not found:
            return frame
        salt = self.place.read(_SALT)
        digests: dict[tuple[str, ...], set[str]] = {}
        for erasure in found:
            digests.setdefault(erasure.columns, set()).add(erasure.digest)
        for columns, forgotten in digests.items():
            if has_keys(frame.schema, columns):
                text = _text_of(columns)
                known = frame.select(text.unique()).to_series().drop_nulls()
                bad = [key for key in known if _digest(key, salt) in forgotten]
                frame = frame.filter(~text.is_in(bad).fill_null(value=False)) if bad else frame
        return _without_served(frame, found, salt) if frame.columns and _is_served(frame) else frame


def has_keys(schema: Mapping[str, pl.DataType], columns: Collection[str]) -> bool:
    """Return whether rows of that schema can belong to an entity with these key columns."""
    return all(
        column in schema and (schema[column].is_integer() or schema[column] == pl.String)
        for column in columns
    )


def _is_served(frame: pl.DataFrame) -> bool:
    return set(frame.columns) >= SERVED


def _without_served(frame: pl.DataFrame, found: Sequence[Erasure], salt: bytes) -> pl.DataFrame:
    """Return the served-feature log without what was answered about forgotten entities."""
    pairs = frame.select("entity", "key").unique().drop_nulls()
    bad = [
        (entity, key)
        for entity, key in pairs.iter_rows()
        for erasure in found
        if (at := erasure.positions.get(entity)) is not None
        and _digest(_framed([str(decode_key(key.encode())[n]) for n in at]), salt) == erasure.digest
    ]
    gone = pl.DataFrame(bad, schema={"entity": pl.String, "key": pl.String}, orient="row")
    return frame.join(gone, on=["entity", "key"], how="anti", maintain_order="left")


def _text_of(columns: Sequence[str]) -> pl.Expr:
    """The framed text of a row's key; null where a column is."""
    parts: list[pl.Expr] = []
    for column in columns:
        text = pl.col(column).cast(pl.String)
        parts += [text.str.len_bytes().cast(pl.String), pl.lit(":"), text]
    return pl.concat_str(parts).alias("key")


def _framed(texts: Sequence[str]) -> str:
    return "".join(f"{len(text.encode())}:{text}" for text in texts)


def _digest(text: str, salt: bytes) -> str:
    return blake2b(text.encode(), key=salt, digest_size=20).hexdigest()


def _erasure(data: Mapping[str, Any]) -> Erasure:
    positions = {entity: tuple(at) for entity, at in data["positions"].items()}
    return Erasure(
        **{**data, "columns": tuple(data["columns"]), "positions": positions},
    )
