"""What `lockstep why` knows of one feature of one entity at one instant. Data; nothing is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal, TypeAlias

from lockstep.online import CellStatus

Claim: TypeAlias = Literal["ours", "another table", "being wiped", "lost", "none"]


@dataclass(frozen=True)
class Cell:
    """The feature as one side holds it.

    Attributes:
        status: What a reader is told: "present", "null", "missing", "expired" or "error".
        value: The stored value, also of an expired row; None where there is no row.
        day: Of the row; None if there is none.
        version: The Delta version that certified it (offline) or that it was pushed from (online).
        removed: It is a tombstone.
    """

    status: CellStatus
    value: Any = None
    day: date | None = None
    revision: int | None = None
    event_timestamp: datetime | None = None
    version: int | None = None
    removed: bool = False

    @property
    def there(self) -> bool:
        """Whether there is a row, valid or not."""
        return self.event_timestamp is not None and not self.removed

    def age(self, at: datetime) -> timedelta | None:
        """How long the row has been valid, or was; None without a row."""
        return None if self.event_timestamp is None else at - self.event_timestamp


def cell_status(value: object, *, valid: bool) -> CellStatus:
    """Return what a reader is told of a stored value."""
    if not valid:
        return "expired"
    return "null" if value is None else "present"


@dataclass(frozen=True)
class Online:
    """What the online store says of the entity, and of the bucket that it is in.

    Attributes:
        problem: Why it does not answer; the rest says nothing then.
        equal: It holds, byte for byte but for the version, what Delta says it must.
        sealed: Day → revision that the entity's bucket has sealed.
        seal_version: The Delta version of that seal; None if the bucket has none.
        claim: Which table the bucket belongs to; "lost" if only the other buckets know.
        lost: How many buckets belong to no table while others belong to this one.
        further: Buckets that have sealed what this one has not.
        begun: Chunks of a push have arrived in buckets that it has not sealed.
        other_schema: The stored row was written under other columns than the contract's.
        damaged: What is stored there is no row that this release can read.
        evicted_keys: Keys that the server dropped for lack of memory since it started.
        unready: What the store says of the view, if it was marked as not ready.
        sealed_before: The last reconciliation saw a seal where there is none now.
        stopped: It is the project's own server, and it does not run: `lockstep up` starts it.
    """

    problem: str | None = None
    cell: Cell = field(default_factory=lambda: Cell("missing"))
    equal: bool = False
    bucket: int = 0
    buckets: int = 1
    sealed: Mapping[date, int] = field(default_factory=dict)
    seal_version: int | None = None
    claim: Claim = "ours"
    lost: int = 0
    further: int = 0
    begun: bool = False
    other_schema: bool = False
    damaged: bool = False
    evicted_keys: int = 0
    policy: str = "noeviction"
    unready: str | None = None
    sealed_before: bool = False
    stopped: bool = False


@dataclass(frozen=True)
class Recomputed:
    """The feature computed anew, for comparison with what is committed.

    Attributes:
        by_same_inputs: Whether today's code gives the committed value from the inputs that it was
            computed from; None if that was not asked or cannot be computed.
        by_todays_inputs: Whether it does from what is committed of the inputs now.
        problem: Why it cannot be computed.
    """

    by_same_inputs: bool | None = None
    by_todays_inputs: bool | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Made:
    """How one committed day came about, and whether that still holds.

    Attributes:
        inputs: Input → days and revisions that were read, as runs.
        closing: Input → the day before its window, which was read only for the entities that left.
        restated: Input → days that have another revision now than was read.
        declared: The version of the code that is declared now.
        outcome: "committed", "unchanged" or "released"; of the newest recomputation.
    """

    day: date
    revision: int
    version: int
    known_at: datetime
    run_id: str
    code_version: str
    declared: str
    content_hash: str
    inputs: Mapping[str, str]
    restated: Mapping[str, Sequence[date]]
    verdicts: Sequence[Mapping[str, Any]]
    recomputed: Recomputed = Recomputed()
    outcome: str = "committed"
    closing: Mapping[str, date] = field(default_factory=dict)

    @property
    def by_other_code(self) -> bool:
        """Whether another version of the code than the declared one produced the content."""
        return self.code_version != self.declared

    @property
    def code_matters(self) -> bool:
        """Whether today's code gives another value from the same inputs, as far as is known."""
        return self.by_other_code and self.recomputed.by_same_inputs is not True

    @property
    def inputs_matter(self) -> bool:
        """Whether the inputs of today give another value, as far as is known."""
        if not self.restated:
            return False
        same, today = self.recomputed.by_same_inputs, self.recomputed.by_todays_inputs
        return not (today or (today is False and same is False and self.by_other_code))


