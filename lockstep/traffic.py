"""What was really served of a view, against what its models learned from.

The served-feature log is a source like any other: its bronze days are read. Without a kept training
set the committed days of the view are the reference. Those hold every entity once a day, so of the
log, too, an entity then counts once a day, however often it was asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final

import polars as pl

from lockstep.catalog import Catalog
from lockstep.drift import REACH_DAYS, Drift, Reference, measure, references_of
from lockstep.episodes import over_limit
from lockstep.lake import Lake
from lockstep.profile import ColumnProfile, profile
from lockstep.schema import Feature
from lockstep.serving.served_log import SCHEMA, SOURCE
from lockstep.sources import Source
from lockstep.stores.causes import answering
from lockstep.time import as_of, days_between, span
from lockstep.view import FeatureView

LAST_DAYS: Final = 7
USUAL_DAYS: Final = 28
LEAST_CELLS: Final = 200
"""Fewer served values have no distribution to speak of."""
MORE_THAN_USUAL: Final = 3.0
TOLERATED: Final = 0.05
"""A share of cells of unknown entities that is never more than usual."""
_ABSENT: Final = ("missing", "expired", "error")
_COLUMNS: Final = ["feature", "key", "status", "number", "text", "day"]


@dataclass(frozen=True)
class ServedFeature:
    """What was served of one feature lately.

    Attributes:
        cells: Logged answers.
        statuses: Status → how many of them.
        drift: How far the values are from the reference; None if there is no reference, too few
            values, or the feature has no distribution (PII has none in the log).
    """

    feature: str
    cells: int
    statuses: Mapping[str, int]
    drift: Drift | None

    def share(self, *statuses: str) -> float:
        """Return the share of the cells that have one of the statuses."""
        return sum(self.statuses.get(status, 0) for status in statuses) / max(1, self.cells)


@dataclass(frozen=True)
class Traffic:
    """What was served of one view in the last seven days that were logged.

    Attributes:
        days: The days with answers, oldest first; none without traffic.
        usual_missing: Share of cells of unknown entities in the four weeks before; None if those
            have too few.
        objective: Share of answers for which the contract's promises hold.
    """

    view: str
    days: Sequence[date]
    features: Sequence[ServedFeature]
    usual_missing: float | None = None
    objective: float = 0.0

    @property
    def cells(self) -> int:
        """Logged answers of all features."""
        return sum(feature.cells for feature in self.features)

    def share(self, *statuses: str) -> float:
        """Return the share of all cells that have one of the statuses."""
        counts = (f.statuses.get(status, 0) for f in self.features for status in statuses)
        return sum(counts) / max(1, self.cells)

    @property
    def drifting(self) -> list[Drift]:
        """The features whose served values are beyond a limit of the contract, worst first."""
        found = [f.drift for f in self.features if f.drift is not None and f.drift.over]
        return sorted(found, key=lambda drift: -(drift.psi or 0.0))

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words."""
        found = [
            f"{drift.feature} has {' and '.join(map(str, drift.exceeded))} against {drift.against}"
            for drift in self.drifting
        ]
        if self.cells < LEAST_CELLS:
            return found
        withheld = self.share("expired", "error")
        if withheld > 1 - self.objective:
            found.append(f"{withheld:.1%} of the answers were expired or errors")
        missing, usual = self.share("missing"), self.usual_missing
        if usual is not None and missing > max(TOLERATED, MORE_THAN_USUAL * usual):
            found.append(f"{missing:.1%} were about unknown entities (usual: {usual:.1%})")
        return found

    @property
    def holds(self) -> bool:
        """Whether what is served is as it should be; also if nothing was asked for."""
        return not self.problems

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if not self.days:
            return f"{self.view}: no answer was logged in the last {LAST_DAYS} days."
        said = f"{self.view}: {self.cells} answers logged in {span(self.days)}"
        if not self.holds:
            return f"{said}; {'; '.join(self.problems)}."
        rates = ", ".join(f"{self.share(status):.1%} {status}" for status in _ABSENT)
        compared = {f.drift.against for f in self.features if f.drift is not None}
        against = f" as in {' and '.join(sorted(compared))}" if compared else " not compared yet"
        return f"{said}; values{against}; {rates}."


