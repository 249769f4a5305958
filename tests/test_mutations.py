"""The guards are guarded: take one away, and a named check of the suite goes red.

Each mutation replaces a piece of one function's source. That the push function refuses older
versions, gaps and moved seals is shown the same way in `test_push_protocol.py`.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lockstep import compute, materialize, project, push_rows, release, time
from lockstep.serving import decoding
from lockstep.stores import committing
from tests import test_feast_stories, test_g1_quarantine, test_slice, test_time
from tests import test_g4_reruns as g4
from tests import test_g8_parity as g8
from tests import test_g10_types as g10
from tests.mutating import mutate
from tests.scenario import world

Check = Callable[[Path, str], Any]


def made_for(module: Any, fixture: str) -> Callable[..., Any]:
    """Return the function behind a fixture."""
    return getattr(module, fixture).__wrapped__


def without_redis(check: Callable[[], Any]) -> Check:
    return lambda *_: check()


def on_a_quarantine(check: Callable[[Any], Any]) -> Check:
    return lambda folder, redis_url: check(made_for(test_g1_quarantine, "made")(folder, redis_url))


def on_a_history(steps: Any) -> Check:
    return lambda folder, redis_url: g8.check_history(g8.begin(folder, redis_url), steps)


def no_window_is_short(folder: Path, redis_url: str) -> None:
    g10.check_no_window_is_short(world(folder))


def leavers_are_closed(folder: Path, redis_url: str) -> None:
    g10.test_once_the_gap_closes_every_day_is_as_if_there_had_been_none(folder)


def days_follow_wall_clocks(folder: Path, redis_url: str) -> None:
    test_slice.test_a_day_of_23_hours_holds_its_rows(folder)


def values_expire(folder: Path, redis_url: str) -> None:
    made = made_for(test_feast_stories, "made")(folder, redis_url)
    test_feast_stories.test_expired_null_never_written_and_present_are_told_apart(made)


def values_count_up_to_the_end(folder: Path, redis_url: str) -> None:
    built = made_for(test_slice, "built")(folder, redis_url)
    test_slice.test_a_value_expires_after_its_ttl_and_not_before(built)


def unchanged_is_no_version(folder: Path, redis_url: str) -> None:
    g4.check_unchanged_content_makes_no_version(made_for(g4, "small")(folder))


def both_bounds_count() -> None:
    test_time.test_both_bounds_of_validity_are_inclusive(timedelta(days=2), valid=True)


MUTATIONS: dict[str, tuple[Any, str, str, Check]] = {
    "parity takes the end of the ttl as outside": (
        time.is_valid,
        "at <= event_timestamp + ttl",
        "at < event_timestamp + ttl",
        without_redis(both_bounds_count),
    ),
    "the reader serves what has expired": (
        decoding.Window.holds,
        "self.oldest <= head[2] <= self.newest",
        "True",
        values_expire,
    ),
    "the reader withholds a row at the very end of its ttl": (
        decoding.Window.holds,
        "self.oldest <= head[2]",
        "self.oldest < head[2]",
        values_count_up_to_the_end,
    ),
    "what failed its audit is committed": (
        materialize._chunk,
        "good = [found for found in judged.values() if found.audit.passed]",
        "good = list(judged.values())",
        on_a_quarantine(test_g1_quarantine.check_a_bad_middle_day_stays_out),
    ),
    "what failed its audit replaces what was certified": (
        materialize._chunk,
        "good = [found for found in judged.values() if found.audit.passed]",
        "good = list(judged.values())",
        on_a_quarantine(test_g1_quarantine.check_certified_content_stays),
    ),
    "a release does not look whether anything moved": (
        release._require_unmoved,
        "if seen != found:",
        "if False:",
        on_a_quarantine(test_g1_quarantine.test_a_release_is_refused_once_the_inputs_have_moved),
    ),
    "nobody closes who left the window": (
        compute._closing_rows,
        "if not gone:",
        "if True:",
        leavers_are_closed,
    ),
    "a window may lack days": (
        compute.require_complete,
        "        if missing:",
        "        if False:",
        no_window_is_short,
    ),
    "a window may reach before its source begins": (
        compute.require_complete,
        "if day < view.start:",
        "if False:",
        no_window_is_short,
    ),
    "wall clocks are read as UTC": (
        time.to_utc,
        'return pl.coalesce(existing, moved).dt.convert_time_zone("UTC")',
        'return naive.dt.replace_time_zone("UTC")',
        without_redis(test_time.test_the_odd_hours_of_new_york_are_moved_and_counted),
    ),
    "a source's wall clocks are read as UTC": (
        time.to_utc,
        'return pl.coalesce(existing, moved).dt.convert_time_zone("UTC")',
        'return naive.dt.replace_time_zone("UTC")',
        days_follow_wall_clocks,
    ),
    "views see the hours of UTC": (
        project.local,
        "_partition_zone()",
        '"UTC"',
        without_redis(g10.check_local_hours_are_those_of_the_wall_clock),
    ),
    "equal content is committed again": (
        committing.commit_days,
        "unchanged(head, pending) | landed",
        "landed",
        unchanged_is_no_version,
    ),
    "nobody is removed online": (
        push_rows.RowsToPush._group,
        "yield from self._removed(max(relevant), wanted)",
        "yield from ()",
        on_a_history([*g8.TORN_THEN_CORRECTED]),
    ),
    "who was in an older revision only is forgotten": (
        push_rows.RowsToPush._affected_keys,
        "if self.changed[day] <= revision < head.days[day].revision",
        "if False",
        on_a_history(g8.SEALED_BEYOND_WHAT_WAS_PUSHED),
    ),
    "the row of the day wins over a later one": (
        push_rows.RowsToPush._group,
        "newest, *older = reversed(self.alive)",
        "newest, *older = self.alive",
        on_a_history([("commit", 1, {1: 10.0}), ("commit", 2, {1: 999.0})]),
    ),
    "a day is pushed before it ends": (
        push_rows.ended,
        " if end <= now",
        "",
        on_a_history(g8.NOT_ENDED),
    ),
}


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_without_the_guard_the_check_fails(
    name: str, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, old, new, check = MUTATIONS[name]
    mutate(monkeypatch, function, old, new)

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(tmp_path, redis_url)


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_with_the_guard_the_same_check_passes(name: str, tmp_path: Path, redis_url: str) -> None:
    *_, check = MUTATIONS[name]

    check(tmp_path, redis_url)
