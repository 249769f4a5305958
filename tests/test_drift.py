"""PSI and KL are what the formulas give over raw values, against the reference asked for."""

import json
import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep import Entity, Feature, Features
from lockstep.drift import (
    BINS,
    LEAST_IN_BIN,
    LEAST_REFERENCE_DAYS,
    SMALLEST_SHARE,
    Drift,
    Reference,
    measure,
    no_reference,
    reference_of,
    references_of,
)
from lockstep.profile import ColumnProfile, TrainedOn, profile
from lockstep.schema import Contract, ReferenceKind

TUESDAY = date(2026, 3, 3)


class Things(
    Features, entity=Entity("thing", {"thing_id": pl.Int64}), owner="team:tests", ttl=None
):
    """A column of each kind."""

    number = Feature(pl.Float64, "A number.", max_psi=0.2)
    word = Feature(pl.String, "A word.")
    flag = Feature(pl.Boolean, "Yes or no.")
    name = Feature(pl.String, "Who it is.", pii=True)
    size = Feature(pl.Float64, "Whose size it is.", pii=True)
    born = Feature(pl.Date, "A day.")


CONTRACT = Things.contract
Profiles = Mapping[str, ColumnProfile]


def frame_of(**columns: Sequence[Any]) -> pl.DataFrame:
    height = len(next(iter(columns.values())))
    return pl.DataFrame(
        {name: columns.get(name, [None] * height) for name in CONTRACT.features},
        schema=dict(CONTRACT.feature_types),
    )


def of_kind(kind: ReferenceKind) -> Contract:
    return replace(CONTRACT, reference=kind)


def before(day: date, days: Sequence[Profiles]) -> dict[date, Profiles]:
    """The profiles as those of the days before, the last one of the day before."""
    return {day - timedelta(days=n): found for n, found in enumerate(reversed(days), start=1)}


def drift_of(reference: Reference | None, frame: pl.DataFrame, feature: str) -> Drift:
    assert reference is not None
    seen = profile(frame, CONTRACT, {feature: reference})
    return measure(feature, seen[feature], reference)


def naive(expected: Sequence[float], actual: Sequence[float]) -> tuple[float, float]:
    """PSI and KL of counts, by the formulas."""
    shares = []
    least = max(SMALLEST_SHARE, 0.5 / min(sum(expected), sum(actual)))
    for counts in (expected, actual):
        raised = [max(count / sum(counts), least) for count in counts]
        shares.append([share / sum(raised) for share in raised])
    pairs = list(zip(*shares, strict=True))
    psi = math.fsum((a - e) * math.log(a / e) for e, a in pairs)
    return psi, math.fsum(a * math.log(a / e) for e, a in pairs)


def binned(values: Sequence[float | None], edges: Sequence[float]) -> list[int]:
    counts = [0] * (len(edges) + 2)
    for value in values:
        counts[-1 if value is None or math.isnan(value) else bisect_left(edges, value)] += 1
    return counts


# As many values as divide a sketch's 64, so that it holds each of them equally often.
FLOATS = st.floats(-100, 100) | st.sampled_from([0.0, 1.0])
DAYS_OF_NUMBERS = st.lists(
    st.tuples(
        st.sampled_from([1, 4, 16]).flatmap(lambda n: st.lists(FLOATS, min_size=n, max_size=n)),
        st.lists(st.sampled_from([None, math.nan]), max_size=9),
    ).map(lambda both: [*both[0], *both[1]]),
    min_size=LEAST_REFERENCE_DAYS,
    max_size=9,
)
NUMBERS = st.lists(st.none() | st.just(math.nan) | st.floats(-200, 200), min_size=1, max_size=90)
WORDS = st.lists(st.none() | st.sampled_from(["a", "b", "c", "Ω", "missing"]), min_size=1)
DAYS_OF_WORDS = st.lists(WORDS, min_size=LEAST_REFERENCE_DAYS, max_size=9)


