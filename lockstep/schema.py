"""The promise, per column: entities, features and the contract class that holds them."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Final, Literal, TypeAlias

import polars as pl

from lockstep.errors import DeclarationError
from lockstep.types import canonical_type, fitted, type_problem

PolarsType: TypeAlias = pl.DataType | type[pl.DataType]
WhenAbsent: TypeAlias = Literal["last", "empty"]
OnMissing: TypeAlias = Literal["null", "default", "fail"]

NAME: Final = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
RESERVED: Final = frozenset(
    {"day", "known_at", "event_timestamp", "event_time", "revision", "as_of"}
)
POLICIES: Final = ("null", "default", "fail")
KEY_TYPES: Final = (pl.Int64, pl.Int32, pl.String)

DAILY_TTL_FLOOR: Final = timedelta(hours=25)
"""A daily row must outlive the longest day, or values expire before the next ones land."""


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


@dataclass(frozen=True)
class Entity:
    """What a feature describes, with its typed key columns.

    Args:
        name: Name of the entity, e.g. `household`.
        key: Key columns in order, e.g. `{"household_id": pl.Int64}`; Int64, Int32 or String.
        description: One sentence for the catalog.
        buckets: Number of hash buckets of its keys online; fixed when first used.
    """

    name: str
    key: Mapping[str, PolarsType]
    description: str = ""
    buckets: int = 64

    def __post_init__(self) -> None:
        problems = [name_problem("Entity", self.name)]
        problems += [name_problem("Key column", column) for column in self.key]
        problems += [
            f"Key column {column!r} of entity {self.name!r} is {dtype}. "
            "Keys are pl.Int64, pl.Int32 or pl.String: cast it in the source."
            for column, dtype in self.key.items()
            if canonical_type(dtype) not in KEY_TYPES
        ]
        if not self.key:
            problems.append(f"Entity {self.name!r} has no key column. Give it at least one.")
        if self.buckets < 1:
            problems.append(f"Entity {self.name!r} has {self.buckets} buckets. Give it at least 1.")
        if found := [problem for problem in problems if problem]:
            raise DeclarationError(found)
        types = {column: canonical_type(dtype) for column, dtype in self.key.items()}
        object.__setattr__(self, "key", types)

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def key_types(self) -> dict[str, pl.DataType]:
        """Key column → Polars type, in order."""
        return {column: canonical_type(dtype) for column, dtype in self.key.items()}


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
        max_psi: Population stability index against the trailing 28 days above which to warn.
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
    pii: bool = field(default=False, kw_only=True)
    on_missing: OnMissing = field(default="null", kw_only=True)
    default: Any = field(default=UNSET, kw_only=True)
    name: str = field(default="", init=False)
    owner_class: "type[Features] | None" = field(default=None, init=False, repr=False)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.owner_class = owner if issubclass(owner, Features) else None

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
        if self.max_psi is not None and not (self.numeric or self.type in (pl.String, pl.Boolean)):
            yield (
                f"'{where}.{self.name}' is {self.type} and declares max_psi. Drift is measured for "
                "numbers, strings and booleans: remove max_psi."
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


@dataclass(frozen=True, eq=False)
class Contract:
    """What a view promises: grain, columns, owner, and how long a value lives.

    Attributes:
        name: Name of the contract class.
        view_name: Name of the view that keeps it; None until `@feature_view` paired them.
        ttl: How long a row is valid after its event_timestamp (elapsed time); None is for ever.
        when_absent: What a missing row means: keep the last one, or close it with `empty` values.
        freshness: Largest tolerated age of the newest data (lag of its event time).
        landing_delay: How long after the end of a day its data is expected to have landed.
        min_rows: Fewest rows a day may have. Blocking.
    """

    name: str
    description: str
    entity: Entity
    owner: str
    ttl: timedelta | None
    when_absent: WhenAbsent
    freshness: timedelta
    landing_delay: timedelta
    min_rows: int
    tags: Mapping[str, str]
    features: Mapping[str, Feature]
    problems: tuple[str, ...]
    view_name: str | None = None

    @property
    def keys(self) -> list[str]:
        """The entity's key columns."""
        return list(self.entity.key)

    @property
    def feature_types(self) -> dict[str, pl.DataType]:
        """Feature → Polars type, in declared order."""
        return {name: feature.type for name, feature in self.features.items()}

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """Every column of a committed row but known_at and day: keys, event_timestamp, features."""
        return (
            self.entity.key_types
            | {"event_timestamp": pl.Datetime("us", "UTC")}
            | self.feature_types
        )

    @property
    def schema_json(self) -> str:
        """Names and types of all columns, as stored in the table's configuration."""
        return json.dumps({name: str(dtype) for name, dtype in self.columns.items()})

    @property
    def fingerprint(self) -> str:
        """Hash of everything in the contract that changes values (not of descriptions)."""
        meaning = {
            "columns": self.schema_json,
            "when_absent": self.when_absent,
            "empty": {name: repr(feature.empty) for name, feature in self.features.items()},
        }
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


