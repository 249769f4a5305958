"""G1: a frame that failed a blocking check is readable nowhere; certified content stays."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lockstep import Feature, Features, FeatureView, feature_view
from lockstep.errors import InputError, NotCertifiedError
from lockstep.hashing import content_hash
from lockstep.outcome import DayOutcome
from lockstep.quarantine import Quarantine, Quarantined
from lockstep.release import release_frame
from tests.scenario import EVENTS, START, USER, World, catalog_of, event, instant, world
from tests.training_world import FUTURE

pytestmark = pytest.mark.filterwarnings(FUTURE)

D1, D2, D3, D4, D5 = (START + timedelta(days=n) for n in range(5))
BAD = -1000.0


def make_daily(**promise: Any) -> FeatureView:
    """A view of one-day windows, so that the day after a bad one is good again."""

    class Daily(Features, entity=USER, owner="team:tests", ttl=timedelta(days=3), min_rows=1):
        """What somebody spent on one day."""

        amount = Feature(pl.Float64, "Spend.", **{"at_least": 0, **promise})

    @feature_view(Daily, inputs=[EVENTS.trailing(days=1)])
    def daily(events: pl.LazyFrame) -> pl.LazyFrame:
        return events.group_by("user_id").agg(amount=pl.col("amount").sum())

    return daily


def make_trend(daily: FeatureView) -> FeatureView:
    """A view that reads the checked one over two days."""

    class Trend(Features, entity=USER, owner="team:tests", ttl=timedelta(days=2), min_rows=0):
        """The smaller of two days."""

        lowest = Feature(pl.Float64, "Smaller spend.")

    @feature_view(Trend, inputs=[daily.trailing(days=2)])
    def trend(daily: pl.LazyFrame) -> pl.LazyFrame:
        return daily.group_by("user_id").agg(lowest=pl.col("amount").min())

    return trend


@pytest.fixture
def made(tmp_path: Path, redis_url: str) -> World:
    """Days 1 to 5 of user 2; nothing built yet."""
    made = world(tmp_path, redis_url=redis_url)
    daily = make_daily()
    made.store.__dict__["catalog"] = catalog_of([daily, make_trend(daily)])
    made.clock.now = instant(date(2026, 3, 6), 3)
    days = [D1, D2, D3, D4, D5]
    made.land("events", [event(f"g{n}", 2, day) for n, day in enumerate(days)], "good.parquet")
    made.ingest(D1, D5)
    return made


def daily_of(made: World) -> FeatureView:
    return made.store.views["daily"]


def spoil(made: World, amount: float = BAD) -> None:
    """Land an event on day 3 that breaks the promise, beside the good one."""
    made.clock.now += timedelta(minutes=1)
    made.land("events", [event("bad", 1, D3, amount)], "bad.parquet")
    made.ingest(D3, D3)


def heal(made: World) -> None:
    """Take the bad file back."""
    made.clock.now += timedelta(minutes=1)
    (Path(made.store.project.landing) / "events" / "bad.parquet").unlink()
    made.ingest(D3, D3)


def statuses(outcomes: list[DayOutcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def quarantined(made: World) -> list[Quarantined]:
    return Quarantine(made.store.lake.quarantine).items("daily")


def check_the_bad_value_is_nowhere(made: World) -> None:
    """Look for a negative amount by every route that reads committed or served rows."""
    daily, trend = made.store.views.values()
    table = made.store.lake.table(daily)
    frames = {"scan": made.store.view("daily").scan().collect()}
    for version in range(table.head().version + 1):
        frames[f"version {version}"] = table.scan(version=version).collect()
    for file in Path(table.uri).rglob("*.parquet"):
        frames[str(file)] = pl.read_parquet(file, hive_partitioning=False)
    for name, frame in frames.items():
        assert frame.filter(pl.col("amount") < 0).is_empty(), name
    if made.store.lake.table(trend).exists():
        assert made.store.view("trend").scan().filter(pl.col("lowest") < 0).collect().is_empty()
    spine = pl.DataFrame(
        {"user_id": [1] * 16, "at": [instant(D3) + timedelta(hours=6 * n) for n in range(16)]}
    )
    joined = made.store.training_set(spine, ["daily:amount"], timestamp="at").frame
    assert [None] * 16 == joined["daily:amount"].to_list()
    served = made.store.online(["daily:amount"], [{"user_id": 1}, {"user_id": 2}])
    pushed = "daily" not in served.not_ready
    assert ["missing" if pushed else "error"] == served.statuses[0]


def check_a_bad_middle_day_stays_out(made: World) -> None:
    spoil(made)
    daily, trend = made.store.views.values()
    ranged = made.build(daily, D2, D4)
    made.push(daily)
    reading = made.build(trend, D3, D5)
    made.push(daily, [D2, D4])

    assert ["committed", "quarantined", "committed"] == statuses(ranged)
    assert [D2, D4] == sorted(made.store.committed(daily))
    assert ["skipped", "skipped", "skipped"] == statuses(reading)
    check_the_bad_value_is_nowhere(made)


def test_a_ranged_run_keeps_its_bad_middle_day_out_by_every_route(made: World) -> None:
    check_a_bad_middle_day_stays_out(made)


def test_a_rerun_and_a_new_process_keep_it_out_too(made: World) -> None:
    check_a_bad_middle_day_stays_out(made)
    again = made.restart()

    rerun = again.build(daily_of(again), D3)
    with pytest.raises(NotCertifiedError, match="daily 2026-03-03 is not certified"):
        again.push(daily_of(again), [D3])
    again.push(daily_of(again))

    assert ["quarantined"] == statuses(rerun)
    assert 1 == len(quarantined(again))
    check_the_bad_value_is_nowhere(again)


def test_the_run_says_what_failed_and_which_days_wait_for_it(made: World) -> None:
    spoil(made)
    daily, trend = made.store.views.values()

    ranged = made.build(daily, D2, D4)
    reading = made.build(trend, D3, D5)

    item = f"{D3}-{ranged[1].content_hash[:8]}"
    assert ranged[1].message == (
        "1 of 2 rows break amount: at least 0 (1 row). The day was quarantined as "
        f"{item}; what was certified before stays. Look: lockstep quarantine show daily {item}"
    )
    assert reading[0].message == (
        "trend of 2026-03-03 needs daily, and 2026-03-03 is not committed. Materialize daily "
        "first; the day is built when the gap closes. The day was skipped."
    )
    assert "needs daily, and 2026-03-05 is not committed" in reading[2].message


def check_certified_content_stays(made: World) -> None:
    daily = daily_of(made)
    made.build(daily, D3)
    made.push(daily)
    before = made.rows(daily, D3)
    spoil(made)

    rerun = made.build(daily, D3)
    made.push(daily)

    assert ["quarantined"] == statuses(rerun)
    assert before.equals(made.rows(daily, D3))
    assert 1 == made.store.committed(daily)[D3].revision
    assert [[1.0]] == made.store.online(["daily:amount"], [{"user_id": 2}]).values
    check_the_bad_value_is_nowhere(made)


def test_what_was_certified_before_stays_until_it_is_superseded(made: World) -> None:
    check_certified_content_stays(made)


def test_the_quarantined_frame_is_kept_with_its_verdicts_for_people(made: World) -> None:
    spoil(made)
    (outcome,) = made.build(daily_of(made), D3)

    (item,) = quarantined(made)
    frame = Quarantine(made.store.lake.quarantine).frame(item)
    failed = [v for v in item.details["verdicts"] if not v["passed"]]

    assert (True, "daily", [str(D3)]) == (item.open, item.name, item.days)
    assert [BAD, 1.0] == frame["amount"].to_list()
    assert outcome.content_hash == content_hash(frame) == item.details["content_hash"]
    assert [("contract", "block")] == [(v["check"], v["severity"]) for v in failed]
    assert {"events": "2026-03-03=2"} == item.details["inputs"]
    assert 0 == item.details["head_revision"]


def test_a_rerun_after_the_fix_certifies_the_day_and_clears_the_item(made: World) -> None:
    spoil(made)
    made.build(daily_of(made), D2, D4)
    heal(made)

    (outcome,) = made.build(daily_of(made), D3)
    made.push(daily_of(made))

    (item,) = quarantined(made)
    assert ("committed", 1) == (outcome.status, outcome.revision)
    assert item.closed is not None
    assert "revision 1 was certified" == item.closed["reason"]
    assert made.store.parity("daily")[0].holds
    check_the_bad_value_is_nowhere(made)


def test_a_fix_that_brings_back_what_was_certified_clears_the_item_too(made: World) -> None:
    check_certified_content_stays(made)
    heal(made)

    (outcome,) = made.build(daily_of(made), D3)

    (item,) = quarantined(made)
    assert ("unchanged", 1) == (outcome.status, outcome.revision)
    assert not item.open


def release(made: World, item: Quarantined, reason: str = "seen, and right") -> Any:
    reader = made.store.reader()
    return release_frame(made.store.lake, daily_of(made), item, reason, reader, now=made.clock)


def test_a_release_commits_exactly_the_quarantined_rows(made: World) -> None:
    spoil(made)
    made.build(daily_of(made), D2, D4)
    (item,) = quarantined(made)

    result = release(made, item)
    made.push(daily_of(made))

    note = made.store.committed(daily_of(made))[D3].note
    assert (1, True) == (result.revision, result.changed)
    assert Quarantine(made.store.lake.quarantine).frame(item).equals(made.rows(daily_of(made), D3))
    assert "seen, and right" == note["released"]
    assert [True] == [v["released"] for v in note["verdicts"] if not v["passed"]]
    assert [[BAD]] == made.store.online(["daily:amount"], [{"user_id": 1}]).values
    assert made.store.parity("daily")[0].holds
    assert "released" == made.store.lake.latest_entries("daily")[D3].outcome


def test_released_content_passes_later_audits_marked_so(made: World) -> None:
    spoil(made)
    made.build(daily_of(made), D3)
    release(made, quarantined(made)[0])

    (again,) = made.restart().build(daily_of(made), D3)

    (failed,) = [verdict for verdict in again.verdicts if not verdict.passed]
    assert ("unchanged", 1) == (again.status, again.revision)
    assert failed.released
    assert failed.message.endswith(": seen, and right")


def test_a_release_is_refused_once_the_inputs_have_moved(made: World) -> None:
    spoil(made)
    made.build(daily_of(made), D3)
    (item,) = quarantined(made)
    made.land("events", [event("more", 5, D3)], "more.parquet")
    made.ingest(D3, D3)

    with pytest.raises(InputError) as raised:
        release(made, item)

    assert str(raised.value) == (
        "daily of 2026-03-03 has moved on since it was quarantined. Expected head revision and "
        "inputs (0, {'events': '2026-03-03=2'}), got (0, {'events': '2026-03-03=3'}). Materialize "
        "the day again: lockstep materialize daily --days 2026-03-03 Nothing was released."
    )
    assert {} == dict(made.store.committed(daily_of(made)))
    check_the_bad_value_is_nowhere(made)


def test_a_release_is_refused_once_the_head_has_moved(made: World) -> None:
    spoil(made)
    made.build(daily_of(made), D3)
    (item,) = quarantined(made)
    heal(made)
    made.build(daily_of(made), D3)
    spoil(made)

    with pytest.raises(InputError, match="is closed: revision 1 was certified"):
        release(made, quarantined(made)[0])
    with pytest.raises(InputError, match="has moved on since it was quarantined"):
        release(made, item)

    check_the_bad_value_is_nowhere(made)


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_release_needs_a_reason(made: World, reason: str) -> None:
    spoil(made)
    made.build(daily_of(made), D3)

    with pytest.raises(InputError, match="can't be released without a reason"):
        release(made, quarantined(made)[0], reason)

    assert quarantined(made)[0].open


def broken(expression: pl.Expr, **promise: Any) -> FeatureView:
    """A view whose rows break its promise: `expression` over the events, per user."""
    kept = make_daily(**promise)

    def function(events: pl.LazyFrame) -> pl.LazyFrame:
        return events.select("user_id", amount=expression)

    return FeatureView("daily", kept.contract, kept.inputs, function)


@pytest.mark.parametrize(
    ("view", "check", "message"),
    [
        (
            broken(pl.lit(float("nan")), at_least=None, fill_rate=0.5),
            "completeness",
            "amount is filled in 0.0% of 1 rows, less than the promised 50.0%.",
        ),
        (
            broken(pl.lit(None, pl.Float64), fill_rate=0.01),
            "completeness",
            "amount is filled in 0.0% of 1 rows, less than the promised 1.0%.",
        ),
        (
            broken(pl.lit(float("nan")), nullable=False, at_least=None),
            "contract",
            "1 of 1 rows break amount: required (1 row).",
        ),
        (
            broken(pl.lit(11.0), at_most=10),
            "contract",
            "1 of 1 rows break amount: at most 10 (1 row).",
        ),
        (
            broken(pl.lit(3.0), one_of=(1.0, 2.0)),
            "contract",
            "1 of 1 rows break amount: one of 1.0, 2.0 (1 row).",
        ),
    ],
)
def test_each_promise_blocks_what_breaks_it(
    made: World, view: FeatureView, check: str, message: str
) -> None:
    (outcome,) = made.build(view, D3)

    failed = [(v.check, v.message) for v in outcome.verdicts if v.blocks]
    assert "quarantined" == outcome.status
    assert (check, message) in failed
    assert {} == dict(made.store.committed(view))


def returning(rows: pl.LazyFrame) -> FeatureView:
    """A view that gives these rows, whatever it reads."""
    kept = make_daily()

    def function(events: pl.LazyFrame) -> pl.LazyFrame:
        return rows

    return FeatureView("daily", kept.contract, kept.inputs, function)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([None, 7], "1 rows have a null key and 0 repeat another row's (user_id)."),
        ([7, 7], "0 rows have a null key and 1 repeat another row's (user_id)."),
    ],
)
def test_null_and_repeated_keys_block(made: World, keys: list[int | None], message: str) -> None:
    view = returning(pl.LazyFrame({"user_id": keys, "amount": [1.0, 1.0]}))

    (outcome,) = made.build(view, D3)
    with pytest.raises(InputError, match=r"can't be released: \d rows have a null key"):
        release(made, quarantined(made)[0])

    assert "quarantined" == outcome.status
    assert message + " A view has one row per user." in [v.message for v in outcome.verdicts]
    assert {} == dict(made.store.committed(view))


def test_too_few_rows_block(made: World) -> None:
    view = returning(pl.LazyFrame(schema={"user_id": pl.Int64, "amount": pl.Float64}))

    (outcome,) = made.build(view, D3)

    assert "quarantined" == outcome.status
    assert outcome.message.startswith("The day has 0 rows, fewer than min_rows=1.")
