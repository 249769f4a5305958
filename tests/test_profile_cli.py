"""`lockstep profile` shows what is kept about committed days, and reads none of their rows."""

import shutil
from pathlib import Path

from lockstep.profile import ColumnProfile
from tests.test_cli import as_json, lockstep
from tests.tiny_project import HOSTILE, VIEW_DAYS, TinyProject

NEWEST = VIEW_DAYS[-1]


def test_the_newest_day_is_shown_from_its_profile_alone(own: TinyProject) -> None:
    lake = own.store.lake
    rows = [*Path(lake.table(own.store.views["spend_2d"]).uri).glob("day=*")]
    assert rows
    for day in rows:
        shutil.rmtree(day)

    (said,) = as_json("profile", "spend_2d")
    page = lockstep("profile", "spend_2d").stdout

    assert (str(NEWEST), 1) == (said["day"], said["revision"])
    assert ["spend", "mean"] == list(said["features"])
    found = ColumnProfile.from_json(said["features"]["spend"])
    assert found == lake.profiles("spend_2d", {NEWEST: 1})[NEWEST]["spend"]
    assert said["rows"] == found.rows == said["entities"]["seen"]
    assert f"{NEWEST}, revision 1: {found.rows} rows" in page
    assert f"{found.fill_rate:.1%}" in page


def test_days_of_a_range_that_are_committed_are_shown_and_others_are_refused(
    built: TinyProject,
) -> None:
    asked = f"{VIEW_DAYS[0]}..{VIEW_DAYS[2]}"

    said = as_json("profile", "orders_1d", "--days", asked)
    refused = lockstep("profile", "orders_1d", "--days", "2020-01-01..2020-01-02", status=2)

    assert [str(day) for day in VIEW_DAYS[:3]] == [day["day"] for day in said]
    assert said[0]["entities"] is None
    assert "is committed" in refused.stderr


def test_what_identifies_people_is_not_shown(own: TinyProject) -> None:
    lake = own.store.lake
    old = ColumnProfile(3, 0, counts={"zoe@example.com": 3})  # as earlier releases kept it
    lake.record_profiles("contact", {(NEWEST, 1): {"email": old}})

    said = lockstep("profile", "contact", "--json").stdout + lockstep("profile", "contact").stdout

    assert "example.com" not in said
    assert HOSTILE not in said
    assert "•••" in said


def test_a_view_that_was_never_built_says_how_to_build_it(tiny: TinyProject) -> None:
    refused = lockstep("profile", "spend_2d", status=2).stderr

    assert "lockstep materialize spend_2d" in refused
