"""Promise + frame → verdicts. Pure: nothing is read or written, and nobody is told."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias, get_args

import polars as pl

from lockstep.keys import MAX_KEY_BYTES, count_long_keys
from lockstep.pandera_schema import contract_failures
from lockstep.profile import ColumnProfile, TrainedOn, profile, stability_index
from lockstep.schema import Contract, Feature
from lockstep.soda import SodaResult, SodaSession

CheckName: TypeAlias = Literal["keys", "contract", "completeness", "drift"]
CHECKS: Final[tuple[CheckName, ...]] = get_args(CheckName)
Severity: TypeAlias = Literal["block", "warn"]
SEVERITY: Final[Mapping[CheckName, Severity]] = {
    "keys": "block",
    "contract": "block",
    "completeness": "block",
    "drift": "warn",
}

REFERENCE_DAYS: Final = 28
LEAST_REFERENCE_DAYS: Final = 7


@dataclass(frozen=True)
class Verdict:
    """The result of one check on one frame.

    Attributes:
        severity: "block" keeps the frame out of the table when it fails; "warn" never does.
        message: One sentence for people.
        numbers: Measured values by name, e.g. `psi:sum_amt_7d`, `new_entity_rate`.
        released: A person has certified this very content in spite of the failure.
    """

    check: CheckName
    passed: bool
    message: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    released: bool = False

    @property
    def severity(self) -> Severity:
        """Whether a failure blocks."""
        return SEVERITY[self.check]

    @property
    def blocks(self) -> bool:
        """Whether this verdict keeps the frame out of the table."""
        return not self.passed and self.severity == "block" and not self.released

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values; `from_json` reads it back."""
        return {**asdict(self), "severity": self.severity}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Verdict":
        """Read what `to_json` returned."""
        return cls(**{name: value for name, value in data.items() if name != "severity"})


@dataclass(frozen=True)
class Audit:
    """All verdicts on one frame, and the profile they were reached with."""

    verdicts: Sequence[Verdict]
    profile: Mapping[str, ColumnProfile]
    failing_rows: pl.DataFrame | None = None

    @property
    def passed(self) -> bool:
        """Whether the frame may be committed."""
        return not any(verdict.blocks for verdict in self.verdicts)


def audit(
    frame: pl.DataFrame,
    contract: Contract,
    reference: Sequence[Mapping[str, ColumnProfile]],
    soda: SodaSession,
    *,
    new_entities: float | None = None,
    trained: Mapping[str, TrainedOn] | None = None,
) -> Audit:
    """Judge a computed frame (keys, event_timestamp, features) before anything is written.

    Args:
        frame: The day's rows, collected.
        contract: What was promised.
        reference: Profiles of the committed days among the 28 before; drift compares with them.
        soda: Runs fill rate and row count.
        new_entities: Share of the rows whose entity the day before did not have; None if there is
            none. It is recorded with drift and decides nothing.
        trained: Feature → what it looked like in a training set; drift compares with it instead.
    """
    seen = profile(frame, contract)
    failures = contract_failures(frame, contract)
    verdicts = (
        _keys(frame, contract),
        Verdict("contract", passed=True, message="Types, ranges and required values hold.")
        if failures is None
        else Verdict(
            "contract",
            passed=False,
            message=f"{failures.rows} of {frame.height} rows break "
            f"{'; '.join(failures.sentences)}.",
            numbers={"rows": failures.rows},
        ),
        _completeness(soda.verify(frame, contract), contract, seen),
        _with_new_entities(_drift(frame, contract, reference, trained or {}), new_entities),
    )
    return Audit(verdicts, seen, None if failures is None else failures.head)


def _with_new_entities(drift: Verdict, rate: float | None) -> Verdict:
    if rate is None:
        return drift
    return replace(drift, numbers={**drift.numbers, "new_entity_rate": rate})


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


def _drift(
    frame: pl.DataFrame,
    contract: Contract,
    reference: Sequence[Mapping[str, ColumnProfile]],
    trained: Mapping[str, TrainedOn],
) -> Verdict:
    index: dict[str, float] = {}
    against: dict[str, str] = {}
    for name, feature in contract.features.items():
        before, what = _before(name, feature, reference, trained)
        found = stability_index(frame[name], feature, before)
        if before:
            against[name] = what
        if found is not None:
            index[name] = found
    if not against:
        return Verdict(
            "drift",
            passed=True,
            message=f"No reference yet: {len(reference)} of {LEAST_REFERENCE_DAYS} earlier days.",
        )
    over = [
        f"{name} has PSI {index[name]:.2f} (limit {feature.max_psi}) against {against[name]}"
        for name, feature in contract.features.items()
        if feature.max_psi is not None and index.get(name, 0.0) > feature.max_psi
    ]
    numbers = {f"psi:{name}": value for name, value in index.items()}
    whats = " and ".join(dict.fromkeys(against.values()))
    message = "; ".join(over) or f"Stable against {whats}."
    return Verdict("drift", passed=not over, message=message, numbers=numbers)


def _before(
    name: str,
    feature: Feature,
    reference: Sequence[Mapping[str, ColumnProfile]],
    trained: Mapping[str, TrainedOn],
) -> tuple[list[ColumnProfile], str]:
    # What models learned from, if a set of the feature's present type is kept; else days before.
    found = trained.get(name)
    if found is not None and (found.profile.sketch if feature.numeric else found.profile.counts):
        return [found.profile], f"the training set {found.name}"
    if len(reference) < LEAST_REFERENCE_DAYS:
        return [], ""
    return [day[name] for day in reference if name in day], f"{len(reference)} earlier days"
