"""Feature vectors: what was asked and, for every cell, a value, an honest status and an age.

Inside they are column-major, because that is how rows are decoded and how answers are written;
`values` and `statuses` turn them round for people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

import polars as pl

from lockstep.errors import MissingFeatureError, OnlineError
from lockstep.schema import OnMissing
from lockstep.time import instant_of, micros

__all__ = ["NO_VALUE", "CellStatus", "MissingPolicy", "OnMissing", "Vectors", "require_values"]

CellStatus: TypeAlias = Literal["present", "null", "missing", "expired", "error"]
MissingPolicy: TypeAlias = OnMissing | Mapping[str, OnMissing] | None
"""Of one request: a word for every feature, a word per `view:feature`, or None: as declared."""

NO_VALUE: Final[frozenset[str]] = frozenset({"missing", "expired", "error"})
_SHOWN: Final = 10


@dataclass(frozen=True, eq=False)
class Vectors:
    """The answer to one request: a row per asked entity, a column per asked feature, in that order.

    Features of one view may share one list of statuses: read them, don't change them.

    Attributes:
        key_columns: Key column → a value per asked entity.
        features: `view:feature` per column.
        types: Polars type per column.
        columns: Per feature a value per entity; None, or what the missing policy puts there, where
            there is none.
        cells: Per feature a status per entity: "present", "null" (the value is null), "missing"
            (never written, or removed), "expired" (older than its ttl; withheld), or "error"
            (unreadable, or not known to be complete).
        event_us: View → per entity, from when its row is valid, in microseconds since 1970 UTC;
            None if there is no row.
        at: The instant that ages and expiry refer to (UTC).
        not_ready: View → why its rows may be incomplete; only views that were asked for.
        outage: Why the online store did not answer, if every cell is "error" because of that.
        keys: Per entity type that was needed, the encoded key of every asked entity.
    """

    key_columns: Mapping[str, Sequence[int | str]] = field(repr=False)
    features: Sequence[str]
    types: Sequence[pl.DataType]
    columns: Sequence[list[Any]] = field(repr=False)
    cells: Sequence[list[CellStatus]] = field(repr=False)
    event_us: Mapping[str, list[int | None]] = field(repr=False)
    at: datetime
    not_ready: Mapping[str, str] = field(default_factory=dict)
    outage: OnlineError | None = None
    keys: Sequence[Sequence[bytes]] = field(default=(), repr=False)

    @cached_property
    def entities(self) -> Sequence[Mapping[str, int | str]]:
        """The asked keys, a mapping per entity."""
        names = tuple(self.key_columns)
        rows = zip(*self.key_columns.values(), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]

    @cached_property
    def values(self) -> Sequence[Sequence[Any]]:
        """The values row by row."""
        return [list(row) for row in zip(*self.columns, strict=True)]

    @cached_property
    def statuses(self) -> Sequence[Sequence[CellStatus]]:
        """The statuses row by row."""
        return [list(row) for row in zip(*self.cells, strict=True)]

    @cached_property
    def event_timestamps(self) -> Mapping[str, Sequence[datetime | None]]:
        """View → per entity, from when its row is valid (UTC); None if there is no row."""
        return {
            view: [None if us is None else instant_of(us) for us in instants]
            for view, instants in self.event_us.items()
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per entity: its keys and `view:feature` values."""
        return [
            {**entity, **dict(zip(self.features, values, strict=True))}
            for entity, values in zip(self.entities, self.values, strict=True)
        ]

    def age_seconds(self, view: str) -> list[float | None]:
        """Return per entity how long ago the view's row was valid from."""
        at = micros(self.at)
        return [None if us is None else (at - us) / 1_000_000 for us in self.event_us[view]]

    def to_frame(self) -> pl.DataFrame:
        """Return keys and features as a frame with the declared types, rows in request order."""
        keys = [pl.Series(name, values) for name, values in self.key_columns.items()]
        described = zip(self.features, self.columns, self.types, strict=True)
        return pl.DataFrame(
            [*keys, *(pl.Series(name, values, dtype) for name, values, dtype in described)]
        )

    def lacking(self) -> list[tuple[Mapping[str, int | str], str, CellStatus]]:
        """Return entity, feature and status of every cell without a value, feature by feature."""
        return [
            (self.entities[row], feature, status)
            for feature, statuses in zip(self.features, self.cells, strict=True)
            if not NO_VALUE.isdisjoint(statuses)
            for row, status in enumerate(statuses)
            if status in NO_VALUE
        ]


def require_values(vectors: Vectors, features: frozenset[str]) -> None:
    """Do nothing if every cell of those features has a value (null is one).

    Raises:
        MissingFeatureError: Some are missing, expired or unreadable; lists them.
    """
    lacking = [found for found in vectors.lacking() if found[1] in features]
    if not lacking:
        return
    told = [f"{feature} of {dict(key)} is {status}" for key, feature, status in lacking[:_SHOWN]]
    more = f"; and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
    asked = len(features) * len(vectors.cells[0])
    raise MissingFeatureError(
        f"{len(lacking)} of {asked} cells have no value: {'; '.join(told)}{more}.",
        fix="Ask with on_missing='null' or 'default', or push the views.",
        missing=lacking,
    )
