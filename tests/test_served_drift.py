"""What was really served is held against what is committed, or what a training set had."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl
import pytest

from feature_assets.sources import SERVED_FEATURES
from lockstep import Feature, Features, FeatureView, feature_view
from lockstep.hashing import content_hash
from lockstep.ingest import ingest
from lockstep.profile import profile
from lockstep.serving.served_log import SCHEMA
from lockstep.stores.proposal import Proposal
from lockstep.time import as_of
from lockstep.traffic import Traffic, log_of, served_drift
from tests.scenario import EVENTS, USER, World, catalog_of, instant, world

LAST = date(2026, 3, 20)
DAYS = [LAST - timedelta(days=n) for n in range(9, -1, -1)]
USERS = 400
Cell: TypeAlias = tuple[str, int, str, float | None, str | None]


class Habits(Features, entity=USER, owner="team:tests", ttl=timedelta(days=2), min_rows=0):
    """What somebody does."""

    spend = Feature(pl.Float64, "Spend.", max_psi=0.2)
    visits = Feature(pl.Int64, "Visits.", max_kl=0.1)
    kind = Feature(pl.String, "Kind.", max_psi=0.2)
    email = Feature(pl.String, "Where to write.", pii=True)


@feature_view(Habits, inputs=[EVENTS.trailing(days=1)])
def habits(events: pl.LazyFrame) -> pl.LazyFrame:
    return events.select("user_id", spend="amount", visits=1, kind="kind", email="kind")


@dataclass
class Served:
    """A view with ten committed days, and a log of what was served of it."""

    made: World
    view: FeatureView

    def log(self, day: date, cells: Sequence[Cell]) -> None:
        """Land a day's log: feature, user, status, number, text."""
        at = datetime(day.year, day.month, day.day, 17, tzinfo=UTC)
        rows = [
            (
                *(at + timedelta(microseconds=n), f"trace {n}", "v1", "habits", feature, "user"),
                *(f"i3:{user}", status, number, text, at),
            )
            for n, (feature, user, status, number, text) in enumerate(cells)
        ]
        folder = Path(self.made.store.project.landing) / "served_features"
        folder.mkdir(parents=True, exist_ok=True)
        frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
        frame.write_parquet(folder / f"log_{day}.parquet")
        list(ingest(self.made.store.lake, SERVED_FEATURES, [day], now=self.made.clock))

    def look(self) -> Traffic:
        lake, now = self.made.store.lake, self.made.clock.now
        return served_drift(lake, SERVED_FEATURES, self.view, now)


def usual(random: np.random.Generator, rows: int = USERS) -> np.ndarray:
    return random.gamma(2.0, 10.0, rows)


@pytest.fixture
def shop(tmp_path: Path) -> Served:
    made, random = world(tmp_path), np.random.default_rng(3)
    table = made.store.lake.table(habits)
    table.create()
    made.clock.now = instant(LAST + timedelta(days=1), 6)
    for day in DAYS:
        frame = pl.DataFrame(
            {
                "user_id": range(USERS),
                "event_timestamp": [as_of(day, made.store.project.zone)] * USERS,
                "spend": usual(random),
                "visits": random.poisson(3, USERS),
                "kind": random.choice(["buy", "look"], USERS).tolist(),
                "email": ["somebody"] * USERS,
            },
            schema=habits.columns,
        )
        table.commit([Proposal(day, frame, content_hash(frame), {})], now=made.clock)
        found = profile(frame, habits.contract)
        made.store.lake.record_profiles("habits", {(day, 1): found})
    return Served(made, habits)


def spends(values: Sequence[float]) -> list[Cell]:
    return [("spend", user, "present", float(value), None) for user, value in enumerate(values)]


def test_without_traffic_nothing_is_wrong(shop: Served) -> None:
    found = shop.look()

    assert found.holds
    assert "no answer was logged" in found.sentence


def test_values_as_those_of_the_committed_days_are_no_drift(shop: Served) -> None:
    shop.log(LAST, spends(usual(np.random.default_rng(9), 390)))

    found = shop.look()

    (spend,) = found.features
    assert found.holds
    assert spend.drift is not None
    assert spend.drift.psi is not None
    assert spend.drift.psi < 0.15
    assert [LAST] == found.days
    assert "390 answers logged in 2026-03-20; values as in 10 earlier days" in found.sentence


def test_planted_drift_of_what_was_served_is_told_with_its_feature(shop: Served) -> None:
    doubled = spends(usual(np.random.default_rng(9), 390) * 2)
    looks = [("kind", user, "present", None, "look") for user in range(300)]
    shop.log(LAST, [*doubled, *looks])

    found = shop.look()

    assert not found.holds
    assert {"habits:spend", "habits:kind"} == {drift.feature for drift in found.drifting}
    assert "habits:spend has PSI" in found.sentence
    assert "(limit 0.2) against 10 earlier days" in found.sentence


def test_it_is_told_which_of_the_two_numbers_is_over_its_limit(shop: Served) -> None:
    visits = np.random.default_rng(9).poisson(6, 300)
    shop.log(LAST, [("visits", at, "present", float(n), None) for at, n in enumerate(visits)])

    (said,) = shop.look().problems

    assert re.fullmatch(
        r"habits:visits has KL \d\.\d\d \(limit 0\.1\) against 10 earlier days", said
    )


