"""Wide values: a memory budget counts lists and texts by how long they are."""

import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lockstep import Feature, Features, feature_view
from lockstep.errors import InputError
from lockstep.hashing import canonical, content_hash
from lockstep.stores.delta import DayTable
from lockstep.stores.proposal import Proposal
from lockstep.time import INSTANT, as_of
from lockstep.training.order import Order, order, parts_for
from lockstep.training.pins import Pinned
from lockstep.training.widths import widths_in
from tests.scenario import USER, ZONE, Clock, World, catalog_of, world
from tests.source_tree import ROOT
from tests.training_world import DAYS, LIVE, NOTHING, NOW

USERS, LENGTH = 500, 1_000
ROWS = 140_000
"""Of the spine: more than a block."""


class Wide(Features, entity=USER, owner="team:tests", ttl=None, min_rows=0):
    """Values whose type doesn't say how wide they are, and one whose does."""

    text = Feature(pl.String, "A text.")
    list = Feature(pl.List(pl.Float32), "A list.")
    number = Feature(pl.Int64, "A number.")


@feature_view(Wide, inputs=[NOTHING.trailing(days=1)])
def wide(nothing: pl.LazyFrame) -> pl.LazyFrame:
    return nothing


def wide_world(folder: Path) -> World:
    """Return a store with a day of wide values, and a newer one without rows."""
    made = world(folder)
    made.store.__dict__["catalog"] = catalog_of([wide])
    table = made.store.lake.table(wide)
    table.create()
    for day, users in ((DAYS[0], USERS), (DAYS[1], 0)):
        frame = canonical(
            pl.DataFrame(
                {
                    "user_id": range(users),
                    "event_timestamp": [as_of(day, ZONE)] * users,
                    "text": [f"{user:04}" * (LENGTH // 4) for user in range(users)],
                    "list": [[float(user)] * (LENGTH // 4) for user in range(users)],
                    "number": range(users),
                },
                schema=wide.columns,
            )
        )
        table.commit([Proposal(day, frame, content_hash(frame), {})], now=Clock(LIVE))
    made.clock.now = NOW
    return made


def wide_spine(rows: int = ROWS) -> pl.DataFrame:
    at = pl.lit(NOW - timedelta(days=1)).cast(INSTANT)
    return pl.select(user_id=pl.int_range(rows, dtype=pl.Int64) % USERS, at=at)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return wide_world(tmp_path_factory.mktemp("wide"))


def ordered(made: World, spine: Any, features: str, memory: int = 600_000_000) -> Order:
    return order(made.store, spine, [features], timestamp="at", time_zone=None, memory=memory)


@pytest.mark.parametrize("feature", ["wide:text", "wide:list"])
def test_a_budget_that_wide_values_would_exceed_is_refused(made: World, feature: str) -> None:
    with pytest.raises(InputError, match=r"is too small .* at least 1\d\d\d MB"):
        parts_for(ordered(made, wide_spine(), feature))

    assert 0 == parts_for(ordered(made, wide_spine(), "wide:number"))
    assert 1 < parts_for(ordered(made, wide_spine(), feature, 1_300_000_000))


def test_how_wide_values_are_is_taken_from_the_newest_day_with_rows_and_is_no_part_of_a_manifest(
    made: World,
) -> None:
    (pin,) = ordered(made, wide_spine(3), "wide:text").pinned.views
    plan = made.store.plan_training_set(wide_spine(3), ["wide:list"], timestamp="at")
    (planned,) = Pinned.from_json(json.loads(json.dumps(plan.to_json()))["pinned"]).views

    assert {"text": LENGTH} == {name: round(width, -2) for name, width in pin.widths.items()}
    assert {"list": LENGTH} == {name: round(width, -2) for name, width in planned.widths.items()}
    assert "widths" not in planned.to_json()


def test_no_row_is_read_where_every_type_says_how_wide_it_is(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a table was read")

    monkeypatch.setattr(DayTable, "scan", refused)

    assert 3 == ordered(made, wide_spine(3), "wide:number").spine.rows


def test_a_slice_is_as_wide_as_what_it_holds() -> None:
    frame = pl.DataFrame(
        {
            "text": ["x" * 100] * 9_000,
            "list": [["y" * 10] * 10] * 9_000,
            "struct": [{"a": "z" * 100, "b": 1}] * 9_000,
            "number": [1] * 9_000,
        }
    )

    found = widths_in(frame.slice(8_000).lazy(), frame.schema)

    assert ["text", "list", "struct"] == list(found)
    assert all(100 <= width <= 220 for width in found.values()), found
    assert {} == widths_in(frame.clear().lazy(), frame.schema)


def test_a_long_text_of_the_spine_counts_as_well(made: World, tmp_path: Path) -> None:
    spine = wide_spine().with_columns(note=pl.lit("n" * LENGTH))
    spine.head(5_000).write_parquet(tmp_path / "spine.parquet")

    with pytest.raises(InputError, match=r"at least 1\d\d\d MB"):
        parts_for(ordered(made, spine, "wide:number"))

    found = ordered(made, tmp_path / "spine.parquet", "wide:number").spine.widths
    assert {"note": LENGTH} == {name: round(width, -2) for name, width in found.items()}


CHILD = r"""
import re, sys
from pathlib import Path
from lockstep.errors import InputError
from tests.test_training_memory import wide_spine, wide_world

made, to = wide_world(Path(sys.argv[1])), Path(sys.argv[1], "set.parquet")
asked = {"spine": wide_spine(), "features": [sys.argv[2]], "timestamp": "at", "to": to}
try:
    made.store.training_set(**asked, memory=600_000_000)
except InputError as error:
    least = int(re.search(r"at least (\d+) MB", str(error))[1])
found = made.store.training_set(**asked, memory=least * 10**6)
# The other measure of a peak counts that of the process this one was started by.
peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]
print(found.rows, least, int(peak) * 1024 // 10**6)
"""


@pytest.mark.parametrize("feature", ["wide:text", "wide:list"])
def test_the_least_budget_that_is_named_is_kept(tmp_path: Path, feature: str) -> None:
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path), feature],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == said.returncode, said.stderr
    rows, least, peak = (int(word) for word in re.findall(r"\d+", said.stdout))
    assert rows == ROWS
    assert peak < least
