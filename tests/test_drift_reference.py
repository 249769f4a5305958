"""What drifts is not what later days are compared with, until it has lasted for seven weeks."""

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep import Entity, Feature, Features
from lockstep.drift import compared_with, measure, reference_of, references_of
from lockstep.profile import ColumnProfile, TrainedOn, profile
from lockstep.schema import Contract, ReferenceKind

TUESDAY = date(2026, 3, 3)
FEATURE = "spend"


class Spent(Features, entity=Entity("user", {"user_id": pl.Int64}), owner="team:tests", ttl=None):
    """What somebody spent."""

    spend = Feature(pl.Float64, "Spend.", max_psi=0.2)
    calm = Feature(pl.Float64, "Never over a limit.", max_psi=9.0)


def contract_of(kind: ReferenceKind) -> Contract:
    return replace(Spent.contract, reference=kind)


def frame(draw: random.Random, scale: float, rows: int = 400) -> pl.DataFrame:
    spend = [draw.lognormvariate(0, 0.9) * scale for _ in range(rows)]
    return pl.DataFrame({"spend": spend, "calm": [draw.random() for _ in range(rows)]})


def judged(
    contract: Contract, scales: Mapping[date, float], trained_on: Mapping[date, TrainedOn] | None
) -> tuple[dict[date, float], dict[date, list[str]]]:
    """Judge the days in order, as runs do; return day → PSI, and what was over its limit."""
    draw = random.Random(11)
    days: dict[date, dict[str, ColumnProfile]] = {}
    psi: dict[date, float] = {}
    over: dict[date, list[str]] = {}
    for day, scale in sorted(scales.items()):
        kept = [set_ for since, set_ in sorted((trained_on or {}).items()) if since <= day]
        trained = {FEATURE: kept[-1]} if kept else {}
        references = references_of(contract, day, days, trained, over)
        days[day] = profile(frame(draw, scale), contract, references)
        found = {name: measure(name, days[day][name], of) for name, of in references.items()}
        over[day] = [name for name, drift in found.items() if drift.over]
        if FEATURE in found and (value := found[FEATURE].psi) is not None:
            psi[day] = value
    return psi, over


def at(*numbers: int) -> list[date]:
    return [TUESDAY + timedelta(days=n) for n in numbers]


def test_doubled_values_are_over_the_limit_for_as_long_as_seven_weeks_and_then_normal() -> None:
    scales = {**dict.fromkeys(at(*range(28)), 1.0), **dict.fromkeys(at(*range(28, 120)), 2.0)}

    psi, over = judged(contract_of("trailing"), scales, None)

    drifted = [day for day in sorted(over) if FEATURE in over[day]]
    assert at(*range(28, 28 + len(drifted))) == drifted
    assert 7 * 6 <= len(drifted) <= 7 * 8
    assert min(psi[day] for day in drifted) > 0.3
    assert not any("calm" in each for each in over.values())


def test_of_the_same_weekday_a_change_lasts_as_long() -> None:
    scales = {
        day: (2.0 if number >= 35 else 1.0) * (3 if day.weekday() == 4 else 1)
        for number, day in enumerate(at(*range(130)))
    }

    _, over = judged(contract_of("weekday"), scales, None)

    drifted = [day for day in sorted(over) if FEATURE in over[day]]
    assert at(*range(35, 35 + len(drifted))) == drifted
    assert 7 * 6 <= len(drifted) <= 7 * 8


def test_when_values_are_as_before_again_no_day_of_the_fault_is_held_against_them() -> None:
    scales = {**dict.fromkeys(at(*range(80)), 1.0), **dict.fromkeys(at(*range(30, 50)), 2.0)}

    psi, over = judged(contract_of("auto"), scales, None)

    assert at(*range(30, 50)) == [day for day in sorted(over) if over[day]]
    assert max(psi[day] for day in at(*range(50, 80))) < 0.1


def test_a_training_set_of_the_new_level_is_the_reference_at_once() -> None:
    scales = {**dict.fromkeys(at(*range(28)), 1.0), **dict.fromkeys(at(*range(28, 60)), 2.0)}
    learned = profile(frame(random.Random(5), 2.0, 4_000), Spent.contract)[FEATURE]
    trained = {at(40)[0]: TrainedOn("churn_v2", learned)}

    _, over = judged(contract_of("auto"), scales, trained)

    assert at(*range(28, 40)) == [day for day in sorted(over) if over[day]]


def test_a_promotion_of_one_day_leaves_the_reference_as_it_was() -> None:
    draw = random.Random(2)
    usual = {day: profile(frame(draw, 1.0), Spent.contract) for day in at(*range(30))}
    promo = at(29)[0]
    usual[promo] = profile(frame(draw, 9.0), Spent.contract)
    without = {day: columns for day, columns in usual.items() if day != promo}
    contract, day = contract_of("trailing"), at(30)[0]

    found = reference_of(contract, FEATURE, day, usual, {}, {promo: {FEATURE}})
    other = reference_of(contract, "calm", day, usual, {}, {promo: {FEATURE}})

    clean = reference_of(contract, FEATURE, day, without, {})
    assert found is not None
    assert replace(found, against="28 earlier days") == clean
    assert "28 earlier days within the limit" == found.against
    assert other == reference_of(contract, "calm", day, usual, {})


PROFILED = {
    n: {FEATURE: ColumnProfile(n, 0, 0.0, 1.0, 0.5, sketch=[float(n)] * 64)} for n in range(1, 130)
}


@given(
    st.sampled_from(["trailing", "weekday"]),
    st.sets(st.integers(1, 70), max_size=12) | st.sets(st.integers(1, 70), min_size=50),
    st.sets(st.integers(1, 70), max_size=12) | st.sets(st.integers(1, 70), min_size=50),
)
def test_the_newest_calm_days_count_and_all_of_them_where_too_few_are_calm(
    kind: ReferenceKind, absent: set[int], drifted: set[int]
) -> None:
    """Days are numbers of days before; a profile has as many rows, so that it can be told."""
    there = {n: PROFILED[n] for n in range(1, 71) if n not in absent}
    days = {TUESDAY - timedelta(days=n): columns for n, columns in there.items()}
    over = {TUESDAY - timedelta(days=n): {FEATURE} for n in drifted}

    columns, _ = compared_with(contract_of(kind), FEATURE, TUESDAY, days, {}, over)

    most, least = (4, 2) if kind == "weekday" else (28, 7)
    all_of_them = [n for n in sorted(there) if n <= 56 and (kind == "trailing" or n % 7 == 0)]
    calm = [n for n in all_of_them if n not in drifted]
    expected = calm[:most] if len(calm) >= least else all_of_them[:most]
    assert [column.rows for column in columns] == (expected if len(expected) >= least else [])


@pytest.mark.parametrize(("calm", "words"), [(6, "28 earlier days"), (7, "7 earlier days within")])
def test_it_is_said_when_days_were_left_out(calm: int, words: str) -> None:
    days = {TUESDAY - timedelta(days=n): columns for n, columns in PROFILED.items() if n <= 56}
    over = {day: {FEATURE} for day in sorted(days)[calm:]}

    found = reference_of(contract_of("auto"), FEATURE, TUESDAY, days, {}, over)

    assert found is not None
    assert found.against.startswith(words)
