"""What owners are told: once per episode, grouped, again after a while, and when it has healed."""

import tempfile
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.alerts.fold import QUIET
from lockstep.alerts.problem import KINDS, Look, problem, runbook
from lockstep.alerts.settings import Receiver
from lockstep.alerts.state import CLAIM, FOLDER, States
from lockstep.errors import ConflictError
from lockstep.stores.files import open_place
from tests.alert_looks import (
    HOOK,
    MINUTE,
    T0,
    Sent,
    seen,
    stale,
    ticked,
)


@pytest.fixture
def states(tmp_path: Path) -> States:
    return States(open_place(str(tmp_path)))


@pytest.fixture
def sent() -> Sent:
    return Sent()


# One message per episode


def test_a_problem_is_told_once_however_often_it_is_seen(states: States, sent: Sent) -> None:
    for minute in range(5):
        ticked(states, seen(stale("txn_7d")), T0 + minute * MINUTE, send=sent)

    assert [[("txn_7d", "new")]] == sent.news()


def test_what_has_healed_is_told_once(states: States, sent: Sent) -> None:
    ticked(states, seen(stale("txn_7d")), T0, send=sent)
    for minute in range(1, 4):
        ticked(states, seen(), T0 + minute * MINUTE, send=sent)

    assert [[("txn_7d", "new")], [("txn_7d", "resolved")]] == sent.news()
    assert {} == states.newest().episodes


def test_what_comes_back_is_another_episode(states: States, sent: Sent) -> None:
    for minute, look in enumerate([seen(stale("a")), seen(), seen(stale("a"))]):
        ticked(states, look, T0 + minute * MINUTE, send=sent)

    assert [[("a", "new")], [("a", "resolved")], [("a", "new")]] == sent.news()
    assert 3 == len({message.id for _, message in sent})


def test_what_comes_and_goes_is_told_as_over_when_it_has_been_gone_for_long(
    states: States, sent: Sent
) -> None:
    looks = [seen(stale("a")), seen()] * 10
    for minute, look in enumerate(looks):
        ticked(states, look, T0 + minute * MINUTE, send=sent)
    assert [[("a", "new")], [("a", "resolved")], [("a", "new")]] == sent.news()

    gone = T0 + (len(looks) - 1) * MINUTE
    ticked(states, seen(), gone + QUIET - MINUTE, send=sent)
    assert 3 == len(sent)
    ticked(states, seen(), gone + QUIET, send=sent)

    assert [("a", "resolved")] == sent.news()[-1]
    assert gone == sent[-1][1].items[0].healed


def test_what_comes_back_after_a_while_is_over_at_once_again(states: States, sent: Sent) -> None:
    for at, look in [(0, seen(stale("a"))), (1, seen()), (16, seen(stale("a"))), (17, seen())]:
        ticked(states, look, T0 + at * MINUTE, send=sent)

    assert ["new", "resolved", "new", "resolved"] == [items[0][1] for items in sent.news()]


def test_problems_of_one_owner_and_kind_are_one_message(states: States, sent: Sent) -> None:
    look = seen(stale("b"), stale("a"), stale("c", owner="team:shop"))

    ticked(states, look, T0, send=sent)

    assert [[("a", "new"), ("b", "new")], [("c", "new")]] == sorted(sent.news(), key=str)


def test_what_joins_a_group_is_told_with_what_goes_on(states: States, sent: Sent) -> None:
    ticked(states, seen(stale("a")), T0, send=sent)
    ticked(states, seen(stale("a"), stale("b")), T0 + MINUTE, send=sent)
    ticked(states, seen(stale("b")), T0 + 2 * MINUTE, send=sent)

    _, second, third = sent.news()
    assert [("b", "new"), ("a", "ongoing")] == second
    assert [("b", "ongoing"), ("a", "resolved")] == third


def test_who_is_reminded_hears_of_what_goes_on_after_the_set_time(
    states: States, sent: Sent
) -> None:
    receiver = replace(HOOK, remind_after_hours=2)
    for minute in range(0, 60 * 5, 10):
        ticked(states, seen(stale("a")), T0 + minute * MINUTE, receiver, send=sent)

    assert [[("a", "new")], [("a", "ongoing")], [("a", "ongoing")]] == sent.news()
    assert 3 == len({message.id for _, message in sent})


def test_a_quiet_tick_writes_nothing(states: States, tmp_path: Path, sent: Sent) -> None:
    ticked(states, seen(stale("a")), T0, send=sent)
    before = sorted((tmp_path / FOLDER).iterdir())
    ticked(states, seen(stale("a", sentence="It is older.")), T0 + MINUTE, send=sent)

    assert before == sorted((tmp_path / FOLDER).iterdir())