class Features:
    """Base of contract classes: its `Feature` attributes are the columns that a view promises.

    Keyword arguments of the class statement:
        entity: The `Entity` that one row describes.
        owner: Who answers for it, `team:name` or an e-mail address.
        ttl: How long a value is valid after the end of its day; None is for ever.
        when_absent: "last" (an entity without a row keeps its last one until ttl) or "empty" (it
            gets one closing row of `empty=` values when it leaves the window).
        freshness: Largest tolerated lag of the newest data; one day, the landing delay and two
            hours unless given.
        landing_delay: When a day's data is expected, after the end of that day.
        min_rows: Fewest rows that a day may have.
        tags: Free tags for the catalog.
    """

    contract: ClassVar[Contract]

    def __init_subclass__(
        cls,
        *,
        entity: Entity | None = None,
        owner: str = "",
        ttl: timedelta | None = None,
        when_absent: WhenAbsent = "last",
        freshness: timedelta | None = None,
        landing_delay: timedelta = timedelta(hours=2),
        min_rows: int = 1,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        super().__init_subclass__()
        features = {name: value for name, value in vars(cls).items() if isinstance(value, Feature)}
        problems = list(
            _contract_problems(cls, entity, owner, ttl, when_absent, landing_delay, features)
        )
        if entity is None:
            raise DeclarationError(problems)
        cls.contract = Contract(
            name=cls.__name__,
            description=(cls.__doc__ or "").strip(),
            entity=entity,
            owner=owner,
            ttl=ttl,
            when_absent=when_absent,
            freshness=freshness or timedelta(hours=27) + landing_delay,
            landing_delay=landing_delay,
            min_rows=min_rows,
            tags=dict(tags or {}),
            features=features,
            problems=tuple(problems),
        )


def _contract_problems(
    cls: type[Features],
    entity: Entity | None,
    owner: str,
    ttl: timedelta | None,
    when_absent: str,
    landing_delay: timedelta,
    features: Mapping[str, Feature],
) -> Iterator[str]:
    name = cls.__name__
    if entity is None:
        yield f"Contract '{name}' has no entity. Declare it: class {name}(Features, entity=…)."
    if not (cls.__doc__ or "").strip():
        yield f"Contract '{name}' has no docstring. Say in one sentence what its rows are."
    if not re.match(r"^(team:[\w-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$", owner):
        yield (
            f"Contract '{name}' has owner {owner!r}. Name one: 'team:growth' or an e-mail address."
        )
    if not features:
        yield f"Contract '{name}' has no features. Add one: amount = Feature(pl.Float64, '…')."
    if ttl is not None and ttl < DAILY_TTL_FLOOR + landing_delay:
        yield (
            f"Contract '{name}' has ttl={ttl}, shorter than a 25-hour day and its landing delay of "
            f"{landing_delay}. Values would expire before the next day's arrive: give at least "
            f"{DAILY_TTL_FLOOR + landing_delay}."
        )
    if when_absent not in ("last", "empty"):
        yield f"Contract '{name}' has when_absent={when_absent!r}. It is 'last' or 'empty'."
    for feature in features.values():
        yield from feature.problems(name)
        yield from _misfits(name, feature, entity, when_absent)


def _misfits(name: str, feature: Feature, entity: Entity | None, when_absent: str) -> Iterator[str]:
    """Yield what is wrong with a feature only in this contract."""
    if entity is not None and feature.name in entity.key:
        yield (
            f"'{name}.{feature.name}' has the name of a key column of entity {entity.name!r}. "
            "Rename the feature."
        )
    if when_absent == "empty" and feature.empty is UNSET:
        yield (
            f"'{name}.{feature.name}' has no empty= value, but the contract says "
            "when_absent='empty'. Declare what an entity with no rows in its window has, "
            "e.g. empty=0 or empty=None."
        )
    if when_absent == "last" and feature.empty is not UNSET:
        yield (
            f"'{name}.{feature.name}' declares empty={feature.empty!r}, which nothing would "
            "use: the contract says when_absent='last'. Remove it, or say when_absent='empty'."
        )