@given(DAYS_OF_NUMBERS, NUMBERS)
def test_of_numbers_both_are_the_formulas_over_raw_values(
    days: list[list[float | None]], now: list[float | None]
) -> None:
    seen = [profile(frame_of(number=day), CONTRACT) for day in days]
    reference = reference_of(CONTRACT, "number", TUESDAY, before(TUESDAY, seen), {})
    assert reference is not None
    there = sum(value is not None and not math.isnan(value) for day in days for value in day)
    assert len(reference.edges) < min(BINS, max(2, there // (LEAST_IN_BIN * len(days))))
    assert list(reference.edges) == sorted(set(reference.edges))

    found = drift_of(reference, frame_of(number=now), "number")

    flat = [value for day in days for value in day]
    counts = [binned(values, reference.edges) for values in (flat, now)]
    assert (found.psi, found.kl) == pytest.approx(naive(*counts), abs=1e-6)
    assert [count / len(flat) for count in counts[0]] == pytest.approx(reference.expected)
    assert [count / len(now) for count in counts[1]] == pytest.approx(
        [one.actual for one in found.bins]
    )
    assert found.psi == pytest.approx(sum(one.psi for one in found.bins))
    assert found.psi >= 0 <= found.kl
    assert found.over == (found.psi > 0.2)
    assert f"{len(days)} earlier days" == found.against


@given(DAYS_OF_WORDS, WORDS)
def test_of_words_both_are_the_formulas_over_raw_values(
    days: list[list[str | None]], now: list[str | None]
) -> None:
    seen = [profile(frame_of(word=day), CONTRACT) for day in days]
    reference = reference_of(CONTRACT, "word", TUESDAY, before(TUESDAY, seen), {})
    assert reference is not None

    found = drift_of(reference, frame_of(word=now), "word")

    flat = [value for day in days for value in day]
    rows = Counter(value for value in flat if value is not None)
    ranked = sorted(rows, key=lambda value: (-rows[value], value))
    often = [value for value in ranked if rows[value] >= LEAST_IN_BIN * len(days)]
    known = often or ranked[:1]
    assert known == list(reference.values)
    counts = [
        [*map(of.count, known), sum(v not in known and v is not None for v in of), of.count(None)]
        for of in (flat, now)
    ]
    assert (found.psi, found.kl) == pytest.approx(naive(*counts), abs=1e-9)
    assert (*reference.values, "other values", "missing") == tuple(b.label for b in found.bins) or (
        not known
    )


@pytest.mark.parametrize("rows", [25, 60, 200, 1_000])
def test_chance_alone_moves_no_small_view_over_the_usual_limit_three_times_in_a_row(
    rows: int,
) -> None:
    draw = random.Random(rows)
    days: dict[date, Profiles] = {}
    over: dict[str, list[bool]] = {"number": [], "word": []}
    for number in range(150):
        day = TUESDAY + timedelta(days=number)
        frame = frame_of(
            number=[draw.gauss(0, 1) for _ in range(rows)],
            word=[f"shop {draw.randrange(60)}" for _ in range(rows)],
        )
        references = references_of(CONTRACT, day, days, {})
        days[day] = profile(frame, CONTRACT, references)
        for name, told in over.items():
            if name in references:
                psi = measure(name, days[day][name], references[name]).psi
                told.append(psi is not None and psi > 0.2)

    for told in over.values():
        assert not any(map(all, zip(told, told[1:], told[2:], strict=False)))
        assert sum(told) <= 0.06 * len(told)


@given(DAYS_OF_NUMBERS, NUMBERS)
def test_the_drift_of_a_past_day_is_found_again_from_what_is_kept(
    days: list[list[float | None]], now: list[float | None]
) -> None:
    seen = [profile(frame_of(number=day), CONTRACT) for day in days]
    reference = reference_of(CONTRACT, "number", TUESDAY, before(TUESDAY, seen), {})
    assert reference is not None
    column = profile(frame_of(number=now), CONTRACT, {"number": reference})["number"]
    kept = [
        {"number": ColumnProfile.from_json(json.loads(json.dumps(day["number"].to_json())))}
        for day in seen
    ]
    again = reference_of(CONTRACT, "number", TUESDAY, before(TUESDAY, kept), {})
    assert again is not None
    read = ColumnProfile.from_json(json.loads(json.dumps(column.to_json())))

    assert measure("number", read, again) == measure("number", column, reference)


@pytest.mark.parametrize("shift", [0.0, 0.25, 1.0])
def test_a_day_profiled_against_other_bins_is_measured_by_its_quantiles(shift: float) -> None:
    draw = random.Random(1)
    seen = [
        profile(frame_of(number=[draw.gauss(0, 1) for _ in range(500)]), CONTRACT) for _ in range(8)
    ]
    reference = reference_of(CONTRACT, "number", TUESDAY, before(TUESDAY, seen), {})
    assert reference is not None
    frame = frame_of(number=[draw.gauss(shift, 1) for _ in range(5_000)])

    counted = drift_of(reference, frame, "number")
    estimated = measure("number", profile(frame, CONTRACT)["number"], reference)

    assert counted.psi == pytest.approx(estimated.psi, abs=0.02, rel=0.1)


def test_the_reference_is_the_days_before_until_a_training_set_is_kept() -> None:
    column = profile(frame_of(number=[float(n) for n in range(64)]), CONTRACT)
    days = before(TUESDAY, [column] * 30)
    trained = {"number": TrainedOn("churn_v1", column["number"])}

    def against(kind: ReferenceKind, days: Mapping[date, Profiles]) -> str | None:
        found = reference_of(of_kind(kind), "number", TUESDAY, days, trained)
        return found.against if found else None

    assert "the training set churn_v1" == against("auto", days) == against("auto", {})
    assert "the training set churn_v1" == against("training", {})
    assert "28 earlier days" == against("trailing", days)
    assert "the 4 Tuesdays before" == against("weekday", days)
    none = reference_of(of_kind("auto"), "number", TUESDAY, days, {})
    assert none is not None
    assert "28 earlier days" == none.against
    assert reference_of(of_kind("training"), "number", TUESDAY, days, {}) is None
    other_type = {"number": TrainedOn("old", ColumnProfile(5_000, 0, counts={"a": 5_000}))}
    found = reference_of(of_kind("auto"), "number", TUESDAY, days, other_type)
    assert found is not None
    assert "28 earlier days" == found.against


def test_too_few_days_are_no_reference_and_later_ones_do_not_count() -> None:
    column = profile(frame_of(number=[1.0, 2.0]), CONTRACT)
    empty = profile(frame_of(number=[]), CONTRACT)
    six = before(TUESDAY, [column] * 6)
    later = {TUESDAY + timedelta(days=n): column for n in range(9)}
    old = {TUESDAY - timedelta(days=n): column for n in range(57, 90)}
    days = {**six, **later, **old}

    assert {} == references_of(CONTRACT, TUESDAY, days, {})
    assert "No reference yet: 6 of 7 earlier days." == no_reference(CONTRACT, TUESDAY, days)
    without_rows = {**six, TUESDAY - timedelta(days=7): empty}
    assert reference_of(CONTRACT, "number", TUESDAY, without_rows, {}) is None
    seven = {**six, TUESDAY - timedelta(days=7): column}
    assert {"number", "word", "flag", "name", "size"} == references_of(
        CONTRACT, TUESDAY, seven, {}
    ).keys()
    weekday, training = of_kind("weekday"), of_kind("training")
    assert reference_of(weekday, "number", TUESDAY, seven, {}) is None
    assert "1 of 2 earlier Tuesdays" in no_reference(weekday, TUESDAY, seven)
    assert "no training set" in no_reference(training, TUESDAY, seven)
    two = {**seven, TUESDAY - timedelta(days=14): column}
    found = reference_of(weekday, "number", TUESDAY, two, {})
    assert found is not None
    assert "the 2 Tuesdays before" == found.against


def test_a_promo_friday_is_no_drift_against_the_fridays_before() -> None:
    draw = random.Random(5)

    def seen(day: date) -> pl.DataFrame:
        scale = 3 if day.weekday() == 4 else 1
        return frame_of(number=[draw.lognormvariate(0, 0.5) * scale for _ in range(800)])

    friday = date(2026, 4, 3)
    days: dict[date, Profiles] = {
        day: profile(seen(day), CONTRACT)
        for day in (friday - timedelta(days=n) for n in range(1, 36))
    }
    today = seen(friday)
    trailing = reference_of(of_kind("trailing"), "number", friday, days, {})
    weekday = reference_of(of_kind("weekday"), "number", friday, days, {})

    assert drift_of(trailing, today, "number").over
    quiet = drift_of(weekday, today, "number")
    assert not quiet.over
    assert "the 4 Fridays before" == quiet.against
    doubled = today.with_columns(pl.col("number") * 2)
    assert drift_of(weekday, doubled, "number").over


def test_half_null_new_values_and_a_flag_that_turned_are_drift() -> None:
    draw = random.Random(7)
    usual = frame_of(
        number=[draw.gauss(0, 1) for _ in range(640)],
        word=[draw.choice("ab") for _ in range(640)],
        flag=[draw.random() < 0.2 for _ in range(640)],
    )
    days = before(TUESDAY, [profile(usual, CONTRACT)] * 8)
    references = references_of(CONTRACT, TUESDAY, days, {})
    changed = usual.with_columns(
        number=pl.when(pl.int_range(pl.len()) % 2 == 0).then("number"),
        word=pl.lit("new"),
        flag=~pl.col("flag"),
    )

    same = {n: drift_of(references[n], usual, n).psi for n in ("number", "word", "flag")}
    moved = {n: drift_of(references[n], changed, n) for n in ("number", "word", "flag")}

    assert all(psi is not None and psi < 0.01 for psi in same.values())
    assert all(one.psi is not None and one.psi > 1 for one in moved.values())
    assert "missing" == max(moved["number"].bins, key=lambda one: one.psi).label
    assert ["other values"] == [one.label for one in moved["word"].bins if one.actual == 1]


def test_no_bin_names_what_identifies_people() -> None:
    usual = frame_of(name=["Zoë Karlsen", "Ada"] * 40, size=[181.375, 160.5] * 40)
    old = {  # as earlier releases kept them
        "name": ColumnProfile(80, 0, counts={"Zoë Karlsen": 40, "Ada": 40}),
        "size": ColumnProfile(80, 0, 160.5, 181.375, 170.0, sketch=[160.5, 181.375]),
    }
    for days in ([profile(usual, CONTRACT)] * 7, [old] * 7):
        references = references_of(CONTRACT, TUESDAY, before(TUESDAY, days), {})
        half = usual.with_columns(
            pl.when(pl.int_range(pl.len()) < 40).then(pl.col(name)).alias(name)
            for name in ("name", "size")
        )
        for name in ("name", "size"):
            found = drift_of(references[name], half, name)
            assert ["any value", "missing"] == [one.label for one in found.bins]
            assert found.psi is not None
            assert found.psi > 1


def test_a_day_without_rows_has_no_drift_and_dates_have_none() -> None:
    seen = profile(frame_of(number=[1.0, 2.0]), CONTRACT)
    days = before(TUESDAY, [seen] * 8)
    reference = reference_of(CONTRACT, "number", TUESDAY, days, {})

    found = drift_of(reference, frame_of(number=[]), "number")

    assert (None, None, False) == (found.psi, found.kl, found.over)
    assert reference_of(CONTRACT, "born", TUESDAY, days, {}) is None


def test_a_column_of_nulls_that_gets_values_is_drift() -> None:
    days = before(TUESDAY, [profile(frame_of(number=[None] * 9), CONTRACT)] * 8)
    reference = reference_of(CONTRACT, "number", TUESDAY, days, {})

    assert drift_of(reference, frame_of(number=[None] * 9), "number").psi == pytest.approx(0)
    assert drift_of(reference, frame_of(number=[math.inf] * 9), "number").over


def test_either_limit_may_be_exceeded() -> None:
    drift = Drift("x", psi=0.3, kl=0.1, limit=0.2, against="7 earlier days")

    assert drift.over
    assert not replace(drift, limit=0.3).over
    assert not replace(drift, limit=None).over
    assert replace(drift, limit=None, kl_limit=0.05).over
    assert ["PSI 0.30 (limit 0.2)"] == [str(each) for each in drift.exceeded]
    both = replace(drift, kl_limit=0.05).exceeded
    assert ["PSI 0.30 (limit 0.2)", "KL 0.10 (limit 0.05)"] == [str(each) for each in both]
    alone = replace(drift, limit=None, kl_limit=0.05).exceeded
    assert ["KL 0.10 (limit 0.05)"] == [str(each) for each in alone]
