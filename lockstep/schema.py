"""The promise, per column: entities, features and the contract class that holds them."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar, Final, Literal, TypeAlias, get_args

import polars as pl

from lockstep.errors import DeclarationError
from lockstep.feature import (
    NAME,
    POLICIES,
    UNSET,
    Feature,
    OnMissing,
    PolarsType,
    Severity,
    name_problem,
)
from lockstep.types import canonical_type

__all__ = [
    "DAILY_TTL_FLOOR",
    "NAME",
    "POLICIES",
    "REFERENCES",
    "UNSET",
    "Contract",
    "Entity",
    "Feature",
    "Features",
    "OnMissing",
    "PolarsType",
    "ReferenceKind",
    "Severity",
    "name_problem",
]

WhenAbsent: TypeAlias = Literal["last", "empty"]
ReferenceKind: TypeAlias = Literal["auto", "training", "trailing", "weekday"]

KEY_TYPES: Final = (pl.Int64, pl.Int32, pl.String)
REFERENCES: Final[tuple[ReferenceKind, ...]] = get_args(ReferenceKind)

DAILY_TTL_FLOOR: Final = timedelta(hours=25)
"""A daily row must outlive the longest day, or values expire before the next ones land."""

PARITY_SAMPLE: Final = 100_000
MAX_GROWTH: Final = 10.0
MAX_SHRINK: Final = 3.0
LATENCY: Final = timedelta(milliseconds=100)
OBJECTIVE: Final = 0.99


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
        reference: What drift is measured against: "training" (the newest kept training set),
            "trailing" (28 calm days before), "weekday" (the same weekday of the weeks before), or
            "auto" (the training set if there is one, else the days before).
        max_rows: Most rows a day may have; None is no limit. Blocking.
        max_growth: Most rows a day may have, as a multiple of the median of the days before; None
            is no limit. Blocking.
        max_shrink: How many times fewer rows than the median of the days before, closing rows
            aside, pass without a warning; None is no limit.
        max_new_entities: Largest share of rows (0 to 1) whose entity the day before did not have
            that passes without a warning; None is no limit.
        parity: How many entities are compared online at most, chosen by a hash; "all" is each.
        latency: Largest tolerated time of a fetch.
        objective: Share (0 to 1) of requests and of time for which the promises hold.
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
    problems: tuple[str, ...] = ()
    view_name: str | None = None
    reference: ReferenceKind = "auto"
    max_rows: int | None = None
    max_growth: float | None = MAX_GROWTH
    max_shrink: float | None = MAX_SHRINK
    max_new_entities: float | None = None
    parity: Literal["all"] | int = PARITY_SAMPLE
    latency: timedelta = LATENCY
    objective: float = OBJECTIVE

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
        max_rows: Most rows that a day may have; no limit unless given.
        max_growth: Most rows that a day may have, as a multiple of the median of the days before;
            it needs seven of them, and is not asked of a day with fewer than 1,000 rows.
        max_shrink: How many times fewer rows than the median of the days before a day may have
            without a warning; of the same weekday's, if there are two. It needs seven days before,
            and is not asked where 1,000 rows are not usual.
        max_new_entities: Share of new entities above which to warn; no limit unless given.
        reference: What drift is measured against: "auto", "training", "trailing" or "weekday".
        parity: Above how many entities parity compares a sample of that size, or "all".
        latency: Largest tolerated time of a fetch.
        objective: Share of requests and of time for which the promises hold.
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
        max_rows: int | None = None,
        max_growth: float | None = MAX_GROWTH,
        max_shrink: float | None = MAX_SHRINK,
        max_new_entities: float | None = None,
        reference: ReferenceKind = "auto",
        parity: Literal["all"] | int = PARITY_SAMPLE,
        latency: timedelta = LATENCY,
        objective: float = OBJECTIVE,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        super().__init_subclass__()
        features = {name: value for name, value in vars(cls).items() if isinstance(value, Feature)}
        for feature in features.values():
            feature.owner_class = cls
        contract = Contract(
            name=cls.__name__,
            description=(cls.__doc__ or "").strip(),
            entity=entity or _UNDECLARED,
            owner=owner,
            ttl=ttl,
            when_absent=when_absent,
            freshness=freshness or timedelta(hours=27) + landing_delay,
            landing_delay=landing_delay,
            min_rows=min_rows,
            tags=dict(tags or {}),
            features=features,
            reference=reference,
            max_rows=max_rows,
            max_growth=max_growth,
            max_shrink=max_shrink,
            max_new_entities=max_new_entities,
            parity=parity,
            latency=latency,
            objective=objective,
        )
        problems = (*_contract_problems(contract), *_limit_problems(contract))
        if entity is None:
            raise DeclarationError(list(problems))
        cls.contract = replace(contract, problems=problems)


_UNDECLARED: Final = Entity("undeclared", {"undeclared_id": pl.Int64})
"""Stands in for an entity that is not declared, until every other problem is found too."""


def _contract_problems(contract: Contract) -> Iterator[str]:
    name, ttl, least = contract.name, contract.ttl, DAILY_TTL_FLOOR + contract.landing_delay
    if contract.entity is _UNDECLARED:
        yield f"Contract '{name}' has no entity. Declare it: class {name}(Features, entity=…)."
    if not contract.description:
        yield f"Contract '{name}' has no docstring. Say in one sentence what its rows are."
    if not re.match(r"^(team:[\w-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$", contract.owner):
        yield (
            f"Contract '{name}' has owner {contract.owner!r}. Name one: 'team:growth' or an e-mail "
            "address."
        )
    if not contract.features:
        yield f"Contract '{name}' has no features. Add one: amount = Feature(pl.Float64, '…')."
    if ttl is not None and ttl < least:
        yield (
            f"Contract '{name}' has ttl={ttl}, shorter than a 25-hour day and its landing delay of "
            f"{contract.landing_delay}. Values would expire before the next day's arrive: give at "
            f"least {least}."
        )
    if contract.when_absent not in ("last", "empty"):
        yield (
            f"Contract '{name}' has when_absent={contract.when_absent!r}. It is 'last' or 'empty'."
        )
    for feature in contract.features.values():
        yield from feature.problems(name)
        yield from _misfits(contract, feature)


def _limit_problems(contract: Contract) -> Iterator[str]:
    """Yield what is wrong with the limits of the checks and objectives, each with its fix."""
    where, new = f"Contract '{contract.name}'", contract.max_new_entities
    parity: object = contract.parity
    if contract.reference not in REFERENCES:
        yield (
            f"{where} has reference={contract.reference!r}. It is "
            f"{', '.join(map(repr, REFERENCES[:-1]))} or {REFERENCES[-1]!r}."
        )
    if contract.max_rows is not None and contract.max_rows < max(contract.min_rows, 1):
        yield (
            f"{where} has max_rows={contract.max_rows}, which no day with its "
            f"min_rows={contract.min_rows} keeps. Give at least {max(contract.min_rows, 1)}."
        )
    if contract.max_growth is not None and not contract.max_growth > 1:
        yield (
            f"{where} has max_growth={contract.max_growth}. It is a multiple of the usual number "
            "of rows: give a number above 1, e.g. max_growth=10.0, or None for no limit."
        )
    if contract.max_shrink is not None and not contract.max_shrink > 1:
        yield (
            f"{where} has max_shrink={contract.max_shrink}. It says how many times fewer rows than "
            "usual pass: give a number above 1, e.g. max_shrink=3.0, or None for no limit."
        )
    if new is not None and not 0 <= new <= 1:
        yield (
            f"{where} has max_new_entities={new}. It is a share of the rows: give a number from 0 "
            "to 1."
        )
    if parity != "all" and not (isinstance(parity, int) and parity > 0):
        yield (
            f"{where} has parity={parity!r}. Say how many entities to compare at most, e.g. "
            f"parity={PARITY_SAMPLE:_}, or parity='all'."
        )
    if not contract.latency > timedelta(0):
        yield (
            f"{where} has latency={contract.latency}. Give the largest tolerated time of a fetch, "
            "e.g. latency=timedelta(milliseconds=100)."
        )
    if not 0 < contract.objective < 1:
        yield (
            f"{where} has objective={contract.objective}. It is a share of requests and of time, "
            "and no promise holds always: give a number between 0 and 1, e.g. objective=0.99."
        )


def _misfits(contract: Contract, feature: Feature) -> Iterator[str]:
    """Yield what is wrong with a feature only in this contract."""
    name, entity, when_absent = contract.name, contract.entity, contract.when_absent
    if feature.name in entity.key:
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
