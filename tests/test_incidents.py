"""Every planted incident is noticed, named and mended; where nobody looks, the replay says so."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from demo.incident.__main__ import CLEAN_DAYS, main
from demo.incident.base import LANDS_AFTER, ROOT, base, chosen_catalog, the_project
from demo.incident.clean import (
    FIRST,
    LAST_LOOK,
    RESULTS,
    Tally,
    as_markdown,
    clean_world,
    everybody_looks,
    play_day,
)
from demo.incident.clean import as_json as told_of
from demo.incident.incident import Incident
from demo.incident.night import DAILY, SENSOR_OF_FILES, Night, nights, online_server
from demo.incident.planted import BY_NAME, INCIDENTS, clean_night
from demo.incident.play import Hashes, Played, length, play
from demo.incident.story import Silence, as_json
from demo.incident.upstream_incidents import SCHEMA_RENAME
from demo.incident.watch import EVERY, Watch
from lockstep.errors import StoreError
from lockstep.quality import Audit, audit
from lockstep.time import ONE_DAY, days_between

Playing = Callable[[Incident], Played]

CAUGHT_BY = {
    "dropped-zone-conversion": "alert zone_shift",
    "backfill-not-pushed": "sensor reconcile",
    "half-null-feature": "check completeness",
    "doubled-amounts": "check drift",
    "stale-source": "alert stale",
    "partial-push": "check parity",
    "evicted-keys": "sensor reconcile",
    "code-change": "alert code_changed",
    "schema-rename": "alert held_file",
    "seasonal-promo": "",
    "key-explosion": "check cardinality",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("incidents")


@pytest.fixture(scope="module")
def night(home: Path) -> Iterator[Callable[[str], Night]]:
    made = base(lambda _: None, home, every=3)
    chosen = chosen_catalog(the_project())
    with online_server(home, "run") as (work, url), nights(made, work, url, chosen) as one:
        yield one


@pytest.fixture(scope="module")
def clean(night: Callable[[str], Night]) -> Hashes:
    return clean_night(night("clean"))


@pytest.fixture(scope="module")
def played(night: Callable[[str], Night], clean: Hashes) -> Playing:
    @cache
    def once(incident: Incident) -> Played:
        return play(incident, night(incident.name), clean, Silence())

    return once


def test_on_a_night_on_which_nothing_breaks_nobody_sees_anything(clean: Hashes) -> None:
    assert {view for view, _ in clean} == {"txn_7d", "shopping_hours", "household_profile"}


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.name)
def test_an_incident_is_noticed_named_and_mended_for_good(
    incident: Incident, played: Playing
) -> None:
    found = played(incident)

    assert (found.caught_by, found.named) == (CAUGHT_BY[incident.name], incident.cause)
    assert found.well == []
    assert found.holds


def test_what_failed_its_audit_is_never_served_and_yesterday_is(played: Playing) -> None:
    for name in ("half-null-feature", "key-explosion", "schema-rename", "stale-source"):
        found = played(BY_NAME[name])
        assert found.meanwhile.value == found.before.value
        assert found.meanwhile.age is not None
        assert found.before.age is not None
        assert found.meanwhile.age > found.before.age


def test_rows_that_redis_dropped_are_an_error_and_never_missing(played: Playing) -> None:
    found = played(BY_NAME["evicted-keys"])

    assert (found.before.status, found.meanwhile.status) == ("present", "error")
    assert found.afterwards.value == found.before.value


def test_a_promo_wakes_nobody(played: Playing) -> None:
    found = played(BY_NAME["seasonal-promo"])

    assert [sight for sight in found.sights if sight.page] == []
    assert found.meanwhile.value > found.before.value


def without(check: str) -> Callable[..., Audit]:
    """The audit, with one check that says yes to everything."""

    def audited(*words: Any) -> Audit:
        found = audit(*words)
        verdicts = [replace(v, passed=v.passed or v.check == check) for v in found.verdicts]
        return replace(found, verdicts=verdicts)

    return audited


@pytest.mark.parametrize(
    ("name", "switch", "off"),
    [
        ("half-null-feature", "lockstep.materialize.audit", without("completeness")),
        ("schema-rename", "lockstep.alerts.lake._held_files", lambda _: iter(())),
    ],
)
def test_an_incident_whose_check_is_switched_off_is_reported_as_not_caught(
    name: str,
    switch: str,
    off: Callable[..., Any],
    night: Callable[[str], Night],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switch, off)

    found = play(BY_NAME[name], night(f"{name} unseen"), {}, Silence())

    assert not found.caught
    assert not found.holds
    assert as_json(found)["how"] == "nobody noticed"


def test_a_wrong_name_a_false_page_and_what_is_not_mended_each_fail_it(played: Playing) -> None:
    found, promo = played(BY_NAME["evicted-keys"]), played(BY_NAME["seasonal-promo"])

    assert not replace(found, named="Redis behind").holds
    assert not replace(found, well=["Still open."]).holds
    assert not replace(promo, paged=timedelta(minutes=1)).holds


def test_nothing_is_played_on_a_base_that_is_not_clean(night: Callable[[str], Night]) -> None:
    dirty = night("dirty")
    SCHEMA_RENAME.breaks(dirty)

    with pytest.raises(StoreError, match="cannot begin"):
        play(BY_NAME["evicted-keys"], dirty, {}, Silence())


def test_the_command_tells_the_story_with_the_answer_of_why(
    night: Callable[[str], Night], home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["evicted-keys", "--json", str(tmp_path / "found.json")], home)

    told = capsys.readouterr().out
    assert status == 0
    assert "Broken: Somebody gives Redis an eviction policy" in told
    assert "$ lockstep why household_id=" in told
    assert "Fix:   lockstep reconcile txn_7d" in told
    assert "All 1 caught, explained and mended" in told
    assert '"cause": "evicted"' in (tmp_path / "found.json").read_text()


def test_an_unknown_incident_is_refused_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 2

    assert "There is no incident 'nonsense'" in capsys.readouterr().err


def test_the_ticks_are_those_of_the_real_sensors_and_schedules() -> None:
    from schedules import alerts, daily, reconcile

    assert EVERY["reconcile"] == timedelta(seconds=reconcile.EVERY)
    assert EVERY["alerts"] == timedelta(seconds=alerts.EVERY)
    assert daily.WORLD_EVERY == "*/10 * * * *"
    assert EVERY["parity"] == timedelta(minutes=10)
    delays = {view.contract.landing_delay for view in chosen_catalog(the_project()).views.values()}
    assert delays == {DAILY}
    assert timedelta(0) < SENSOR_OF_FILES < LANDS_AFTER


@pytest.mark.parametrize(
    ("time", "words"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=30), "30 s"),
        (timedelta(minutes=9, seconds=30), "9 min 30 s"),
        (timedelta(hours=4, minutes=17, seconds=40), "4 h 17 min"),
    ],
)
def test_times_are_told_in_words(time: timedelta, words: str) -> None:
    assert length(time) == words


*TWO_DAYS, THIRD_DAY = days_between(FIRST, FIRST + 2 * ONE_DAY)
HISTORY = timedelta(days=14)


@pytest.fixture(scope="module")
def two_days(home: Path) -> Iterator[tuple[Watch, Tally]]:
    """Two days of one view on which nothing breaks, and what was counted."""
    chosen, tally = chosen_catalog(the_project(), ("txn_7d",)), Tally()
    with clean_world(home, [*TWO_DAYS, THIRD_DAY], chosen=chosen, history=HISTORY) as watch:
        for day in TWO_DAYS:
            play_day(tally, watch, day)
        yield watch, replace(tally)


def test_on_two_clean_days_everybody_looks_twice_a_day_and_nobody_is_woken(
    two_days: tuple[Watch, Tally],
) -> None:
    watch, tally = two_days

    assert watch.night.clock.now == watch.night.instant(LAST_LOOK, TWO_DAYS[-1])
    assert (tally.days, tally.judged, tally.looks, tally.failed) == (2, 2, 4, 0)
    assert (tally.pages, tally.tickets, tally.blocked) == ([], [], [])
    assert told_of(tally)["last"] == str(TWO_DAYS[-1])


def test_rows_that_differ_and_rows_that_are_gone_would_be_pages_of_a_clean_day(
    two_days: tuple[Watch, Tally],
) -> None:
    watch, tally = two_days[0], Tally()
    watch.night.store.online_store.ask("FLUSHALL")

    everybody_looks(tally, watch)

    assert {"sensor reconcile", "check parity"} <= {sight.by for sight in tally.pages}
    assert all(sight.page for sight in tally.pages)


def test_a_run_that_fails_would_be_a_page_of_a_clean_day(two_days: tuple[Watch, Tally]) -> None:
    watch, tally = two_days[0], Tally()
    watch.night.store.online_store.ask("CONFIG", "SET", "maxmemory", "1")

    play_day(tally, watch, THIRD_DAY)

    assert tally.failed == 1
    assert tally.pages[0].by == "run failed"


def test_the_page_shows_the_clean_days_of_the_results_file() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "incidents.md").read_text(encoding="utf-8")

    assert as_markdown(found) in page
    assert found["first"] in page
    assert found["last"] in page
    assert found["days"] == CLEAN_DAYS
