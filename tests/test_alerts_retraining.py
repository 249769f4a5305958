"""Drift on three days in a row: one pinned training set per episode, built like any request."""

import threading
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from lockstep import Entity, Feature, Features, FeatureSet, feature_view
from lockstep.alerts import retraining, spines
from lockstep.alerts.deliver import change
from lockstep.alerts.look import look, told
from lockstep.alerts.problem import Problem
from lockstep.alerts.spines import spine_of
from lockstep.alerts.state import Retraining, States
from lockstep.erasure.files import below, survey
from lockstep.erasure.forgetting import forgetting
from lockstep.ingest import ingest
from lockstep.store import Store
from lockstep.time import as_of, days_between
from lockstep.training.kept_sets import KeptSets
from lockstep.training.request import lake_requests, requested
from lockstep.training.requested_sets import build_request
from lockstep.view import FeatureView
from tests.scenario import EVENTS, START, USER, event, instant, world

KIND = Entity("kind", {"kind": pl.String}, "Of what is done.")
USERS = range(1, 61)
STABLE = days_between(START, START + timedelta(days=7))
SHIFTED = days_between(STABLE[-1] + timedelta(days=1), STABLE[-1] + timedelta(days=5))


def spend_view(**limits: float) -> FeatureView:
    class Spend1d(
        Features, entity=USER, owner="team:tests", ttl=timedelta(days=2), min_rows=0,
        reference="trailing",
    ):  # fmt: skip
        """What somebody spent on the day."""

        amount = Feature(pl.Float64, "Spend.", unit="USD", **(limits or {"max_psi": 0.2}))

    @feature_view(Spend1d, inputs=[EVENTS.trailing(days=1)])
    def spend_1d(events: pl.LazyFrame) -> pl.LazyFrame:
        return events.group_by("user_id").agg(amount=pl.col("amount").sum())

    return spend_1d


def kinds_view() -> FeatureView:
    class Kinds1d(Features, entity=KIND, owner="team:tests", ttl=None, min_rows=0):
        """How often something of a kind was done on the day."""

        times = Feature(pl.Int64, "Times.")

    @feature_view(Kinds1d, inputs=[EVENTS.trailing(days=1)])
    def kinds_1d(events: pl.LazyFrame) -> pl.LazyFrame:
        return events.group_by("kind").agg(times=pl.len().cast(pl.Int64))

    return kinds_1d


class Drifted:
    """A view that drifts from a day on, and a feature set that uses it."""

    def __init__(self, folder: Path, **limits: float) -> None:
        self.view = spend_view(**limits)
        self.views = [self.view]
        self.world = world(folder)
        self.open(self.world.store)
        for at, day in enumerate([*STABLE, *SHIFTED]):
            factor = 1.0 if day in STABLE else 50.0
            rows = [event(f"{day}/{user}", user, day, factor * (user + at % 3)) for user in USERS]
            self.world.land("events", rows, f"{day}.parquet")
        self.build(*STABLE)

    def open(self, store: Store) -> None:
        features = [each for view in self.views for each in view.contract.features.values()]
        chosen = FeatureSet("spenders_v1", features, owner="team:models")
        store.__dict__["catalog"] = replace(
            store.catalog,
            views={view.name: view for view in self.views},
            feature_sets={chosen.name: chosen},
        )

    def build(self, *days: date) -> None:
        self.world.clock.now = max(
            self.world.clock.now if days[0] != STABLE[0] else instant(START),
            instant(days[-1] + timedelta(days=1), 3),
        )
        lake = self.world.store.lake
        list(ingest(lake, EVENTS, days, now=self.world.clock, run_id="test"))
        self.world.build(self.view, days[0], days[-1])

    def tick(self) -> dict[str, Problem]:
        """Look and tell; return key → problem of what is open."""
        store = self.world.store
        state = told(store, look(store), store.now()).state
        return {ep.problem.key: ep.problem for ep in state.episodes.values() if ep.healed is None}

    def requests(self) -> list[str]:
        return lake_requests(self.world.store.lake.place)


@pytest.fixture
def drifted(tmp_path: Path) -> Drifted:
    return Drifted(tmp_path)


