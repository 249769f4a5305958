"""The audit of a day as Dagster's asset checks: declared here, reported by the asset itself."""

from collections.abc import Mapping
from typing import Final

import dagster as dg

from lockstep.quality import CHECKS, SEVERITY, CheckName
from lockstep.view import FeatureView

_WORDS: Final[Mapping[CheckName, str]] = {
    "keys": "One row per entity, and every key has a value.",
    "contract": "Columns, types, ranges and required values are those promised (pandera).",
    "completeness": "Row count and fill rates are as promised (Soda); NaN counts as missing.",
    "drift": "The distribution is that of the trailing 28 days (PSI); warns, never blocks.",
}


def audit_specs(
    view: FeatureView, partitions: dg.PartitionsDefinition[str]
) -> list[dg.AssetCheckSpec]:
    """Return one check per audit, evaluated per day before the day may be committed."""
    return [
        dg.AssetCheckSpec(
            name=check,
            asset=dg.AssetKey(view.name),
            description=_WORDS[check],
            blocking=SEVERITY[check] == "block",
            partitions_def=partitions,
            metadata={"severity": SEVERITY[check], "owner": view.contract.owner},
        )
        for check in CHECKS
    ]
