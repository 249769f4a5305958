"""Hand-written Soda YAML beside a view file: what it may ask, what it tells, what it can't see."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from feature_assets.entities import HOUSEHOLD
from lockstep import Entity, Feature, Features
from lockstep.errors import DeclarationError
from lockstep.quality import Earlier, Verdict, audit
from lockstep.soda import SodaSession
from lockstep.soda_file import SodaFile, find_soda_file
from tests.documents import blocks
from tests.source_tree import ROOT

NOON = datetime(2026, 11, 28, 5, tzinfo=UTC)
DAY = NOON.date()


class Did(Features, entity=Entity("user", {"user_id": pl.Int64}), owner="team:tests"):
    """What somebody did."""

    amount = Feature(pl.Float64, "Spend.")
    kind = Feature(pl.String, "What.")
    price = Feature(pl.Decimal(18, 2), "A price.")
    salary = Feature(pl.Int64, "What somebody earns.", pii=True)


CONTRACT = Did.contract
TYPES = {name: CONTRACT.columns[name] for name in CONTRACT.columns}


def frame(amounts: list[float | None]) -> pl.DataFrame:
    """Return a row per amount; kinds are a, b, yes in turn."""
    rows = len(amounts)
    return pl.DataFrame(
        {
            "user_id": range(rows),
            "event_timestamp": [NOON] * rows,
            "amount": amounts,
            "kind": [("a", "b", "yes")[n % 3] for n in range(rows)],
            "price": [Decimal("1.20")] * rows,
            "salary": [4321] * rows,
        },
        schema=TYPES,
    )


@pytest.fixture(scope="module")
def soda() -> Iterator[SodaSession]:
    session = SodaSession()
    yield session
    session.close()


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], tuple[SodaFile | None, list[str]]]:
    """Write the file beside `did.py` and read it; the folder is left out of the problems."""

    def write(text: str) -> tuple[SodaFile | None, list[str]]:
        (tmp_path / "did.soda.yml").write_text(text, encoding="utf-8")
        file, wrong = find_soda_file(tmp_path / "did.py", CONTRACT)
        return file, [problem.replace(f"{tmp_path}/", "") for problem in wrong]

    return write


Write = Callable[[str], tuple[SodaFile | None, list[str]]]


def judged(soda: SodaSession, file: SodaFile | None, amounts: list[float | None]) -> Verdict:
    found = audit(frame(amounts), CONTRACT, Earlier(DAY), soda, file)
    return found.verdicts[-1]


GOOD = """\
columns:
  - name: amount
    checks:
      - missing: {threshold: {metric: percent, must_be_less_than_or_equal: 50}}
      - aggregate: {function: avg, name: usual spend, threshold: {must_be_less_than: 4.5}}
  - name: kind
    checks:
      - invalid: {valid_values: [a, b, yes]}
      - duplicate: {threshold: {must_be_less_than: 3}}
checks:
  - failed_rows: {name: cheap, expression: price < 1}
  - failed_rows: {qualifier: sql, query: "SELECT * FROM frame WHERE user_id < 0"}
  - metric: {expression: "count(DISTINCT kind)", threshold: {must_be_between: {
      greater_than_or_equal: 1, less_than_or_equal: 3}}}
