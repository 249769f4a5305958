"""Each limit of cardinality and drift: at it a day passes, a row or a hair above it fails."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep import Entity, Feature, Features
from lockstep.profile import ColumnProfile, EntityCounts, profile
from lockstep.quality import Audit, Earlier, Verdict, audit, cardinality, severity_of
from lockstep.schema import Contract
from lockstep.soda import SodaSession

USER = Entity("user", {"user_id": pl.Int64})
DAY = date(2026, 11, 27)
"""A Friday."""


def contract(feature: Feature | None = None, **said: Any) -> Contract:
    body = {"__doc__": "What somebody did.", "n": feature or Feature(pl.Float64, "A number.")}
    made = type(Features)("Did", (Features,), body, entity=USER, owner="team:tests", **said)
    assert issubclass(made, Features)
    return made.contract


def frame(values: Sequence[float]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": range(len(values)),
            "event_timestamp": [datetime(2026, 11, 28, 5, tzinfo=UTC)] * len(values),
            "n": values,
        },
        schema={"user_id": pl.Int64, "event_timestamp": pl.Datetime("us", "UTC"), "n": pl.Float64},
    )


def after(rows: Sequence[int], entities: EntityCounts | None = None) -> Earlier:
    """Return what a day is compared with after days with so many rows, the newest first."""
    days = {
        DAY - timedelta(days=ago): {"n": ColumnProfile(count, 0)}
        for ago, count in enumerate(rows, start=1)
    }
    return Earlier(DAY, days, {}, entities)


@pytest.fixture(scope="module")
def soda() -> Iterator[SodaSession]:
    session = SodaSession()
    yield session
    session.close()


class TestRows:
    def test_as_many_as_max_rows_pass_and_one_more_blocks(self) -> None:
        limited = contract(max_rows=500)

        most, over = (cardinality(rows, limited, after([])) for rows in (500, 501))

        assert most.passed
        assert over.blocks
        assert "The day has 501 rows, more than max_rows=500." == over.message
        assert {"rows": 501, "limit:rows": 500} == over.numbers

    def test_growth_to_the_limit_passes_and_one_row_more_blocks_with_the_numbers(self) -> None:
        before = after([1_000] * 27 + [90_000])  # one odd day moves no median

        most, over = (cardinality(rows, contract(), before) for rows in (10_000, 10_001))

        assert most.passed
        assert over.blocks
        assert (
            "The day has 10,001 rows, 10.0 times the 1,000 of the 28 earlier days (their median), "
            "more than max_growth=10.0."
        ) == over.message
        assert {"rows": 10_001, "usual_rows": 1_000} == over.numbers

    def test_a_day_of_fewer_than_a_thousand_rows_is_small_however_it_grew(self) -> None:
        before = after([2] * 28)

        small, large = (cardinality(rows, contract(), before) for rows in (999, 1_000))

        assert small.passed
        assert large.blocks

    def test_growth_needs_seven_earlier_days_and_a_usual_number_of_rows(self) -> None:
        few, enough, nothing = after([10] * 6), after([10] * 7), after([0] * 28)

        found = [cardinality(5_000, contract(), before).passed for before in (few, enough, nothing)]

        assert [True, False, True] == found

    def test_a_view_may_grow_without_limit_if_it_says_so(self) -> None:
        assert cardinality(1_000_000, contract(max_growth=None), after([10] * 28)).passed

    @given(
        rows=st.integers(0, 4_000),
        before=st.lists(st.integers(0, 400), max_size=28),
        most=st.none() | st.integers(1, 4_000),
        growth=st.none() | st.floats(1.5, 50),
    )
    def test_it_blocks_exactly_when_a_limit_is_crossed(
        self, rows: int, before: list[int], most: int | None, growth: float | None
    ) -> None:
        crossed = most is not None and rows > most
        if growth is not None and len(before) >= 7 and median(before) > 0 and rows >= 1_000:
            crossed = crossed or rows > growth * median(before)

        found = cardinality(rows, contract(max_rows=most, max_growth=growth), after(before))

        assert crossed == found.blocks == (not found.passed)


class TestFewRows:
    def test_a_third_of_the_usual_rows_passes_and_one_row_less_warns_with_the_numbers(self) -> None:
        before = after([3_000] * 27 + [90_000])  # one odd day moves no median

        least, under = (cardinality(rows, contract(), before) for rows in (1_000, 300))

        assert least.passed
        assert not cardinality(999, contract(), before).passed
        assert not under.passed
        assert not under.blocks
        assert "warn" == under.severity
        assert (
            "The day has 300 rows, 10.0 times fewer than the 3,000 of the 4 earlier days of the "
            "same weekday (their median), more than max_shrink=3.0."
        ) == under.message
        assert {"rows": 300, "usual_rows": 3_000} == under.numbers

    def test_with_one_day_of_the_same_weekday_all_days_are_what_is_usual(self) -> None:
        found = cardinality(300, contract(), after([3_000] * 6 + [600] + [3_000] * 2))

        assert (
            "The day has 300 rows, 10.0 times fewer than the 3,000 of the 9 earlier days (their "
            "median), more than max_shrink=3.0."
        ) == found.message

    def test_a_weekday_that_is_always_quiet_warns_only_if_it_is_quieter_still(self) -> None:
        weeks = after(([20_000] * 6 + [3_000]) * 4)  # the newest first, so every Friday is quiet

        quiet, quieter = (cardinality(rows, contract(), weeks) for rows in (3_000, 900))

        assert quiet.passed
        assert "the 3,000 of the 4 earlier days of the same weekday" in quieter.message

    def test_a_weekday_that_is_always_busy_warns_though_other_days_have_as_few(self) -> None:
        weeks = after(([2_000] * 6 + [20_000]) * 4)

        assert not cardinality(2_000, contract(), weeks).passed

    def test_it_needs_seven_earlier_days_and_a_thousand_usual_rows(self) -> None:
        few, enough = after([9_000] * 6), after([9_000] * 7)
        small, large = after([999] * 28), after([1_000] * 28)

        found = [cardinality(10, contract(), before).passed for before in (few, enough)]
        sized = [cardinality(10, contract(), before).passed for before in (small, large)]

        assert [True, False] == found == sized

    def test_a_day_without_rows_has_a_sentence_too(self) -> None:
        found = cardinality(0, contract(min_rows=0), after([9_000] * 7))

        assert "The day has 0 rows, 9,000.0 times fewer than the 9,000 of" in found.message

    def test_a_view_may_shrink_without_limit_if_it_says_so(self) -> None:
        assert cardinality(1, contract(max_shrink=None), after([9_000] * 28)).passed

    def test_rows_that_only_close_who_left_do_not_make_up_for_those_that_are_lost(self) -> None:
        usual = after([2_500] * 28)
        closed = dict.fromkeys(usual.profiles, 500)
        lost = replace(usual, closed={**closed, DAY: 1_900})
        calm = replace(usual, closed={**closed, DAY: 600})

        found = [cardinality(2_100, contract(), before) for before in (calm, lost)]

        assert [True, False] == [verdict.passed for verdict in found]
        assert (
            "The day has 200 rows without the 1,900 that close what left, 10.0 times fewer than "
            "the 2,000 of the 4 earlier days of the same weekday (their median), more than "
            "max_shrink=3.0."
        ) == found[1].message

    def test_days_that_closed_many_do_not_make_a_usual_one_small(self) -> None:
        usual = after([9_000] * 28)
        busy = replace(usual, closed=dict.fromkeys(usual.profiles, 7_000))

        assert cardinality(2_000, contract(), busy).passed

    def test_too_many_rows_block_also_beside_too_few(self) -> None:
        found = cardinality(200, contract(max_rows=100), after([9_000] * 28))

        assert found.blocks
        assert "more than max_rows=100. The day has 200 rows, 45.0 times fewer" in found.message

    @given(
        rows=st.integers(0, 4_000),
        before=st.lists(st.integers(0, 6_000), max_size=28),
        shrink=st.none() | st.floats(1.5, 50),
    )
    def test_it_warns_exactly_when_the_limit_is_crossed(
        self, rows: int, before: list[int], shrink: float | None
    ) -> None:
        same = before[6::7]
        usual = median(same if len(same) >= 2 else before) if len(before) >= 7 else 0
        crossed = shrink is not None and usual >= 1_000 and rows < usual / shrink

        found = cardinality(rows, contract(max_growth=None, max_shrink=shrink), after(before))

        assert crossed == (not found.passed)
        assert not found.blocks


class TestNewEntities:
    def test_the_declared_share_passes_and_one_entity_more_warns(self) -> None:
        limited = contract(max_new_entities=0.25)
        half = [EntityCounts(seen=400, new=new, gone=7) for new in (100, 101)]

        most, over = (cardinality(400, limited, after([], counts)) for counts in half)

        assert most.passed
        assert not over.passed
        assert not over.blocks
        assert "warn" == over.severity
        assert (
            "25.2% of the 400 rows are of entities that the day before did not have, more than "
            "max_new_entities=25.0%."
        ) == over.message
        expected = {"rows": 400, "entities_new": 101, "entities_gone": 7, "new_entity_rate": 0.2525}
        assert expected == over.numbers

    def test_too_many_rows_block_also_beside_a_warning(self) -> None:
        both = contract(max_new_entities=0.1, max_rows=100)

        found = cardinality(400, both, after([], EntityCounts(400, 400, 0)))

        assert found.blocks
        assert "more than max_rows=100. 100.0% of the 400 rows" in found.message

    def test_without_a_day_before_or_without_rows_nothing_is_new(self) -> None:
        limited = contract(max_new_entities=0.0)

        first = cardinality(400, limited, after([]))
        empty = cardinality(0, limited, after([], EntityCounts(0, 0, 12)))

        assert first.passed
        assert empty.passed
        assert {"rows": 0, "entities_new": 0, "entities_gone": 12} == empty.numbers


class TestDrift:
    """Every day before has the values 0 to 99, each ten times."""

    STEADY = tuple(float(n % 100) for n in range(1_000))
    MOVED = tuple(float(n % 100) + 30 for n in range(1_000))

    def judged(
        self,
        soda: SodaSession,
        values: Sequence[float],
        promised: Contract,
        before: dict[date, Sequence[float]] | None = None,
    ) -> Audit:
        days = before or {DAY - timedelta(days=ago): self.STEADY for ago in range(1, 29)}
        known = {day: profile(frame(column), promised) for day, column in days.items()}
        return audit(frame(values), promised, Earlier(DAY, known), soda)

    def drift(self, *arguments: Any) -> Verdict:
        found = {verdict.check: verdict for verdict in self.judged(*arguments).verdicts}
        return found["drift"]

    @pytest.mark.parametrize("word", ["psi", "kl"])
    def test_what_is_measured_passes_as_a_limit_and_warns_a_hair_below(
        self, soda: SodaSession, word: str
    ) -> None:
        measured = self.drift(soda, self.MOVED, contract()).numbers[f"{word}:n"]

        def limited(limit: float) -> Verdict:
            feature = Feature(pl.Float64, "A number.", **{f"max_{word}": limit})
            return self.drift(soda, self.MOVED, contract(feature))

        most, over = limited(measured), limited(measured * 0.999)

        assert most.passed
        assert not over.passed
        assert not over.blocks
        assert f"n has {word.upper()} {measured:.2f} (limit " in over.message
        assert "against 28 earlier days." in over.message
        assert measured == over.numbers[f"{word}:n"]
        assert measured * 0.999 == over.numbers[f"limit:{word}:n"]

    def test_a_feature_that_says_so_keeps_a_drifted_day_out(self, soda: SodaSession) -> None:
        strict = contract(Feature(pl.Float64, "A number.", max_psi=0.2, drift="block"))

        moved = self.judged(soda, self.MOVED, strict)
        steady = self.judged(soda, self.STEADY, strict)

        assert not moved.passed
        assert steady.passed
        assert "block" == severity_of("drift", strict)
        assert "warn" == severity_of("drift", contract())

    def test_another_features_warning_does_not_block(self, soda: SodaSession) -> None:
        class Did(Features, entity=USER, owner="team:tests"):
            """What somebody did."""

            n = Feature(pl.Float64, "A number.", max_psi=0.2)
            strict = Feature(pl.Float64, "A number.", max_psi=0.2, drift="block")

        def both(n: Sequence[float]) -> pl.DataFrame:
            return frame(n).with_columns(strict=pl.Series(self.STEADY))

        before = profile(both(self.STEADY), Did.contract)
        known = {DAY - timedelta(days=ago): before for ago in range(1, 29)}
        found = audit(both(self.MOVED), Did.contract, Earlier(DAY, known), soda)

        (drift,) = [verdict for verdict in found.verdicts if verdict.check == "drift"]
        assert not drift.passed
        assert not drift.blocks
        assert found.passed

    def test_a_promo_friday_is_odd_among_all_days_and_usual_among_fridays(
        self, soda: SodaSession
    ) -> None:
        before = {
            day: self.MOVED if day.weekday() == DAY.weekday() else self.STEADY
            for day in (DAY - timedelta(days=ago) for ago in range(1, 29))
        }
        limited = Feature(pl.Float64, "A number.", max_psi=0.2)

        trailing = self.drift(soda, self.MOVED, contract(limited, reference="trailing"), before)
        weekday = self.drift(soda, self.MOVED, contract(limited, reference="weekday"), before)

        assert not trailing.passed
        assert weekday.passed
        assert "Stable against the 4 Fridays before." == weekday.message

    def test_nan_that_floods_a_column_moves_its_missing_bin(self, soda: SodaSession) -> None:
        flooded = [float("nan") if n % 3 else n % 100 for n in range(1_000)]
        limited = contract(Feature(pl.Float64, "A number.", max_psi=0.2, fill_rate=0.99))

        found = {verdict.check: verdict for verdict in self.judged(soda, flooded, limited).verdicts}

        assert not found["drift"].passed
        assert found["completeness"].blocks
        assert "n is filled in 33.4% of 1000 rows" in found["completeness"].message


class TestVerdicts:
    def test_severity_is_that_of_the_check_unless_it_is_said(self) -> None:
        drift, keys = Verdict("drift", passed=False, message=""), Verdict("keys", False, "")

        assert ["warn", "block"] == [drift.severity, keys.severity]
        assert drift.at("block").blocks
        assert drift.at("block") == Verdict.from_json(drift.at("block").to_json())

    def test_verdicts_of_earlier_releases_are_read(self) -> None:
        said = {"check": "drift", "passed": False, "message": "", "numbers": {}, "released": False}

        assert Verdict("drift", passed=False, message="") == Verdict.from_json(said)
        assert Verdict("drift", False, "") == Verdict.from_json({**said, "severity": "warn"})
