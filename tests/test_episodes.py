"""Three windows in a row: read from what was committed, whatever the order of runs and reruns."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TypeAlias

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from lockstep import Feature, Features, feature_view
from lockstep.episodes import WINDOWS, Streak, fold, streaks
from lockstep.hashing import content_hash
from lockstep.quality import Verdict
from lockstep.stores.proposal import Proposal
from lockstep.time import as_of
from tests.scenario import EVENTS, START, USER, ZONE, Views, World, event, make_views, world


class Spend(Features, entity=USER, owner="team:tests", ttl=None, min_rows=0):
    """What somebody spent in a day."""

    amount = Feature(pl.Float64, "Spend.", at_least=0, max_psi=0.2)
    tip = Feature(pl.Float64, "A tenth of it.", max_kl=0.1)
    free = Feature(pl.Float64, "Without a limit.")


@feature_view(Spend, inputs=[EVENTS.trailing(days=1)])
def spend(events: pl.LazyFrame) -> pl.LazyFrame:
    spent = pl.col("amount").sum()
    return events.group_by("user_id").agg(amount=spent, tip=spent / 10, free=pl.lit(1.0))


NAME = "spend:amount"
TIP = "spend:tip"
DECLARED = {"amount": {"psi": 0.2}, "tip": {"kl": 0.1}}


@dataclass(frozen=True)
class Said:
    """What one committed day's verdict says of each feature: numbers, or None without a reference.

    Both limits are None in what older releases wrote.
    """

    psi: float | None
    limit: float | None = 0.2
    kl: float = 0.0
    kl_limit: float | None = None

    @property
    def numbers(self) -> dict[str, float]:
        if self.psi is None:
            return {}
        said = {"psi": self.psi, "kl": self.kl, "limit:psi": self.limit, "limit:kl": self.kl_limit}
        known = {word: number for word, number in said.items() if number is not None}
        of = {f"{word}:{name}": number for name in DECLARED for word, number in known.items()}
        return {**of, "psi:free": 9.0, "kl:free": 9.0}


LIMITS = st.sampled_from([None, 0.2, 1.0])
NUMBERS = st.sampled_from([0.0, 0.1, 0.2, 0.3, 2.0])
SAID = st.builds(Said, st.none() | NUMBERS, LIMITS, NUMBERS, LIMITS)
Over: TypeAlias = list[tuple[str, float, float]]


def over(said: Said, feature: str) -> Over:
    """What is over a limit: of those the day says, else of those that are declared now."""
    if said.psi is None:
        return []
    says = {"psi": said.limit, "kl": said.kl_limit}
    limits = says if any(says.values()) else DECLARED[feature]
    values = {"psi": said.psi, "kl": said.kl}
    given = [(word, values[word], limits.get(word)) for word in ("psi", "kl")]
    return [(word.upper(), value, most) for word, value, most in given if most and value > most]


def naive(committed: Mapping[date, Said], feature: str) -> list[tuple[date, Over]]:
    """Go forward through the days, forgetting the streak at each that is not over a limit."""
    streak: list[tuple[date, Over]] = []
    for day, said in sorted(committed.items()):
        streak = [*streak, (day, what)] if (what := over(said, feature)) else []
    return streak


def told(streak: Streak) -> list[Over]:
    return [[(one.word, one.value, one.limit) for one in each] for each in streak.exceeded]


@given(
    st.dictionaries(st.integers(0, 12).map(lambda n: START + timedelta(days=n)), SAID),
    st.randoms(use_true_random=False),
)
def test_a_streak_is_the_last_days_over_the_limit_gaps_aside(
    committed: dict[date, Said], shuffler: random.Random
) -> None:
    order = shuffler.sample(sorted(committed), len(committed))

    found = fold(spend, {day: committed[day].numbers for day in order})

    assert {NAME, TIP} == found.keys()
    for streak in found.values():
        naively = naive(committed, streak.feature.partition(":")[2])
        days = [day for day, _ in naively]
        assert days == list(streak.days)
        assert [what for _, what in naively] == told(streak)
        assert (days[0] if days else None) == streak.first
        assert (len(days) >= WINDOWS) == streak.alerting


def commit(made: World, day: date, said: Said, *, amount: float) -> None:
    """Commit a day with a verdict, as a run does."""
    frame = pl.DataFrame(
        {"user_id": [1], "event_timestamp": [as_of(day, ZONE)], "amount": [amount]},
        schema={name: spend.columns[name] for name in ("user_id", "event_timestamp", "amount")},
    ).with_columns(tip=pl.col("amount") / 10, free=pl.lit(1.0))
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
    assert (days(1, 2, 3), days(1)[0]) == (found[0].days, found[0].first)
    assert [[("PSI", psi, 0.2)] for psi in (0.3, 0.31, 0.32)] == told(found[0])
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
    assert [[("PSI", psi, 0.2)] for psi in (0.5, 0.7, 0.5)] == told(streaks(lake, spend)[NAME])
    commit(made, days(2)[0], Said(None), amount=2.0)
    assert ((), None) == (streaks(lake, spend)[NAME].days, streaks(lake, spend)[NAME].first)
    commit(made, days(9)[0], Said(0.5), amount=1.0)
    assert days(9) == streaks(lake, spend)[NAME].days


def test_a_view_that_was_never_built_has_no_streak_and_one_without_limits_none_at_all(
    tmp_path: Path,
) -> None:
    lake = world(tmp_path).store.lake

    found = streaks(lake, spend)
    assert {NAME: Streak(NAME, (), (), None), TIP: Streak(TIP, (), (), None)} == found
    assert not found[NAME].alerting
    assert {} == streaks(lake, make_views().spend_3d)


def living(tmp_path: Path, said: Mapping[date, Sequence[float]]) -> World:
    """A world in which each user spends such an amount on each day."""
    views = make_views()
    made = world(tmp_path, views=Views(spend, views.profile, views.pace))
    made.clock.now = as_of(max(said), ZONE) + timedelta(hours=6)
    land(made, said, "events.parquet")
    return made


def land(made: World, said: Mapping[date, Sequence[float]], file: str) -> None:
    rows = [
        event(f"{day}-{user}-{file}", user, day, amount)
        for day, amounts in said.items()
        for user, amount in enumerate(amounts)
    ]
    made.land("events", rows, file)
    made.ingest(min(said), max(said))


USUAL = [10.0 + n for n in range(40)]
DOUBLED = [2 * amount for amount in USUAL]


def test_doubled_amounts_alert_on_the_third_day_and_a_quarantined_day_in_between_does_not_reset(
    tmp_path: Path,
) -> None:
    said = {
        **dict.fromkeys(days(*range(8)), USUAL),
        **dict.fromkeys(days(8, 9, 11), DOUBLED),
        days(10)[0]: [-1.0, *DOUBLED[1:]],
    }
    made = living(tmp_path, said)

    outcomes = {}
    alerting = {}
    for day in sorted(said):
        (outcomes[day],) = made.build(spend, day)
        alerting[day] = streaks(made.store.lake, spend)[NAME].alerting

    assert [days(10)[0]] == [day for day, of in outcomes.items() if of.status == "quarantined"]
    assert [days(11)[0]] == [day for day, told in alerting.items() if told]
    found = streaks(made.restart().store.lake, spend)
    assert days(8, 9, 11) == found[NAME].days == found[TIP].days
    assert found[NAME].first == days(8)[0]
    assert {"PSI"} == {word for each in told(found[NAME]) for word, _, _ in each}
    assert {"KL"} == {word for each in told(found[TIP]) for word, _, _ in each}


def test_a_fault_that_lasts_goes_on_alerting_until_it_is_mended(tmp_path: Path) -> None:
    said = {
        **dict.fromkeys(days(*range(14)), USUAL),
        **dict.fromkeys(days(*range(14, 34)), DOUBLED),
    }
    made = living(tmp_path, said)
    outcomes = made.build(spend, min(said), max(said))

    found = streaks(made.store.lake, spend)
    assert days(*range(14, 34)) == found[NAME].days == found[TIP].days
    assert days(14)[0] == found[NAME].first
    last = made.build(spend, max(said))[0].drift["amount"]
    assert "14 earlier days within the limit" == last.against
    assert outcomes[-1].drift["amount"].psi == last.psi

    half_back = [-amount for amount in USUAL]
    mended = dict.fromkeys(days(*range(14, 34)), half_back)
    land(made, mended, "mended.parquet")
    made.build(spend, min(mended), max(mended))
    assert () == streaks(made.store.lake, spend)[NAME].days


def test_days_together_and_one_by_one_and_again_are_judged_alike_while_a_fault_lasts(
    tmp_path: Path,
) -> None:
    said = {
        **dict.fromkeys(days(*range(8)), USUAL),
        **dict.fromkeys(days(*range(8, 17)), DOUBLED),
    }
    together, apart = (living(tmp_path / name, said) for name in ("together", "apart"))

    whole = [outcome.verdicts for outcome in together.build(spend, min(said), max(said))]
    single = [apart.build(spend, day)[0].verdicts for day in sorted(said)]
    again = [outcome.verdicts for outcome in apart.build(spend, min(said), max(said))]

    assert whole == single == again
