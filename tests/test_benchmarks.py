"""The benchmark of the online side runs, on tiny sizes and without Feast, and measures right work.

Timings are not looked at: they are reported, not asserted.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks import timing
from benchmarks.online import data, document, http_load_worker, report, type_cases
from benchmarks.online.__main__ import PARTS, main
from benchmarks.online.polars_types import TYPES, case_frame
from benchmarks.table import as_json, table
from tests.benchmark_files import assert_says_on_what, assert_shown_on_the_page, measured


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the file says after a quick run."""
    folder = tmp_path_factory.mktemp("bench")
    work = str(folder / "work")
    return measured(main, folder / "online.json", "--no-feast", "--work", work)


def test_the_file_says_what_was_measured_and_on_what(found: dict[str, Any]) -> None:
    assert list(PARTS) == list(found["results"])
    assert_says_on_what(found, data.SEED)


def test_every_row_is_pushed_and_beside_a_floor_of_as_many_bytes(found: dict[str, Any]) -> None:
    push = found["results"]["push"]
    ours = next(of for name, of in push.items() if name.startswith("lockstep"))
    floor = next(of for name, of in push.items() if name.startswith("redis-benchmark"))

    assert found["sizes"]["pushed"] == ours["rows"] == ours["written"]
    assert ours["whole"]
    assert ours["peak_rss_mb"] > ours["imported_rss_mb"] > 0
    assert round(ours["row_bytes"]) == floor["row_bytes"]


def test_every_client_reads_every_size(found: dict[str, Any]) -> None:
    fetch = found["results"]["fetch"]

    assert {"lockstep", "lockstep, asyncio", "redis-py pipeline", "packed by hand"} < fetch.keys()
    assert all({"1", "100", "1000"} == of.keys() for of in fetch.values())
    assert all(
        of["n"] and of["p50_ms"] <= of["p99_ms"] <= of["max_ms"]
        for of in (fetch["lockstep"]["1"], fetch["redis-py pipeline"]["1000"])
    )


def test_every_service_is_asked_for_every_size_by_one_client_and_at_half_load(
    found: dict[str, Any],
) -> None:
    http = found["results"]["http"]

    for service in ("lockstep", "floor"):
        for size in ("1", "100", "500"):
            of = http[service][size]
            assert {"one_client", "busy", "half_load_even"} <= of.keys()
            assert of["one_client"]["statuses"]["200"] == of["one_client"]["n"] > 0
            half = of["half_load_even"]["offered_per_s"]
            assert pytest.approx(of["busy"]["per_s"] / 2, abs=0.1) == half
    assert {"1", "100", "500"} < http["lockstep, Feast's protocol"].keys()
    assert http["lockstep"]["100"]["one_client"]["answer_bytes"] > 30 * 100 * 3


def test_overload_says_what_was_shed_and_when_it_was_over(found: dict[str, Any]) -> None:
    overload = found["results"]["http"]["overload"]

    (step,) = overload["steps"]
    assert {"offered_per_s", "shed_share", "degraded_share", "statuses"} <= step.keys()
    assert {"recovered_after_s", "before", "during", "after"} == overload["recovery"].keys()
    assert overload["recovery"]["during"]["asked"] > overload["recovery"]["before"]["asked"] > 0


def test_readers_are_timed_idle_and_beside_both_pushes(found: dict[str, Any]) -> None:
    readers = found["results"]["readers"]

    assert {"idle", "throttled", "unthrottled"} == readers.keys()
    assert readers["idle"]["n"] > 0
    assert readers["throttled"]["pushed_rows_per_s"] > 0


def test_memory_is_asked_of_every_entity_that_is_read(found: dict[str, Any]) -> None:
    memory = found["results"]["memory"]["lockstep"]

    assert found["sizes"]["read"] == memory["entities"]
    assert 3 * 16 < memory["bytes_per_entity"] < 1000


def test_every_type_case_comes_back_exactly_over_http(found: dict[str, Any]) -> None:
    types = found["results"]["types"]["lockstep"]

    assert {} == types["changed"]
    assert (32, 32) == (types["exact"], types["of"])
    assert len(type_cases.CASES) == types["exact_with_more"] == types["of_with_more"]


def test_the_table_has_a_line_per_measurement(found: dict[str, Any]) -> None:
    rows = report.rows_of(found["results"])
    lines = table(rows).splitlines()

    assert len(rows) + 2 == len(lines)
    assert {"push from Delta", "in-process fetch, 1", "memory per entity"} < {r.what for r in rows}
    assert found["rows"] == as_json(rows)


def test_rows_are_the_same_in_every_run_and_have_the_declared_types() -> None:
    first, again = data.rows("txn_7d", 500), data.rows("txn_7d", 500)

    assert first.equals(again, null_equal=True)
    assert not first.drop("customer_id").equals(data.rows("txn_30d", 500).drop("customer_id"))
    assert {"customer_id": pl.Int64(), **data.FEATURES} == dict(first.schema)
    assert 0 < first["mean_7d"].null_count() < 50


def test_same_tells_apart_what_json_and_floats_confuse() -> None:
    for left, right in [
        (0.0, -0.0),
        (1, 1.0),
        (True, 1),
        (None, float("nan")),
        ([1, None], [1]),
        ({"a": 1}, {"a": 2}),
        ("", None),
    ]:
        assert not type_cases.same(left, right)
        assert not type_cases.same(right, left)
    assert type_cases.same({"a": [float("nan"), -0.0]}, {"a": [float("nan"), -0.0]})


def test_the_frame_of_cases_holds_each_value_as_it_is() -> None:
    frame = case_frame()

    assert list(TYPES.values()) == frame.dtypes[1:]
    for name, (kind, values) in type_cases.CASES.items():
        held = frame[name].to_list()[: len(values)]
        if kind == "uint64":
            held = [int(value) for value in held]
        assert type_cases.same(values, held), name


def test_percentiles_and_medians() -> None:
    spread = timing.spread([at / 1000 for at in range(1, 101)])

    assert (100, 51.0, 100.0) == (spread["n"], spread["p50_ms"], spread["p99_ms"])
    rounds = [{"p50_ms": 1.0, "name": "a"}, {"p50_ms": 9.0, "name": "b"}, {"p50_ms": 2.0}]
    assert {"p50_ms": 2.0, "rounds": 3} == timing.middle(rounds)
    assert {"n": 0} == timing.spread([])


def test_arrivals_are_due_whatever_became_of_those_before() -> None:
    even = list(http_load_worker.evenly(100, 1, 2))
    poisson = list(http_load_worker.poisson(1000, 0, 5))

    assert 100 == len(even)
    assert pytest.approx(0.01) == even[1] - even[0]
    assert poisson == list(http_load_worker.poisson(1000, 0, 5))
    assert pytest.approx(5000, rel=0.1) == len(poisson)
    assert sorted(poisson) == poisson


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["pushing", "--work", str(tmp_path / "none")])

    assert "unknown parts: pushing" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_page_shows_the_table_of_the_results_file() -> None:
    assert_shown_on_the_page(document.SECTION)
