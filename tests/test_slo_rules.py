"""The exported rules wake people when they should, and let them sleep otherwise: by promtool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Self

import pytest
import typer

from lockstep.cli import app
from lockstep.errors import ConfigError, DeclarationError
from lockstep.serving.telemetry import BUCKETS
from lockstep.slo.burn import BURNS, reachable
from lockstep.slo.objectives import objectives
from tests.slo_world import Story, hold, loaded, only, promising, promtool, rules_of, told, views

PAGE = {"severity": "page"}
TICKET = {"severity": "ticket"}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rules_of(tmp_path_factory.mktemp("rules"), views())


@pytest.fixture(scope="module")
def budgets(rules: Path) -> Path:
    return only(rules, "lockstep_windows", "lockstep_budgets")


@pytest.fixture(scope="module")
def state(rules: Path) -> Path:
    return only(rules, "lockstep_state", "lockstep_data", "lockstep_service")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of one view that promises what everybody does: 100 ms and 99 %."""
    written = rules_of(tmp_path_factory.mktemp("plain rules"), [promising("plain")])
    return only(written, "lockstep_windows", "lockstep_budgets")


def fetches(slow: str, all_: str) -> dict[str, str]:
    """Counters of the histogram: those within 100 ms, and all."""
    return {
        'feature_fetch_seconds_bucket{le="0.1",instance="a"}': slow,
        'feature_fetch_seconds_count{instance="a"}': all_,
    }


def alert(name: str, **labels: str) -> dict[str, str]:
    return {"alertname": name, **labels}


def test_promtool_accepts_the_rules_of_every_kind_of_promise(rules: Path) -> None:
    done = promtool("check", "rules", rules)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


# Budgets: a fifth of 99 % is 20 times as fast as planned, a twentieth 5 times, and so on.


@pytest.mark.parametrize(
    ("good", "expected"),
    [
        (80, [alert("FetchesSlow", **PAGE), alert("FetchesSlow", **TICKET)]),
        (93, [alert("FetchesSlow", **PAGE), alert("FetchesSlow", **TICKET)]),
        (95, [alert("FetchesSlow", **TICKET)]),
        (99.5, []),
        (100, []),
    ],
    ids=["20 times", "7 times", "5 times", "half", "none"],
)
def test_a_burn_pages_tickets_or_neither_by_how_fast_it_is(
    plain: Path, good: float, expected: Sequence[Mapping[str, str]]
) -> None:
    series = fetches(f"0+{good}x50", "0+100x50")

    told(plain, "FetchesSlow", series, {"1h40m": expected}, interval="2m")


def test_a_page_comes_within_minutes_of_an_outage_and_goes_soon_after_it(plain: Path) -> None:
    """Six hours of good answers, fourteen minutes without one, and good answers again."""
    series = fetches("0+100x180 18000+0x6 18100+100x20", "0+100x210")
    page, ticket = alert("FetchesSlow", **PAGE), alert("FetchesSlow", **TICKET)

    at = {"6h": [], "6h6m": [ticket], "6h14m": [page, ticket], "6h22m": [ticket]}
    told(plain, "FetchesSlow", series, at, interval="2m")


def test_nobody_is_woken_over_a_handful_of_slow_answers(plain: Path) -> None:
    """Ten an hour, all slow: a ticket for the morning."""
    series = fetches("0x70", " ".join(f"{count}x2" for count in range(22)))

    at = {"2h": [alert("FetchesSlow", **TICKET)]}
    told(plain, "FetchesSlow", series, at, interval="2m")


STEP = 2
"""Minutes between two scrapes of a random history."""


