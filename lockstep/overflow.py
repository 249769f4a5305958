"""Whether a sum of whole numbers left its type: Polars wraps it around and says nothing.

Asked of every day that a view computes. Two cheap questions come first: does the function sum at
all, and would a column's absolute values, added up, leave its type? Only then is the day computed a
second time with such a column in 128 bits, and what differs has wrapped.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import polars as pl

from lockstep.quality import Audit, Verdict
from lockstep.view import FeatureView

_CAPACITY: Final[Mapping[type[pl.DataType], float]] = {pl.Int32: 2.0**31, pl.Int64: 2.0**63}
"""Sums of narrower types are Int64 already."""
_NEAR: Final = 0.999
"""Added up as floats, so the last digits are not to be relied on."""
_SUM: Final = r"(?:\w*sum\w*|product|dot)\("
_KEPT: Final = r"(?:\.(?:strict_cast|cast|fill_null)\([^()]*\))*"
_OF_COLUMN: Final = rf'col\("([^"]+)"\){_KEPT}\.\w*sum\w*\(\)'
_REFUSALS: Final = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    ArithmeticError,
    TypeError,
    ValueError,
)
"""What a function may raise that was not written for numbers of 128 bits."""
_CAST: Final = "from `i128`"
_EXACT: Final = ":exact"
_APART: Final = 1e-6
"""How far a float may be from the one that is made of wider numbers."""


@dataclass(frozen=True)
class Overflow:
    """A feature that is not what its sums say.

    Attributes:
        column: The column of an input whose sum left its type, `parameter.column`.
        rows: Rows of the day that are wrong; None if nobody can count them.
    """

    feature: str
    column: str
    rows: int | None

    @property
    def sentence(self) -> str:
        """What is wrong, in words."""
        where = "some" if self.rows is None else f"{self.rows}"
        return (
            f"{self.feature} is wrong in {where} rows: the sum of {self.column} does not fit its "
            "whole-number type and wraps around"
        )


def overflows(
    view: FeatureView, arguments: Mapping[str, Any], plan: pl.LazyFrame, rows: pl.DataFrame
) -> list[Overflow]:
    """Return the features of a computed day that a wrapped sum made wrong; mostly none.

    A function that refuses columns of 128 bits tells nothing, and neither do rows of which two have
    one key: those are for another check.

    Args:
        arguments: What the function was called with.
        plan: What it returned.
        rows: Its rows.
    """
    frames = {name: of for name, of in arguments.items() if isinstance(of, pl.LazyFrame)}
    keys = view.contract.keys
    suspects = _summed(_suspects(frames, keys), frames, plan)
    if not suspects or rows.select(pl.struct(keys).n_unique()).item() < rows.height:
        return []
    # All at once is dearer by one computation; which column it was is asked only if one was.
    together = _differing(view, _widened(arguments, suspects), rows)
    if together is not None and not together:
        return []
    return [
        Overflow(feature, ".".join(suspect), count)
        for suspect in suspects
        for feature, count in (_differing(view, _widened(arguments, [suspect]), rows) or {}).items()
    ]


def _widened(arguments: Mapping[str, Any], columns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    wider = dict(arguments)
    for name, column in columns:
        wider[name] = wider[name].with_columns(pl.col(column).cast(pl.Int128))
    return wider


def told_of(found: Audit, wrapped: Sequence[Overflow]) -> Audit:
    """Return the audit with a `contract` that fails for the wrapped sums."""
    if not wrapped:
        return found
    fix = "Add them up as pl.Float64 or pl.Decimal: cast the column before the sum."
    said = f"{'; '.join(each.sentence for each in wrapped)}. {fix}"
    numbers = {f"wrapped:{each.feature}": each.rows for each in wrapped if each.rows}

    def judged(verdict: Verdict) -> Verdict:
        if verdict.check != "contract":
            return verdict
        before = "" if verdict.passed else f"{verdict.message} "
        together = {**verdict.numbers, **numbers}
        return replace(verdict, passed=False, message=f"{before}{said}", numbers=together)

    return replace(found, verdicts=[judged(verdict) for verdict in found.verdicts])


def _suspects(frames: Mapping[str, pl.LazyFrame], keys: list[str]) -> list[tuple[str, str]]:
    """Return the columns, keys aside, whose absolute values do not fit their type when added."""
    found = []
    for name, frame in frames.items():
        limits = {
            column: _CAPACITY[type(dtype)] * _NEAR
            for column, dtype in frame.collect_schema().items()
            if type(dtype) in _CAPACITY and column not in keys
        }
        if not limits:
            continue
        sizes = pl.col(list(limits)).cast(pl.Float64).abs().sum()
        totals = frame.select(sizes).collect(engine="in-memory")
        found += [(name, c) for c, total in totals.row(0, named=True).items() if total >= limits[c]]
    return found


def _summed(
    suspects: Sequence[tuple[str, str]], frames: Mapping[str, pl.LazyFrame], plan: pl.LazyFrame
) -> list[tuple[str, str]]:
    """Return the suspects that the plan may add up: all of them, if it adds up what it made."""
    if not suspects:
        return []
    text = plan.explain(optimized=False)
    sums, columns = len(re.findall(_SUM, text)), re.findall(_OF_COLUMN, text)
    declared = {name for frame in frames.values() for name in frame.collect_schema()}
    if len(columns) == sums and declared.issuperset(columns):
        return [suspect for suspect in suspects if suspect[1] in columns]
    return list(suspects)


def _differing(
    view: FeatureView, arguments: Mapping[str, Any], rows: pl.DataFrame
) -> dict[str, int | None] | None:
    """Return feature → rows in which it differs from what wider numbers give, if it does.

    None instead of rows if nobody can count them, None instead of it all if nothing can be told.
    """
    features = list(view.contract.features)
    try:
        return _compared(view, arguments, rows, features)
    except _REFUSALS as error:
        if _CAST not in str(error):
            return None
    # A strict cast back says itself that the exact sum does not fit, of one feature or another.
    found: dict[str, int | None] = {}
    for feature in features:
        try:
            found |= _compared(view, arguments, rows, [feature])
        except _REFUSALS as error:
            if _CAST in str(error):
                found[feature] = None
    return found


def _compared(
    view: FeatureView, arguments: Mapping[str, Any], rows: pl.DataFrame, features: Sequence[str]
) -> dict[str, int | None]:
    plan = view.function(**arguments).select(*view.contract.keys, *features)
    exact = plan.collect(engine="in-memory")
    told = [feature for feature in features if not exact.schema[feature].is_nested()]
    if not told:
        return {}
    beside = rows.join(exact, on=view.contract.keys, suffix=_EXACT, how="inner")
    counts = beside.select([_differs(name, rows.schema[name]).sum().alias(name) for name in told])
    return {name: count for name, count in counts.row(0, named=True).items() if count}


def _differs(feature: str, dtype: pl.DataType) -> pl.Expr:
    """Return whether a value is another one than that of the wider numbers."""
    stored, exact = pl.col(feature), pl.col(f"{feature}{_EXACT}")
    if dtype.is_integer():
        return stored.cast(pl.Int128).ne_missing(exact.cast(pl.Int128))
    if not dtype.is_float():
        return stored.ne_missing(exact)
    wide = exact.cast(pl.Float64)
    far = (stored.cast(pl.Float64) - wide).abs() > _APART * wide.abs()
    return stored.is_null().ne_missing(wide.is_null()) | far.fill_null(value=False)