"""
WORDS = (
    *("amount: missing percent", "amount: avg (usual spend)", "kind: invalid", "kind: duplicate"),
    *("failed_rows (cheap)", "failed_rows sql", "metric"),
)


def test_without_a_file_there_is_no_such_check(tmp_path: Path) -> None:
    assert (None, []) == find_soda_file(tmp_path / "did.py", CONTRACT)
    assert (None, []) == find_soda_file(Path(), CONTRACT)


def test_every_check_of_a_file_is_evaluated_and_named(soda: SodaSession, written: Write) -> None:
    file, wrong = written(GOOD)

    assert [] == wrong
    assert file is not None
    assert WORDS == file.checks
    soda.require(CONTRACT, file)
    found = judged(soda, file, [1.0, 2.0, 3.0, 4.0])
    assert "soda" == found.check
    assert found.passed
    assert "7 checks of did.soda.yml hold." == found.message
    assert {f"soda:{words}" for words in WORDS} == found.numbers.keys()
    assert 2.5 == found.numbers["soda:amount: avg (usual spend)"]


def test_at_the_limit_a_check_holds_and_one_row_beyond_it_blocks(
    soda: SodaSession, written: Write
) -> None:
    file, _ = written(GOOD)

    half = judged(soda, file, [1.0, 2.0, None, None])
    more = judged(soda, file, [1.0, None, None])

    assert half.passed
    assert more.blocks
    assert (
        "amount: missing percent is 66.66666667, but must be at most 50 (did.soda.yml)."
    ) == more.message


def test_nan_counts_as_missing(soda: SodaSession, written: Write) -> None:
    file, _ = written(GOOD)

    found = judged(soda, file, [1.0, float("nan"), float("nan")])

    assert found.blocks
    assert "amount: missing percent is 66.66666667" in found.message


def test_a_check_of_level_warn_warns_and_one_of_two_levels_does_both(
    soda: SodaSession, written: Write
) -> None:
    file, _ = written(
        "checks:\n"
        "  - row_count:\n"
        "      threshold: {must_be_less_than: 5, additional: {must_be_less_than: 3, level: warn}}\n"
    )

    few, some, many = (judged(soda, file, [1.0] * rows) for rows in (2, 3, 5))

    assert few.passed
    assert not some.passed
    assert "warn" == some.severity
    assert many.blocks
    assert "row_count is 5, but must be less than 5 (did.soda.yml)." == many.message


def test_what_could_not_be_evaluated_fails(soda: SodaSession, written: Write) -> None:
    file, _ = written(GOOD)

    found = judged(soda, file, [])

    assert found.blocks
    assert "amount: avg (usual spend) could not be evaluated" in found.message


def test_a_value_that_identifies_people_is_not_told(soda: SodaSession, written: Write) -> None:
    file, _ = written(
        "columns:\n  - name: salary\n    checks:\n"
        "      - aggregate: {function: max, threshold: {must_be_less_than: 1000}}\n"
        "      - missing: {threshold: {must_be: 1}}\n"
    )

    found = judged(soda, file, [1.0])

    assert "4321" not in json.dumps(found.to_json())
    assert (
        "salary: max is a value that identifies people, but must be less than 1,000; "
        "salary: missing is 0, but must be exactly 1 (did.soda.yml)."
    ) == found.message


def test_a_value_of_a_key_is_not_told(soda: SodaSession, written: Write) -> None:
    file, _ = written(
        "columns:\n  - name: user_id\n    checks:\n"
        "      - aggregate: {function: max, threshold: {must_be_less_than: 0}}\n"
    )

    found = judged(soda, file, [1.0])

    assert "user_id: max is a value that identifies people" in found.message
    assert {} == found.numbers


def test_words_of_yaml_mean_what_they_mean_to_soda(soda: SodaSession, written: Write) -> None:
    file, _ = written(
        "columns:\n  - name: kind\n    checks:\n      - invalid: {valid_values: [a, b, yes]}\n"
    )

    assert judged(soda, file, [1.0] * 3).passed  # in older YAML, `yes` is True


PROBLEMS = {
    "broken YAML": ("checks: [\n", "did.soda.yml is no YAML: "),
    "a key that stands twice": (
        "checks: [row_count]\nchecks: [row_count]\n",
        'did.soda.yml is no YAML: found duplicate key "checks"',
    ),
    "nothing": ("", "did.soda.yml holds nothing. Begin with checks: or columns:, or remove the"),
    "a list": ("- row_count\n", "did.soda.yml holds list. Begin with"),
    "no check": ("columns:\n  - name: amount\n", "did.soda.yml has no check. Add one, e.g."),
    "a column that is not there": (
        "columns:\n  - name: amnt\n    checks: [{missing: {}}]\n",
        (
            "did.soda.yml names the column 'amnt', which Did does not have. Its columns are "
            "user_id, event_timestamp, amount, kind, price, salary: correct the name, or remove "
            "the column."
        ),
    ),
    "a data source": (
        "dataset: postgres/public/orders\nchecks: [{row_count: {}}]\n",
        "did.soda.yml holds dataset. Only filter, columns, checks belong there: ",
    ),
    "the environment": (
        "checks: [{failed_rows: {expression: \"kind = '${env.HOME}'\"}}]\n",
        "did.soda.yml has ${…} in 'expression'. A check means the same in every run, so ",
    ),
    "another table": (
        (
            "columns:\n  - name: kind\n    checks:\n"
            "      - invalid: {valid_reference_data: {dataset: a/b/c, column: d}}\n"
        ),
        "did.soda.yml has valid_reference_data in the check 'kind: invalid', which reads another",
    ),
    "freshness": (
        "checks: [{freshness: {column: event_timestamp}}]\n",
        "did.soda.yml has the check 'freshness'. Say freshness=… in the contract: ",
    ),
    "an unknown check": (
        "checks: [{row_cnt: {}}]\n",
        "did.soda.yml has the check 'row_cnt'. Write one of aggregate, duplicate, failed_rows, ",
    ),
    "a check without a colon": (
        "checks: [row_count]\n",
        "did.soda.yml has the check 'row_count without a colon'. Write one of ",
    ),
    "a slip of the pen": (
        "checks: [{row_count: {treshold: {must_be: 1}}}]\n",
        "did.soda.yml has 'treshold' in the check 'row_count', which Soda would ignore. Correct ",
    ),
    "a statement": (
        "checks: [{failed_rows: {query: DROP VIEW frame}}]\n",
        "did.soda.yml has a query in 'failed_rows' that is no single SELECT. A check reads ",
    ),
    "two statements": (
        "checks: [{failed_rows: {query: SELECT 1; DROP VIEW frame}}]\n",
        "did.soda.yml has a query in 'failed_rows' that is no single SELECT. A check reads ",
    ),
    "no list": ("checks: {row_count: {}}\n", "did.soda.yml has checks that are no list. Write a "),
    "a filter of several": (
        "filter: [a, b]\nchecks: [{row_count: {}}]\n",
        "did.soda.yml has a filter that is no text. Write one SQL condition on ",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_wrong_file_is_a_wrong_declaration_that_names_file_and_fix(
    written: Write, name: str
) -> None:
    text, expected = PROBLEMS[name]

    file, wrong = written(text)

    assert file is None
    assert wrong[0].startswith(expected)
    assert wrong[0].endswith((".", "]."))


REFUSED = {
    "a column that SQL does not find": ("expression: nope > 1", 'Referenced column "nope" not'),
    "a file": (
        "query: SELECT * FROM read_csv('/etc/hostname')",
        "file system operations are disabled by configuration",
    ),
    "a file by its name": ("query: SELECT * FROM '/etc/hosts.csv'", "file system operations are"),
    "an address": ("query: SELECT * FROM 'https://localhost/a.parquet'", "are disabled"),
    "a variable of the program": ("query: SELECT * FROM judged", "judged does not exist"),
    "a threshold of two": (
        "expression: amount < 0, threshold: {must_be: 0, must_be_less_than: 2}",
        "Threshold does not specify exactly one comparison",
    ),
    "a threshold that is none": (
        "expression: amount < 0, threshold: {at_most: 0}",
        "'at_most' is not a known threshold key",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_soda_cannot_evaluate_is_refused_before_anything_is_computed(
    soda: SodaSession, written: Write, name: str
) -> None:
    check, expected = REFUSED[name]
    file, wrong = written(f"checks:\n  - failed_rows: {{{check}}}\n")
    assert file is not None, wrong

    with pytest.raises(DeclarationError, match=r"^Soda can't use .*did.soda.yml: ") as raised:
        soda.require(CONTRACT, file)

    assert expected in str(raised.value)
    assert str(raised.value).endswith("Correct the file; nothing was computed.")


class TestKept:
    """What Soda makes of a contract is kept from day to day, and nothing else of a day."""

    DAYS = (
        [1.0, 2.0, 3.0],
        [1.0, None, None],
        [],
        [9.0] * 4,
        [float("nan")] * 3,
        [1.0, 2.0, 3.0],
    )

    def test_a_day_is_judged_as_a_session_of_its_own_would(self, written: Write) -> None:
        file, _ = written(GOOD)
        assert file is not None
        kept = SodaSession()

        for amounts in self.DAYS:
            rows, alone = frame(list(amounts)), SodaSession()
            assert alone.verify(rows, CONTRACT) == kept.verify(rows, CONTRACT)
            assert alone.verify_file(rows, CONTRACT, file) == kept.verify_file(rows, CONTRACT, file)
            alone.close()
        kept.close()

    def test_a_query_that_fails_on_one_day_does_not_fail_the_next(self, written: Write) -> None:
        file, _ = written("checks:\n  - failed_rows: {expression: 'CAST(kind AS INT) > 5'}\n")
        assert file is not None
        session = SodaSession()
        numbers = frame([1.0] * 3).with_columns(kind=pl.lit("3"))

        wrong = session.verify_file(frame([1.0] * 3), CONTRACT, file)
        right = session.verify_file(numbers, CONTRACT, file)
        session.close()

        assert [False] == [result.evaluated for result in wrong]
        assert [True] == [result.passed for result in right]


def test_the_file_that_the_documents_show_can_be_evaluated(
    soda: SodaSession, tmp_path: Path
) -> None:
    class Visits(Features, entity=HOUSEHOLD, owner="team:tests"):
        """What a household did on a day."""

        visits = Feature(pl.Int64, "Visits of the day.")
        spend = Feature(pl.Float64, "Spend of the day.")

    ((_, text),) = blocks(ROOT / "docs" / "how-to-checks.md", "yaml")
    (tmp_path / "visits.soda.yml").write_text(text)

    file, wrong = find_soda_file(tmp_path / "visits.py", Visits.contract)

    assert [] == wrong
    assert file is not None
    soda.require(Visits.contract, file)