@dataclass(frozen=True)
class History:
    """Fetches of an afternoon: how many there were between two scrapes, and how many were good."""

    counts: Sequence[int]
    good: Sequence[int]

    @classmethod
    def of(cls, seed: int) -> Self:
        """Stretches with as many requests, and as many slow ones, as a generator says."""
        random = Random(seed)
        counts: list[int] = []
        good: list[int] = []
        while len(counts) < 110:
            count = random.choice([0, 1, 20, 200, 1000])
            slow = random.choice([0, 0, 0.005, 0.03, 0.05, 0.08, 0.2, 1])
            length = random.choice([2, 5, 10, 30, 90])
            counts += [count] * length
            good += [count - round(count * slow)] * length
        return cls(counts, good)

    @property
    def story(self) -> Story:
        asked = range(3, 109, 3)
        counters = (" ".join(map(str, accumulate(each, initial=0))) for each in self._both)
        expected = {f"{at * STEP}m": self.expected(at) for at in asked}
        return Story(fetches(*counters), expected)

    @property
    def _both(self) -> tuple[Sequence[int], Sequence[int]]:
        return self.good, self.counts

    def expected(self, at: int) -> list[Mapping[str, str]]:
        """What table 5-8 of the workbook says of an objective of 99 %, counted naively."""
        page = any(
            self.slow(at, long) > limit < self.slow(at, short) and self.count(at, long) >= 100
            for long, short, limit in ((60, 5, 0.144), (360, 30, 0.06))
        )
        ticket = self.slow(at, 3 * 24 * 60) > 0.01 < self.slow(at, 360)
        both = [alert("FetchesSlow", **PAGE)] * page + [alert("FetchesSlow", **TICKET)] * ticket
        return list(both)

    def count(self, at: int, minutes: int) -> int:
        return sum(self.counts[max(0, at - minutes // STEP) : at])

    def slow(self, at: int, minutes: int) -> float:
        total = self.count(at, minutes)
        good = sum(self.good[max(0, at - minutes // STEP) : at])
        return 1 - good / total if total else 0.0


def test_random_afternoons_are_judged_as_a_naive_count_judges_them(plain: Path) -> None:
    histories = [History.of(seed) for seed in range(3)]
    stories = [history.story for history in histories]
    told_of = [len(found) for story in stories for found in story.at.values()]

    hold(plain, "FetchesSlow", stories, f"{STEP}m")
    assert all(told_of.count(number) > 9 for number in (0, 1, 2))


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        ("_x30 0+20x30", [alert("RequestsFail", **PAGE), alert("RequestsFail", **TICKET)]),
        ("_x60", []),
    ],
    ids=["a fifth", "none"],
)
def test_shed_and_failed_requests_burn_their_budget_and_probes_do_not(
    plain: Path, failed: str, expected: Sequence[Mapping[str, str]]
) -> None:
    """Counters of failures are there only after the first one."""
    series = {
        'lockstep_requests_total{route="/v1/features",status="200"}': "0+80x60",
        'lockstep_requests_total{route="/v1/features",status="503"}': failed,
        'lockstep_requests_total{route="/readyz",status="503"}': "0+900x60",
        'lockstep_requests_total{route="/metrics",status="200"}': "0+900x60",
    }

    told(plain, "RequestsFail", series, {"2h": expected}, interval="2m")


def test_cells_in_error_page_the_owner_of_their_view_and_nobody_else(budgets: Path) -> None:
    """Of both views a fiftieth: 20 times the budget of 99.9 %, twice that of 99 %."""
    series = {}
    for view in ("paid", "plain", "lenient"):
        series[f'feature_cells_total{{view="{view}",status="present"}}'] = "0+98x50"
        series[f'feature_cells_total{{view="{view}",status="error"}}'] = "0+2x50"

    told(
        budgets,
        "CellsInError",
        series,
        {
            "90m": [
                alert("CellsInError", view="paid", **PAGE),
                alert("CellsInError", view="paid", **TICKET),
                alert("CellsInError", view="plain", **TICKET),
            ]
        },
        interval="2m",
    )


def test_a_burn_that_cannot_happen_is_left_out_and_the_file_says_so(
    rules: Path, budgets: Path
) -> None:
    """A tenth may fail: an outage burns ten times as fast as planned, never 14.4 times."""
    series = {
        'feature_cells_total{view="lenient",status="present"}': "0+1x100",
        'feature_cells_total{view="lenient",status="error"}': "0+99x100",
    }
    both = [alert("CellsInError", view="lenient", severity=s) for s in ("page", "ticket")]

    told(budgets, "CellsInError", series, {"90m": both}, interval="2m")
    text = rules.read_text("utf-8")
    assert "# A burn of 14.4 is left out: with an objective of 90 % even an outage burns 10" in text
    assert ["6"] == [f"{burn.factor:g}" for burn in reachable(0.9, "page")]
    assert [14.4, 6, 1] == [burn.factor for burn in BURNS]


# State: what the data itself says.


def test_two_windows_over_the_limit_are_quiet_and_three_are_told(state: Path) -> None:
    """However often the second day is scraped; and the day that breaks the streak ends it."""
    series = {
        'feature_psi_windows_over{feature="paid:amount",instance="a"}': "0x9 1x9 2x49 3x9 0x5",
        'feature_psi_windows_over{feature="paid:tips",instance="a"}': "2x85",
    }
    drifting = alert("FeaturesDrift", view="paid", feature="paid:amount", **TICKET)
    whole = {
        "eval_time": "15h",
        "alertname": "FeaturesDrift",
        "exp_alerts": [
            {
                "exp_labels": {
                    "view": "paid",
                    "feature": "paid:amount",
                    "severity": "ticket",
                    "owner": "team:pay",
                    "runbook": "docs/runbooks/drift.md",
                },
                "exp_annotations": {
                    "summary": "paid:amount drifts: 3 days in a row were over its limit.",
                    "description": "The feature was over its limit of drift on three days in a "
                    "row. It is served as it is. Run: lockstep views paid",
                },
            }
        ],
    }

    at = {"3h": [], "5h": [], "13h": [], "15h": [drifting], "17h": []}
    told(state, "FeaturesDrift", series, at, interval="12m", alerts=[whole])


def test_freshness_is_told_while_the_pipeline_is_dead(state: Path) -> None:
    """The age rises by ten minutes every ten minutes, from 24 h; `paid` tolerates 30."""
    series = {'feature_freshness_seconds{feature="paid:amount",instance="a"}': "86400+600x60"}
    stale = alert("FeaturesStale", view="paid", **PAGE)
    whole = {
        "eval_time": "400m",
        "alertname": "FeaturesStale",
        "exp_alerts": [
            {
                "exp_labels": {
                    "view": "paid",
                    "severity": "page",
                    "owner": "team:pay",
                    "runbook": "docs/runbooks/stale.md",
                },
                "exp_annotations": {
                    "summary": "paid has no data of the last 1d 6h 40m 0s; 1d6h are tolerated.",
                    "description": "No newer day was committed and pushed in time. Rows are served "
                    "until their ttl, each with its age. Run: lockstep views paid",
                },
            }
        ],
    }

    at = {"6h": [], "370m": [], "400m": [stale]}
    told(state, "FeaturesStale", series, at, interval="10m", alerts=[whole])


def test_a_pipeline_that_pushes_daily_is_quiet(state: Path) -> None:
    """A saw of 24 h: data of three hours ago each morning, a day older just before the next."""
    day = "10800+1800x47"
    series = {'feature_freshness_seconds{feature="paid:amount",instance="a"}': f"{day} {day}"}

    told(state, "FeaturesStale", series, {"23h": [], "47h": []}, interval="30m")


def test_the_oldest_of_several_services_counts(state: Path) -> None:
    series = {
        'feature_freshness_seconds{feature="plain:number",instance="a"}': "3600x30",
        'feature_freshness_seconds{feature="plain:number",instance="b"}': "104401x30",
        'feature_freshness_seconds{feature="lenient:number",instance="b"}': "104400x30",
    }

    told(state, "FeaturesStale", series, {"20m": [alert("FeaturesStale", view="plain", **PAGE)]})


@pytest.mark.parametrize(
    ("filled", "expected"),
    [
        ("0.95x20", []),
        ("0.9499x20", [alert("FillRateLow", view="paid", feature="paid:amount", **TICKET)]),
    ],
)
def test_a_fill_rate_below_the_promise_is_told_and_the_promise_itself_is_not(
    state: Path, filled: str, expected: Sequence[Mapping[str, str]]
) -> None:
    series = {
        'feature_fill_rate{feature="paid:amount"}': filled,
        'feature_fill_rate{feature="paid:tips"}': "0x20",
    }

    told(state, "FillRateLow", series, {"15m": expected})


def test_a_dead_exporter_is_one_page_and_not_one_alert_per_view(state: Path) -> None:
    series = {
        "lockstep_ready": "1x10 _x60",
        **{
            f'feature_freshness_seconds{{feature="{feature}"}}': "60x10 _x60"
            for feature in ("paid:amount", "plain:number", "lenient:number")
        },
    }
    dead = alert("MetricsAbsent", **PAGE)

    told(state, "MetricsAbsent|FreshnessUnknown", series, {"9m": [], "20m": [dead], "1h": [dead]})


def test_a_view_whose_age_nobody_tells_is_a_ticket(state: Path) -> None:
    series = {
        "lockstep_ready": "1x60",
        'feature_freshness_seconds{feature="paid:amount"}': "60x60",
        'feature_freshness_seconds{feature="plain:number"}': "60x60",
    }
    unknown = alert("FreshnessUnknown", view="lenient", **TICKET)

    told(state, "MetricsAbsent|FreshnessUnknown", series, {"20m": [], "40m": [unknown]})


def test_what_needs_no_traffic_is_told_without_any(state: Path) -> None:
    series = {
        'lockstep_ready{instance="a"}': "1x30",
        'lockstep_ready{instance="b"}': "1x10 0x20",
        'lockstep_last_look_seconds{instance="a"}': "1x30",
        'lockstep_last_look_seconds{instance="b"}': "1x10 61+60x20",
        'lockstep_view_ready{view="paid",instance="a"}': "1x30",
        'lockstep_view_ready{view="paid",instance="b"}': "1x10 0x20",
        'lockstep_view_ready{view="plain",instance="b"}': "1x30",
        "lockstep_served_log_dropped_total": "0+10x30",
    }
    names = "StoreUnreachable|WatchStopped|ViewNotReady|ServedLogDrops"
    first = [alert(name, **PAGE) for name in ("StoreUnreachable", "WatchStopped")]

    told(
        state,
        names,
        series,
        {
            "10m": [],
            "14m": first,
            "25m": [
                *first,
                alert("ViewNotReady", view="paid", **PAGE),
                alert("ServedLogDrops", **TICKET),
            ],
        },
    )


def test_a_service_of_several_that_is_down_is_a_ticket_whatever_its_job_is_called(
    state: Path,
) -> None:
    """Something else that Prometheus scrapes may be down: that is not ours to tell."""
    series = {
        'up{job="vectors",instance="a"}': "1x30",
        'up{job="vectors",instance="b"}': "1x10 0x20",
        'up{job="database",instance="c"}': "0x30",
        'lockstep_ready{job="vectors",instance="a"}': "1x30",
        'lockstep_ready{job="vectors",instance="b"}': "1x10 _x20",
    }

    at = {"15m": [], "25m": [alert("ServiceDown", **TICKET)]}
    told(state, "ServiceDown|MetricsAbsent", series, at)


# What the file says.


def test_every_alert_has_severity_owner_runbook_and_a_command(rules: Path) -> None:
    alerts = [rule for rule in loaded(rules.read_text("utf-8")) if "alert" in rule]

    assert {"page", "ticket"} == {rule["labels"]["severity"] for rule in alerts}
    owners = {"team:pay", "team:tests", "team:other", "team:serving"}
    assert owners == {rule["labels"]["owner"] for rule in alerts}
    for rule in alerts:
        assert rule["labels"]["runbook"].startswith("docs/runbooks/")
        assert rule["annotations"]["summary"]
        assert ". Run: lockstep " in rule["annotations"]["description"]
        if "view" in rule["labels"]:
            assert rule["labels"]["view"] in rule["annotations"]["description"]


def test_every_command_of_an_alert_can_be_typed_as_it_stands(rules: Path) -> None:
    commands = {
        rule["annotations"]["description"].partition(". Run: lockstep ")[2]
        for rule in loaded(rules.read_text("utf-8"))
        if "alert" in rule
    }

    assert {"doctor", "serve", "views paid", "push paid"} < commands
    for typed in commands:
        name, *arguments = typed.split()
        group = typer.main.get_command(app)
        assert isinstance(group, typer.core.TyperGroup)
        group.commands[name].make_context(name, arguments)


def test_a_latency_without_a_bucket_of_its_own_takes_the_nearest_below_and_says_so(
    rules: Path,
) -> None:
    buckets = {
        rule["labels"]["bucket"]
        for rule in loaded(rules.read_text("utf-8"))
        if "bucket" in str(rule)
    }
    said = " ".join(rules.read_text("utf-8").replace("#", "").split())

    assert {"0.05", "0.1"} == buckets
    assert (
        "Share of the answered fetches that took longer than 50 ms. paid promises 80 ms. The "
        "histogram has no such bucket: this is the nearest one at or below it." in said
    )
    assert "took longer than 100 ms. That is what is promised of lenient, plain." in said


def test_the_strictest_of_the_views_that_share_a_bucket_counts() -> None:
    found = objectives(views(), BUCKETS, "team:serving")

    assert [(0.05, 0.999), (0.1, 0.99)] == [(each.bucket, each.share) for each in found.fetches]
    assert 0.999 == found.service.share
    assert ["lenient", "paid", "plain"] == found.service.views


def test_every_promise_becomes_a_series_that_it_can_be_held_against(rules: Path) -> None:
    found = {
        (rule["record"], *rule.get("labels", {}).values()): rule["expr"]
        for rule in loaded(rules.read_text("utf-8"))
        if rule.get("record", "").endswith((":limit", ":budget"))
    }

    assert {
        ("service:feature_fetch_slow:budget", "0.05"): "vector(1 - 0.999)",
        ("service:feature_fetch_slow:budget", "0.1"): "vector(1 - 0.99)",
        ("service:lockstep_requests_failed:budget",): "vector(1 - 0.999)",
        ("view:feature_cells_error:budget", "lenient"): "vector(1 - 0.9)",
        ("view:feature_cells_error:budget", "paid"): "vector(1 - 0.999)",
        ("view:feature_cells_error:budget", "plain"): "vector(1 - 0.99)",
        ("view:feature_freshness_seconds:limit", "lenient"): "vector(104400)",
        ("view:feature_freshness_seconds:limit", "paid"): "vector(108000)",
        ("view:feature_freshness_seconds:limit", "plain"): "vector(104400)",
        ("feature:feature_fill_rate:limit", "paid:amount"): "vector(0.95)",
        ("feature:feature_psi:limit", "paid:amount"): "vector(0.2)",
    } == found


def test_a_latency_below_what_is_measured_is_refused_and_so_is_a_project_without_views() -> None:
    hasty = promising("hasty", latency=timedelta(microseconds=499))

    with pytest.raises(DeclarationError, match=r"'hasty' promises .* in steps from 0\.5 ms"):
        objectives([hasty, promising("plain")], BUCKETS, "team:serving")
    with pytest.raises(ConfigError, match=r"no view.*lockstep new view"):
        objectives([], BUCKETS, "team:serving")
