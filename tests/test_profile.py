"""Profiles are what plain Python finds in the same values, and hold nothing of what is PII."""

import json
import math
import random
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep import Entity, Feature, Features
from lockstep.lake import PROFILE_COLUMNS, Lake
from lockstep.newcomers import Newcomers
from lockstep.profile import (
    SAMPLE,
    SKETCH_POINTS,
    TOP_VALUES,
    ColumnProfile,
    EntityCounts,
    profile,
)
from lockstep.stores.append_log import AppendLog
from tests.scenario import START, make_views, world
from tests.small_world import built_world

DAY = date(2026, 3, 2)


class Everything(
    Features, entity=Entity("thing", {"thing_id": pl.Int64}), owner="team:tests", ttl=None
):
    """A column of each kind."""

    number = Feature(pl.Float64, "A number.")
    small = Feature(pl.Float32, "A short number.")
    whole = Feature(pl.Int64, "A whole number.")
    money = Feature(pl.Decimal(12, 2), "An amount.")
    flag = Feature(pl.Boolean, "Yes or no.")
    word = Feature(pl.String, "A word.")
    born = Feature(pl.Date, "A day.")
    tags = Feature(pl.List(pl.String), "Some words.")
    name = Feature(pl.String, "Who it is.", pii=True)
    size = Feature(pl.Float64, "Whose size it is.", pii=True)


CONTRACT = Everything.contract
NUMBERS = ("number", "small", "whole", "money")


@dataclass(frozen=True)
class Given:
    """Bins, as a reference has them."""

    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = field(default=())


def of(kind: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | kind


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "number": of(st.floats(-1e9, 1e9) | st.sampled_from([math.nan, math.inf, -math.inf])),
            "small": of(st.sampled_from([math.nan, 0.5, -0.0, 0.0, 3.25, -7.0])),
            "whole": of(st.integers(-5, 5) | st.just(2**53 + 1)),
            "money": of(st.decimals(-100, 100, places=2)),
            "flag": of(st.booleans()),
            "word": of(st.text(max_size=2)),
            "born": of(st.dates()),
            "tags": of(st.lists(st.text(max_size=2), max_size=2)),
            "name": of(st.text(max_size=5)),
            "size": of(st.floats(allow_nan=True)),
        }
    ),
    max_size=80,
)
EDGES = st.lists(st.floats(-1e3, 1e3), max_size=9, unique=True).map(sorted).map(tuple)
WORDS = st.lists(st.text(max_size=2), max_size=5, unique=True).map(tuple)


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(CONTRACT.feature_types))


def present(rows: list[dict[str, Any]], name: str) -> list[Any]:
    values = [row[name] for row in rows if row[name] is not None]
    return [v for v in values if not (isinstance(v, float) and math.isnan(v))]


@given(ROWS, EDGES)
def test_a_number_s_profile_is_what_plain_python_counts(
    rows: list[dict[str, Any]], edges: tuple[float, ...]
) -> None:
    bins = dict.fromkeys(NUMBERS, Given(edges))
    found = profile(frame_of(rows), CONTRACT, bins)

    for name in NUMBERS:
        column = found[name]
        there = present(rows, name)
        nulls = sum(row[name] is None for row in rows)
        assert len(rows) == column.rows
        assert (nulls, len(rows) - nulls - len(there)) == (column.nulls, column.nans)
        assert column.nulls + column.nans == column.missing
        assert len(set(there)) == column.distinct
        finite = sorted(float(value) for value in there if math.isfinite(value))
        counted = Counter(bisect_left(edges, float(value)) for value in there)
        assert [counted[at] for at in range(len(edges) + 1)] == list(column.histogram)
        assert edges == column.edges
        if finite:
            mean = math.fsum(finite) / len(finite)
            spread = math.fsum((value - mean) ** 2 for value in finite) / len(finite)
            assert (finite[0], finite[-1]) == (column.minimum, column.maximum)
            assert mean == pytest.approx(column.mean, rel=1e-9, abs=1e-6)
            assert math.sqrt(spread) == pytest.approx(column.std, rel=1e-6, abs=1e-6)
            at = [int((n + 0.5) / SKETCH_POINTS * len(finite)) for n in range(SKETCH_POINTS)]
            assert [finite[n] for n in at] == list(column.sketch)
        else:
            assert (None, None, None, None) == (
                *(column.minimum, column.maximum),
                *(column.mean, column.std),
            )


