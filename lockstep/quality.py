"""Promise + frame → verdicts. Pure: nothing is read or written, and nobody is told.

What blocks depends on the frame, the contract and what the run read when it began, nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from math import isfinite
from statistics import median
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import polars as pl

from lockstep.drift import (
    LEAST_REFERENCE_DAYS,
    LEAST_WEEKDAYS,
    REFERENCE_DAYS,
    Drift,
    Over,
    measure,
    no_reference,
    references_of,
)
from lockstep.failing_rows import failing_rows
from lockstep.feature import Severity
from lockstep.keys import MAX_KEY_BYTES, count_long_keys
from lockstep.profile import ColumnProfile, EntityCounts, TrainedOn, profile
from lockstep.schema import Contract
from lockstep.soda import SodaResult, SodaSession
from lockstep.soda_file import SodaFile
from lockstep.view import FeatureView

__all__ = [
    "CHECKS",
    "SEVERITY",
    "Audit",
    "CheckName",
    "Earlier",
    "Severity",
    "Verdict",
    "audit",
    "checks_of",
    "severity_of",
]

CheckName: TypeAlias = Literal["keys", "contract", "completeness", "cardinality", "drift", "soda"]
CHECKS: Final[tuple[CheckName, ...]] = get_args(CheckName)
SEVERITY: Final[Mapping[CheckName, Severity]] = {
    "keys": "block",
    "contract": "block",
    "completeness": "block",
    "cardinality": "block",
    "drift": "warn",
    "soda": "block",
}
_BY_CHECK: Final = cast("Severity", "")

LEAST_GROWN_ROWS: Final = 1_000
"""Fewer are few, whatever multiple of the usual number they are or were."""


@dataclass(frozen=True)
class Verdict:
    """The result of one check on one frame.

    Attributes:
        message: One sentence for people.
        numbers: Measured values by name, e.g. `psi:sum_amt_7d`, `new_entity_rate`.
        released: A person has certified this very content in spite of the failure.
        severity: "block" keeps the frame out of the table when it fails; "warn" never does. That of
            the check unless given.
    """

    check: CheckName
    passed: bool
    message: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    released: bool = False
    severity: Severity = _BY_CHECK

    def __post_init__(self) -> None:
        if self.severity == _BY_CHECK:
            object.__setattr__(self, "severity", SEVERITY[self.check])

    @property
    def blocks(self) -> bool:
        """Whether this verdict keeps the frame out of the table."""
        return not self.passed and self.severity == "block" and not self.released

    def at(self, severity: Severity) -> "Verdict":
        """Return it with another severity than that of its check."""
        return replace(self, severity=severity)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Verdict":
        """Read what `to_json` returned."""
        return cls(**data)


@dataclass(frozen=True)
class Audit:
    """All verdicts on one frame, and the profile they were reached with.

    Attributes:
        failing_rows: Failed check → at most 20 of the rows for which it failed, if there are any.
            Nothing in them is masked.
    """

    verdicts: Sequence[Verdict]
    profile: Mapping[str, ColumnProfile]
    drift: Mapping[str, Drift] = field(default_factory=dict)
    failing_rows: Mapping[CheckName, pl.DataFrame] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the frame may be committed."""
        return not any(verdict.blocks for verdict in self.verdicts)


@dataclass(frozen=True)
class Earlier:
    """What a day is compared with, as it was when the run began.

    Attributes:
        day: The day that is judged.
        profiles: Day → feature → profile of the committed days among the 56 before.
        trained: Feature → what it looked like in the newest kept training set.
        entities: How many of the day's entities the day before did not have, and the reverse; None
            if there is no day before, or if it cannot be read.
        over: Day → the features that were over their limit on it.
        closed: Day → how many of its rows only close an entity that left its window; of the judged
            day, too.
    """

    day: date
    profiles: Mapping[date, Mapping[str, ColumnProfile]] = field(default_factory=dict)
    trained: Mapping[str, TrainedOn] = field(default_factory=dict)
    entities: EntityCounts | None = None
    over: Over = field(default_factory=dict)
    closed: Mapping[date, int] = field(default_factory=dict)

    @property
    def rows(self) -> dict[date, int]:
        """Day → its rows, of the 28 days before that have a profile."""
        near = {day: columns for day, columns in self.profiles.items() if self._near(day)}
        return {d: max(c.rows for c in columns.values()) for d, columns in near.items() if columns}

    def _near(self, day: date) -> bool:
        return 0 < (self.day - day).days <= REFERENCE_DAYS


def checks_of(view: FeatureView) -> tuple[CheckName, ...]:
    """Return the checks that a view's days go through: `soda` only beside a Soda file."""
    return tuple(check for check in CHECKS if check != "soda" or view.soda is not None)


def severity_of(check: CheckName, contract: Contract) -> Severity:
    """Return what the worst failure of a check means for the days of a view."""
    if check == "drift" and any(f.drift == "block" for f in contract.features.values()):
        return "block"
    return SEVERITY[check]


