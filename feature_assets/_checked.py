"""What the UI shows of one day of a view, and of each check on it.

A check that passed shows its few numbers, under the same names every day so that the UI plots
them. One that did not shows everything that the engineer on call needs next: the rows, the bins,
what is in quarantine, and the page that says what to do.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import dagster as dg
import polars as pl

from feature_assets._metadata import MASK, masked, view_day
from lockstep.alerts import Kind, runbook
from lockstep.alerts.problem import RUNBOOKS
from lockstep.drift import Drift
from lockstep.outcome import DayOutcome
from lockstep.picture import bins_svg, data_uri
from lockstep.quality import CheckName, Verdict
from lockstep.quarantine import Quarantine, frame_item
from lockstep.store import Store
from lockstep.view import FeatureView

RUNBOOK: Final[Mapping[CheckName, Kind]] = {
    "keys": "quarantined",
    "contract": "quarantined",
    "completeness": "quarantined",
    "cardinality": "cardinality",
    "drift": "drift",
    "soda": "quarantined",
}
FAILING_ROWS: Final = 5
TABLE_BINS: Final = 12
"""Bins of one feature that stand in the table; a string may have dozens."""
LEGEND: Final = "grey: the reference, blue: this day"


@dataclass(frozen=True)
class ViewDays:
    """What one run shows of the days of one view.

    Attributes:
        pictured: Days whose distributions are drawn; of others only what drifted.
    """

    view: FeatureView
    store: Store
    pictured: frozenset[date]

    def day(self, outcome: DayOutcome) -> dict[str, Any]:
        """Return the metadata of a certified day."""
        drawn = outcome.day in self.pictured
        zone = self.store.project.zone
        shown = view_day(self.view, outcome, pictures=drawn, zone=zone)
        bins = pictures(outcome.drift.values()) if drawn else {}
        return shown | bins | self._released(outcome)

    def check(self, outcome: DayOutcome, verdict: Verdict) -> dict[str, Any]:
        """Return the metadata of one check on a day, whatever came of it."""
        shown: dict[str, Any] = dict(numbers(verdict))
        if verdict.check == "drift":
            shown |= drift_shown(outcome.drift.values(), stable=outcome.day in self.pictured)
        if verdict.passed:
            return shown
        if verdict.check in outcome.failing_rows:
            shown["failing_rows"] = self._rows(outcome.failing_rows[verdict.check])
        if verdict.blocks:
            shown |= self._quarantined(outcome)
        prefix = str(self.store.project.alerts.get("runbooks", RUNBOOKS))
        page = runbook(RUNBOOK[verdict.check], prefix)
        return shown | {"severity": verdict.severity, "runbook": link(page)}

    def _rows(self, failing: pl.DataFrame) -> dg.TableMetadataValue:
        """Return the first rows that fail a check, keys and PII masked where they have a value."""
        columns = failing.head(FAILING_ROWS).select(pl.exclude("event_timestamp"))
        keys = set(self.view.contract.keys)
        shown = masked(self.view, columns)
        rows = [
            [
                _cell(MASK if name in keys and value is not None else value)
                for name, value in row.items()
            ]
            for row in shown.iter_rows(named=True)
        ]
        return table(shown.columns, rows)

    def _quarantined(self, outcome: DayOutcome) -> dict[str, Any]:
        item = frame_item(outcome.day, outcome.content_hash)
        place = f"{self.store.lake.quarantine.uri}/{self.view.name}/{item}"
        return {
            "quarantine": dg.MetadataValue.path(place),
            "look": f"lockstep quarantine show {self.view.name} {item}",
        }

    def _released(self, outcome: DayOutcome) -> dict[str, str]:
        """Return who certified the content by hand, and why; nothing of what passed by itself."""
        if not any(verdict.released for verdict in outcome.verdicts):
            return {}
        hashes = Quarantine(self.store.lake.quarantine).released_hashes(self.view.name)
        said = hashes.get((outcome.day, outcome.content_hash), {})
        return {f"released_{word}": said[word] for word in ("by", "reason", "at") if word in said}


def numbers(verdict: Verdict) -> dict[str, float]:
    """Return the numbers that are plotted: measured ones, the limits only beside a KL that counts.

    Each costs an event a hundred bytes, for every day for ever.
    """
    return {
        name: round(value, 6)
        for name, value in verdict.numbers.items()
        if math.isfinite(value) and _plotted(name, verdict.numbers)
    }


def _plotted(name: str, measured: Mapping[str, float]) -> bool:
    if name.startswith("kl:"):
        return f"limit:{name}" in measured
    return not name.startswith("limit:")


def drift_shown(found: Iterable[Drift], *, stable: bool) -> dict[str, Any]:
    """Return the bins of the features over their limit, as pictures and as one table.

    Args:
        stable: Where all are within their limit, put the one that moved furthest in the table.
    """
    drifts = sorted((one for one in found if one.bins), key=_severe, reverse=True)
    over = [one for one in drifts if one.over]
    listed = over or (drifts[:1] if stable else [])
    return pictures(over) | ({"table:bins": _bins_table(listed)} if listed else {})


def pictures(found: Iterable[Drift]) -> dict[str, dg.MetadataValue[Any]]:
    """Return a picture per feature; an asset's page shows them in place, a check's on a click."""
    return {
        f"bins:{one.feature}": dg.MetadataValue.md(f"![{LEGEND}]({data_uri(svg)})")
        for one in found
        if (svg := bins_svg(one.bins))
    }


def _severe(drift: Drift) -> float:
    psi = drift.psi or 0.0
    return psi / drift.limit if drift.limit else psi


def _bins_table(drifts: Sequence[Drift]) -> dg.TableMetadataValue:
    columns = ("feature", "bin", "reference", "this day", "psi")
    return table(columns, [row for drift in drifts for row in _bin_rows(drift)])


def _bin_rows(drift: Drift) -> Iterator[list[Any]]:
    """Yield the bins in order; of many those that differ most."""
    largest = sorted(drift.bins, key=lambda one: one.psi, reverse=True)[:TABLE_BINS]
    for one in drift.bins:
        if one in largest:
            yield [
                drift.feature,
                one.label,
                f"{one.expected:.1%}",
                f"{one.actual:.1%}",
                round(one.psi, 4),
            ]


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dg.TableMetadataValue:
    """Return rows as a table; values are text, numbers or booleans."""
    records = [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows]
    schema = dg.TableSchema([dg.TableColumn(name, type="") for name in columns])
    return dg.MetadataValue.table(records, schema)


def _cell(value: object) -> str | int | float | bool:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    if isinstance(value, (str, int, float, bool)):
        return value
    return "" if value is None else str(value)


def link(where: str) -> dg.MetadataValue[Any]:
    """Return an address that can be clicked, or a path that can be copied."""
    return dg.MetadataValue.url(where) if "://" in where else dg.MetadataValue.path(where)
