"""`training-set`, `rebuild` and `training-sets` as they are typed; the report that they write."""

import json
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from lockstep.cli import app
from tests.tiny_project import HOSTILE, NOW, TinyProject

ASKED = ("training-set", "--spine", "labels.parquet", "--timestamp", "at")


@pytest.fixture(autouse=True)
def labels(own: TinyProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCKSTEP_PROJECT", str(own.folder))
    monkeypatch.chdir(tmp_path)
    customers = ["bob", "nobody", "ada", HOSTILE]
    at = [NOW - timedelta(hours=7 * n) for n in range(4)]
    pl.DataFrame({"customer": customers, "at": at}).write_parquet("labels.parquet")


def lockstep(*words: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, list(words))
    assert status == result.exit_code, result.output
    return result


def listed() -> set[str]:
    return {kept["name"] for kept in json.loads(lockstep("training-sets", "list", "--json").output)}


def test_a_set_is_made_listed_shown_rebuilt_and_removed() -> None:
    made = lockstep(*ASKED, "--feature-set", "buying_v1", "--name", "one", "--mode", "known")
    assert "4 rows, as many as the spine has, are in the lake as one." in made.output
    assert "lockstep rebuild one" in made.output

    assert "buying_v1" in lockstep("training-sets", "list").output
    shown = lockstep("training-sets", "show", "one").output
    assert "known" in shown
    assert "spend_2d:spend" in shown
    again = lockstep("rebuild", "one", "--out", "again.parquet").output
    assert "bit for bit those of the manifest" in again
    assert "So is the data that the lake keeps." in again
    assert json.loads(lockstep("rebuild", "again.parquet", "--json").output)["equal"] is True
    assert "one" in listed()

    lockstep("training-sets", "remove", "one")
    assert "one" not in listed()
    assert "named 'one'" in lockstep("training-sets", "show", "one", status=2).output


def test_a_spine_without_rows_is_warned_of() -> None:
    pl.read_parquet("labels.parquet").clear().write_parquet("labels.parquet")

    made = lockstep(*ASKED, "--feature-set", "buying_v1", "--out", "none.parquet")
    said = json.loads(
        lockstep(*ASKED, "--feature-set", "buying_v1", "--out", "again.parquet", "--json").stdout
    )

    assert "The spine has no rows." in made.output
    assert "%" not in made.output
    assert "The spine has no rows." in said["warnings"]


def test_a_lake_without_sets_says_so(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_PROJECT", str(tiny.folder))

    assert "keeps no training set" in lockstep("training-sets", "list").output


class Page(HTMLParser):
    """What a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [
            f"{name}={value}"
            for name, value in attrs
            if name in {"src", "href", "style", "srcset"} or name.startswith("on")
        ]


def test_the_report_is_one_page_with_pictures_and_nothing_from_elsewhere() -> None:
    features = "spend_2d:spend,orders_1d:orders,contact:email"
    lockstep(*ASKED, "--features", features, "--report", "r.html", "--leakage")

    text = Path("r.html").read_text("utf-8")
    page = Page()
    page.feed(text)
    assert 2 == page.tags.count("svg")
    assert [] == page.fetched
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert "@example.com" not in text
    assert "spend_2d:spend" in text
    assert "By event time against what could be known" in text


def test_what_identifies_people_is_masked_in_the_summary_and_told() -> None:
    made = lockstep(*ASKED, "--features", "contact:email", "--out", "set.parquet")

    assert "•••" in made.output
    assert "@example.com" not in made.output
    assert "identify people: contact:email" in made.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--feature-set", "buying_v1"), "Nothing is to become of the training set."),
        (("--name", "one"), "No features are named."),
        (("--feature-set", "buying_v1", "--name", "One"), "can't name a training set"),
        (("--feature-set", "buying_v1", "--name", "one", "--mode", "late"), "--mode is 'late'"),
        (
            ("--feature-set", "buying_v1", "--name", "one", "--memory", "lots"),
            "no amount of memory",
        ),
        (
            ("--feature-set", "buying_v1", "--name", "one", "--memory", "4"),
            "Expected at least 365 MB: the libraries, the largest day that is read",
        ),
        (("--feature-set", "buying_v1", "--name", "one", "--memory", "4"), "Say 4GB if gigabytes"),
        (
            ("--feature-set", "buying_v1", "--leakage", "--memory", "100MB"),
            "Say 365 MB or more, or nothing",
        ),
        (("--feature-set", "buying_v2", "--name", "one"), "no feature set named 'buying_v2'"),
        (("--feature-set", "buying_v1", "--report", "no/where.html"), "can't be written"),
    ],
)
def test_what_can_not_be_done_says_so(words: tuple[str, ...], said: str) -> None:
    result = lockstep(*ASKED, *words, status=2)

    assert said in " ".join(result.output.split())
    assert ["labels.parquet"] == [path.name for path in Path().iterdir()]


def test_a_manifest_that_is_not_there_is_named() -> None:
    assert "There is no manifest at nowhere" in lockstep("rebuild", "nowhere", status=2).output
    assert (
        "--verify writes nothing"
        in lockstep("rebuild", "x", "--verify", "--out", "y.parquet", status=2).output
    )


def test_a_rebuild_refuses_a_budget_that_nothing_fits_into() -> None:
    lockstep(*ASKED, "--feature-set", "buying_v1", "--name", "one")

    said = lockstep("rebuild", "one", "--memory", "1", status=2).output
    assert "Say 1GB if gigabytes were meant" in " ".join(said.split())
    lockstep("rebuild", "one", "--memory", "400MB")


def test_a_rebuild_over_its_own_file_keeps_its_manifest() -> None:
    lockstep(*ASKED, "--feature-set", "buying_v1", "--out", "set.parquet")
    before = Path("set.parquet.manifest.json").read_bytes()

    lockstep("rebuild", "set.parquet.manifest.json", "--out", "set.parquet")

    assert before == Path("set.parquet.manifest.json").read_bytes()


def test_a_damaged_manifest_is_listed_and_its_set_can_be_removed(own: TinyProject) -> None:
    for name in ("good", "bad"):
        lockstep(*ASKED, "--feature-set", "buying_v1", "--name", name)
    file = own.folder / "lake" / "training_sets" / "bad" / "manifest.json"
    file.write_text("{")

    listed = lockstep("training-sets", "list").output
    data = json.loads(lockstep("training-sets", "list", "--json").output)
    shown = " ".join(lockstep("training-sets", "show", "bad", status=2).output.split())
    refused = " ".join(lockstep("gc", status=2).output.split())

    assert "unreadable" in listed
    assert ["is not usable" in item["unreadable"] for item in data if "unreadable" in item] == [
        True
    ]
    assert {"good", "bad"} <= {item["name"] for item in data}
    for told in (shown, refused):
        assert "lockstep training-sets remove " in told
    removed = lockstep("training-sets", "remove", "bad").output
    assert "bad is removed; its manifest was damaged" in removed
    lockstep("gc")
    lockstep("training-sets", "remove", "good")
    assert not file.parent.exists()


def test_a_report_that_can_not_be_written_is_told_before_anything_is_joined() -> None:
    asked = (*ASKED, "--feature-set", "buying_v1", "--name", "unwritten", "--report")
    for report in ("no/where.html", "."):
        told = lockstep(*asked, report, status=2).output
        assert "can't be written" in told
        assert "Nothing was joined." in " ".join(told.split())

    assert "named 'unwritten'" in lockstep("training-sets", "show", "unwritten", status=2).output