@given(ROWS, WORDS)
def test_a_value_s_rows_are_what_plain_python_counts(
    rows: list[dict[str, Any]], words: tuple[str, ...]
) -> None:
    found = profile(frame_of(rows), CONTRACT, {"word": Given(values=words)})

    for name in ("word", "flag"):
        there = present(rows, name)
        counted = Counter(str(v).lower() if name == "flag" else v for v in there)
        ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
        asked = [word for word in words if name == "word" and counted[word]]
        assert dict(ranked[:TOP_VALUES]) | {w: counted[w] for w in asked} == found[name].counts
        assert [value for value, _ in ranked[:TOP_VALUES]] == list(found[name].counts)[
            : len(ranked[:TOP_VALUES])
        ]
        assert len(counted) == found[name].distinct
        assert len(rows) - len(there) == found[name].missing == found[name].nulls
    assert len({row["born"] for row in rows} - {None}) == found["born"].distinct
    assert found["tags"].distinct is None


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(
    rows: list[dict[str, Any]], shuffler: random.Random
) -> None:
    other = shuffler.sample(rows, len(rows))
    bins = {"number": Given((0.0, 1.0)), "word": Given(values=("a",))}

    assert profile(frame_of(rows), CONTRACT, bins) == profile(frame_of(other), CONTRACT, bins)


