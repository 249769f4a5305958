"""Which rows fail an audit, and the first of them: what is promised of single rows, as rules. Pure.

A frame is asked once how often each rule is broken. Rows are looked for only if one is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from lockstep.keys import long_keys
from lockstep.schema import Contract, Feature

HEAD: Final = 20
"""Failing rows that are shown; the rest are only counted."""


@dataclass(frozen=True)
class Rule:
    """What is promised of every value of one column.

    Attributes:
        words: The promise, e.g. "at least 0".
        broken: True for a row that breaks it, never null.
    """

    column: str
    words: str
    broken: pl.Expr


@dataclass(frozen=True)
class FailingRows:
    """The rows that break any of some rules.

    Attributes:
        rows: How many there are.
        head: At most 20 of them: the first of each rule, then the second of each, and so on.
    """

    rows: int
    head: pl.DataFrame


def contract_rules(contract: Contract) -> list[Rule]:
    """Return the rules of a contract for single rows: required, allowed and bounded values."""
    keys = [Rule(key, "required", pl.col(key).is_null()) for key in contract.keys]
    of_features = map(_feature_rules, contract.features.values())
    return [*keys, *(rule for rules in of_features for rule in rules)]


def _feature_rules(feature: Feature) -> Iterable[Rule]:
    name, column = feature.name, _present(feature)
    if not feature.nullable:
        yield Rule(name, "required", column.is_null())
    if feature.at_least is not None:
        below = (column < feature.at_least).fill_null(value=False)
        yield Rule(name, f"at least {feature.at_least}", below)
    if feature.at_most is not None:
        above = (column > feature.at_most).fill_null(value=False)
        yield Rule(name, f"at most {feature.at_most}", above)
    if feature.one_of is not None:
        other = column.is_in(list(feature.one_of)).not_().fill_null(value=False)
        yield Rule(name, f"one of {', '.join(map(str, feature.one_of))}", other)


def _present(feature: Feature) -> pl.Expr:
    """Return the column with NaN, which counts as missing, as null."""
    column = pl.col(feature.name)
    return column.fill_nan(None) if feature.type.is_float() else column


def broken_rules(frame: pl.DataFrame, rules: Sequence[Rule]) -> list[tuple[Rule, int]]:
    """Return the rules that rows break, each with how many do."""
    if not rules:
        return []
    counts = frame.select(rule.broken.sum().alias(str(at)) for at, rule in enumerate(rules)).row(0)
    return [(rule, count) for rule, count in zip(rules, counts, strict=True) if count]


def failing_rows(check: str, frame: pl.DataFrame, contract: Contract) -> FailingRows | None:
    """Return the rows for which a check fails; None if it fails for no single row.

    For `keys` those whose key is null, is another row's too, or is too long; for `contract` those
    that break one of its rules; for `completeness` those without a value of a feature that is
    filled less than promised.

    Args:
        check: Its name.
        frame: The day's rows, with the contract's columns.
        contract: What was promised.
    """
    if check == "keys":
        return _breaking(frame, _key_rules(frame, contract))
    if check == "contract":
        return _breaking(frame, [rule.broken for rule in contract_rules(contract)])
    if check == "completeness":
        return _breaking(frame, _unfilled(frame, contract))
    return None


def _key_rules(frame: pl.DataFrame, contract: Contract) -> list[pl.Expr]:
    keys = contract.keys
    return [
        pl.any_horizontal(pl.col(keys).is_null()),
        pl.struct(keys).is_duplicated(),
        pl.lit(long_keys(frame, keys)),
    ]


def _unfilled(frame: pl.DataFrame, contract: Contract) -> list[pl.Expr]:
    rules = [
        Rule(name, "filled", _present(feature).is_null())
        for name, feature in contract.features.items()
        if feature.fill_rate is not None
    ]
    return [
        rule.broken
        for rule, missing in broken_rules(frame, rules)
        if missing / frame.height > _tolerated(contract.features[rule.column])
    ]


def _tolerated(feature: Feature) -> float:
    """Return the share of rows that may lack a value, as exactly as Soda is told."""
    return round(1 - (feature.fill_rate or 0.0), 11)


def _breaking(frame: pl.DataFrame, rules: Sequence[pl.Expr]) -> FailingRows | None:
    """Return the rows for which any of the expressions is true."""
    if not rules or not frame.height:
        return None
    nth = pl.min_horizontal(pl.when(rule).then(rule.cum_sum()) for rule in rules).alias("nth")
    ranked = frame.select(nth).with_row_index("at").drop_nulls()
    if not ranked.height:
        return None
    first = ranked.bottom_k(HEAD, by=["nth", "at"]).sort("nth", "at")
    return FailingRows(ranked.height, frame[first["at"]])
