"""The benchmark of the audit runs, on tiny sizes; timings are reported, not asserted."""

from typing import Any

import pytest

from benchmarks.audit import data, document, measure, report
from benchmarks.audit.__main__ import main
from benchmarks.table import as_json, table
from tests.benchmark_files import assert_says_on_what, assert_shown_on_the_page, measured


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the file says after a quick run."""
    return measured(main, tmp_path_factory.mktemp("bench") / "audit.json")


def test_the_file_says_what_was_measured_and_on_what(found: dict[str, Any]) -> None:
    assert_says_on_what(found, data.SEED)


def test_every_part_of_the_audit_and_the_whole_day_are_timed(found: dict[str, Any]) -> None:
    day = found["results"]["day"]

    assert day.keys() == found["results"]["cpu"].keys()
    assert {"materialize", "compute", "whole audit", "new entities", *measure.AUDITED} == day.keys()
    assert all(seconds > 0 for seconds in day.values())
    assert sum(day[name] for name in measure.AUDITED) == pytest.approx(
        report.audit_share(day) * day["materialize"]
    )


def test_a_number_is_measured_for_every_day_and_feature_of_the_year(found: dict[str, Any]) -> None:
    year = found["results"]["year"]

    assert measure.QUICK.year * len(data.habits.contract.features) == year["numbers"]
    assert year["largest"] > 0


def test_the_table_has_a_line_per_measurement(found: dict[str, Any]) -> None:
    rows = report.rows_of(found["results"])

    assert len(rows) + 2 == len(table(rows).splitlines())
    assert found["rows"] == as_json(rows)


def test_purchases_are_the_same_in_every_run_and_others_every_day() -> None:
    first = data.purchases_of(3, 50)

    assert first.equals(data.purchases_of(3, 50))
    assert not first.equals(data.purchases_of(4, 50))
    assert (100, 50) == (first.height, first["customer_id"].n_unique())


def test_the_text_of_the_page_holds_the_table(found: dict[str, Any]) -> None:
    text = document.block(found)

    assert table(report.rows_of(found["results"])) in text
    assert "3,000 rows x 10 features" in text


def test_the_page_shows_the_table_of_the_results_file() -> None:
    assert_shown_on_the_page(document.SECTION)
