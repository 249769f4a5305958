"""One column of a view and what is promised about it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import polars as pl

from lockstep.types import canonical_type, fitted, type_problem

if TYPE_CHECKING:
    from lockstep.schema import Features

PolarsType: TypeAlias = pl.DataType | type[pl.DataType]
OnMissing: TypeAlias = Literal["null", "default", "fail"]
Severity: TypeAlias = Literal["block", "warn"]

NAME: Final = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
RESERVED: Final = frozenset(
    {"day", "known_at", "event_timestamp", "event_time", "revision", "as_of"}
)
POLICIES: Final = ("null", "default", "fail")
SEVERITIES: Final[tuple[Severity, ...]] = ("block", "warn")


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset()
"""Marks a feature without an `empty=` or `default=` value; `None` is a value there."""


def name_problem(kind: str, name: str) -> str | None:
    """Say why `name` can't name a `kind`, or return None."""
    if not NAME.match(name):
        return (
            f"{kind} name {name!r} is not usable. Names are lower-case letters, digits and "
            "underscores, start with a letter and have at most 63 characters."
        )
    if name in RESERVED:
        return f"{kind} name {name!r} is reserved for a column that Lockstep writes. Rename it."
    return None


@dataclass(eq=False)
class Feature:
    """One column of a view and what is promised about it.

    `str(feature)` is its name at the edges, e.g. `txn_7d:sum_amt_7d`.

    Args:
        dtype: Polars type, one of those that survive Delta and Redis unchanged.
        description: One sentence for the catalog.
        unit: Unit of the values, e.g. `USD` or `days`.
        at_least: Smallest allowed value, inclusive.
        at_most: Largest allowed value, inclusive.
        one_of: The allowed values.
        nullable: Whether a row may lack the value.
        empty: Value for an entity whose window became empty (`when_absent="empty"`).
        fill_rate: Least share (0 to 1) of rows with a value; NaN counts as none. Blocking.
        max_psi: Population stability index against the view's reference that is still tolerated.
        max_kl: Kullback-Leibler divergence from the view's reference that is still tolerated.
        drift: What a day over max_psi or max_kl gets: a warning ("warn"), or the quarantine
            ("block").
        pii: Whether the column identifies a person; it is masked in every report.
        on_missing: What a request gets for an entity without a valid value: null, the default, or
            an error ("fail"). A request may say otherwise. The status tells the truth in any case.
        default: The value that "default" stands for; that of `empty` if not given.
    """

    dtype: PolarsType
    description: str
    unit: str | None = field(default=None, kw_only=True)
    at_least: float | None = field(default=None, kw_only=True)
    at_most: float | None = field(default=None, kw_only=True)
    one_of: tuple[Any, ...] | None = field(default=None, kw_only=True)
    nullable: bool = field(default=True, kw_only=True)
    empty: Any = field(default=UNSET, kw_only=True)
    fill_rate: float | None = field(default=None, kw_only=True)
    max_psi: float | None = field(default=None, kw_only=True)
    max_kl: float | None = field(default=None, kw_only=True)
    drift: Severity = field(default="warn", kw_only=True)
    pii: bool = field(default=False, kw_only=True)
    on_missing: OnMissing = field(default="null", kw_only=True)
    default: Any = field(default=UNSET, kw_only=True)
    name: str = field(default="", init=False)
    owner_class: "type[Features] | None" = field(default=None, init=False, repr=False)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name  # a contract class claims its features itself

    def __str__(self) -> str:
        view = self.owner_class.contract.view_name if self.owner_class else None
        return f"{view or '?'}:{self.name}"

    @property
    def type(self) -> pl.DataType:
        """The Polars type as an instance."""
        return canonical_type(self.dtype)

    @property
    def numeric(self) -> bool:
        """Whether quantiles and drift are defined for it."""
        return self.type.is_numeric()

    @property
    def fallback(self) -> Any:
        """What "default" stands for: `default`, else `empty`, else None."""
        declared = self.empty if self.default is UNSET else self.default
        return None if declared is UNSET else fitted(self.type, declared)

    def problems(self, where: str) -> Iterator[str]:
        """Yield what is wrong with the declaration, each with its fix."""
        if found := name_problem("Feature", self.name):
            yield found
        if found := type_problem(f"{where}.{self.name}", self.type):
            yield found
        if not self.description.strip():
            yield f"'{where}.{self.name}' has no description. Say in one sentence what it is."
        if self.fill_rate is not None and not 0 <= self.fill_rate <= 1:
            yield (
                f"'{where}.{self.name}' declares fill_rate={self.fill_rate}. It is a share of the "
                "rows: give a number from 0 to 1."
            )
        bounded = self.at_least is not None or self.at_most is not None
        if bounded and not self.numeric:
            yield (
                f"'{where}.{self.name}' is {self.type} and declares a range. Ranges are for "
                "numbers: remove at_least and at_most, or use one_of."
            )
        yield from self._fallback_problems(where)
        yield from self._drift_problems(where)

    def _drift_problems(self, where: str) -> Iterator[str]:
        limits = {"max_psi": self.max_psi, "max_kl": self.max_kl}
        declared = {word: limit for word, limit in limits.items() if limit is not None}
        if declared and not (self.numeric or self.type in (pl.String, pl.Boolean)):
            words = " and ".join(declared)
            yield (
                f"'{where}.{self.name}' is {self.type} and declares {words}. Drift is measured for "
                f"numbers, strings and booleans: remove {words}."
            )
        for word, limit in declared.items():
            if not limit > 0:
                yield (
                    f"'{where}.{self.name}' has {word}={limit}. It is the largest distance from "
                    f"the reference that is tolerated: give a number above 0, e.g. {word}=0.2."
                )
        if self.drift not in SEVERITIES:
            yield f"'{where}.{self.name}' has drift={self.drift!r}. It is 'warn' or 'block'."
        elif self.drift == "block" and not declared:
            yield (
                f"'{where}.{self.name}' says drift='block' and has no limit. Declare max_psi=0.25 "
                "or max_kl=…, or say drift='warn'."
            )

    def _fallback_problems(self, where: str) -> Iterator[str]:
        if self.on_missing not in POLICIES:
            yield (
                f"'{where}.{self.name}' has on_missing={self.on_missing!r}. It is 'null', "
                "'default' or 'fail'."
            )
        if self.on_missing == "default" and self.default is UNSET and self.empty is UNSET:
            yield (
                f"'{where}.{self.name}' says on_missing='default' and has none. Declare default=…, "
                "or say on_missing='null'."
            )
        if self.default is None and not self.nullable:
            yield f"'{where}.{self.name}' is not nullable and has default=None. Give it a value."
        for word, value in (("default", self.default), ("empty", self.empty)):
            if value is not UNSET and not self._fits(value):
                yield (
                    f"'{where}.{self.name}' is {self.type} and has {word}={value!r}, which does "
                    "not fit that type. Give a value of the type."
                )

    def _fits(self, value: Any) -> bool:
        if type_problem(self.name, self.type):
            return True  # told elsewhere
        try:
            fitted(self.type, value)
        except (ValueError, ArithmeticError):
            return False
        return True
