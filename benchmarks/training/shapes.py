"""The shapes of data: how many customers, days, views and spine rows a workload has."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Kind = Literal["numbers", "profile", "few"]


@dataclass(frozen=True)
class ViewShape:
    """One view.

    Attributes:
        kind: Which features, see `data`.
        share: Of the customers that have a row, on any one day.
        ttl_days: How long a row counts; None is for ever.
    """

    name: str
    kind: Kind
    customers: int
    days: int
    ttl_days: int | None
    share: float = 1.0


@dataclass(frozen=True)
class Shape:
    """One workload's data.

    Attributes:
        spine: Rows of the spine.
        peers: Whether peers get files of their own, with superseded rows and `created`.
        restated: Numbers of the days of the first view that are committed twice.
    """

    name: str
    views: tuple[ViewShape, ...]
    spine: int
    peers: bool = True
    restated: tuple[int, ...] = ()

    @property
    def first(self) -> ViewShape:
        """The view that decides which customers and days the spine asks for."""
        return self.views[0]

    @property
    def rows(self) -> int:
        """Rows of all views, about."""
        return sum(round(of.customers * of.share) * of.days for of in self.views)

    def to_json(self) -> dict[str, Any]:
        """What `shape_of` reads."""
        return asdict(self)


def shape_of(found: Mapping[str, Any]) -> Shape:
    """Read what `to_json` wrote."""
    views = tuple(ViewShape(**view) for view in found["views"])
    return Shape(**{**found, "views": views, "restated": tuple(found["restated"])})


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        joined: 1M × (10M × 10 + 0.5M × 5): the usual training set.
        long: Long ttl over many days of few entities.
        large: Does not fit into the memory it is given.
        wide: Many small views; `views` says how many of them are asked for.
        memory: Bytes that the large one may take.
        rounds: Repetitions, contenders in turn; medians are reported.
        slow_rounds: Repetitions of what takes a minute or more.
        patience: Seconds after which a contender is ended.
    """

    joined: Shape
    long: Shape
    large: Shape
    wide: Shape
    views: tuple[int, ...] = (1, 5, 10, 20)
    memory: int = 4_000_000_000
    rounds: int = 5
    slow_rounds: int = 2
    patience: int = 900


def sizes() -> Sizes:
    """The sizes of a full run."""
    numbers = ViewShape("txn_7d", "numbers", 100_000, 100, 3)
    profile = replace(numbers, name="profile", kind="profile", ttl_days=None, share=0.05)
    few = [ViewShape(f"view_{number:02}", "few", 100_000, 10, 3) for number in range(20)]
    return Sizes(
        joined=Shape("joined", (numbers, profile), 1_000_000, restated=(50,)),
        long=Shape("long", (replace(numbers, customers=10_000, days=500, ttl_days=30),), 500_000),
        large=Shape("large", (replace(numbers, customers=1_000_000),), 20_000_000, peers=False),
        wide=Shape("wide", tuple(few), 1_000_000, peers=False),
    )


def quick_sizes() -> Sizes:
    """Sizes that show in seconds that it runs."""
    numbers = ViewShape("txn_7d", "numbers", 400, 7, 3)
    profile = replace(numbers, name="profile", kind="profile", ttl_days=None, share=0.05)
    few = [ViewShape(f"view_{number:02}", "few", 50, 2, 3) for number in range(3)]
    return Sizes(
        joined=Shape("joined", (numbers, profile), 1000, restated=(5,)),
        long=Shape("long", (replace(numbers, customers=50, days=5, ttl_days=30),), 500),
        large=Shape("large", (replace(numbers, days=3),), 5000, peers=False),
        wide=Shape("wide", tuple(few), 500, peers=False),
        views=(1, 2, 3),
        memory=400_000_000,
        rounds=1,
        slow_rounds=1,
    )