def audit(
    frame: pl.DataFrame,
    contract: Contract,
    earlier: Earlier,
    soda: SodaSession,
    soda_file: SodaFile | None = None,
) -> Audit:
    """Judge a computed frame (keys, event_timestamp, features) before anything is written.

    Args:
        frame: The day's rows, collected.
        contract: What was promised.
        earlier: What cardinality and drift compare the day with.
        soda: Runs fill rate and row count, and the hand-written checks.
        soda_file: The hand-written checks beside the view file, if there are any.
    """
    references = references_of(
        contract, earlier.day, earlier.profiles, earlier.trained, earlier.over
    )
    seen = profile(frame, contract, references)
    # Pandera loads pandas: a second that whoever audits nothing need not wait.
    from lockstep.pandera_schema import contract_failures

    failures = contract_failures(frame, contract)
    drift = {name: measure(name, seen[name], reference) for name, reference in references.items()}
    verdicts = [
        _keys(frame, contract),
        Verdict("contract", passed=True, message="Types, ranges and required values hold.")
        if failures is None
        else Verdict(
            "contract",
            passed=False,
            message=f"{failures.rows:,} of {frame.height:,} rows break "
            f"{'; '.join(failures.sentences)}.",
            numbers={"rows": failures.rows},
        ),
        _completeness(soda.verify(frame, contract), contract, seen),
        cardinality(frame.height, contract, earlier),
        _drift(drift, contract, earlier),
    ]
    if soda_file is not None:
        results = soda.verify_file(frame, contract, soda_file)
        verdicts.append(_hand_written(results, contract, soda_file))
    failed = [verdict.check for verdict in verdicts if not verdict.passed]
    rows = {check: failing_rows(check, frame, contract) for check in failed}
    return Audit(verdicts, seen, drift, {check: f.head for check, f in rows.items() if f})


def _keys(frame: pl.DataFrame, contract: Contract) -> Verdict:
    keys = contract.keys
    null = frame.select(pl.any_horizontal(pl.col(keys).is_null()).sum()).item()
    repeated = frame.height - frame.select(pl.struct(keys).n_unique()).item()
    long = count_long_keys(frame, keys)
    if null or repeated or long:
        too_long = f", {long} are longer than {MAX_KEY_BYTES} bytes" if long else ""
        return Verdict(
            "keys",
            passed=False,
            message=f"{null} rows have a null key and {repeated} repeat another row's "
            f"({', '.join(keys)}){too_long}. A view has one row per {contract.entity.name}.",
            numbers={"null": null, "repeated": repeated, "too_long": long},
        )
    return Verdict(
        "keys",
        passed=True,
        message=f"{frame.height} rows, one per {contract.entity.name}.",
        numbers={"rows": frame.height},
    )


def _completeness(
    results: Sequence[SodaResult], contract: Contract, seen: Mapping[str, ColumnProfile]
) -> Verdict:
    failed = [_why_incomplete(r, contract, seen) for r in results if not r.passed]
    numbers = {f"fill_rate:{name}": column.fill_rate for name, column in seen.items()}
    if not results:
        failed = ["Soda evaluated nothing."]
    if failed:
        return Verdict("completeness", passed=False, message=" ".join(failed), numbers=numbers)
    return Verdict(
        "completeness",
        passed=True,
        message=f"Row count and {len(results) - 1} fill rates hold.",
        numbers=numbers,
    )


def _why_incomplete(
    result: SodaResult, contract: Contract, seen: Mapping[str, ColumnProfile]
) -> str:
    if result.column is None:
        rows = max((column.rows for column in seen.values()), default=0)
        return f"The day has {rows} rows, fewer than min_rows={contract.min_rows}."
    column = seen[result.column]
    return (
        f"{result.column} is filled in {column.fill_rate:.1%} of {column.rows} rows, less than "
        f"the promised {contract.features[result.column].fill_rate:.1%}."
    )


def cardinality(rows: int, contract: Contract, earlier: Earlier) -> Verdict:
    """Judge how many rows and how many new entities a day has; only too many rows block."""
    numbers: dict[str, float] = {"rows": rows}
    if contract.max_rows is not None:
        numbers["limit:rows"] = contract.max_rows
    failed = _too_many_rows(rows, contract, earlier, numbers)
    severity: Severity = "block" if failed else "warn"
    failed += _too_few_rows(rows, contract, earlier)
    entities, limit = earlier.entities, contract.max_new_entities
    rate = entities.new_rate if entities else None
    if entities is not None:
        numbers["entities_new"], numbers["entities_gone"] = entities.new, entities.gone
    if rate is not None:
        numbers["new_entity_rate"] = rate
        if limit is not None and rate > limit:
            failed.append(
                f"{rate:.1%} of the {rows:,} rows are of entities that the day before did not "
                f"have, more than max_new_entities={limit:.1%}."
            )
    if failed:
        message = " ".join(failed)
        return Verdict("cardinality", passed=False, message=message, numbers=numbers).at(severity)
    return Verdict("cardinality", passed=True, message=f"{rows:,} rows.", numbers=numbers)


