"""The audit of a day as Dagster's asset checks: declared here, reported by the asset itself."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import dagster as dg

from lockstep.quality import CheckName, checks_of, severity_of
from lockstep.schema import Contract, ReferenceKind
from lockstep.view import FeatureView

_WORDS: Final[Mapping[CheckName, str]] = {
    "keys": "One row per entity, and every key has a value.",
    "contract": "Columns, types, ranges and required values are those promised (pandera).",
    "completeness": "Row count and fill rates are as promised (Soda); NaN counts as missing.",
}
_REFERENCES: Final[Mapping[ReferenceKind, str]] = {
    "auto": "the newest kept training set, else of 28 calm days before",
    "training": "the newest kept training set",
    "trailing": "28 calm days before",
    "weekday": "the same weekday of the weeks before",
}


def audit_specs(
    view: FeatureView, partitions: dg.PartitionsDefinition[str]
) -> list[dg.AssetCheckSpec]:
    """Return one check per audit, evaluated per day before the day may be committed."""
    return [
        dg.AssetCheckSpec(
            name=check,
            asset=dg.AssetKey(view.name),
            description=_description(check, view),
            blocking=severity_of(check, view.contract) == "block",
            partitions_def=partitions,
            metadata=dict(_metadata(check, view)),
        )
        for check in checks_of(view)
    ]


def _description(check: CheckName, view: FeatureView) -> str:
    if check == "cardinality":
        return " ".join(_cardinality(view.contract))
    if check == "drift":
        return " ".join(_drift(view.contract))
    if check == "soda" and view.soda is not None:
        return f"What {view.soda.name} says (Soda): {', '.join(view.soda.checks)}."
    return _WORDS[check]


def _cardinality(contract: Contract) -> Iterator[str]:
    if contract.max_rows is not None:
        yield f"At most {contract.max_rows:,} rows."
    if contract.max_growth is not None:
        yield f"At most {contract.max_growth:g} times the rows of the days before."
    if contract.max_shrink is not None:
        yield f"Warns below 1/{contract.max_shrink:g} of the usual rows."
    if contract.max_new_entities is not None:
        yield f"Warns above {contract.max_new_entities:.1%} of new entities."
    else:
        yield "New and gone entities are counted."


def _drift(contract: Contract) -> Iterator[str]:
    blocking = [name for name, f in contract.features.items() if f.drift == "block"]
    yield f"The distribution is that of {_REFERENCES[contract.reference]} (PSI, KL)."
    yield f"Blocks for {', '.join(blocking)}; else warns." if blocking else "Warns, never blocks."


def _metadata(check: CheckName, view: FeatureView) -> Iterator[tuple[str, Any]]:
    """Yield the severity of the worst failure, the owner, and the limits that the contract sets."""
    contract = view.contract
    yield "severity", severity_of(check, contract)
    yield "owner", contract.owner
    if check == "drift":
        yield "reference", contract.reference
        for name, feature in contract.features.items():
            for word, limit in (("psi", feature.max_psi), ("kl", feature.max_kl)):
                if limit is not None:
                    yield f"limit:{word}:{name}", limit
    if check == "soda" and view.soda is not None:
        yield "file", dg.MetadataValue.md(f"```yaml\n{view.soda.text}\n```")
