"""Looks made by hand, for tests of what becomes of them."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from lockstep.alerts.asking import Model
from lockstep.alerts.deliver import Send, Ticked, send, tick
from lockstep.alerts.problem import KINDS, Drifting, Look, Problem, problem
from lockstep.alerts.settings import AlertSettings, Receiver
from lockstep.alerts.state import States

T0 = datetime(2026, 11, 22, 2, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
HOOK = Receiver("hook", "webhook", url="http://127.0.0.1:1")
CHURN = Model("churn_v1", ["txn_7d:sum_amt_7d", "txn_7d:count_7d"], ["household"])


def stale(view: str, *, owner: str = "team:growth", sentence: str = "It is old.") -> Problem:
    return problem(
        f"stale:{view}", view, sentence, owner=owner, since=T0 - HOUR, fix="lockstep status"
    )


def drift(feature: str) -> Problem:
    return problem(
        f"drift:{feature}",
        feature,
        "It drifts.",
        owner="team:growth",
        since=T0 - 72 * HOUR,
        fix="lockstep training-sets list",
    )


def seen(*problems: Problem, unknown: Mapping[str, str] | None = None) -> Look:
    """Return a look that saw everything, and of that only these problems."""
    return Look(problems, frozenset(KINDS), unknown or {})


def drifting(*features: str, days: Collection[str]) -> Look:
    found = [Drifting(f"drift:{name}", name, tuple(days)) for name in features]
    return Look([drift(name) for name in features], frozenset(KINDS), {}, found)


def ticked(
    states: States,
    look: Look,
    at: datetime,
    *receivers: Receiver,
    environment: Mapping[str, str] | None = None,
    send: Send = send,
    models: Collection[Model] = (CHURN,),
) -> Ticked:
    return tick(
        states,
        look,
        AlertSettings(receivers or (HOOK,)),
        project="shop:test",
        models=models,
        now=at,
        environment=environment or {},
        send=send,
    )


class Sent(list[tuple[str, Any]]):
    """A way of sending that keeps what it was given, and fails as often as it is told."""

    def __init__(self, *failures: str) -> None:
        super().__init__()
        self.failures = list(failures)

    def __call__(self, receiver: Receiver, message: Any, _: Mapping[str, str]) -> str | None:
        if self.failures:
            return self.failures.pop(0)
        self.append((receiver.name, message))
        return None

    def news(self) -> list[list[tuple[str, str]]]:
        """Return the subjects and standings of each message."""
        return [
            [(item.problem.subject, item.standing) for item in message.items] for _, message in self
        ]
