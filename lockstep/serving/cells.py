"""The statuses of one answer; a list that several features in a row share is looked at once.

Features of a view mostly share one list, and most lists are "present" throughout.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from lockstep.online import NO_VALUE, CellStatus

STATUSES: Final[tuple[CellStatus, ...]] = ("present", "null", "missing", "expired", "error")


class Column(msgspec.Struct):
    """What is said of one list of statuses.

    Attributes:
        counts: How many cells have each of `STATUSES`, in that order.
        json: The list as JSON.
        missing: Positions and statuses of the cells without a value; None if all have one.
        whole: Whether every cell is "present".
    """

    counts: Sequence[int]
    json: msgspec.Raw
    missing: Mapping[str, Any] | None
    whole: bool = False


def looked_at(cells: Sequence[list[CellStatus]]) -> list[Column]:
    """Return what is said of each column of an answer, in order."""
    found: list[Column] = []
    last: Any = None
    for column in cells:
        if column is not last:
            last, seen = column, _column(column)
        found.append(seen)
    return found


def _column(statuses: list[CellStatus]) -> Column:
    count = len(statuses)
    if statuses.count("present") == count:
        return _all_present(count)
    at = [position for position, status in enumerate(statuses) if status in NO_VALUE]
    missing = {"entities": at, "statuses": [statuses[position] for position in at]} if at else None
    counts = [statuses.count(status) for status in STATUSES]
    return Column(counts, msgspec.Raw(msgspec.json.encode(statuses)), missing)


@lru_cache(maxsize=1024)
def _all_present(count: int) -> Column:
    text = msgspec.Raw(msgspec.json.encode(["present"] * count))
    return Column((count, 0, 0, 0, 0), text, None, whole=True)


def missing_cells(features: Sequence[str], columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return every cell without a value: per feature the entities' positions and the statuses."""
    return [
        {"feature": name, **column.missing}
        for name, column in zip(features, columns, strict=True)
        if column.missing is not None
    ]