def test_what_could_not_be_looked_at_is_neither_new_nor_over(states: States, sent: Sent) -> None:
    ticked(states, seen(stale("a"), stale("ab")), T0, send=sent)
    ticked(states, seen(unknown={"stale:a": "no answer"}), T0 + MINUTE, send=sent)
    ticked(states, Look([], frozenset({"drift"})), T0 + 2 * MINUTE, send=sent)

    assert [("a", "ongoing"), ("ab", "resolved")] == sent.news()[1]
    assert 2 == len(sent)


def test_what_mends_itself_soon_is_not_told(states: States, sent: Sent) -> None:
    unready = problem(
        "not_ready:a", "a", "It is lost.", owner="team:growth", since=T0, fix="lockstep doctor"
    )
    for minute in range(4):
        ticked(states, seen(unready), T0 + minute * MINUTE, send=sent)
    ticked(states, seen(), T0 + 4 * MINUTE, send=sent)
    assert [] == sent

    again = replace(unready, since=T0 + 5 * MINUTE)
    for minute in range(5, 12):
        # Who cannot say since when says "now".
        said = replace(again, since=T0 + minute * MINUTE)
        ticked(states, seen(said), T0 + minute * MINUTE, send=sent)
    assert [[("a", "new")]] == sent.news()


def test_a_look_that_is_older_than_the_last_changes_nothing(states: States, sent: Sent) -> None:
    ticked(states, seen(stale("a")), T0, send=sent)
    ticked(states, seen(), T0 + MINUTE, send=sent)
    ticked(states, seen(stale("a")), T0 + MINUTE / 2, send=sent)

    assert [[("a", "new")], [("a", "resolved")]] == sent.news()


