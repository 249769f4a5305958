"""Three windows in a row: read from what was committed, whatever the order of runs and reruns."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from lockstep import Feature, Features, feature_view
from lockstep.episodes import WINDOWS, fold, streaks
from lockstep.hashing import content_hash
from lockstep.quality import Verdict
from lockstep.stores.proposal import Proposal
from lockstep.time import as_of
from tests.scenario import EVENTS, START, USER, ZONE, Views, World, event, make_views, world


class Spend(Features, entity=USER, owner="team:tests", ttl=None, min_rows=0):
    """What somebody spent in a day."""

    amount = Feature(pl.Float64, "Spend.", at_least=0, max_psi=0.2)
    free = Feature(pl.Float64, "Without a limit.")


@feature_view(Spend, inputs=[EVENTS.trailing(days=1)])
def spend(events: pl.LazyFrame) -> pl.LazyFrame:
    return events.group_by("user_id").agg(amount=pl.col("amount").sum(), free=pl.lit(1.0))


NAME = "spend:amount"


@dataclass(frozen=True)
class Said:
    """What one committed day's verdict says: PSI, or None if there was no reference."""

    psi: float | None
    limit: float | None = 0.2

    @property
    def numbers(self) -> dict[str, float]:
        if self.psi is None:
            return {}
        limit = {} if self.limit is None else {"limit:psi:amount": self.limit}
        return {"psi:amount": self.psi, "psi:free": 9.0, **limit}


SAID = st.builds(
    Said, st.none() | st.sampled_from([0.0, 0.1, 0.2, 0.3, 2.0]), st.sampled_from([None, 0.2, 1.0])
)


def naive(committed: Mapping[date, Said]) -> list[date]:
    """Go forward through the days, forgetting the streak at each that is not over the limit."""
    streak: list[date] = []
    for day, said in sorted(committed.items()):
        limit = 0.2 if said.limit is None else said.limit
        streak = [*streak, day] if said.psi is not None and said.psi > limit else []
    return streak


@given(
    st.dictionaries(st.integers(0, 12).map(lambda n: START + timedelta(days=n)), SAID),
    st.randoms(use_true_random=False),
)
def test_a_streak_is_the_last_days_over_the_limit_gaps_aside(
    committed: dict[date, Said], shuffler: random.Random
) -> None:
    order = shuffler.sample(sorted(committed), len(committed))

    found = fold(spend, {day: committed[day].numbers for day in order})

    assert {NAME} == found.keys()
    streak, days = found[NAME], naive(committed)
    assert days == list(streak.days)
    assert [committed[day].psi for day in days] == list(streak.psi)
    assert (days[0] if days else None) == streak.first
    assert (len(days) >= WINDOWS) == streak.alerting


def commit(made: World, day: date, said: Said, *, amount: float) -> None:
    """Commit a day with a verdict, as a run does."""
    frame = pl.DataFrame(
        {"user_id": [1], "event_timestamp": [as_of(day, ZONE)], "amount": [amount], "free": [1.0]},
        schema=spend.columns,
    )
    drift = Verdict("drift", passed=True, message="", numbers=said.numbers)
    note = {"verdicts": [Verdict("keys", passed=True, message="").to_json(), drift.to_json()]}
    table = made.store.lake.table(spend)
    table.create()
    table.commit([Proposal(day, frame, content_hash(frame), note)], now=made.clock)


def days(*numbers: int) -> tuple[date, ...]:
    return tuple(START + timedelta(days=n) for n in numbers)


def test_reruns_restarts_and_the_order_of_runs_change_nothing(tmp_path: Path) -> None:
    over = {day: Said(0.3 + n / 100) for n, day in enumerate(days(1, 2, 3))}
    plain = {START: Said(0.1), **over}
    found = []
    for number, order in enumerate([sorted(plain), sorted(plain, reverse=True)]):
        made = world(tmp_path / str(number))
        for day in order:
            commit(made, day, plain[day], amount=1.0)
        commit(made, days(2)[0], Said(0.0), amount=1.0)  # the same content: nothing is committed
        made = made.restart()
        found.append(streaks(made.store.lake, spend)[NAME])

    assert found[0] == found[1]
    assert (days(1, 2, 3), (0.3, 0.31, 0.32), days(1)[0]) == (
        *(found[0].days, found[0].psi),
        found[0].first,
    )
    assert found[0].alerting


def test_a_recomputed_day_counts_as_it_is_committed_now(tmp_path: Path) -> None:
    made = world(tmp_path)
    for day in days(0, 1, 2):
        commit(made, day, Said(0.5), amount=1.0)
    lake = made.store.lake
    assert streaks(lake, spend)[NAME].alerting

    commit(made, days(1)[0], Said(0.1), amount=2.0)
    assert days(2) == streaks(lake, spend)[NAME].days
    commit(made, days(1)[0], Said(0.7), amount=3.0)
    assert (0.5, 0.7, 0.5) == streaks(lake, spend)[NAME].psi
    commit(made, days(2)[0], Said(None), amount=2.0)
    assert ((), None) == (streaks(lake, spend)[NAME].days, streaks(lake, spend)[NAME].first)
    commit(made, days(9)[0], Said(0.5), amount=1.0)
    assert days(9) == streaks(lake, spend)[NAME].days


def test_a_view_that_was_never_built_has_no_streak_and_one_without_limits_none_at_all(
    tmp_path: Path,
) -> None:
    lake = world(tmp_path).store.lake

    (found,) = streaks(lake, spend).values()
    assert (NAME, (), 0.2, None, False) == (
        *(found.feature, found.days),
        *(found.limit, found.first, found.alerting),
    )
    assert {} == streaks(lake, make_views().spend_3d)


def test_doubled_amounts_alert_on_the_third_day_and_a_quarantined_day_in_between_does_not_reset(
    tmp_path: Path,
) -> None:
    views = make_views()
    made = world(tmp_path, views=Views(spend, views.profile, views.pace))
    usual, doubled = [10.0 + n for n in range(40)], [2 * (10.0 + n) for n in range(40)]
    said = {
        **dict.fromkeys(days(*range(8)), usual),
        **dict.fromkeys(days(8, 9, 11), doubled),
        days(10)[0]: [-1.0, *doubled[1:]],
    }
    rows = [
        event(f"{day}-{user}", user, day, amount)
        for day, amounts in said.items()
        for user, amount in enumerate(amounts)
    ]
    made.land("events", rows, "events.parquet")
    made.ingest(START, days(11)[0])

    outcomes = {}
    alerting = {}
    for day in sorted(said):
        (outcomes[day],) = made.build(spend, day)
        alerting[day] = streaks(made.store.lake, spend)[NAME].alerting

    assert [days(10)[0]] == [day for day, of in outcomes.items() if of.status == "quarantined"]
    assert [days(11)[0]] == [day for day, told in alerting.items() if told]
    assert days(8, 9, 11) == streaks(made.restart().store.lake, spend)[NAME].days
    assert streaks(made.store.lake, spend)[NAME].first == days(8)[0]