def log_of(catalog: Catalog) -> Source | None:
    """Return the source that ingests the served-feature log; None if the project has none."""
    source = catalog.sources.get(SOURCE)
    if source is None or not set(SCHEMA) - {"served_at"} <= set(source.columns):
        return None
    return source


def served_drift(lake: Lake, log: Source, view: FeatureView, now: datetime) -> Traffic:
    """Return what was served of the view lately, beside what its models learned from.

    Args:
        log: The source of the served-feature log; see `log_of`.
        now: Days that have not ended then are left out.
    """
    table, zone = lake.table(log), lake.project.zone
    head = table.head_or_none()
    ended = [d for d, r in head.days.items() if r.rows and as_of(d, zone) <= now] if head else []
    nothing = Traffic(view.name, (), (), objective=view.contract.objective)
    if head is None or not ended:
        return nothing
    newest = max(ended)
    # A log that has ended says nothing of today.
    if as_of(newest, zone) < now - timedelta(days=LAST_DAYS):
        return nothing
    last = newest - timedelta(days=LAST_DAYS)
    near = days_between(last - timedelta(days=USUAL_DAYS - 1), newest)
    scan = table.scan([day for day in near if day in head.days], version=head.version)
    cells = scan.filter(pl.col("view") == view.name)
    with answering(f"The table {table.uri}"):
        lately = cells.filter(pl.col("day") > last).select(_COLUMNS).collect()
        if lately.is_empty():
            return nothing
        usual_missing = _missing(cells.filter(pl.col("day") <= last))
    references = _references(lake, view, newest + timedelta(days=1))
    parts = lately.partition_by("feature", as_dict=True, maintain_order=True)
    features = [
        _served(view, feature, parts[name,], references.get(name))
        for name, feature in view.contract.features.items()
        if (name,) in parts
    ]
    return replace(
        nothing,
        days=lately["day"].unique().sort().to_list(),
        features=features,
        usual_missing=usual_missing,
    )


def _missing(cells: pl.LazyFrame) -> float | None:
    """Return the share of unknown entities; the cells are counted, and never held all at once."""
    counted = cells.group_by("status").len(name="n").collect(engine="streaming")
    statuses = {str(status): int(n) for status, n in counted.iter_rows()}
    total = sum(statuses.values())
    return None if total < LEAST_CELLS else statuses.get("missing", 0) / total


def _references(lake: Lake, view: FeatureView, day: date) -> dict[str, Reference]:
    head = lake.table(view).head_or_none()
    first = day - timedelta(days=REACH_DAYS)
    records = {d: r for d, r in head.days.items() if first <= d < day} if head else {}
    days = lake.profiles(view.name, {d: record.revision for d, record in records.items()})
    trained, over = lake.training_reference(view.name), over_limit(view.contract, records)
    return references_of(view.contract, day, days, trained, over)


def _served(
    view: FeatureView, feature: Feature, cells: pl.DataFrame, reference: Reference | None
) -> ServedFeature:
    counted = cells["status"].value_counts(name="n")
    statuses = {str(status): int(n) for status, n in counted.iter_rows()}
    drift = None if reference is None or feature.pii else _drift(view, feature, cells, reference)
    return ServedFeature(str(feature), cells.height, statuses, drift)


def _drift(
    view: FeatureView, feature: Feature, cells: pl.DataFrame, reference: Reference
) -> Drift | None:
    """Return how far the values of entities that have a row are from the reference."""
    there = cells.filter(pl.col("status").is_in(["present", "null"]))
    if not reference.against.startswith("the training set"):
        there = there.unique(["key", "day"], keep="last", maintain_order=True)
    if there.height < LEAST_CELLS:
        return None
    values = there["number" if feature.numeric else "text"].alias(feature.name)
    return measure(str(feature), _profile(view, feature, values, reference), reference)


def _profile(
    view: FeatureView, feature: Feature, values: pl.Series, reference: Reference
) -> ColumnProfile:
    of_one = replace(view.contract, features={feature.name: feature})
    found = profile(values.to_frame(), of_one, {feature.name: reference})
    return found[feature.name]