def test_a_clock_that_was_ahead_once_silences_nobody(
    states: States, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    year = timedelta(days=365)
    ticked(states, seen(stale("a")), T0, send=sent)
    ahead = [stale("a"), replace(stale("b"), since=T0 + year)]
    ticked(states, seen(*ahead), T0 + year, send=sent)
    assert "" == caplog.text

    ticked(
        states, seen(stale("b")), T0 + 20 * MINUTE, replace(HOOK, remind_after_hours=1), send=sent
    )
    state = states.newest()
    instants = [(ep.opened, ep.problem.since, ep.healed) for ep in state.episodes.values()]
    assert [(T0 + 20 * MINUTE, T0 + 20 * MINUTE, None)] == instants
    assert T0 + 20 * MINUTE == state.at
    assert [("b", "ongoing"), ("a", "resolved")] == sent.news()[-1]
    assert 1 == caplog.text.count("a clock was ahead")

    for minute in (21, 81, 90):
        receiver = replace(HOOK, remind_after_hours=1)
        ticked(states, seen(stale("b")), T0 + minute * MINUTE, receiver, send=sent)
    assert [("b", "ongoing")] == sent.news()[-1]
    assert 4 == len(sent)
    assert 1 == caplog.text.count("a clock was ahead")


def test_a_clock_that_was_ahead_is_told_of_once_even_if_nothing_changes(
    states: States, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    ticked(states, seen(stale("a")), T0 + timedelta(days=9), send=sent)
    for minute in range(3):
        ticked(states, seen(stale("a")), T0 + minute * MINUTE, send=sent)

    assert 1 == len(sent)
    assert 1 == caplog.text.count("a clock was ahead")


def test_a_claim_of_a_clock_that_was_ahead_ends(states: States, sent: Sent) -> None:
    class KilledError(BaseException):
        pass

    def dies(*_: object) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        ticked(states, seen(stale("a")), T0 + timedelta(days=9), send=dies)
    for at in (T0, T0 + CLAIM):
        ticked(states, seen(stale("a")), at, send=sent)

    assert [[("a", "new")]] == sent.news()


# Receivers


def test_each_receiver_gets_its_owners_and_severities(states: States, sent: Sent) -> None:
    receivers = [
        Receiver("all", "webhook", url="http://127.0.0.1:1"),
        Receiver("growth", "webhook", owners=["team:growth"], url="http://127.0.0.1:1"),
        Receiver("oncall", "webhook", min_severity="page", url="http://127.0.0.1:1"),
    ]
    ticket = problem(
        "cardinality:c", "c", "Many.", owner="team:shop", since=T0, fix="lockstep status"
    )

    ticked(states, seen(stale("a"), ticket), T0, *receivers, send=sent)

    told = {(name, message.items[0].problem.subject) for name, message in sent}
    assert {("all", "a"), ("all", "c"), ("growth", "a"), ("oncall", "a")} == told


def test_a_delivery_that_failed_is_tried_by_the_next_tick(states: States) -> None:
    sent = Sent("it answered with status 500", "ConnectionRefusedError")
    results = [
        ticked(states, seen(stale("a")), T0 + minute * MINUTE, send=sent) for minute in range(4)
    ]

    assert ["it answered with status 500"] == list(results[0].failed.values())
    assert [[("a", "new")]] == sent.news()
    assert {} == states.newest().troubles


def test_what_began_and_ended_while_a_receiver_was_down_is_told_still(states: States) -> None:
    sent = Sent("down", "down")
    ticked(states, seen(stale("a")), T0, send=sent)
    (trouble,) = states.newest().troubles.values()
    ticked(states, seen(), T0 + MINUTE, send=sent)
    ticked(states, seen(), T0 + 2 * MINUTE, send=sent)

    assert (T0, 1, "down") == (trouble.since, trouble.times, trouble.why)
    assert [[("a", "resolved")]] == sent.news()


def test_what_is_over_waits_a_month_for_a_receiver_that_is_gone(states: States) -> None:
    gone = Sent(*["down"] * 99)
    ticked(states, seen(stale("a")), T0, send=gone)
    ticked(states, seen(), T0 + MINUTE, send=gone)
    ticked(states, seen(), T0 + timedelta(days=29), send=gone)
    assert 1 == len(states.newest().episodes)

    ticked(states, seen(), T0 + timedelta(days=31), send=gone)
    assert {} == states.newest().episodes


def test_what_ended_and_began_again_while_a_receiver_was_down_goes_on(states: States) -> None:
    sent = Sent()
    ticked(states, seen(stale("a")), T0, send=sent)
    sent.failures = ["down", "down"]
    for minute, look in enumerate([seen(), seen(stale("a")), seen(stale("a"))], 1):
        ticked(states, look, T0 + minute * MINUTE, send=sent)

    assert [[("a", "new")], [("a", "ongoing")]] == sent.news()
    assert 1 == len(states.newest().episodes)


def test_one_receiver_that_fails_keeps_nothing_from_another(states: States) -> None:
    good = replace(HOOK, name="good")
    told: list[str] = []

    def send(receiver: Receiver, *_: object) -> str | None:
        told.append(receiver.name)
        return "down" if receiver.name == "hook" else None

    for minute in range(3):
        ticked(states, seen(stale("a")), T0 + minute * MINUTE, HOOK, good, send=send)

    assert {"hook": 3, "good": 1} == {name: told.count(name) for name in told}


def test_a_message_that_is_refused_keeps_no_other_back(states: States) -> None:
    told: list[str] = []

    def send(_: Receiver, message: object, __: object) -> str | None:
        owner = getattr(message, "owner", "")
        if owner == "team:growth":
            return "it answered with status 400"
        told.append(owner)
        return None

    ticked(states, seen(stale("a"), stale("b", owner="team:shop")), T0, send=send)

    assert ["team:shop"] == told


def test_one_receiver_that_breaks_is_told_to_no_other_again(
    states: States, caplog: pytest.LogCaptureFixture
) -> None:
    good = replace(HOOK, name="good")
    told: list[str] = []

    def send(receiver: Receiver, *_: object) -> str | None:
        told.append(receiver.name)
        if receiver.name == "hook":
            message = "https://hooks.example.com/s3cr3t"
            raise TypeError(message)
        return None

    for minute in range(6):
        result = ticked(states, seen(stale("a")), T0 + minute * MINUTE, HOOK, good, send=send)

    assert {"hook": 6, "good": 1} == {name: told.count(name) for name in told}
    assert {"hook": "TypeError"} == result.failed
    trouble = states.newest().troubles["hook"]
    assert (6, "TypeError") == (trouble.times, trouble.why)
    assert "hook could not be told: TypeError at " in caplog.text
    assert "s3cr3t" not in caplog.text


def test_half_a_character_in_a_sentence_is_written_out(states: States, sent: Sent) -> None:
    ticked(states, seen(stale("a", sentence="It is file-\udcff.parquet.")), T0, send=sent)

    (episode,) = states.newest().episodes.values()
    assert r"It is file-\udcff.parquet." == episode.problem.sentence


def test_who_is_added_later_is_told_of_what_goes_on(states: States, sent: Sent) -> None:
    ticked(states, seen(stale("a")), T0, send=sent)
    ticked(states, seen(stale("a")), T0 + MINUTE, HOOK, replace(HOOK, name="late"), send=sent)

    assert ["hook", "late"] == [name for name, _ in sent]


# Restarts, and two at once


def test_the_state_survives_a_restart(tmp_path: Path, sent: Sent) -> None:
    for minute in range(3):
        fresh = States(open_place(str(tmp_path)))
        ticked(fresh, seen(stale("a")), T0 + minute * MINUTE, send=sent)

    assert 1 == len(sent)


def test_two_ticks_at_once_send_one_message(tmp_path: Path) -> None:
    sent = Sent()
    together = threading.Barrier(2)

    def one() -> None:
        mine = States(open_place(str(tmp_path)))
        together.wait(10)
        ticked(mine, seen(stale("a"), stale("b")), T0, send=sent)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [[("a", "new"), ("b", "new")]] == sent.news()


def test_a_tick_during_another_one_waits_for_what_that_sends(states: States, sent: Sent) -> None:
    inner = Sent()

    def send(receiver: Receiver, message: object, environment: object) -> str | None:
        ticked(states, seen(stale("a"), stale("b")), T0 + MINUTE / 6, send=inner)
        return sent(receiver, message, {})

    ticked(states, seen(stale("a")), T0, send=send)
    ticked(states, seen(stale("a"), stale("b")), T0 + MINUTE, send=sent)

    assert [] == inner
    assert [[("a", "new")], [("b", "new"), ("a", "ongoing")]] == sent.news()


def test_a_process_that_dies_while_it_sends_costs_a_message_twice_and_none(
    states: States, sent: Sent
) -> None:
    class KilledError(BaseException):
        pass

    def dies(receiver: Receiver, message: object, _: object) -> str | None:
        sent(receiver, message, {})
        raise KilledError

    with pytest.raises(KilledError):
        ticked(states, seen(stale("a")), T0, send=dies)
    ticked(states, seen(stale("a")), T0 + MINUTE, send=sent)
    assert 1 == len(sent)
    ticked(states, seen(stale("a")), T0 + CLAIM, send=sent)

    (_, first), (_, second) = sent
    assert first.id == second.id
    assert {"hook"} == states.newest().episodes[second.items[0].episode].told.keys()


def test_of_two_states_after_the_same_one_wins(states: States) -> None:
    start = states.newest()

    assert 1 == getattr(states.succeed(start, replace(start, at=T0)), "number", None)
    assert states.succeed(start, replace(start, at=T0)) is None
    assert 1 == states.newest().number


def test_a_writer_that_is_very_late_does_not_win_with_a_number_that_is_free_again(
    states: States,
) -> None:
    start = states.newest()
    for _ in range(40):
        newest = states.newest()
        states.succeed(newest, newest)

    assert states.succeed(start, start) is None
    assert 40 == states.newest().number


def test_only_the_newest_states_are_kept(states: States, tmp_path: Path) -> None:
    for _ in range(40):
        newest = states.newest()
        states.succeed(newest, newest)

    assert 21 == len(list((tmp_path / FOLDER).iterdir()))


def test_a_state_that_cannot_be_read_counts_as_none(tmp_path: Path, sent: Sent) -> None:
    states = States(open_place(str(tmp_path)))
    ticked(states, seen(stale("a")), T0, send=sent)
    newest = max((tmp_path / FOLDER).iterdir())
    newest.write_bytes(b'{"format": 7}')

    ticked(states, seen(stale("a")), T0 + MINUTE, send=sent)

    assert [[("a", "new")], [("a", "new")]] == sent.news()


def test_who_never_wins_says_so_and_sends_nothing(tmp_path: Path, sent: Sent) -> None:
    place = open_place(str(tmp_path))
    place.write_if_absent = lambda *_: False  # type: ignore[method-assign] - somebody was first
    contested = States(place)

    with pytest.raises(ConflictError, match="changed by others"):
        ticked(contested, seen(stale("a")), T0, send=sent)

    assert [] == sent


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.booleans()), min_size=1, max_size=12)
)
def test_whatever_is_seen_and_fails_everybody_knows_all_in_the_end(
    steps: "list[tuple[set[str], bool]]",
) -> None:
    """Against a naive record: what each receiver believes is what was seen last."""
    place = open_place(tempfile.mkdtemp())
    states = States(place)
    believed: dict[str, str] = {}
    messages = 0

    # What comes and goes is over after a while.
    times = [T0 + minute * MINUTE for minute in range(len(steps))]
    later = [times[-1] + n * QUIET for n in (1, 2, 3)]
    last = (steps[-1][0], True)

    for at, (names, works) in zip([*times, *later], [*steps, last, last, last], strict=True):
        sent = Sent() if works else Sent(*["down"] * 9)
        ticked(states, seen(*map(stale, sorted(names))), at, send=sent)
        for items in sent.news():
            messages += 1
            for subject, standing in items:
                # Nothing is told as new that is believed to be open.
                assert standing != "new" or believed.get(subject) != "open"
                believed[subject] = "healed" if standing == "resolved" else "open"

    assert steps[-1][0] == {name for name, stage in believed.items() if stage == "open"}
    assert messages <= len(steps) + 3
    place.delete_all("alerts")


def test_every_kind_has_a_page() -> None:
    assert "docs/runbooks/drift.md" == runbook("drift")
    assert "https://wiki.example.com/r/drift.md" == runbook("drift", "https://wiki.example.com/r/")
    root = Path(__file__).parent.parent
    assert [] == [kind for kind in KINDS if not (root / runbook(kind)).is_file()]
