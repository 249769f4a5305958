"""The stories that users of Feast tell of values that did not arrive; here they come out right."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from lockstep.errors import MissingFeatureError
from tests.scenario import START, World, event, instant, world

D = [START + timedelta(days=n) for n in range(8)]
SPEND, PACE = "spend_3d:amount_3d", "pace:per_event"


@pytest.fixture
def made(tmp_path: Path, redis_url: str) -> World:
    """User 1 spends 10.0 on day 3, user 2 only on day 1; days 3 to 5 are served."""
    made = world(tmp_path, redis_url=redis_url)
    made.clock.now = instant(D[5], 3)
    rows = [event("a", 1, D[2], 10.0), event("b", 2, D[0], 4.0), event("n", 4, D[2], None)]
    made.land("events", rows, "first.parquet")
    made.ingest(D[0], D[4])
    serve(made)
    return made


def serve(made: World) -> None:
    for view in (made.views.spend_3d, made.views.pace):
        made.build(view, D[2], D[4])
        made.push(view)


def test_a_value_corrected_in_a_backfill_with_the_same_event_time_reaches_online(
    made: World,
) -> None:
    """Feast skips a row whose event time is not newer than the stored one."""
    before = made.store.online([SPEND], [{"user_id": 1}])
    made.land("events", [event("a", 1, D[2], 999.0)], "corrected.parquet")
    made.ingest(D[2], D[2])

    serve(made)

    after = made.store.online([SPEND], [{"user_id": 1}])
    assert ([[10.0]], [[999.0]]) == (before.values, after.values)
    assert before.event_timestamps == after.event_timestamps
    assert made.store.parity("spend_3d")[0].holds


def test_a_correction_that_lowers_the_event_time_reaches_online(made: World) -> None:
    """The latest row vanishes, so an older one must replace it."""
    made.land("people", [{"user_id": 1, "country": "NZ"}], "p.parquet")
    made.ingest_people()
    profile = made.views.profile
    made.build(profile, D[3], D[4])
    made.push(profile)
    newest = made.store.online(["profile:country"], [{"user_id": 1}]).event_timestamps["profile"]
    made.land("people", [{"user_id": 2, "country": "FR"}], "p.parquet")
    made.ingest_people()
    made.build(profile, D[4])

    made.push(profile)

    older = made.store.online(["profile:country"], [{"user_id": 1}])
    assert [instant(D[5])] == newest
    assert ([["NZ"]], [instant(D[4])]) == (older.values, older.event_timestamps["profile"])


def test_expired_null_never_written_and_present_are_told_apart(made: World) -> None:
    made.land("events", [event("c", 5, D[5], 7.0)], "later.parquet")
    made.clock.now = instant(D[6], 3)
    made.ingest(D[5], D[5])
    for view in (made.views.spend_3d, made.views.pace):
        made.build(view, D[5])
        made.push(view)
    made.clock.now = instant(D[5]) + timedelta(days=2, seconds=1)
    users = [{"user_id": user} for user in (5, 1, 2, 9)]

    found = made.store.online([SPEND, PACE], users)

    assert ["present", "present"] == found.statuses[0]
    assert [[7.0, 7.0], [0.0, None], [None, None], [None, None]] == [list(r) for r in found.values]
    assert ["present", "null"] == found.statuses[1]  # left the window: zero events, no mean
    assert ["expired", "expired"] == found.statuses[2]
    assert ["missing", "missing"] == found.statuses[3]
    assert None is found.event_timestamps["spend_3d"][3]
    assert 2 * 86_400 + 1 < (found.age_seconds("spend_3d")[2] or 0)


def test_what_is_missing_can_be_null_a_declared_default_or_an_error(made: World) -> None:
    user = [{"user_id": 9}]

    assert [[None, None]] == made.store.online([SPEND, PACE], user).values
    assert [[0.0, None]] == made.store.online([SPEND, PACE], user, on_missing="default").values
    with pytest.raises(MissingFeatureError) as raised:
        made.store.online([SPEND], user, on_missing="fail")
    assert str(raised.value) == (
        "1 of 1 cells have no value: spend_3d:amount_3d of {'user_id': 9} is missing. Ask with "
        "on_missing='null' or 'default', or push the views."
    )


def test_five_spine_rows_in_five_out_in_order_with_duplicates_and_out_of_window(
    made: World,
) -> None:
    at = [instant(D[4], 9), instant(D[0], 9), instant(D[4], 9), instant(D[7], 9), instant(D[3])]
    spine = pl.DataFrame({"user_id": [1, 1, 1, 1, 9], "at": at, "label": [1, 0, 1, 0, 1]})

    found = made.store.training_set(spine, [SPEND], timestamp="at").frame

    assert spine.rows() == found.select(spine.columns).rows()
    assert [10.0, None, 10.0, None, None] == found[SPEND].to_list()


def test_an_old_day_materialized_later_does_not_replace_a_newer_one(made: World) -> None:
    made.land("events", [event("late", 1, D[1], 1.0)], "late.parquet")
    made.ingest(D[1], D[1])
    made.build(made.views.spend_3d, D[2])
    made.push(made.views.spend_3d, [D[2]])

    found = made.store.online([SPEND], [{"user_id": 1}])

    assert [[10.0]] == found.values  # of day 5, whose window does not hold the late event
    assert [instant(D[5])] == found.event_timestamps["spend_3d"]
