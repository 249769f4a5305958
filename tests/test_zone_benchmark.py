"""The benchmark of the zone detector: its rates, its files, and the page that shows them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.page import Section
from benchmarks.zones import document, real
from benchmarks.zones.__main__ import main
from benchmarks.zones.bench import Alarm, among, named, stated_wrongly, summed_up, watch
from benchmarks.zones.feeds import make_feed
from tests.benchmark_files import assert_shown_on_the_page


@pytest.fixture(scope="module")
def watched() -> list[Any]:
    return [watch(make_feed(seed), step=3) for seed in range(60)]


def test_of_sixty_simulated_feeds_no_clean_one_alarms_and_nearly_all_shifted_ones_do(
    watched: list[Any],
) -> None:
    rates = summed_up(watched)

    assert 0 == rates["all"]["false_alarms"]
    assert rates["shifted, can tell"]["hits"] >= 0.9
    assert rates["shifted, can tell"]["right_in_a_week"] >= 0.75


def test_a_week_later_hardly_any_offset_is_stated_alone_and_wrong(watched: list[Any]) -> None:
    rates = summed_up(watched)["shifted, can tell"]

    assert rates["stated_wrongly_in_a_week"] <= 0.05
    assert rates["among_in_a_week"] >= 0.9


def test_a_flat_feed_alarms_only_by_its_arrival(watched: list[Any]) -> None:
    flat = [one for one in watched if one.feed.kind == "flat"]

    assert len(flat) >= 6
    assert not any(one.false_alarm for one in flat)
    assert not any(one.hit for one in flat if one.feed.arrival == "unknown")


def test_the_benchmark_writes_its_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "zones.json"

    assert 0 == main(["--feeds", "2", "--out", str(file)])

    told = json.loads(file.read_text(encoding="utf-8"))
    assert 2 == told["feeds"] == told["groups"]["all"]["feeds"]
    assert {"hours and arrival", "hours alone", "arrival alone"} == told["arrival_known"].keys()
    assert not told["arrival_known"]["arrival alone"]["false_alarms"]
    assert "false alarms" in capsys.readouterr().out


@pytest.mark.parametrize("section", [document.SECTION, real.SECTION], ids=lambda one: one.name)
def test_the_page_shows_the_tables_of_the_results_file(section: Section) -> None:
    assert_shown_on_the_page(section)


def test_on_the_real_data_a_dropped_conversion_is_found_within_nights_and_never_before(
    tmp_path: Path,
) -> None:
    assert 0 == real.main(["--quick", "--out", str(tmp_path / "real.json")])

    told = json.loads((tmp_path / "real.json").read_text(encoding="utf-8"))
    assert told["beginnings"] >= 5
    assert "more" not in told["nights"]
    assert not told["false_alarms"]
    assert real.WRONG[0] not in told["at_once"]


def test_a_shift_is_named_right_only_with_its_offset_and_zone() -> None:
    feed = replace(make_feed(1), minutes=-240, name="America/New_York", injected="whole hours")
    alarm = Alarm(-240, [-270], ["America/New_York"])

    assert named(feed, alarm)
    assert not named(feed, replace(alarm, minutes=-300))
    assert not named(feed, None)


def test_an_offset_that_is_told_as_one_of_several_is_not_stated_wrongly() -> None:
    feed = replace(make_feed(1), minutes=-240, name="America/New_York", injected="whole hours")

    assert among(feed, Alarm(-270, [-240]))
    assert not stated_wrongly(feed, Alarm(-270, [-240]))
    assert stated_wrongly(feed, Alarm(-270))
    assert not stated_wrongly(feed, Alarm(-240))
    assert not among(feed, None)
