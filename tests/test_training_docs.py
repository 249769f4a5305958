"""Every sentence of docs/training-sets.md that is a point has a test of the same name."""

import re
from typing import Final

import pytest

from tests.source_tree import ROOT

PAGE: Final = ROOT / "docs" / "training-sets.md"
POINTS: Final = re.findall(r"^- (.+?\.)$", PAGE.read_text("utf-8"), re.MULTILINE)
TESTS: Final = {
    name
    for file in (ROOT / "tests").glob("test_*.py")
    for name in re.findall(r"^def (test_\w+)\(", file.read_text("utf-8"), re.MULTILINE)
}


def name_of(sentence: str) -> str:
    """The name of the test that a sentence has."""
    return "test_" + "_".join(re.findall(r"[a-z0-9]+", sentence.lower()))


@pytest.mark.parametrize("sentence", POINTS)
def test_every_point_of_the_page_is_a_test(sentence: str) -> None:
    assert name_of(sentence) in TESTS


def test_the_page_makes_points_and_each_once() -> None:
    assert len(POINTS) > 40
    assert len(POINTS) == len(set(POINTS))
