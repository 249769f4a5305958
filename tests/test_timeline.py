"""Which revision of which day counts from when."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from lockstep.time import as_of, micros
from lockstep.training.timeline import event_slices, known_slices
from tests.pit_oracle import HOUR, NEW_YORK, Revision

DAY = date(2026, 3, 7)
SPRING = date(2026, 3, 8)
END = as_of(DAY, NEW_YORK)


def revision(day: date, number: int, known_at: datetime, rows: int = 1) -> Revision:
    return Revision(day, number, number + 6, known_at, dict.fromkeys(range(rows), ()))


def effects(
    *revisions: Revision, delay: timedelta = HOUR, live: datetime | None = None
) -> list[tuple[date, int, datetime]]:
    history: dict[date, list[Revision]] = {}
    for one in revisions:
        history.setdefault(one.day, []).append(one)
    slices = known_slices(history, NEW_YORK, delay, live=live)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return [(s.day, s.revision, epoch + timedelta(microseconds=s.effect_us)) for s in slices]


def test_in_event_time_a_day_counts_from_its_end_whenever_it_was_certified() -> None:
    found = event_slices({DAY: revision(DAY, 3, END + timedelta(days=40), rows=2)}, NEW_YORK)

    assert [(DAY, 3, 9, 2)] == [(s.day, s.revision, s.version, s.rows) for s in found]
    assert (micros(END), micros(END)) == (found[0].event_us, found[0].effect_us)


def test_a_day_of_23_hours_ends_23_hours_after_the_one_before() -> None:
    found = event_slices({day: revision(day, 1, END) for day in (SPRING, DAY)}, NEW_YORK)

    assert [DAY, SPRING] == [s.day for s in found]
    assert 23 * HOUR == timedelta(microseconds=found[1].event_us - found[0].event_us)


def test_a_revision_counts_from_its_certification() -> None:
    one, two = END + HOUR, END + 5 * HOUR

    assert [(DAY, 1, one), (DAY, 2, two)] == effects(revision(DAY, 1, one), revision(DAY, 2, two))


def test_a_revision_never_counts_before_its_day_has_ended() -> None:
    assert [(DAY, 1, END)] == effects(revision(DAY, 1, END - HOUR))


def test_of_a_day_before_the_view_went_live_the_first_revision_counts_after_the_landing_delay() -> (
    None
):
    live = END + timedelta(days=30)
    restated = live + HOUR

    assert [(DAY, 1, END + HOUR), (DAY, 2, restated)] == effects(
        revision(DAY, 1, live), revision(DAY, 2, restated)
    )


def test_a_backfill_earlier_than_the_landing_delay_counts_from_its_certification() -> None:
    assert [(DAY, 1, END + HOUR)] == effects(revision(DAY, 1, END + HOUR), delay=timedelta(days=2))


def test_a_day_that_landed_late_after_the_view_went_live_counts_from_its_certification() -> None:
    late = END + timedelta(days=9)

    assert [(SPRING, 1, as_of(SPRING, NEW_YORK)), (DAY, 1, late)] == effects(
        revision(SPRING, 1, as_of(SPRING, NEW_YORK)),
        revision(DAY, 1, late),
        live=END - timedelta(days=1),
    )


def test_when_the_view_went_live_may_be_said_where_only_some_days_are_given() -> None:
    late = END + timedelta(days=9)

    assert [(DAY, 1, late)] == effects(revision(DAY, 1, late), live=END)
    assert [(DAY, 1, END + HOUR)] == effects(revision(DAY, 1, late), live=END + HOUR / 60)


def test_a_view_without_days_has_no_slices() -> None:
    assert [] == known_slices({}, ZoneInfo("UTC"), HOUR) == event_slices({}, ZoneInfo("UTC"))


def test_slices_come_in_the_order_in_which_they_take_effect() -> None:
    at = END + timedelta(days=4)
    found = effects(revision(SPRING, 1, at), revision(DAY, 1, at), revision(DAY, 2, at), live=END)

    assert [(DAY, 1), (DAY, 2), (SPRING, 1)] == [(day, number) for day, number, _ in found]
