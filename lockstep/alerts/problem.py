"""One problem that somebody should know of: what it is, whose it is, and what to do."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, TypeAlias, get_args

Kind: TypeAlias = Literal[
    "quarantined",
    "drift",
    "stale",
    "parity",
    "zone_shift",
    "run_failed",
    "contract_changed",
    "code_changed",
    "held_file",
    "late_data",
    "cardinality",
    "soda",
    "served_drift",
    "not_ready",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Severity: TypeAlias = Literal["page", "ticket"]

SEVERITIES: Final[Mapping[Kind, Severity]] = {
    "quarantined": "page",
    "drift": "ticket",
    "stale": "page",
    "parity": "page",
    "zone_shift": "page",
    "run_failed": "page",
    "contract_changed": "page",
    "code_changed": "ticket",
    "held_file": "page",
    "late_data": "ticket",
    "cardinality": "ticket",
    "soda": "ticket",
    "served_drift": "ticket",
    "not_ready": "page",
}
TITLES: Final[Mapping[Kind, str]] = {
    "quarantined": "Days in quarantine",
    "drift": "Features drift",
    "stale": "Data is not fresh",
    "parity": "Online is not offline",
    "zone_shift": "Event times are shifted",
    "run_failed": "Runs failed",
    "contract_changed": "Contracts changed",
    "code_changed": "Days of other code are served",
    "held_file": "Landed files are refused",
    "late_data": "Late data",
    "cardinality": "Unusually many or few rows",
    "soda": "Hand-written checks warn",
    "served_drift": "Served values drift",
    "not_ready": "Views are not ready",
}
RUNBOOKS: Final = "docs/runbooks"


@dataclass(frozen=True)
class Problem:
    """Something that is wrong now. No text of it names an entity or holds a secret.

    Attributes:
        key: What makes it the same problem at the next look: `kind:name` and what tells it from
            others of the kind.
        subject: What is concerned: `view`, `view:feature`, `view day`, a source or a job.
        severity: "page" wakes somebody; "ticket" waits for the morning.
        sentence: What is wrong, and what is still served.
        owner: Who answers for it.
        runbook: The page that says how to mend it: a path in the project, or an address.
        since: Since when, as far as it can be told.
        details: Names and numbers for programs, as text.
        fix: The command that looks at it or mends it.
    """

    key: str
    kind: Kind
    subject: str
    severity: Severity
    sentence: str
    owner: str
    runbook: str
    since: datetime
    details: Mapping[str, str] = field(default_factory=dict)
    fix: str = ""


def problem(
    key: str,
    subject: str,
    sentence: str,
    *,
    owner: str,
    since: datetime,
    fix: str,
    details: Mapping[str, str] | None = None,
) -> Problem:
    """Return a problem; its kind is the first part of its key.

    Half a surrogate pair, such as Python reads from a name of a file that is no UTF-8, is written
    out: no message can hold it.
    """
    kind = next(known for known in KINDS if key.partition(":")[0] == known)
    return Problem(
        key=encodable(key),
        kind=kind,
        subject=encodable(subject),
        severity=SEVERITIES[kind],
        sentence=encodable(sentence),
        owner=encodable(owner),
        runbook=runbook(kind),
        since=since,
        details={encodable(name): encodable(value) for name, value in (details or {}).items()},
        fix=encodable(fix),
    )


def encodable(text: str) -> str:
    """Return the text with what UTF-8 has no bytes for written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def runbook(kind: Kind, prefix: str = RUNBOOKS) -> str:
    """Return where the page of a kind is.

    Args:
        prefix: `runbooks` of [tool.lockstep.alerts], e.g. an address; else the project's folder.
    """
    return f"{prefix.rstrip('/')}/{kind}.md"


@dataclass(frozen=True)
class Look:
    """What one look found. What it did not look at is neither new nor over.

    Attributes:
        problems: At most one per key.
        sees: Beginnings of keys that it looked at: a problem under one that is not found is over.
        unknown: Beginning of keys that it could not look at → why.
        drifting: Features that drift long enough to alert, for new training sets.
    """

    problems: Collection[Problem]
    sees: frozenset[str]
    unknown: Mapping[str, str] = field(default_factory=dict)
    drifting: Collection["Drifting"] = ()

    def over(self, key: str) -> bool:
        """Whether a problem of that key, not found by this look, is over."""
        return _within(key, self.sees) and not _within(key, self.unknown)

    def __add__(self, other: "Look") -> "Look":
        """Return both; of two problems of one key the first."""
        found = {each.key: each for each in (*other.problems, *self.problems)}
        return Look(
            list(found.values()),
            self.sees | other.sees,
            {**self.unknown, **other.unknown},
            [*self.drifting, *other.drifting],
        )


@dataclass(frozen=True)
class Drifting:
    """A feature that has been over its limit for several windows in a row.

    Attributes:
        key: Of its problem.
        feature: `view:feature`.
        days: The windows as ISO dates, oldest first.
    """

    key: str
    feature: str
    days: tuple[str, ...]


def _within(key: str, beginnings: Collection[str]) -> bool:
    """Whether a key is one of those, or below it: `drift:a` is not below `drift:ab`."""
    parts = key.split(":")
    return any(":".join(parts[:count]) in beginnings for count in range(1, len(parts) + 1))
