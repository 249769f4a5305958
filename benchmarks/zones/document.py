"""The tables of the detector in docs/benchmarks.md."""

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.page import ROOT, Section, on_what
from benchmarks.table import grid

RESULTS: Final = ROOT / "benchmarks" / "results" / "zones.json"
HEADS: Final = (
    *("feeds", "shifted", "found", "right at once", "a week later", "right or among those told"),
    *("one told, and wrong", "days", "false alarms"),
)
SHOWN: Final = (
    *("all", "shifted, can tell", "own zone dropped, can tell", "whole hours, can tell"),
    *("30/45 minutes, can tell", "other way, can tell", "DST only, can tell", "flat", "sparse"),
)
"""The groups that the page shows; the file has the others, too."""


def line(name: str, group: Mapping[str, Any]) -> list[str]:
    """One line of a table."""
    days, false = group["median_days"], group["false_alarms"]
    wrong = round(false * group["feeds"])
    return [
        name,
        f"{group['shifted']} of {group['feeds']:,}",
        _share(group["hits"]),
        *map(_share, (group["right_at_once"], group["right_in_a_week"])),
        *map(_share, (group["among_in_a_week"], group["stated_wrongly_in_a_week"])),
        "" if days is None else f"{days:g}",
        f"{wrong} in {group['feeds']:,}",
    ]


def tables(found: Mapping[str, Any], shown: tuple[str, ...] | None = None) -> str:
    """Both tables: all feeds as the check judges them, and those whose arrival is known."""
    groups = {name: of for name, of in found["groups"].items() if shown is None or name in shown}
    every = [line(name, groups[name]) for name in shown or groups if name in groups]
    known = [line(name, of) for name, of in found["arrival_known"].items()]
    return "\n\n".join([grid(HEADS, every), grid(HEADS, known)])


def block(found: Mapping[str, Any]) -> str:
    """What stands between the marks: the machine, then the tables."""
    how = [*on_what(found), f"{found['feeds']:,} feeds in {found['seconds'] / 60:.0f} minutes.", ""]
    return "\n".join([*how, tables(found, SHOWN)]) + "\n"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


SECTION = Section("zones", RESULTS, block)
