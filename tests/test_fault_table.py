"""The page of faults names, for each of them, the tests that show it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.documents import FAULTS
from tests.source_tree import ROOT

ROW = re.compile(r"^\| (?!fault |---)(.+?) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
NAMED = re.compile(r"\[\w+\]\(\.\./(tests/test_\w+\.py)\)((?:,? `test_\w+`)+)")


@dataclass(frozen=True)
class Row:
    """One fault: what happens, what is told, and file → tests that show it."""

    fault: str
    happens: str
    told: str
    tests: dict[str, list[str]]


def rows() -> Iterator[Row]:
    for fault, happens, told, shown in ROW.findall(FAULTS.read_text(encoding="utf-8")):
        tests = {file: re.findall(r"`(test_\w+)`", text) for file, text in NAMED.findall(shown)}
        # What is left beside the links is a test without its file, or a file without a test.
        assert not re.search(r"test_", NAMED.sub("", shown)), fault
        yield Row(fault, happens, told, tests)


def defined_in(file: str) -> set[str]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return set(re.findall(r"^def (test_\w+)\(", text, re.MULTILINE))


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: row.fault[:40])
def test_every_fault_says_what_happens_and_who_is_told_and_names_tests_that_exist(row: Row) -> None:
    assert row.happens
    assert row.told
    assert row.tests
    assert {} == {
        file: missing
        for file, named in row.tests.items()
        if (missing := [name for name in named if name not in defined_in(file)])
    }


def test_every_injected_fault_of_the_input_is_on_the_page() -> None:
    injected = "tests/test_input_faults.py"
    named = {name for row in rows() for name in row.tests.get(injected, ())}

    assert defined_in(injected) == named
