"""The audit inside runs: what an explosion of ids, a drift that blocks and a release come to."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from lockstep import Feature, Features, feature_view
from lockstep.alerts.lake import look_at_lake
from lockstep.materialize import preview
from lockstep.outcome import DayOutcome
from lockstep.profile import EntityCounts
from lockstep.quality import Verdict
from lockstep.quarantine import Quarantine, Quarantined
from lockstep.rebuild import rebuild
from lockstep.release import release_frame
from lockstep.time import as_of, days_between
from lockstep.view import FeatureView
from tests.scenario import (
    EVENTS,
    START,
    USER,
    ZONE,
    Views,
    World,
    catalog_of,
    event,
    make_views,
    world,
)

USUAL = 12
DAYS = days_between(START, START + timedelta(days=9))
BUILT, BAD = DAYS[2:-1], DAYS[-1]
"""Seven days whose windows are complete, and the one after them."""


def land(found: World, day: date, users: int, *, amount: float = 1.0, file: str = "") -> None:
    rows = [event(f"{day}-{n}-{file}", n, day, amount + n % 7) for n in range(users)]
    found.land("events", rows, f"{day}{file}.parquet")


def usual(folder: Path, redis_url: str, views: Views | None = None) -> World:
    """Return a world with ten usual days landed and ingested; nothing is computed."""
    found = world(folder, redis_url=redis_url, views=views)
    found.clock.now = as_of(BAD, ZONE) + timedelta(hours=1)
    for day in DAYS:
        land(found, day, USUAL)
    found.ingest(DAYS[0], DAYS[-1])
    return found


@pytest.fixture
def exploded(tmp_path: Path, redis_url: str) -> World:
    """Seven days of a view are committed and pushed; then its users are a hundred times as many."""
    found = usual(tmp_path, redis_url)
    view = found.views.spend_3d
    found.build(view, BUILT[0], BUILT[-1])
    found.push(view)
    land(found, BAD, 100 * USUAL, file="-more")
    found.ingest(BAD, BAD)
    return found


def verdict(outcome: DayOutcome, check: str) -> Verdict:
    (found,) = [verdict for verdict in outcome.verdicts if verdict.check == check]
    return found


def item_of(found: World, name: str) -> Quarantined:
    (item,) = Quarantine(found.store.lake.quarantine).items(name)
    return item


def status_of(found: World, user: int) -> str:
    """Return what is true online of a user, as a caller is told."""
    served = found.store.online(["spend_3d:events_3d"], [{"user_id": user}])
    assert not served.not_ready
    ((status,),) = served.statuses
    return status


def release(found: World, view: FeatureView) -> None:
    item, reader = item_of(found, view.name), found.store.reader()
    release_frame(found.store.lake, view, item, "They moved in.", reader, now=found.clock)


class TestExplosion:
    def test_a_hundred_times_the_ids_are_kept_out_and_the_numbers_are_named(
        self, exploded: World
    ) -> None:
        view = exploded.views.spend_3d
        before = exploded.store.lake.table(view).head()

        (outcome,) = exploded.build(view, BAD)
        exploded.push(view)

        assert "quarantined" == outcome.status
        assert (
            "The day has 1,200 rows, 100.0 times the 12 of the 7 earlier days (their median), more "
            "than max_growth=10.0. The day was quarantined as "
        ) in outcome.message
        expected = {
            "rows": 1200,
            "usual_rows": 12,
            "entities_new": 1188,
            "entities_gone": 0,
            "new_entity_rate": 0.99,
        }
        assert expected == verdict(outcome, "cardinality").numbers
        assert before == exploded.store.lake.table(view).head()
        assert ["present", "missing"] == [status_of(exploded, user) for user in (1, 700)]

    def test_a_look_at_the_day_says_the_same_and_writes_nothing(self, exploded: World) -> None:
        view, lake = exploded.views.spend_3d, exploded.store.lake

        judged = preview(view, BAD, lake, exploded.store.reader())

        assert not judged.audit.passed
        (outcome,) = exploded.build(view, BAD)
        assert list(judged.audit.verdicts) == list(outcome.verdicts)

    def test_what_is_kept_of_it_has_its_profile_and_its_entities(self, exploded: World) -> None:
        view = exploded.views.spend_3d
        exploded.build(view, BAD)

        details = item_of(exploded, view.name).details

        assert {"seen": 1200, "new": 1188, "gone": 0} == details["entities"]
        assert set(view.contract.features) == set(details["profile"])
        assert 1200 == details["profile"]["events_3d"]["rows"]

    def test_a_person_can_certify_it_by_name_and_reason(self, exploded: World) -> None:
        view, lake = exploded.views.spend_3d, exploded.store.lake
        (outcome,) = exploded.build(view, BAD)

        release(exploded, view)
        exploded.push(view)

        record = lake.table(view).head().days[BAD]
        said = {v["check"]: v for v in record.note["verdicts"]}
        assert said["cardinality"]["released"]
        assert "block" == said["cardinality"]["severity"]
        assert "present" == status_of(exploded, 700)
        revisions = {BAD: record.revision}
        assert outcome.profile == lake.profiles(view.name, revisions)[BAD]
        assert EntityCounts(1200, 1188, 0) == lake.entity_counts(view.name, revisions)[BAD]

    def test_a_rerun_of_what_was_certified_passes_and_says_by_whom(self, exploded: World) -> None:
        view = exploded.views.spend_3d
        exploded.build(view, BAD)
        release(exploded, view)

        (outcome,) = exploded.build(view, BAD)

        assert "unchanged" == outcome.status
        assert verdict(outcome, "cardinality").released
        assert "They moved in." in verdict(outcome, "cardinality").message

    def test_an_item_of_an_earlier_release_can_be_certified_too(self, exploded: World) -> None:
        view, lake = exploded.views.spend_3d, exploded.store.lake
        exploded.build(view, BAD)
        item = item_of(exploded, view.name)
        known = {k: v for k, v in item.details.items() if k not in ("profile", "entities")}
        reader = exploded.store.reader()

        release_frame(
            lake, view, replace(item, details=known), "They moved in.", reader, now=exploded.clock
        )

        revisions = {BAD: lake.table(view).head().days[BAD].revision}
        assert {"amount_3d", "events_3d"} == set(lake.profiles(view.name, revisions)[BAD])
        assert {} == lake.entity_counts(view.name, revisions)


class TestFewRows:
    MANY, LEFT = 1_500, 150

    @pytest.fixture
    def shrunk(self, tmp_path: Path, redis_url: str) -> World:
        """Seven days of a view of one day that closes; then nine of ten of its rows are lost."""

        class Daily(
            Features, entity=USER, owner="team:tests", ttl=timedelta(days=3), when_absent="empty"
        ):
            """What somebody spent on one day."""

            amount = Feature(pl.Float64, "Spend.", empty=0.0)

        @feature_view(Daily, inputs=[EVENTS.trailing(days=1)])
        def daily(events: pl.LazyFrame) -> pl.LazyFrame:
            return events.group_by("user_id").agg(amount=pl.col("amount").sum())

        found = world(tmp_path, redis_url=redis_url, views=replace(make_views(), pace=daily))
        found.clock.now = as_of(DAYS[7], ZONE) + timedelta(hours=1)
        for day in DAYS[:8]:
            land(found, day, self.LEFT if day == DAYS[7] else self.MANY)
        found.ingest(DAYS[0], DAYS[7])
        return found

    @pytest.mark.parametrize("together", [True, False])
    def test_a_day_that_lost_nine_of_ten_rows_is_committed_and_a_ticket(
        self, shrunk: World, *, together: bool
    ) -> None:
        view, lake = shrunk.views.pace, shrunk.store.lake
        runs = [(DAYS[0], DAYS[7])] if together else [(day, day) for day in DAYS[:8]]

        outcomes = [outcome for run in runs for outcome in shrunk.build(view, *run)]

        said = verdict(outcomes[-1], "cardinality")
        assert ["committed"] * 8 == [outcome.status for outcome in outcomes]
        assert [True] * 7 == [verdict(o, "cardinality").passed for o in outcomes[:-1]]
        assert ("warn", self.MANY) == (said.severity, outcomes[-1].rows)
        assert (
            "The day has 150 rows without the 1,350 that close what left, 10.0 times fewer than "
            "the 1,500 of the 7 earlier days (their median), more than max_shrink=3.0."
        ) == said.message
        look = look_at_lake(lake, catalog_of([view]), shrunk.clock(), "team:tests")
        (ticket,) = [one for one in look.problems if one.kind == "cardinality"]
        assert f"{view.name} of {DAYS[7]}: {said.message}" in ticket.sentence
        assert ticket.sentence.endswith("What it warns of is committed and served.")
        assert ("ticket", "docs/runbooks/cardinality.md") == (ticket.severity, ticket.runbook)


class TestComparedWith:
    def test_days_together_and_one_by_one_are_compared_with_the_same(
        self, tmp_path: Path, redis_url: str
    ) -> None:
        together, apart = (usual(tmp_path / name, redis_url) for name in ("together", "apart"))

        ranged = together.build(together.views.spend_3d, BUILT[0], BAD)
        single = [apart.build(apart.views.spend_3d, day)[0] for day in (*BUILT, BAD)]

        assert [outcome.verdicts for outcome in ranged] == [o.verdicts for o in single]
        assert "Stable against 7 earlier days." == verdict(ranged[-1], "drift").message
        assert 12 == verdict(ranged[-1], "cardinality").numbers["usual_rows"]

    def test_days_computed_before_their_days_before_have_no_reference_and_pass(
        self, exploded: World
    ) -> None:
        other = world(Path(exploded.store.project.root).parent / "other")
        other.clock.now = exploded.clock.now
        for day in DAYS:
            land(other, day, 100 * USUAL if day == BAD else USUAL)
        other.ingest(DAYS[0], DAYS[-1])
        view = other.views.spend_3d

        newest_first = [other.build(view, day)[0] for day in (BAD, *reversed(BUILT))]

        assert {"committed"} == {outcome.status for outcome in newest_first}
        said = {verdict(outcome, "drift").message for outcome in newest_first}
        assert {"No reference yet: 0 of 7 earlier days."} == said

    def test_the_profile_counts_in_the_bins_of_the_reference(
        self, tmp_path: Path, redis_url: str
    ) -> None:
        found = usual(tmp_path, redis_url)
        outcomes = found.build(found.views.spend_3d, BUILT[0], BAD)
        table = found.store.lake.table(found.views.spend_3d)

        revisions = {BAD: table.head().days[BAD].revision}
        kept = found.store.lake.profiles("spend_3d", revisions)[BAD]["amount_3d"]

        assert kept == outcomes[-1].profile["amount_3d"]
        assert USUAL == sum(kept.histogram)
        assert len(kept.edges) + 1 == len(kept.histogram)
        assert not outcomes[0].profile["amount_3d"].histogram  # no reference yet

    def test_a_rebuild_keeps_entity_counts_and_profiles_of_the_new_revisions(
        self, tmp_path: Path, redis_url: str
    ) -> None:
        found = usual(tmp_path, redis_url)
        view, lake = found.views.spend_3d, found.store.lake
        found.build(view, BUILT[0], BAD)

        outcomes = list(rebuild(lake, view, found.store.reader(), now=found.clock))

        revisions = {day: record.revision for day, record in lake.table(view).head().days.items()}
        counts = lake.entity_counts(view.name, revisions)
        assert BUILT[1:] == sorted(counts)[:-1]
        assert set(counts.values()) == {EntityCounts(USUAL, 0, 0)}
        profiles = lake.profiles(view.name, revisions)
        assert {o.day: dict(o.profile) for o in outcomes} == profiles


class TestDriftThatBlocks:
    @pytest.fixture
    def strict(self, tmp_path: Path, redis_url: str) -> tuple[World, FeatureView]:
        class Daily(Features, entity=USER, owner="team:tests", ttl=timedelta(days=3)):
            """What somebody spent on one day."""

            amount = Feature(pl.Float64, "Spend.", max_psi=0.5, drift="block")

        @feature_view(Daily, inputs=[EVENTS.trailing(days=1)])
        def daily(events: pl.LazyFrame) -> pl.LazyFrame:
            return events.group_by("user_id").agg(amount=pl.col("amount").sum())

        found = usual(tmp_path, redis_url, replace(make_views(), pace=daily))
        found.build(daily, DAYS[0], DAYS[-2])
        land(found, BAD, USUAL, amount=500.0, file="-dear")
        found.ingest(BAD, BAD)
        return found, daily

    def test_the_day_is_kept_out_until_a_person_certifies_it(
        self, strict: tuple[World, FeatureView]
    ) -> None:
        found, daily = strict

        (outcome,) = found.build(daily, BAD)

        assert "quarantined" == outcome.status
        assert "amount has PSI " in outcome.message
        assert "(limit 0.5) against 9 earlier days." in outcome.message
        assert "block" == verdict(outcome, "drift").severity
        release(found, daily)
        assert BAD in found.store.committed(daily)

    def test_without_the_word_the_same_day_is_committed_with_a_warning(
        self, strict: tuple[World, FeatureView]
    ) -> None:
        found, daily = strict
        daily.contract.features["amount"].drift = "warn"

        (outcome,) = found.build(daily, BAD)

        assert "committed" == outcome.status
        assert not verdict(outcome, "drift").passed
        assert "warn" == verdict(outcome, "drift").severity