NAME = f"spenders_v1_drift_{SHIFTED[0]:%Y%m%d}"
KEY = "drift:spend_1d:amount"


def test_three_days_ask_for_one_set_and_two_for_none(drifted: Drifted) -> None:
    seen = []
    for day in SHIFTED[:4]:
        drifted.build(day)
        found = drifted.tick()
        seen.append((KEY in found, drifted.requests()))

    assert [(False, []), (False, []), (True, [NAME]), (True, [NAME])] == seen
    told_now = drifted.tick()[KEY]
    assert f"Requested to train again: {NAME}." in told_now.sentence
    assert "for 4 days in a row" in told_now.sentence


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_psi": 0.2}, ("psi",)),
        ({"max_kl": 0.1}, ("kl",)),
        ({"max_psi": 99.0, "max_kl": 0.1}, ("kl",)),
        ({"max_psi": 0.2, "max_kl": 0.1}, ("psi", "kl")),
    ],
)
def test_the_alert_names_the_number_that_is_over_its_limit(
    tmp_path: Path, limits: dict[str, float], words: tuple[str, ...]
) -> None:
    made = Drifted(tmp_path, **limits)
    made.build(*SHIFTED[:3])

    found = made.tick()[KEY]

    over = [
        f"{w.upper()} {float(found.details[w]):.2f} (limit {limits[f'max_{w}']:g})" for w in words
    ]
    assert f"{SHIFTED[2]}): {' and '.join(over)} on the last one. The rows" in found.sentence
    given = {f"limit_{word}": f"{limits[f'max_{word}']:g}" for word in words}
    assert given.items() <= found.details.items()
    assert {"days", "first_day", "last_day", *words, *given} <= found.details.keys()
    assert not {"psi", "kl"} - set(words) & found.details.keys()
    assert [NAME] == made.requests()


