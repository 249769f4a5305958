"""What a look says of a late view: the command that builds the days that it lacks."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from lockstep.alerts.look import look
from lockstep.alerts.overdue import command_for
from lockstep.alerts.problem import Problem
from lockstep.stores.day_index import Head
from lockstep.time import following_days
from tests.tiny_project import DAYS, TinyProject

NEXT = following_days(DAYS[-1], 4)[1:]


def found(project: TinyProject) -> dict[str, Problem]:
    return {each.key: each for each in look(project.store).problems}


@pytest.fixture
def later(built: TinyProject, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """The built project a week after its newest day."""
    at = built.store.now() + timedelta(days=7)
    monkeypatch.setattr(built.store, "now", lambda: at)
    return built


def test_a_stale_view_names_the_days_that_it_lacks_and_only_inputs_that_lack_days(
    later: TinyProject,
) -> None:
    store, spend = later.store, later.store.views["spend_2d"]
    heads = {of.name: store.lake.table(of).head_or_none() for of in store.catalog.sources.values()}
    mine = store.lake.table(spend).head_or_none()
    assert mine is not None
    # The day before the view's newest one is not committed of the source: its window reads it.
    source = heads["orders"]
    assert source is not None
    ahead = replace(source, days={**source.days, **dict.fromkeys(NEXT, source.days[DAYS[-1]])})
    holed = replace(ahead, days={d: r for d, r in ahead.days.items() if d != DAYS[-1]})

    def fix(newest: date, of_source: Head | None) -> str:
        return command_for(spend, newest, lambda of: mine if of is spend else of_source)

    assert f"lockstep materialize spend_2d --days {NEXT[0]}..{NEXT[-1]}" == fix(NEXT[-1], ahead)
    reach = f"{DAYS[-1]}..{NEXT[-1]}"
    assert f"lockstep materialize orders spend_2d --days {reach}" == fix(NEXT[-1], holed)
    assert "lockstep status" == fix(DAYS[-1], ahead)


def test_a_stale_view_is_told_even_if_its_source_cannot_be_read(later: TinyProject) -> None:
    log = Path(later.store.lake.table(later.store.catalog.source("orders")).uri) / "_delta_log"
    hidden = log.rename(log.with_name("hidden"))
    (log).mkdir()
    (log / f"{0:020}.json").write_bytes(b"damaged")
    try:
        assert "lockstep status" == found(later)["stale:spend_2d"].fix
    finally:
        (log / f"{0:020}.json").unlink()
        log.rmdir()
        hidden.rename(log)
