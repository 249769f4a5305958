"""Schemas of stored rows: those declared, and those that other releases have pushed under."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, get_args

import msgspec
import polars as pl

from lockstep.errors import LockstepError
from lockstep.view import FeatureView
from lockstep.wire import ColumnType, column_type, fingerprint_of, schema_from, schema_to


@dataclass(frozen=True)
class RowSchema:
    """How the rows under one fingerprint are decoded.

    Attributes:
        columns: Column → its place in a row and its type.
        decode: A row's columns, without the header, as a tuple in that order.
        decode_whole: The same, of a row without nulls.
    """

    columns: Mapping[str, tuple[int, ColumnType]]
    decode: Callable[[bytes], tuple[Any, ...]]
    decode_whole: Callable[[bytes], tuple[Any, ...]]

    @classmethod
    def of(cls, columns: Mapping[str, pl.DataType]) -> Self:
        """The schema of those columns, in that order."""
        types = {name: column_type(name, dtype) for name, dtype in columns.items()}
        wires = [kind.wire for kind in types.values()]
        return cls(
            {name: (at, types[name]) for at, name in enumerate(types)},
            _decoder_of(wires),
            _decoder_of([get_args(wire)[0] for wire in wires]),  # each is `something | None`
        )


def _decoder_of(wires: Sequence[Any]) -> Callable[[bytes], tuple[Any, ...]]:
    row = tuple.__class_getitem__(tuple(wires))
    decoder: msgspec.msgpack.Decoder[tuple[Any, ...]] = msgspec.msgpack.Decoder(row)
    return decoder.decode


class Schemas:
    """Fingerprint → schema: those declared, and those learnt from the store."""

    def __init__(self, views: Iterable[FeatureView]) -> None:
        self._known: dict[bytes, RowSchema] = {}
        for view in views:
            types = view.contract.feature_types
            self._known[fingerprint_of(schema_to(types))] = RowSchema.of(types)
        self._sought: dict[bytes, float] = {}

    def get(self, fingerprint: bytes) -> RowSchema | None:
        """The schema under the fingerprint, if it is known."""
        return self._known.get(fingerprint)

    def learn(self, texts: Mapping[bytes, bytes]) -> None:
        """Take in what the store keeps: fingerprint in hex → schema text. Unreadable ones stay out.

        A text under a fingerprint that is not its own is not believed.
        """
        for name, text in texts.items():
            try:
                fingerprint = bytes.fromhex(name.decode())
                if fingerprint not in self._known and fingerprint_of(text.decode()) == fingerprint:
                    self._known[fingerprint] = RowSchema.of(schema_from(text.decode()))
            except (ValueError, LockstepError):
                continue

    def worth_seeking(self, fingerprints: Iterable[bytes], clock: float) -> bool:
        """Whether an unknown fingerprint is among them that was not sought in the last second."""
        return any(
            fingerprint not in self._known and clock - self._sought.get(fingerprint, -2.0) > 1.0
            for fingerprint in fingerprints
        )

    def not_found(self, fingerprints: Iterable[bytes], clock: float) -> None:
        """Remember which of them the store does not know either."""
        missing = [fingerprint for fingerprint in fingerprints if fingerprint not in self._known]
        kept = {name: at for name, at in self._sought.items() if clock - at <= 1.0}
        self._sought = kept | dict.fromkeys(missing, clock)
