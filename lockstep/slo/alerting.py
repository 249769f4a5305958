"""How every alert is labelled, and what each of them means; runbook pages are named here alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from lockstep.alerts.problem import RUNBOOKS, Severity
from lockstep.slo.rule_file import Alert


@dataclass(frozen=True)
class Meaning:
    """What an alert says, whatever it is about.

    Attributes:
        page: Name of the runbook page; several alerts share one.
        sentence: What is wrong, and what callers get meanwhile.
    """

    page: str
    sentence: str


MEANINGS: Final[Mapping[str, Meaning]] = {
    "FeaturesStale": Meaning(
        "stale",
        "No newer day was committed and pushed in time. Rows are served until their ttl, each with "
        "its age.",
    ),
    "FreshnessUnknown": Meaning(
        "stale",
        "The service answers and does not say how old the view's data is: it was never pushed, or "
        "its facts are gone.",
    ),
    "FillRateLow": Meaning(
        "quarantined",
        "The newest day has fewer values than its contract promises: somebody released it from "
        "quarantine, or the contract has changed since.",
    ),
    "FeaturesDrift": Meaning(
        "drift",
        "The feature was over its limit of drift on three days in a row. It is served as it is.",
    ),
    "ViewNotReady": Meaning(
        "not_ready",
        "The view is incomplete online. What is stored is served; a cell without a row is an "
        "error.",
    ),
    "StoreUnreachable": Meaning(
        "not_ready",
        "A service gets no answer from Redis, or none that it can read. Cells are errors, with the "
        "declared fallback as their value.",
    ),
    "WatchStopped": Meaning(
        "not_ready",
        "A service has not seen seals and facts for a minute: it may call something missing that "
        "is there, and its metrics about data are old.",
    ),
    "CellsInError": Meaning(
        "failed_requests",
        "Callers get the status error for cells of the view, with the declared fallback as their "
        "value.",
    ),
    "RequestsFail": Meaning(
        "failed_requests",
        "Requests for features are shed or fail: their callers get 503 or 500 and no features.",
    ),
    "FetchesSlow": Meaning(
        "slow_fetches", "Requests for features are answered later than the contracts promise."
    ),
    "MetricsAbsent": Meaning(
        "no_metrics",
        "No feature service is scraped: none runs, or Prometheus does not reach it. None of the "
        "other rules can tell anything.",
    ),
    "ServiceDown": Meaning(
        "no_metrics",
        "A feature service, or one of its workers, does not answer Prometheus. Others serve if "
        "there are any.",
    ),
    "ServedLogDrops": Meaning(
        "served_drift",
        "The served-feature log has no room or cannot write: drift of the traffic is measured on a "
        "part of it. Requests are answered as ever.",
    ),
}


@dataclass(frozen=True)
class Alerting:
    """Makes alerts whose runbooks stand in one place.

    Args:
        runbooks: A folder of the project, or an address.
    """

    runbooks: str = RUNBOOKS

    def runbook(self, alert: str) -> str:
        """Return where the page about an alert is."""
        return f"{self.runbooks.rstrip('/')}/{MEANINGS[alert].page}.md"

    def alert(
        self,
        name: str,
        expr: str,
        *,
        severity: Severity,
        owner: str,
        summary: str,
        fix: str,
        lasting: timedelta,
        labels: Mapping[str, str] | None = None,
        comment: str = "",
    ) -> Alert:
        """Return an alert; its name is one of `MEANINGS`.

        Args:
            summary: One sentence with what it is about and `{{ $value }}`.
            fix: The command that looks at it or mends it.
            labels: Beside severity, owner and runbook.
        """
        return Alert(
            name,
            expr,
            labels={
                **(labels or {}),
                "severity": severity,
                "owner": owner,
                "runbook": self.runbook(name),
            },
            annotations={
                "summary": summary,
                "description": f"{MEANINGS[name].sentence} Run: {fix}",
            },
            lasting=lasting,
            comment=comment,
        )