def test_of_many_values_only_quantiles_are_sampled_and_only_many_different_ones_estimated() -> None:
    size = 250_001
    columns = {
        # A step of three through the rows would see one of the three values only.
        "number": [float(at % 3) if at % 7 else math.nan for at in range(size)],
        "whole": list(range(size)),
        "word": [f"w{at}" if at % 4 else "often" for at in range(size)],
        "name": [f"n{at % 9}" for at in range(size)],
    }
    frame = pl.DataFrame(columns, schema={name: CONTRACT.feature_types[name] for name in columns})
    frame = frame.select(
        pl.col(name) if name in columns else pl.lit(None, dtype).alias(name)
        for name, dtype in CONTRACT.feature_types.items()
    )
    bins = {"number": Given((0.0, 1.0)), "word": Given(values=("w5", "w8"))}

    found = profile(frame, CONTRACT, bins)

    there = [value for value in columns["number"] if not math.isnan(value)]
    number, whole, word = found["number"], found["whole"], found["word"]
    assert [there.count(0.0), there.count(1.0), there.count(2.0)] == list(number.histogram)
    assert (3, size - len(there), math.fsum(there) / len(there)) == (
        *(number.distinct, number.nans),
        pytest.approx(number.mean),
    )
    assert {21, 22} >= {list(number.sketch).count(value) for value in (0.0, 1.0, 2.0)}
    assert size == pytest.approx(whole.distinct, rel=0.05)
    even = [(at + 0.5) / SKETCH_POINTS * size for at in range(SKETCH_POINTS)]
    assert even == pytest.approx(whole.sketch, abs=5 * size / SAMPLE)
    assert 1 + size - size // 4 == pytest.approx(word.distinct, rel=0.05)
    assert ("often", size // 4 + 1) == next(iter(word.counts.items()))
    assert (1, None) == (word.counts["w5"], word.counts.get("w8"))
    assert (9, {}) == (found["name"].distinct, found["name"].counts)
    assert found == profile(frame.clone(), CONTRACT, bins)


@given(ROWS)
def test_a_profile_survives_json(rows: list[dict[str, Any]]) -> None:
    bins = {"number": Given((0.0, 1.0)), "word": Given(values=("a",))}
    found = profile(frame_of(rows), CONTRACT, bins)
    text = {name: json.dumps(column.to_json(), allow_nan=False) for name, column in found.items()}

    assert found == {name: ColumnProfile.from_json(json.loads(said)) for name, said in text.items()}


def test_threads_find_what_one_finds() -> None:
    size = 30_000
    draw = random.Random(3)
    frame = frame_of([]).clear()
    columns: dict[str, list[Any]] = {
        "number": [draw.choice([None, math.nan, draw.gauss(0, 1)]) for _ in range(size)],
        "whole": [draw.randrange(900) for _ in range(size)],
        "money": [Decimal(draw.randrange(10_000)) / 100 for _ in range(size)],
        "word": [str(draw.randrange(7_000)) for _ in range(size)],
    }
    frame = pl.DataFrame(
        {name: columns.get(name, [None] * size) for name in CONTRACT.features},
        schema=dict(CONTRACT.feature_types),
    )
    bins = {"number": Given((-1.0, 0.0, 1.0)), "word": Given(values=("17", "no such word"))}

    found = profile(frame, CONTRACT, bins)

    assert found == profile(frame.reverse(), CONTRACT, bins)
    rows = Counter(columns["word"])
    ranked = sorted(rows.items(), key=lambda item: (-item[1], item[0]))[:TOP_VALUES]
    assert dict(ranked) | {"17": rows["17"]} == found["word"].counts
    assert len(rows) == found["word"].distinct
    there = [v for v in columns["number"] if v is not None and not math.isnan(v)]
    counted = Counter(bisect_left((-1.0, 0.0, 1.0), value) for value in there)
    assert [counted[at] for at in range(4)] == list(found["number"].histogram)


def test_numbers_too_large_to_be_added_have_no_mean_and_are_profiled() -> None:
    rows = [{**dict.fromkeys(CONTRACT.features), "number": value} for value in (1.7e308, 1.7e308)]
    found = profile(frame_of(rows), CONTRACT)["number"]

    assert (1.7e308, None, None) == (found.maximum, found.mean, found.std)


def test_of_what_identifies_people_a_profile_has_counts_and_no_values() -> None:
    rows = [
        {**dict.fromkeys(CONTRACT.features), "name": "Zoë Karlsen", "size": 181.375},
        {**dict.fromkeys(CONTRACT.features), "name": "Zoë Karlsen", "size": math.nan},
    ]
    bins = {"name": Given(values=("Zoë Karlsen",)), "size": Given((181.375,))}
    found = profile(frame_of(rows), CONTRACT, bins)
    said = json.dumps([found["name"].to_json(), found["size"].to_json()], ensure_ascii=False)

    assert "Zoë" not in said
    assert "181" not in said
    assert (2, 1, 0) == (found["name"].rows, found["name"].distinct, found["name"].missing)
    assert (1, 1, 0.5) == (found["size"].distinct, found["size"].nans, found["size"].fill_rate)


def test_rows_that_earlier_releases_kept_are_still_read(tmp_path: Path) -> None:
    lake = world(tmp_path).store.lake
    old = {
        "rows": 5,
        "missing": 2,
        "minimum": 0.5,
        "maximum": 3.0,
        "mean": 1.5,
        "sketch": [0.5, 1.0, 3.0],
        "counts": {},
    }
    rows = [("spend_3d", DAY, 1, "amount_3d", json.dumps(old))]
    log = AppendLog(lake.place.path("profiles"), PROFILE_COLUMNS, options=lake.place.options)
    log.append(pl.DataFrame(rows, schema=dict(PROFILE_COLUMNS), orient="row"))
    now = ColumnProfile(4, 1, counts={"a": 3}, nulls=1, distinct=1)
    lake.record_profiles("spend_3d", {(DAY, 2): {"amount_3d": now}})

    found = lake.profiles("spend_3d", {DAY: 1})[DAY]["amount_3d"]
    assert (2, 0, 2, None, ()) == (
        *(found.missing, found.nans, found.nulls),
        *(found.std, found.histogram),
    )
    assert [0.5, 1.0, 3.0] == found.points.tolist()
    assert {DAY: {"amount_3d": now}} == lake.profiles("spend_3d", {DAY: 2})
    assert {} == lake.entity_counts("spend_3d", {DAY: 1})


def test_entity_counts_are_kept_beside_the_features_and_are_none_of_them(tmp_path: Path) -> None:
    lake: Lake = world(tmp_path).store.lake
    column = ColumnProfile(3, 0)
    counts = EntityCounts(seen=3, new=1, gone=4)

    lake.record_profiles("spend_3d", {(DAY, 1): {"amount_3d": column}}, {(DAY, 1): counts})
    lake.record_profiles("other", {(DAY, 1): {"x": column}}, {(DAY, 1): EntityCounts(9, 9, 9)})

    assert {DAY: {"amount_3d": column}} == lake.profiles("spend_3d", {DAY: 1})
    assert {DAY: counts} == lake.entity_counts("spend_3d", {DAY: 1})
    assert {} == lake.entity_counts("spend_3d", {DAY: 2})
    assert {} == lake.entity_counts("spend_3d", {})


def test_entities_that_came_and_went_are_counted_against_the_day_before(tmp_path: Path) -> None:
    made = built_world(tmp_path, "redis://127.0.0.1:1/0")
    view = make_views().profile
    table = made.store.lake.table(view)
    before = table.read_day(START).select(view.contract.keys)
    known = before["user_id"].to_list()
    frame = pl.DataFrame({"user_id": [*known[1:], 10**9, 10**9 + 1]})

    found = Newcomers(view, table, table.head()).counts(DAY, frame)

    assert EntityCounts(seen=len(known) + 1, new=2, gone=1) == found
    assert 2 / (len(known) + 1) == found.new_rate
    assert Newcomers(view, table, None).counts(DAY, frame) is None
    empty = Newcomers(view, table, table.head()).counts(DAY, frame.clear())
    assert empty == EntityCounts(0, 0, len(known))
    assert empty.new_rate is None
