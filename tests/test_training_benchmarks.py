"""The benchmark of training sets runs, on tiny sizes and without Feast, and compares right values.

Timings are not looked at: they are reported, not asserted.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks.table import as_json, table
from benchmarks.training import (
    build_worker,
    children,
    compare_worker,
    data,
    document,
    measure_modes,
    report,
)
from benchmarks.training.__main__ import PARTS, main
from benchmarks.training.shapes import Sizes, quick_sizes, shape_of, sizes
from tests.benchmark_files import assert_says_on_what, assert_shown_on_the_page, measured

QUICK: Sizes = quick_sizes()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the file says after a quick run."""
    folder = tmp_path_factory.mktemp("bench")
    work = str(folder / "work")
    return measured(main, folder / "training.json", "--no-feast", "--work", work)


def test_the_file_says_what_was_measured_and_on_what(found: dict[str, Any]) -> None:
    assert list(PARTS) == list(found["results"])
    assert_says_on_what(found, data.SEED)


@pytest.mark.parametrize(
    ("part", "peers"),
    [
        ("joined", {"polars", "polars streaming", "duckdb", "numpy"}),
        ("long", {"polars", "polars streaming", "duckdb"}),
        ("large", {"polars sink", "duckdb copy"}),
    ],
)
def test_every_peer_gets_the_values_that_lockstep_gets(
    found: dict[str, Any], part: str, peers: set[str]
) -> None:
    of = found["results"][part]
    compared = {name for name, one in of.items() if "differs" in one}

    assert {"lockstep", *peers} == compared
    assert all(of[name]["differs"] == [] for name in compared)
    assert getattr(QUICK, part).spine == of["lockstep"]["compared_rows"]


def test_every_contender_says_its_time_and_its_peak_memory(found: dict[str, Any]) -> None:
    for part in ("joined", "long", "large"):
        for one in found["results"][part].values():
            assert 0 < one["seconds"] < one["process_s"]
            assert one["peak_rss_mb"] > 1


def test_time_is_asked_for_every_number_of_views(found: dict[str, Any]) -> None:
    assert [str(number) for number in QUICK.views] == list(found["results"]["views"])


def test_both_modes_and_what_reproducibility_costs_are_timed(found: dict[str, Any]) -> None:
    modes = found["results"]["modes"]

    assert list(measure_modes.WAYS) == list(modes)
    assert all(of["seconds"] > 0 for of in modes.values())


def test_the_table_has_a_line_per_measurement(found: dict[str, Any]) -> None:
    rows = report.rows_of(found["results"])
    lines = table(rows).splitlines()

    assert len(rows) + 2 == len(lines)
    assert {"joined", "joined, memory", "large, memory", "1 view"} < {row.what for row in rows}
    assert found["rows"] == as_json(rows)
    assert "polars sink" in report.contenders(found["results"])


def test_a_spine_and_its_rows_are_the_same_in_every_run() -> None:
    shape = QUICK.joined
    view, profile = shape.views

    assert data.spine(shape).equals(data.spine(shape))
    assert data.day_rows(view, 3)[0].equals(data.day_rows(view, 3)[0])
    assert not data.day_rows(view, 3)[0].equals(data.day_rows(view, 4)[0])
    assert {data.KEY: pl.Int64(), **data.PROFILE} == dict(data.day_rows(profile, 1)[0].schema)


def test_late_corrections_replace_rows_and_add_none() -> None:
    rows, late = data.day_rows(QUICK.joined.first, 3)
    merged = data.corrected(rows, late)

    assert 0 < late.height < rows.height
    assert rows[data.KEY].equals(merged[data.KEY])
    assert not rows.equals(merged)
    assert merged.join(late, on=data.KEY, how="semi").equals(late)


def test_shapes_survive_json() -> None:
    shape = sizes().joined

    assert shape == shape_of(json.loads(json.dumps(shape.to_json())))


def test_a_restated_day_has_two_revisions_and_the_peers_both_rows(tmp_path: Path) -> None:
    build_worker.build(tmp_path, QUICK.joined)
    log = tmp_path / "project" / "lake" / "offline" / "txn_7d" / "_delta_log"
    peers = pl.read_parquet(tmp_path / "peers" / "txn_7d.parquet")
    twice = peers.filter(pl.struct(data.KEY, "event_timestamp").is_duplicated())

    assert QUICK.joined.first.days + 2 == len(list(log.glob("*.json")))
    assert QUICK.joined.first.days * int(400 * data.LATE) * 2 >= twice.height > 0


@pytest.mark.parametrize("change", ["value", "null", "order", "type", "row"])
def test_the_comparison_sees_values_and_neither_order_nor_type(tmp_path: Path, change: str) -> None:
    frame = pl.DataFrame({"spine_id": [0, 1, 2], "v:a": [1, None, 3], "b": [0.5, 1.5, None]})
    other = {
        "value": frame.with_columns(b=pl.Series([0.5, 1.25, None])),
        "null": frame.with_columns(b=pl.Series([0.5, None, None], dtype=pl.Float64)),
        "order": frame.reverse(),
        "type": frame.select(
            "spine_id",
            pl.col("v:a").cast(pl.Float64).alias("v__a"),
            pl.col("b").fill_null(float("nan")),
        ),
        "row": frame.head(2),
    }[change]
    frame.write_parquet(tmp_path / "a")
    other.write_parquet(tmp_path / "b")
    types = {"a": "Int64", "b": "Float64"}

    same = compare_worker.numbers(str(tmp_path / "a"), types) == compare_worker.numbers(
        str(tmp_path / "b"), types
    )
    assert (change in ("order", "type")) == same


def test_a_process_that_takes_too_much_memory_is_ended_and_named(tmp_path: Path) -> None:
    greedy = ["-n1", "-r1", "held = [bytearray(1_000_000) for _ in range(10**6)]"]
    ended = children.run("timeit", greedy, log=tmp_path / "log", memory=200_000_000)

    assert "held more than 0.2 GB" in ended["failed"]
    assert ended["peak_rss_mb"] > 150


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    ended = children.run("benchmarks.no_such_module", [], log=tmp_path / "log")

    assert "No module named" in ended["failed"]
    with pytest.raises(children.ChildFailedError, match="building: failed"):
        children.require(ended, "building")


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["joining", "--work", str(tmp_path / "none")])

    assert "unknown parts: joining" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_page_shows_the_tables_of_the_results_file() -> None:
    assert_shown_on_the_page(document.SECTION)