def _too_many_rows(
    rows: int, contract: Contract, earlier: Earlier, numbers: dict[str, float]
) -> list[str]:
    """Return a sentence per broken limit of rows; adds the usual number of rows to `numbers`."""
    failed = []
    if contract.max_rows is not None and rows > contract.max_rows:
        failed.append(f"The day has {rows:,} rows, more than max_rows={contract.max_rows:,}.")
    before = list(earlier.rows.values())
    usual = median(before) if len(before) >= LEAST_REFERENCE_DAYS else 0
    if not usual:
        return failed
    numbers["usual_rows"] = usual
    grown = contract.max_growth is not None and rows > contract.max_growth * usual
    if grown and rows >= LEAST_GROWN_ROWS:
        failed.append(
            f"The day has {rows:,} rows, {rows / usual:,.1f} times the {usual:,.0f} of the "
            f"{len(before)} earlier days (their median), more than max_growth="
            f"{contract.max_growth}."
        )
    return failed


def _too_few_rows(rows: int, contract: Contract, earlier: Earlier) -> list[str]:
    """Return a sentence if the day lost most of the rows that such a day usually has.

    Closing rows do not count: a day that loses its data closes everybody whom it lost.
    """
    closed = earlier.closed.get(earlier.day, 0)
    before = {day: count - earlier.closed.get(day, 0) for day, count in earlier.rows.items()}
    if contract.max_shrink is None or len(before) < LEAST_REFERENCE_DAYS:
        return []
    same = [n for day, n in before.items() if day.weekday() == earlier.day.weekday()]
    weekly = len(same) >= LEAST_WEEKDAYS
    among = same if weekly else list(before.values())
    left, usual = rows - closed, median(among)
    if usual < LEAST_GROWN_ROWS or left >= usual / contract.max_shrink:
        return []
    without = f" without the {closed:,} that close what left" if closed else ""
    alike = " of the same weekday" if weekly else ""
    sentence = (
        f"The day has {left:,} rows{without}, {usual / max(left, 1):,.1f} times fewer than the "
        f"{usual:,.0f} of the {len(among)} earlier days{alike} (their median), more than "
        f"max_shrink={contract.max_shrink}."
    )
    return [sentence]


def _drift(found: Mapping[str, Drift], contract: Contract, earlier: Earlier) -> Verdict:
    if not found:
        message = no_reference(contract, earlier.day, earlier.profiles)
        return Verdict("drift", passed=True, message=message)
    measured = [
        (name, word, value, limit)
        for name, drift in found.items()
        for word, value, limit in (
            ("psi", drift.psi, drift.limit),
            ("kl", drift.kl, drift.kl_limit),
        )
        if value is not None
    ]
    numbers = {f"{word}:{name}": value for name, word, value, _ in measured}
    numbers |= {f"limit:{word}:{name}": limit for name, word, _, limit in measured if limit}
    over = [
        f"{name} has {word.upper()} {value:.2f} (limit {limit}) against {found[name].against}"
        for name, word, value, limit in measured
        if limit is not None and value > limit
    ]
    if over:
        stops = any(d.over and contract.features[n].drift == "block" for n, d in found.items())
        severity: Severity = "block" if stops else "warn"
        message = f"{'; '.join(over)}."
        return Verdict("drift", passed=False, message=message, numbers=numbers).at(severity)
    whats = " and ".join(dict.fromkeys(drift.against for drift in found.values()))
    return Verdict("drift", passed=True, message=f"Stable against {whats}.", numbers=numbers)


def _hand_written(results: Sequence[SodaResult], contract: Contract, file: SodaFile) -> Verdict:
    """Judge the checks of a Soda file: a failed one blocks, one of level `warn` warns."""
    results = [_without_pii(result, contract) for result in results]
    bad = [result for result in results if not result.passed]
    if len(results) < len(file.checks):
        message = f"Soda evaluated {len(results)} of the {len(file.checks)} checks of {file.name}."
        return Verdict("soda", passed=False, message=message)
    numbers = {
        f"soda:{result.words}": result.value
        for result in results
        if result.value is not None and isfinite(result.value)
    }
    if bad:
        message = f"{'; '.join(result.sentence for result in bad)} ({file.name})."
        severity: Severity = "block" if any(not result.warns for result in bad) else "warn"
        return Verdict("soda", passed=False, message=message, numbers=numbers).at(severity)
    message = f"{len(results)} checks of {file.name} hold."
    return Verdict("soda", passed=True, message=message, numbers=numbers)


def _without_pii(result: SodaResult, contract: Contract) -> SodaResult:
    """Return the result without a value that may be somebody's: counts are told, others not."""
    feature = contract.features.get(result.column or "")
    somebodys = result.column in contract.keys or (feature is not None and feature.pii)
    if somebodys and result.kind in ("aggregate", "metric"):
        return replace(result, value=None)
    return result
