"""What a rule finds: one of the named causes, with the evidence and the fix."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from lockstep.why.facts import Facts

Cause: TypeAlias = Literal[
    "zone shift",
    "late data",
    "partial push",
    "evicted",
    "expired",
    "correction not pushed",
    "quarantined",
    "schema change",
    "code changed",
    "never computed",
    "Redis behind",
    "Redis down",
    "overwritten",
    "as it should be",
]


@dataclass(frozen=True)
class Found:
    """A cause, and what it is concluded from.

    Attributes:
        sentence: What happened, naming days and revisions.
        evidence: The facts that it rests on, a sentence each.
        fix: The command that puts it right; empty if there is nothing to put right.
        first: What somebody has to do before the command.
    """

    cause: Cause
    sentence: str
    evidence: Sequence[str] = ()
    fix: str = ""
    first: str = ""


Rule: TypeAlias = Callable[[Facts], Found | None]