def test_days_that_drifted_themselves_are_no_reference(shop: Served) -> None:
    doubled, table = np.random.default_rng(4), shop.made.store.lake.table(habits)
    numbers = {"psi:spend": 0.9, "limit:psi:spend": 0.2}
    note = {"verdicts": [{"check": "drift", "passed": False, "numbers": numbers}]}
    for day in DAYS[-3:]:
        frame = table.read_day(day).drop("known_at", "day")
        frame = frame.with_columns(spend=pl.Series(usual(doubled) * 2))
        table.commit([Proposal(day, frame, content_hash(frame), note)], now=shop.made.clock)
        found = profile(frame, habits.contract)
        shop.made.store.lake.record_profiles("habits", {(day, 2): found})
    shop.log(LAST, spends(usual(np.random.default_rng(9), 390) * 2))

    (spend,) = shop.look().features

    assert spend.drift is not None
    assert "7 earlier days within the limit" == spend.drift.against
    assert spend.drift.over


def test_an_entity_that_is_asked_for_often_counts_once_a_day(shop: Served) -> None:
    values = usual(np.random.default_rng(9), 390)
    often = [("spend", 5, "present", 900.0, None)] * 2_000
    shop.log(LAST, [*spends(values), *often])

    found = shop.look()

    assert 2_390 == found.cells
    assert found.holds


def test_expired_answers_are_too_many_before_unknown_entities_are(shop: Served) -> None:
    values = spends(usual(np.random.default_rng(9), 390))
    shop.log(LAST - timedelta(days=8), values)
    expired = [("visits", user, "expired", None, None) for user in range(20)]
    missing = [("visits", user, "missing", None, None) for user in range(18)]
    shop.log(LAST, [*values, *expired, *missing])

    found = shop.look()

    assert not found.holds
    assert found.share("expired") == 20 / 428
    assert "4.7% of the answers were expired or errors" in found.sentence
    assert "unknown" not in found.sentence


def test_more_unknown_entities_than_usual_are_told(shop: Served) -> None:
    values = spends(usual(np.random.default_rng(9), 390))
    shop.log(LAST - timedelta(days=8), values)
    shop.log(LAST, [*values, *(("visits", user, "missing", None, None) for user in range(200))])

    found = shop.look()

    assert "33.9% were about unknown entities (usual: 0.0%)" in found.sentence


def test_unknown_entities_of_four_weeks_before_seven_days_are_counted(shop: Served) -> None:
    """Held against the files that were landed, read one by one."""
    random = np.random.default_rng(8)
    for back in (0, 6, 7, 8, 20, 34, 35):
        cells = random.choice(["present", "missing", "null"], 60 + back, p=[0.5, 0.3, 0.2])
        log = [("visits", user, str(status), 1.0, None) for user, status in enumerate(cells)]
        shop.log(LAST - timedelta(days=back), log)

    found = shop.look()

    counted: Counter[str] = Counter()
    lately: Counter[str] = Counter()
    for file in (Path(shop.made.store.project.landing) / "served_features").iterdir():
        back = (LAST - date.fromisoformat(file.stem.removeprefix("log_"))).days
        statuses = pl.read_parquet(file)["status"].to_list()
        (lately if back < 7 else counted).update(statuses if back < 35 else [])
    assert found.usual_missing == counted["missing"] / counted.total()
    assert [LAST - timedelta(days=6), LAST] == found.days
    (visits,) = found.features
    assert dict(lately) == visits.statuses


def test_what_identifies_people_has_a_status_and_no_drift(shop: Served) -> None:
    shop.log(LAST, [("email", user, "present", None, None) for user in range(300)])

    (email,) = shop.look().features

    assert (300, None) == (email.cells, email.drift)


def test_a_log_that_ended_long_ago_says_nothing_of_today(shop: Served) -> None:
    shop.log(DAYS[0], spends(usual(np.random.default_rng(9), 390) * 2))
    assert not shop.look().days

    shop.made.clock.now = instant(DAYS[0] + timedelta(days=2))
    assert shop.look().days


def test_a_kept_training_set_is_the_reference_and_every_request_counts(
    shop: Served,
) -> None:
    lake, random = shop.made.store.lake, np.random.default_rng(1)
    made_at = datetime(2026, 3, 10, tzinfo=UTC)
    frame = pl.DataFrame({"spend": usual(random, 2_000) * 2})
    whole = pl.DataFrame(schema=habits.columns).select("visits", "kind", "email")
    learned = profile(pl.concat([frame, whole], how="diagonal"), habits.contract)
    lake.record_training_profiles("habits_v1", made_at, {"habits:spend": learned["spend"]})
    manifest = json.dumps({"created_at": made_at.isoformat()}).encode()
    lake.place.write("training_sets/habits_v1/manifest.json", manifest)
    shop.log(LAST, spends(usual(np.random.default_rng(9), 390) * 2))

    found = shop.look()

    assert found.holds
    assert "values as in the training set habits_v1" in found.sentence


def test_the_log_is_a_source_with_the_columns_of_the_service() -> None:
    without = catalog_of([habits])
    having = replace(without, sources={"served_features": SERVED_FEATURES})

    assert log_of(without) is None
    assert log_of(having) is SERVED_FEATURES
    assert {"served_at"} == set(SCHEMA) - set(SERVED_FEATURES.columns)
