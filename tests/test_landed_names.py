"""Landed files whose names are no printable text: held by themselves, and the rest goes on."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from lockstep.alerts.lake import look_at_lake
from lockstep.ingest import held_days, ingest
from lockstep.quarantine import Quarantine
from lockstep.release import release_file
from tests.scenario import EVENTS, START, World, event, world

D1, D2 = START, START + timedelta(days=1)


@pytest.fixture
def made(tmp_path: Path) -> World:
    made = world(tmp_path)
    made.land("events", [event("a", 1, D1)], f"{D1}.parquet")
    return made


def rename(made: World, name: bytes, *, content: bytes | None = None) -> None:
    folder = os.fsencode(Path(made.store.project.landing) / "events")
    path = made.land("events", [event("b", 1, D2)], "new.parquet")
    if content is not None:
        path.write_bytes(content)
    os.rename(os.fsencode(path), folder + b"/" + name)  # noqa: PTH104 - a name that is no text


def ingested(made: World) -> dict[str, str]:
    lake = made.store.lake
    days = ingest(lake, EVENTS, [D1, D2], now=made.clock, run_id="test")
    return {str(outcome.day): outcome.status for outcome in days}


@pytest.mark.parametrize(
    ("name", "shown", "item"),
    [
        (b"caf\xe9.parquet", r"caf\xe9.parquet", "file-caf_xe9-"),
        (b"a\nb.parquet", r"a\nb.parquet", "file-a_nb-"),
        (b"\x1b[31mred.parquet", r"\x1b[31mred.parquet", "file-_x1b[31mred-"),
    ],
)
def test_a_file_whose_name_is_no_text_is_held_and_holds_nothing_else(
    made: World, name: bytes, shown: str, item: str
) -> None:
    made.ingest(D1, D1)
    rename(made, name)

    found = ingested(made)

    (held,) = Quarantine(made.store.lake.quarantine).open_items()
    assert {str(D1): "unchanged", str(D2): "refused"} == found
    assert f"events/{shown}: the name of the file is no printable text in UTF-8." == held.reason
    assert held.item.startswith(item)
    store = made.store
    seen = look_at_lake(store.lake, store.catalog, made.clock.now, "team:platform")
    assert f"held_file:events:{held.item}" in {each.key for each in seen.problems}
    assert {} == seen.unknown


def test_a_name_that_is_no_text_and_has_a_day_holds_that_day_alone(made: World) -> None:
    rename(made, f"{D2}_caf".encode() + b"\xe9.parquet")

    assert {str(D1): "committed", str(D2): "refused"} == ingested(made)
    assert [D2] == list(held_days(made.store.lake, EVENTS))


def test_a_file_with_such_a_name_can_be_released_or_renamed(made: World) -> None:
    rename(made, b"caf\xe9.parquet")
    ingested(made)
    (held,) = Quarantine(made.store.lake.quarantine).open_items()

    release_file(made.store.lake, held, "a test delivery", now=made.clock)
    assert "committed" == ingested(made)[str(D1)]

    folder = os.fsencode(Path(made.store.project.landing) / "events")
    os.rename(folder + b"/caf\xe9.parquet", folder + b"/cafe.parquet")  # noqa: PTH104
    assert "committed" == ingested(made)[str(D2)]


def test_other_languages_are_printable_text(made: World) -> None:
    rename(made, "событие é\u00a0🎉.parquet".encode())

    assert {str(D1): "committed", str(D2): "committed"} == ingested(made)


def test_a_date_that_is_none_in_the_name_of_a_broken_file_names_no_day(made: World) -> None:
    rename(made, b"events_2026-13-45.parquet", content=b"no parquet")

    assert {str(D1): "refused", str(D2): "refused"} == ingested(made)
    (held,) = Quarantine(made.store.lake.quarantine).open_items()
    assert held.days is None
