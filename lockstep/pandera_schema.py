"""The only place that knows pandera: a contract becomes a DataFrameSchema, its failures a count."""

from dataclasses import dataclass
from functools import lru_cache

import pandera.polars as pa
import polars as pl

from lockstep.failing_rows import broken_rules, contract_rules, failing_rows
from lockstep.schema import Contract, Feature


@dataclass(frozen=True)
class ContractFailures:
    """What a frame breaks: a sentence per rule with its rows, and how many rows are bad at all."""

    sentences: list[str]
    rows: int


@lru_cache(maxsize=256)
def pandera_schema(contract: Contract) -> pa.DataFrameSchema:
    """Return the schema: exactly the contract's columns, in order, with types and ranges."""
    keys = {
        name: pa.Column(dtype, nullable=False) for name, dtype in contract.entity.key_types.items()
    }
    instant = {"event_timestamp": pa.Column(pl.Datetime("us", "UTC"), nullable=False)}
    features = {
        name: pa.Column(feature.type, nullable=feature.nullable, checks=_checks(feature))
        for name, feature in contract.features.items()
    }
    return pa.DataFrameSchema(
        {**keys, **instant, **features}, strict=True, ordered=True, name=contract.name
    )


def _checks(feature: Feature) -> list[pa.Check]:
    checks = []
    if feature.at_least is not None:
        checks.append(pa.Check.ge(feature.at_least))
    if feature.at_most is not None:
        checks.append(pa.Check.le(feature.at_most))
    if feature.one_of is not None:
        checks.append(pa.Check.isin(list(feature.one_of)))
    return checks


def contract_failures(frame: pl.DataFrame, contract: Contract) -> ContractFailures | None:
    """Validate a collected frame; None if it keeps the contract. NaN counts as missing.

    The rows that break each rule are counted, and pandera validates a frame without any. It builds
    a row per violation: hundreds of megabytes when a whole column is wrong.
    """
    if broken := broken_rules(frame, contract_rules(contract)):
        bad = failing_rows("contract", frame, contract)
        told = [f"{rule.column}: {rule.words} ({_rows(count)})" for rule, count in broken]
        return ContractFailures(told, bad.rows if bad else 0)
    try:
        pandera_schema(contract).validate(frame.fill_nan(None), lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        rules = cases.select("column", "check").unique(maintain_order=True)
        sentences = [f"{column or 'frame'}: {check}" for column, check in rules.iter_rows()]
        return ContractFailures(sentences, frame.height)
    return None


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
