"""The table: what was measured beside what was asked for and what peers do."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

FEW_DIGITS_FROM = 10
HEADS = ("what", "ours", "target", "", "Feast 0.67", "ratio", "floor")


@dataclass(frozen=True)
class Limit:
    """What was asked for: at least or at most so much, and how that is said."""

    words: str
    least: float = 0.0
    most: float = math.inf

    def met(self, value: float) -> bool:
        """Whether the value is within."""
        return self.least <= value <= self.most


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        target: What was asked for, in words; empty if nothing was.
        met: Whether it was reached; None if nothing was asked for.
    """

    what: str
    ours: str
    target: str = ""
    met: bool | None = None
    feast: str = ""
    ratio: str = ""
    floor: str = ""


def held_to(what: str, ours: str, limit: Limit | None, value: float, **more: Any) -> Row:
    """A line whose value is held to a limit, if there is one."""
    words, met = ("", None) if limit is None else (limit.words, limit.met(value))
    return Row(what, ours, words, met, **more)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The lines for the JSON file."""
    return [asdict(row) for row in rows]


def table(rows: Sequence[Row]) -> str:
    """The lines as Markdown."""
    marks = {True: "met", False: "MISSED", None: ""}
    lines = [[r.what, r.ours, r.target, marks[r.met], r.feast, r.ratio, r.floor] for r in rows]
    return grid(HEADS, lines)


def grid(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Any lines as Markdown, columns aligned."""
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(heads), rule, *map(line, lines)])
