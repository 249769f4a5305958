"""`feature_psi_windows_over`: committed days in a row over the limit, wherever it is told."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest

from lockstep import Feature, Features
from lockstep.facts import facts
from lockstep.metrics import feature_metrics, windows_over
from lockstep.slo.export import RULES, exported
from lockstep.stores.day_index import DayRecord, Head
from tests.slo_world import SETTINGS, USER, loaded, promising, view, views
from tests.tiny_project import NOW, TinyProject

FIRST = date(2026, 3, 1)
(PAID,) = (view for view in views() if view.name == "paid")


def committed(*psi: float | None) -> Head:
    """Days in a row with such a PSI of `amount`; None is a day without a reference."""
    records = {}
    for at, value in enumerate(psi):
        day = FIRST + timedelta(days=at)
        numbers = {} if value is None else {"psi:amount": value, "psi:tips": 9.0}
        note = {"verdicts": [{"check": "drift", "passed": True, "numbers": numbers}]}
        known = datetime(2026, 4, 1, tzinfo=UTC)
        records[day] = DayRecord(day, 1, "hash", at, known, 1, note)
    return Head("table", len(psi), records)


@pytest.mark.parametrize(
    ("psi", "expected"),
    [
        ((0.3, 0.3), 2),
        ((0.3, 0.3, 0.3), 3),
        ((0.3, 0.3, 0.2), 0),
        ((0.3, 0.1, 0.3), 1),
        ((0.3, None, 0.3, 0.3), 2),
        ((0.1,), 0),
    ],
)
def test_days_over_the_limit_are_counted_back_from_the_newest(
    psi: tuple[float | None, ...], expected: int
) -> None:
    assert {"amount": expected} == windows_over(PAID, committed(*psi))


def test_without_a_committed_day_there_is_no_number() -> None:
    assert {} == windows_over(PAID, committed())


def test_facts_tell_it_so_that_the_service_can(tiny: TinyProject) -> None:
    found = facts(tiny.store.lake, PAID, committed(0.3, 0.3, 0.3), {}, NOW)

    assert {"amount": 3} == found["psi_windows_over"]


def test_the_lakes_metrics_have_it_between_psi_and_the_end(tiny: TinyProject) -> None:
    names = [metric.name for metric in feature_metrics(tiny.store.lake, [PAID], NOW)]

    assert ("feature_psi", "feature_psi_windows_over") in list(pairwise(names))


def test_a_limit_of_kl_alone_is_counted_and_alerted_like_one_of_psi() -> None:
    class Scored(Features, entity=USER, owner="team:tests", ttl=None):
        """A score."""

        amount = Feature(pl.Float64, "Amount.", max_kl=0.1)

    scored = view("scored", Scored)
    numbers = {"psi:amount": 0.15, "kl:amount": 0.12, "limit:kl:amount": 0.1}
    days = {}
    for at, record in committed(0.0, 0.0, 0.0).days.items():
        note = {"verdicts": [{"check": "drift", "passed": False, "numbers": numbers}]}
        days[at] = replace(record, note=note)

    assert {"amount": 3} == windows_over(scored, Head("table", 3, days))
    alerts = {
        (rule["alert"], rule["labels"].get("view"))
        for rule in loaded(exported([scored, promising("plain")], SETTINGS)[RULES])
        if "alert" in rule
    }
    assert ("FeaturesDrift", "scored") in alerts
    assert ("FeaturesDrift", "plain") not in alerts