@dataclass(frozen=True)
class Held:
    """A landed file that breaks its schema, and the days it holds back (none: any)."""

    source: str
    reason: str
    days: Sequence[date]
    columns: bool


@dataclass(frozen=True)
class Shifted:
    """Days of a source whose event times are off by a constant."""

    source: str
    sentence: str
    days: Sequence[date]


@dataclass(frozen=True)
class Quarantined:
    """A frame of the view, or of one that it reads, that failed its audit."""

    view: str
    item: str
    day: date
    reason: str
    found_at: datetime


@dataclass(frozen=True)
class Upstream:
    """What is wrong with what the view reads, through the views between, in the days that count.

    Attributes:
        not_landed: Source → days of which nothing has landed, and which should have.
        not_ingested: Source → days of which files have landed and nothing is committed.
        arrived: Source → committed days for which files with rows of the entity came later.
        restated: View between → days of which an input has another revision now.
        incomplete: What has to be built before the view: sources, then views.
        problems: What could not be looked at.
    """

    not_landed: Mapping[str, Sequence[date]] = field(default_factory=dict)
    not_ingested: Mapping[str, Sequence[date]] = field(default_factory=dict)
    arrived: Mapping[str, Sequence[date]] = field(default_factory=dict)
    restated: Mapping[str, Sequence[date]] = field(default_factory=dict)
    held: Sequence[Held] = ()
    shifted: Sequence[Shifted] = ()
    incomplete: Sequence[str] = ()
    problems: Sequence[str] = ()


@dataclass(frozen=True)
class Since:
    """What was learnt of a past instant's answer after it.

    Attributes:
        cell: What a point-in-time join by event time, corrections included, gives today.
        differs: Whether that is another value than could be answered then.
        corrected: The day that it comes from was known then, in an earlier revision.
        known_at: When the revision that it comes from was certified.
        other_code: That revision was computed by other code than the one it replaced.
    """

    cell: Cell
    differs: bool
    corrected: bool = False
    known_at: datetime | None = None
    other_code: bool = False
    restated: Mapping[str, Sequence[date]] = field(default_factory=dict)


@dataclass(frozen=True)
class Log:
    """A log of the run that computed the day: where it is and its lines about the view."""

    path: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Everything that the rules and the screen need.

    Attributes:
        past: `at` is not the present: what could have been answered then is looked at, and what
            Redis held is not known.
        offline: What Delta says that a reader must be told.
        online: What Redis holds; None for the past.
        made: How the days that count came about: that of the row and the newest one. Newest first.
        days: How many days are committed.
        newest: The newest committed day that had ended; None if there is none.
        expected: The newest day that should be committed, its landing delay over.
        missing: Days after the row's up to the expected one that are not committed.
        contract_changed: Why the table refuses the declared contract; None if it does not.
        quarantined: Open items, newest day first.
    """

    entity: Mapping[str, int | str]
    view: str
    feature: str
    pii: bool
    owner: str
    at: datetime
    past: bool
    ttl: timedelta | None
    when_absent: str
    offline: Cell
    online: Online | None
    made: Sequence[Made] = ()
    days: int = 0
    newest: date | None = None
    expected: date | None = None
    missing: Sequence[date] = ()
    contract_changed: str | None = None
    quarantined: Sequence[Quarantined] = ()
    upstream: Upstream = Upstream()
    since: Since | None = None
    committed: Mapping[date, int] = field(default_factory=dict)
    run_id: str = ""
    run_url: str | None = None
    logs: Sequence[Log] = ()

    @property
    def name(self) -> str:
        """The feature as it is asked for."""
        return f"{self.view}:{self.feature}"
