"""Error budgets: how fast they burn, and who is told when, by several windows at once.

The windows and factors are those of "The Site Reliability Workbook" (O'Reilly 2018), chapter 5,
"Alerting on SLOs", table 5-8. Of a budget for 30 days, 14.4 spends 2 % within an hour, 6 spends 5 %
within six hours, and 1 spends 10 % within three days. The short window makes an alert end soon
after its cause has ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from lockstep.alerts.problem import Severity
from lockstep.slo.rule_file import Recording

LEAST_PER_WINDOW: Final = 100
"""Nobody is woken over fewer: one slow answer of three says nothing."""


@dataclass(frozen=True)
class Burn:
    """A pair of windows and the rate at which, in both, somebody is told.

    Attributes:
        factor: Multiple of the rate that spends exactly the budget in its period.
    """

    long: str
    short: str
    factor: float
    severity: Severity


BURNS: Final = (
    Burn("1h", "5m", 14.4, "page"),
    Burn("6h", "30m", 6, "page"),
    Burn("3d", "6h", 1, "ticket"),
)
WINDOWS: Final = tuple(
    sorted(
        {window for burn in BURNS for window in (burn.short, burn.long)},
        key=lambda window: int(window[:-1]) * {"m": 1, "h": 60, "d": 1440}[window[-1]],
    )
)


@dataclass(frozen=True)
class Ratio:
    """A share of something that should not have been.

    Attributes:
        name: Of the recorded series, without the window: `level:what`.
        bad: Expression of the share's numerator over it; `{window}` stands for the window.
        count: How much there was within `{window}`, in all, as one sample.
        labels: Of the recorded series, beside those that the expression keeps.
        selector: Which of the recorded series is meant, in braces; empty if there is one.
    """

    name: str
    share: str
    count: str
    labels: Mapping[str, str] = field(default_factory=dict)
    selector: str = ""
    comment: str = ""

    def over(self, window: str) -> str:
        """Return the recorded series of a window."""
        return f"{self.name}:ratio_rate{window}{self.selector}"

    def recordings(self) -> list[Recording]:
        """Return what records it, window by window, ascending."""
        return [
            Recording(
                f"{self.name}:ratio_rate{window}",
                self.share.replace("{window}", window),
                self.labels,
                "" if at else self.comment,
            )
            for at, window in enumerate(WINDOWS)
        ]


def burning(ratio: Ratio, objective: float, severity: Severity) -> str | None:
    """Return an expression that gives something while the budget burns; None if none can.

    With a low objective even an outage does not burn 14.4 times as fast as planned.

    Args:
        objective: Share that should have been good, above 0 and below 1.
    """
    parts = [_burning(ratio, objective, burn) for burn in reachable(objective, severity)]
    return "\nor\n".join(parts) or None


def reachable(objective: float, severity: Severity) -> Sequence[Burn]:
    """Return the pairs of windows in which the budget can burn as fast as they ask."""
    return [
        burn for burn in BURNS if burn.severity == severity and burn.factor * (1 - objective) < 1
    ]


def _burning(ratio: Ratio, objective: float, burn: Burn) -> str:
    limit = f"{burn.factor:g} * (1 - {objective:.15g})"
    lines = [f"  {ratio.over(burn.long)} > {limit}", "and", f"  {ratio.over(burn.short)} > {limit}"]
    if burn.severity == "page":
        count = ratio.count.replace("{window}", burn.long)
        lines += ["and on ()", f"  {count} >= {LEAST_PER_WINDOW}"]
    return "\n".join(("(", *lines, ")"))
