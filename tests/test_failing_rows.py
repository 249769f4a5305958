"""What a failed check says of the rows it failed for: each broken rule counted, each rule shown."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep import Entity, Feature, Features
from lockstep.failing_rows import HEAD, failing_rows
from lockstep.keys import MAX_KEY_BYTES
from lockstep.pandera_schema import contract_failures, pandera_schema
from lockstep.quality import Audit, Earlier, Verdict, audit
from lockstep.schema import Contract
from lockstep.soda import SodaSession

PLACE = Entity("place", {"chain": pl.String, "number": pl.Int64})
AT = datetime(2026, 11, 28, 5, tzinfo=UTC)


class Sold(Features, entity=PLACE, owner="team:tests"):
    """What a place sold."""

    a = Feature(pl.Int64, "A number.", at_least=0, at_most=9)
    b = Feature(pl.Float64, "A number.", nullable=False)
    c = Feature(pl.String, "A word.", one_of=("x", "y"), fill_rate=0.5)
    d = Feature(pl.Float64, "A number.", fill_rate=0.9)


CONTRACT = Sold.contract


def frame(rows: int, **said: Sequence[Any]) -> pl.DataFrame:
    """Return rows that keep the contract, but for the columns that are given."""
    sound: Mapping[str, Sequence[Any]] = {
        "chain": ["k"] * rows,
        "number": range(rows),
        "event_timestamp": [AT] * rows,
        "a": [5] * rows,
        "b": [1.0] * rows,
        "c": ["x"] * rows,
        "d": [1.0] * rows,
    }
    return pl.DataFrame({**sound, **said}, schema=CONTRACT.columns)


@pytest.fixture(scope="module")
def soda() -> Iterator[SodaSession]:
    session = SodaSession()
    yield session
    session.close()


def audited(soda: SodaSession, rows: pl.DataFrame) -> Audit:
    return audit(rows, CONTRACT, Earlier(date(2026, 11, 27)), soda)


def verdict(found: Audit, check: str) -> Verdict:
    (one,) = [each for each in found.verdicts if each.check == check]
    return one


class TestContract:
    def test_every_broken_rule_is_named_with_its_rows_wherever_they_are(
        self, soda: SodaSession
    ) -> None:
        bad = frame(1_000, a=[-1] * 25 + [5] * 975, b=[1.0] * 25 + [None] * 975)

        found = audited(soda, bad)

        assert (
            "1,000 of 1,000 rows break a: at least 0 (25 rows); b: required (975 rows)."
        ) == verdict(found, "contract").message
        assert {"rows": 1_000} == verdict(found, "contract").numbers

    def test_a_row_that_breaks_two_rules_is_one_row(self) -> None:
        bad = frame(3, a=[10, 5, None], b=[float("nan"), 1.0, None], c=["x", "z", None])

        found = contract_failures(bad, CONTRACT)

        assert found is not None
        assert 3 == found.rows
        assert ["a: at most 9 (1 row)", "b: required (2 rows)", "c: one of x, y (1 row)"] == (
            found.sentences
        )

    def test_the_head_has_rows_of_each_rule_and_twenty_at_most(self, soda: SodaSession) -> None:
        bad = frame(1_000, a=[-1] * 25 + [5] * 975, b=[1.0] * 25 + [None] * 975)

        head = audited(soda, bad).failing_rows["contract"]

        assert HEAD == head.height
        assert [-1, 5] * 10 == head["a"].to_list()
        assert [*range(10), *range(25, 35)] == sorted(head["number"])

    def test_a_rare_rule_is_shown_beside_a_frequent_one(self, soda: SodaSession) -> None:
        bad = frame(500, a=[-1] * 499 + [5], c=["x"] * 499 + ["z"])

        head = audited(soda, bad).failing_rows["contract"]

        assert [0, 499, *range(1, 19)] == head["number"].to_list()

    def test_columns_of_another_type_are_told_as_pandera_says_it(self) -> None:
        found = contract_failures(frame(2).with_columns(pl.col("d").cast(pl.Int64)), CONTRACT)

        assert found is not None
        assert ["d: dtype('Float64')"] == found.sentences

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([None, -1, 0, 9, 10]),
                st.sampled_from([None, 0.0, float("nan"), float("inf")]),
                st.sampled_from([None, "x", "y", "z", ""]),
            ),
            max_size=40,
        )
    )
    def test_it_breaks_for_the_rows_that_pandera_refuses_one_by_one(
        self, values: list[tuple[int | None, float | None, str | None]]
    ) -> None:
        a, b, c = ([row[at] for row in values] for at in range(3))
        rows = frame(len(values), a=a, b=b, c=c)

        found = contract_failures(rows, CONTRACT)

        refused = [at for at in range(rows.height) if not keeps(rows[at])]
        assert len(refused) == (found.rows if found else 0)
        shown = failing_rows("contract", rows, CONTRACT)
        assert set(refused) >= set(shown.head["number"] if shown else [])
        assert min(HEAD, len(refused)) == (shown.head.height if shown else 0)


def keeps(row: pl.DataFrame) -> bool:
    try:
        pandera_schema(CONTRACT).validate(row.fill_nan(None), lazy=True)
    except pa.errors.SchemaErrors:
        return False
    return True


class TestOtherChecks:
    def test_null_and_repeated_keys_are_shown_and_no_sound_row(self, soda: SodaSession) -> None:
        keys = [*range(100), 7, 7, None, 8]
        chains = ["k"] * 103 + [None]

        found = audited(soda, frame(104, number=keys, chain=chains))

        shown = found.failing_rows["keys"]
        assert [7, 7, 7, 8, None] == shown["number"].sort(nulls_last=True).to_list()
        assert ["k", "k", "k", "k", None] == shown["chain"].sort(nulls_last=True).to_list()
        assert "2 rows have a null key and 2 repeat" in verdict(found, "keys").message

    def test_of_many_repeated_keys_pairs_stand_together(self, soda: SodaSession) -> None:
        found = audited(soda, frame(1_000, number=[at // 2 for at in range(1_000)]))

        assert [at // 2 for at in range(HEAD)] == found.failing_rows["keys"]["number"].to_list()

    def test_a_key_that_is_too_long_is_shown(self, soda: SodaSession) -> None:
        long = "k" * (MAX_KEY_BYTES + 1)

        found = audited(soda, frame(50, chain=["k"] * 49 + [long]))

        assert [long] == found.failing_rows["keys"]["chain"].to_list()

    def test_rows_without_the_values_that_are_too_few_are_shown(self, soda: SodaSession) -> None:
        sparse = [float("nan"), None, *[1.0] * 8]

        found = audited(soda, frame(10, d=sparse, c=[*["x"] * 6, *[None] * 4]))

        assert "d is filled in 80.0% of 10 rows" in verdict(found, "completeness").message
        assert [0, 1] == found.failing_rows["completeness"]["number"].to_list()  # c is as promised

    def test_a_fill_rate_that_is_just_kept_shows_no_rows(self, soda: SodaSession) -> None:
        few = [None, *[1.0] * 9]  # 0.9 exactly, where 1 - 0.9 is less than 0.1

        found = audited(soda, frame(10, d=few, c=[None] * 10))

        assert set(range(10)) == set(found.failing_rows["completeness"]["number"])
        assert failing_rows("completeness", frame(10, d=few), CONTRACT) is None

    def test_a_day_that_passes_or_fails_as_a_whole_shows_no_rows(self, soda: SodaSession) -> None:
        passed, empty = audited(soda, frame(5)), audited(soda, frame(0))

        assert passed.passed
        assert not empty.passed
        assert {} == passed.failing_rows == empty.failing_rows


def test_a_contract_without_rules_breaks_for_no_row() -> None:
    class Loose(Features, entity=PLACE, owner="team:tests"):
        """Anything."""

        a = Feature(pl.Int64, "A number.")

    loose: Contract = Loose.contract
    rows = frame(2).select(list(loose.columns))

    assert contract_failures(rows, loose) is None
    assert failing_rows("contract", rows, loose) is None
    assert failing_rows("drift", rows, loose) is None
