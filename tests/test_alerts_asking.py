"""Drift asks for training sets: which requests a series of looks leads to."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.alerts.asking import REMEMBERED, SEEN, Model, request_name
from lockstep.alerts.fold import advance
from lockstep.alerts.problem import Drifting, Look
from lockstep.alerts.state import Retraining, State, States
from lockstep.stores.files import open_place
from tests.alert_looks import CHURN, MINUTE, T0, Sent, drift, drifting, seen, ticked

DAYS = ("2026-11-18", "2026-11-19", "2026-11-20")


def requests_after(*looks: Look) -> dict[str, tuple[str, ...]]:
    state = State()
    for minute, look in enumerate(looks):
        state = advance(state, look, T0 + minute * MINUTE, [CHURN])
    return {name: request.features for name, request in state.retraining.items()}


def test_an_episode_of_drift_asks_for_one_training_set_and_says_so() -> None:
    look = drifting("txn_7d:sum_amt_7d", days=DAYS)

    state = advance(State(), look, T0, [CHURN])

    (name,) = state.retraining
    (episode,) = state.episodes.values()
    assert "churn_v1_drift_20261118" == name
    assert f"Requested to train again: {name}." in episode.problem.sentence
    assert name == episode.problem.details["training_sets"]


def test_an_episode_that_goes_on_asks_for_no_other() -> None:
    first = drifting("txn_7d:sum_amt_7d", days=DAYS)
    later = drifting("txn_7d:sum_amt_7d", days=[*DAYS, "2026-11-21", "2026-11-22"])

    assert {"churn_v1_drift_20261118"} == requests_after(first, first, later).keys()


def test_a_rerun_that_moves_the_first_day_asks_for_no_other() -> None:
    before = drifting("txn_7d:sum_amt_7d", days=DAYS)
    shorter = drifting("txn_7d:sum_amt_7d", days=[*DAYS[1:], "2026-11-21"])
    longer = drifting("txn_7d:sum_amt_7d", days=["2026-11-17", *DAYS])

    assert 1 == len(requests_after(before, shorter, longer))


def test_features_that_drift_on_the_same_days_ask_for_one_set_of_their_feature_set() -> None:
    first = drifting("txn_7d:sum_amt_7d", days=DAYS)
    both = drifting("txn_7d:sum_amt_7d", "txn_7d:count_7d", days=DAYS)

    assert [("txn_7d:sum_amt_7d", "txn_7d:count_7d")] == list(requests_after(first, both).values())


def test_the_next_episode_asks_for_another_set() -> None:
    first = drifting("txn_7d:sum_amt_7d", days=DAYS)
    later = drifting("txn_7d:sum_amt_7d", days=["2026-12-01", "2026-12-02", "2026-12-03"])

    assert 2 == len(requests_after(first, seen(), later))


def test_every_feature_set_that_uses_the_feature_gets_one() -> None:
    other = replace(CHURN, name="spend_v2")
    unrelated = replace(CHURN, name="other_v1", features=["recency:days"])
    look = drifting("txn_7d:sum_amt_7d", days=DAYS)

    state = advance(State(), look, T0, [CHURN, other, unrelated])

    assert {"churn_v1", "spend_v2"} == {of.feature_set for of in state.retraining.values()}


def test_a_set_of_several_entities_is_requested_with_the_spine_of_a_kept_one() -> None:
    mixed = replace(CHURN, entities=["household", "product"], kept="churn_november")

    state = advance(State(), drifting("txn_7d:sum_amt_7d", days=DAYS), T0, [mixed])

    (asked,) = state.retraining.values()
    assert ("churn_v1", "churn_november") == (asked.feature_set, asked.like)


def test_one_of_several_entities_that_was_never_kept_is_not_and_the_alert_says_so() -> None:
    mixed = replace(CHURN, entities=["household", "product"])

    state = advance(State(), drifting("txn_7d:sum_amt_7d", days=DAYS), T0, [mixed])

    (episode,) = state.episodes.values()
    assert {} == state.retraining
    assert "No training set was requested for churn_v1: it joins several" in str(episode)


def test_two_sensors_at_once_ask_for_one_set(tmp_path: Path) -> None:
    together = threading.Barrier(2)
    looks = [
        drifting("txn_7d:sum_amt_7d", days=DAYS),
        drifting("txn_7d:sum_amt_7d", days=(*DAYS[1:], "2026-11-21")),
    ]

    def one(look: Look) -> None:
        mine = States(open_place(str(tmp_path)))
        together.wait(10)
        ticked(mine, look, T0, send=Sent())

    threads = [threading.Thread(target=one, args=(look,)) for look in looks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == len(States(open_place(str(tmp_path))).newest().retraining)


def test_names_of_requests_are_names_of_training_sets_and_told_apart() -> None:
    long = "a" * 60

    names = {request_name(name, "2026-11-18") for name in (long, f"{long}b", "churn_v1")}

    assert 3 == len(names)
    assert all(len(name) <= 63 for name in names)


AMOUNT, COUNT = CHURN.features


def march(*numbers: int) -> tuple[str, ...]:
    return tuple(str(date(2026, 3, 1) + timedelta(days=number - 1)) for number in numbers)


def written(state: State) -> State:
    """Return the state after the requests were written."""
    asked = {name: replace(each, written=True) for name, each in state.retraining.items()}
    return replace(state, retraining=asked)


def after(*looks: Look, models: tuple[Model, ...] = (CHURN,)) -> State:
    """Return the state after looks, each of which writes what it asks for."""
    state = State()
    for minute, look in enumerate(looks):
        state = written(advance(state, look, T0 + minute * MINUTE, models))
    return state


def named(state: State, feature: str) -> str:
    """Return the training sets that the open alert of a feature names."""
    (found,) = (
        ep.problem
        for ep in state.episodes.values()
        if ep.problem.key == f"drift:{feature}" and ep.healed is None
    )
    return found.details.get("training_sets", "")


def test_an_episode_that_has_grown_and_lost_its_first_days_asks_for_no_other() -> None:
    state = after(
        drifting(AMOUNT, days=march(1, 2, 3)),
        drifting(AMOUNT, days=march(*range(1, 11))),
        # Day 4 is computed again and is within its limit.
        drifting(AMOUNT, days=march(*range(5, 12))),
    )

    assert ["churn_v1_drift_20260301"] == list(state.retraining)
    assert "churn_v1_drift_20260301" == named(state, AMOUNT)
    assert march(1, 2, 3) == state.retraining["churn_v1_drift_20260301"].days


def test_a_feature_that_drifts_on_later_days_than_a_set_was_made_of_asks_for_its_own() -> None:
    first = drifting(AMOUNT, days=march(1, 2, 3))

    state = after(first, drifting(COUNT, days=march(3, 4, 5)))

    assert [(AMOUNT,), (COUNT,)] == [each.features for each in state.retraining.values()]
    assert "churn_v1_drift_20260303" == named(state, COUNT)


def test_a_feature_that_is_judged_later_on_the_same_days_takes_part_in_the_set() -> None:
    state = after(
        drifting(AMOUNT, days=march(1, 2, 3, 4)),
        drifting(AMOUNT, COUNT, days=march(2, 3, 4)),
        drifting(AMOUNT, COUNT, days=march(*range(2, 9))),
    )

    assert [(AMOUNT, COUNT)] == [each.features for each in state.retraining.values()]
    assert named(state, AMOUNT) == named(state, COUNT) == "churn_v1_drift_20260301"


def test_two_sets_of_one_first_day_have_two_names() -> None:
    state = after(drifting(AMOUNT, days=march(1, 2, 3)), drifting(COUNT, days=march(1, 2, 3, 4)))

    assert ["churn_v1_drift_20260301", "churn_v1_drift_20260301_2"] == list(state.retraining)


def test_a_request_that_is_not_written_yet_takes_part_in_all_days() -> None:
    state = State()
    for minute, days in enumerate([(1, 2, 3), (1, 2, 3, 4)]):
        state = advance(state, drifting(AMOUNT, days=march(*days)), T0 + minute * MINUTE, [CHURN])
    state = advance(state, drifting(COUNT, days=march(4, 5, 6)), T0 + 9 * MINUTE, [CHURN])

    (asked,) = state.retraining.values()
    assert ((AMOUNT, COUNT), march(*range(1, 7))) == (asked.features, asked.days)


def test_the_state_of_an_episode_of_a_year_is_no_larger_than_of_two_months() -> None:
    state = State()
    for last in range(3, 365):
        look = drifting(AMOUNT, days=march(*range(1, last + 1)))
        state = written(advance(state, look, T0 + last * MINUTE, [CHURN]))

    (asked,) = state.retraining.values()
    assert (3, SEEN) == (len(asked.days), len(asked.seen[AMOUNT]))


def test_a_request_whose_feature_drifts_still_is_never_forgotten() -> None:
    features = [f"txn_7d:f{number}" for number in range(REMEMBERED + 2)]
    model = replace(CHURN, features=[AMOUNT, *features])
    state = after(drifting(AMOUNT, days=march(1, 2, 3)), models=(model,))
    first = list(state.retraining)

    for number, feature in enumerate(features):
        days = march(*range(10 * number + 11, 10 * number + 14))
        both = drifting(feature, days=days) + drifting(AMOUNT, days=march(1, 2, 3, 4))
        state = written(advance(state, both, T0 + number * MINUTE, [model]))

    assert first == list(state.retraining)[:1]
    assert REMEMBERED + 2 == len(state.retraining)


def test_a_request_of_an_earlier_release_is_known_by_its_days() -> None:
    known = Retraining("churn_v1", (AMOUNT,), "txn_7d", march(1, 2, 3), written=True)
    state = State(retraining={"churn_v1_drift_20260301": known})

    state = advance(state, drifting(AMOUNT, days=march(3, 4, 5)), T0, [CHURN])

    assert ["churn_v1_drift_20260301"] == list(state.retraining)


def streak(over: "set[int]", last: int) -> tuple[int, ...]:
    """Return the days in a row over the limit that end with the newest."""
    days: list[int] = []
    while last - len(days) in over:
        days.insert(0, last - len(days))
    return tuple(days)


def look_of(over: "Mapping[str, set[int]]", last: int) -> Look:
    found = [
        Drifting(f"drift:{name}", name, march(*days))
        for name in over
        if len(days := streak(over[name], last)) >= 3
    ]
    return Look([drift(each.feature) for each in found], seen().sees, {}, found)


DAY_FLIPS = st.lists(st.tuples(st.sampled_from([AMOUNT, COUNT]), st.integers(1, 14)), max_size=3)


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(DAY_FLIPS, st.sets(st.sampled_from([AMOUNT, COUNT])), st.booleans()),
        min_size=4,
        max_size=14,
    )
)
def test_whatever_is_seen_an_episode_has_exactly_one_request(
    steps: "list[tuple[list[tuple[str, int]], set[str], bool]]",
) -> None:
    """Against a naive record: every day that an episode ever had, and the request it was given.

    Each step has a new day, on which some features are over the limit, and reruns of other days.
    """
    state = State()
    over: dict[str, set[int]] = {AMOUNT: set(), COUNT: set()}
    episodes: dict[str, list[tuple[set[int], str]]] = {AMOUNT: [], COUNT: []}
    for last, (flips, drifts, writes) in enumerate(steps, 1):
        for name in over:
            over[name] |= {last} if name in drifts else set()
        for name, day in flips:
            over[name] ^= {day} if day <= last else set()
        state = advance(state, look_of(over, last), T0 + last * MINUTE, [CHURN])
        state = written(state) if writes else state

        for name, kept in episodes.items():
            days = set(streak(over[name], last))
            if len(days) < 3:
                continue
            told = named(state, name)
            same = [each for each in kept if each[0] & days]
            if same:
                # Of two that a rerun has joined the newer one goes on.
                assert same[-1][1] == told
                same[-1][0].update(days)
            else:
                assert told not in [request for _, request in kept]
                kept.append((days, told))
    given = {request for kept in episodes.values() for _, request in kept}
    assert given == state.retraining.keys()
