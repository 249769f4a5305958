"""What `lockstep doctor` says: one sentence per check, whether it must be put right, and how."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "advice", "broken", "unknown"]


@dataclass(frozen=True)
class Advice:
    """The result of one check.

    Attributes:
        code: Its name, the same in every release.
        level: "ok"; "advice" (works, could be better); "broken" (must be put right); "unknown"
            (nobody told, usually because an ACL forbids the question).
        sentence: What was seen.
        fix: What to do; empty if nothing has to be done.
    """

    code: str
    level: Level
    sentence: str
    fix: str = ""


def ok(code: str, sentence: str) -> Advice:
    """Return the result of a check with nothing to do."""
    return Advice(code, "ok", sentence)


def worst_first(found: list[Advice]) -> list[Advice]:
    """Return the results with what must be put right first, otherwise in their order."""
    order: tuple[Level, ...] = ("broken", "advice", "unknown", "ok")
    return sorted(found, key=lambda each: order.index(each.level))
