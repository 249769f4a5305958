"""The leakage report: a planted leak is found, and its numbers are those of the oracle."""

import math
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from lockstep.errors import InputError
from tests.scenario import World
from tests.training_world import (
    BIG,
    DAYS,
    FUTURE,
    HISTORY,
    MOMENT,
    NOW,
    VALUES,
    Told,
    commit,
    expected,
    full_spine,
    same_cells,
    spine_of,
    training_world,
    usage,
)

pytestmark = [pytest.mark.filterwarnings(FUTURE), pytest.mark.usefixtures("in_parts")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return training_world(tmp_path_factory.mktemp("leakage"))


@pytest.mark.parametrize("memory", [None, 1], ids=["in memory", "in parts"])
def test_the_leakage_report_counts_the_cells_that_were_not_known_yet(
    made: World, memory: int | None
) -> None:
    spine = full_spine()
    event, known = expected("event", spine), expected("known", spine)

    found = made.store.leakage(spine, VALUES, timestamp="at", memory=memory)

    assert set(VALUES) == {leak.feature for leak in found.features}
    for leak in found.features:
        at = VALUES.index(leak.feature)
        pairs = [(one[at], other[at]) for one, other in zip(event, known, strict=True)]
        changed = [pair for pair in pairs if not same_cells([pair[:1]], [pair[1:]])]
        assert spine.height == leak.rows
        assert len(changed) == leak.changed
        assert sum(other is None for _, other in changed) == leak.from_null
        assert sum(one is None for one, _ in changed) == leak.to_null
        assert leak.share == pytest.approx(len(changed) / spine.height)
        if leak.feature == "usage:kind":
            assert leak.mean_difference is None
            continue
        apart = [
            abs(one - other)
            for one, other in changed
            if one is not None and other is not None and math.isfinite(one - other)
        ]
        assert leak.mean_difference == pytest.approx(sum(apart) / len(apart))
        assert leak.largest_difference == pytest.approx(max(apart))


def test_a_planted_leak_is_found_and_stands_first(made: World) -> None:
    corrected = [
        item
        for number, item in enumerate(HISTORY)
        if item.view is usage
        and any(other.view is usage and other.day == item.day for other in HISTORY[:number])
    ]
    # Just before a correction arrives event mode has it already.
    spine = spine_of([(1, "a", item.known_at - MOMENT) for item in corrected])

    found = made.store.leakage(spine, VALUES, timestamp="at")

    assert found.suspects[0].feature == "usage:amount"
    assert found.features[-1].feature == "visits:count"
    assert "hold what was not known at their time" in found.suspects[0].sentence
    assert [leak.changed for leak in found.features] == sorted(
        (leak.changed for leak in found.features), reverse=True
    )


def test_where_everything_was_known_nothing_is_suspected(made: World) -> None:
    last = max(item.known_at for item in HISTORY)
    spine = spine_of([(BIG, "a", last + timedelta(hours=1)), (1, "b", last + timedelta(days=9))])

    found = made.store.leakage(spine, VALUES, timestamp="at")

    assert [] == found.suspects
    assert "usage:amount: no cell changes." in [leak.sentence for leak in found.features]


def test_a_spine_without_rows_leaks_nothing(made: World) -> None:
    found = made.store.leakage(spine_of([]), VALUES, timestamp="at", memory=1)

    assert [0.0] * 3 == [leak.share for leak in found.features]


def test_the_report_is_json(made: World, tmp_path: Path) -> None:
    found = made.store.leakage(full_spine().head(50), VALUES, timestamp="at").to_json()

    assert {"rows", "features"} == found.keys()
    assert {"feature", "changed", "share"} <= found["features"][0].keys()
    assert pl.DataFrame(found["features"]).height == len(VALUES)
    assert [] == list(tmp_path.iterdir())


def test_a_comparison_like_a_set_reads_the_versions_of_that_set(
    tmp_path: Path,
) -> None:
    made = training_world(tmp_path)
    spine = full_spine().head(200)
    training = made.store.training_set(spine, VALUES, timestamp="at", name="one")
    before = made.store.leakage(spine, VALUES, timestamp="at")
    for n, day in enumerate(DAYS):
        rows = ((1, 1000.0 + n, "new"), (2, 5.0, "new"))
        commit(made, Told(usage, day, NOW + timedelta(hours=n), rows))

    like = made.store.leakage(spine, VALUES, timestamp="at", like=training.manifest)

    assert before == like
    assert before != made.store.leakage(spine, VALUES, timestamp="at")
    with pytest.raises(InputError, match="a set with other features"):
        made.store.leakage(spine, VALUES[:1], timestamp="at", like=training.manifest)