def test_a_restart_a_rerun_and_two_at_once_ask_for_no_other(drifted: Drifted) -> None:
    drifted.build(*SHIFTED[:3])

    threads = [threading.Thread(target=drifted.tick) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drifted.build(*SHIFTED[:3])
    drifted.tick()
    drifted.world = drifted.world.restart()
    drifted.tick()

    assert [NAME] == drifted.requests()


def test_a_state_that_was_lost_asks_for_no_other(drifted: Drifted) -> None:
    drifted.build(*SHIFTED[:3])
    drifted.tick()
    place = drifted.world.store.lake.place
    before = {info.path: place.read(info.path) for info in place.list("training_requests")}
    place.delete_all("alerts")

    drifted.tick()

    after = {info.path: place.read(info.path) for info in place.list("training_requests")}
    assert before == after


def test_a_crash_before_the_request_is_made_good_by_the_next_tick(
    drifted: Drifted, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def dies(*_: object) -> None:
        raise KilledError

    drifted.build(*SHIFTED[:3])
    with monkeypatch.context() as patch:
        patch.setattr(retraining, "request_text", dies)
        with pytest.raises(KilledError):
            drifted.tick()
    assert [] == drifted.requests()

    drifted.tick()

    assert [NAME] == drifted.requests()


def test_the_requested_set_is_built_and_pinned_like_any_other(drifted: Drifted) -> None:
    drifted.build(*SHIFTED[:3])
    drifted.tick()
    store = drifted.world.store

    request = requested(store.project, NAME, store.lake.place)
    made = build_request(store, request)

    kept = KeptSets(store.lake).manifest(NAME)
    assert ("team:models", "event") == (request.owner, request.mode)
    assert request.file == f"lake:training_requests/{NAME}.yaml"
    assert kept.output.hash == made.manifest.output.hash
    assert "spend_1d" in kept.views
    assert len(USERS) * (len(STABLE) + 3) == made.frame.height
    assert 0 == made.frame["spend_1d:amount"].null_count()


def test_the_spine_is_everybody_who_was_valid_at_the_end_of_each_day(tmp_path: Path) -> None:
    """Against a naive walk: a row is valid for its ttl after the end of its day."""
    drifted = Drifted(tmp_path)
    lake, zone = drifted.world.store.lake, drifted.world.store.project.zone
    extra = STABLE[-1] + timedelta(days=1)
    drifted.world.land("events", [event("x", 1, extra, 9.0)], f"{extra}.parquet")
    drifted.build(extra)

    spine = spine_of(lake, drifted.view)

    rows = [
        (user, as_of(day, zone))
        for day in STABLE
        for user in drifted.world.rows(drifted.view, day)["user_id"]
    ] + [(1, as_of(extra, zone))]
    expected = {
        (user, as_of(at, zone))
        for at in [*STABLE, extra]
        for user, stamp in rows
        if stamp <= as_of(at, zone) <= stamp + timedelta(days=2)
    }
    assert expected == set(spine.rows())
    assert spine.height == len(expected)
    assert ["user_id", "event_timestamp"] == spine.columns


def test_a_large_spine_draws_entities_with_all_their_days(
    drifted: Drifted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spines, "MOST_ROWS", len(STABLE) * len(USERS) // 3)

    spine = spine_of(drifted.world.store.lake, drifted.view)

    counts = spine.group_by("user_id").len()["len"].unique().to_list()
    assert [len(STABLE)] == counts
    assert 0 < spine.height < len(STABLE) * len(USERS) * 0.6


def test_a_set_of_several_entities_takes_the_combinations_of_the_newest_kept_one(
    drifted: Drifted,
) -> None:
    kinds = kinds_view()
    drifted.views = [drifted.view, kinds]
    drifted.open(drifted.world.store)
    drifted.world.build(kinds, STABLE[0], STABLE[-1])
    known = [(1, "a"), (2, "a"), (2, "b"), (2, "b"), (None, "a")]
    for name, rows in (("older", [(9, "a")]), ("newer", known)):
        spine = pl.DataFrame(rows, {"user_id": pl.Int64, "kind": pl.String}, orient="row")
        at = as_of(STABLE[-1], drifted.world.store.project.zone)
        spine = spine.with_columns(bought_at=pl.lit(at), label=1)
        drifted.world.store.training_set(spine, "spenders_v1", timestamp="bought_at", name=name)
        drifted.world.clock.now += timedelta(minutes=1)
    drifted.build(*SHIFTED[:3])

    problem = drifted.tick()[KEY]
    store = drifted.world.store
    made = build_request(store, requested(store.project, NAME, store.lake.place)).frame

    assert f"Requested to train again: {NAME}." in problem.sentence
    assert [NAME] == drifted.requests()
    days = [as_of(day, store.project.zone) for day in [*STABLE, *SHIFTED[:3]]]
    expected = {(user, kind, at) for user, kind in [(1, "a"), (2, "a"), (2, "b")] for at in days}
    assert expected == set(made.select("user_id", "kind", "event_timestamp").rows())
    assert len(expected) == made.height


def test_what_cannot_be_written_is_said_and_tried_again(drifted: Drifted) -> None:
    store = drifted.world.store
    states = States(store.lake.place)
    gone = Retraining("spenders_v1", ("gone:x",), "gone", ("2026-03-09",))
    state = change(states, lambda state: replace(state, retraining={"a_drift_1": gone}))

    failed = retraining.write_requests(store, states, state)

    assert "There is no feature view named 'gone'" in failed["a_drift_1"]
    assert not states.newest().retraining["a_drift_1"].written


def test_who_is_forgotten_leaves_the_spine_too(drifted: Drifted) -> None:
    drifted.build(*SHIFTED[:3])
    drifted.tick()
    lake = drifted.world.store.lake
    whom = forgetting(USER, {"user_id": 7}, {USER.name: USER})

    found = survey(lake.place, below(lake), whom.match)

    assert len(STABLE) + 3 == found.rows[f"spines/drift/{NAME}.parquet"]


def test_the_sensor_of_requests_picks_it_up(drifted: Drifted) -> None:
    from schedules.training_requests import look as look_at_requests

    drifted.build(*SHIFTED[:3])
    drifted.tick()

    files = look_at_requests(drifted.world.store)

    assert [NAME] == list(files.asked)
    assert {NAME: "team:models"} == files.owners
    assert ([], {}) == (files.wrong, files.waiting)
