"""The only place that knows pandera: a contract becomes a DataFrameSchema, its failures a count."""

from dataclasses import dataclass
from functools import lru_cache

import pandera.polars as pa
import polars as pl

from lockstep.schema import Contract, Feature

HEAD = 20
"""Failing rows that are shown; the rest are only counted."""


@dataclass(frozen=True)
class ContractFailures:
    """What a frame breaks: a sentence per rule, the number of bad rows, and the first of them."""

    sentences: list[str]
    rows: int
    head: pl.DataFrame


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

    Bad rows are counted first and only their head goes through pandera, which otherwise builds a
    row per violation: hundreds of megabytes when a whole column is wrong.
    """
    bad = frame.filter(pl.any_horizontal(_violations(contract) or [pl.lit(value=False)]))
    judged = bad.head(HEAD) if bad.height else frame
    try:
        pandera_schema(contract).validate(judged.fill_nan(None), lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        rules = cases.select("column", "check").unique(maintain_order=True)
        sentences = [f"{column or 'frame'}: {check}" for column, check in rules.iter_rows()]
        return ContractFailures(sentences, bad.height or judged.height, judged.head(HEAD))
    return None


def _violations(contract: Contract) -> list[pl.Expr]:
    """One expression per rule that is true for a row that breaks it."""
    rules: list[pl.Expr] = [pl.col(key).is_null() for key in contract.keys]
    for name, feature in contract.features.items():
        column = pl.col(name).fill_nan(None) if feature.type.is_float() else pl.col(name)
        if not feature.nullable:
            rules.append(column.is_null())
        if feature.at_least is not None:
            rules.append((column < feature.at_least).fill_null(value=False))
        if feature.at_most is not None:
            rules.append((column > feature.at_most).fill_null(value=False))
        if feature.one_of is not None:
            rules.append(column.is_in(list(feature.one_of)).not_().fill_null(value=False))
    return rules
