"""A wrong conversion of a time zone is named with its offset and zone; clean weeks are silent."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from lockstep import Source
from lockstep.day_shape import SLOTS, DayShape, hours_of, lag_of, offset_slots
from lockstep.ingest import ingest
from lockstep.shifting import distance, rolled
from lockstep.time import days_between
from lockstep.zone_names import fitting, offset_of, offsets, switches
from lockstep.zone_shift import ZoneShift, clock_of, judge, zone_shift
from lockstep.zone_shift_picture import shift_svg
from tests.scenario import ZONE, World, instant, world

NEW_YORK = ZoneInfo("America/New_York")
FEED = Source(
    "baskets",
    {"basket_id": pl.Int64, "sold_at": pl.Datetime("us")},
    event_time="sold_at",
    time_zone="UTC",
    unique_by=["basket_id"],
    start=date(2026, 1, 1),
    may_be_empty=True,
)
ROWS = 240


def sold_at(day: date, random: np.random.Generator, zone: ZoneInfo = ZONE) -> list[datetime]:
    """Instants (naive UTC) of a shop's day: busy at noon and in the evening of the zone."""
    hours = np.concatenate([random.normal(12.5, 1.5, ROWS // 2), random.normal(18, 1.5, ROWS // 2)])
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    wall = [midnight + timedelta(hours=float(hour % 24)) for hour in hours]
    return [at.astimezone(UTC).replace(tzinfo=None) for at in wall]


def land(made: World, day: date, times: list[datetime]) -> None:
    first = day.toordinal() * 1_000
    ids = list(range(first, first + len(times)))
    frame = pl.DataFrame(
        {"basket_id": ids, "sold_at": times}, schema_overrides={"sold_at": pl.Datetime("us")}
    )
    folder = Path(made.store.project.landing) / "baskets"
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / f"{day}.parquet")


def ingested(
    folder: Path, first: date, last: date, *, dropped_from: date | None = None
) -> tuple[World, ZoneShift | None]:
    """Land and ingest a shop's days; from a day on the wall clock is stored as if it were UTC."""
    made, random = world(folder), np.random.default_rng(5)
    for day in days_between(first, last):
        times = sold_at(day, random)
        if dropped_from is not None and day >= dropped_from:
            aware = [at.replace(tzinfo=UTC).astimezone(ZONE) for at in times]
            times = [at.replace(tzinfo=None) for at in aware]
        land(made, day, times)
    made.clock.now = instant(last + timedelta(days=1), 6)
    list(ingest(made.store.lake, FEED, days_between(first, last), now=made.clock))
    return made, zone_shift(made.store.lake, FEED, made.clock.now)


def test_a_dropped_conversion_in_landed_files_is_named_with_its_offset_and_zone(
    tmp_path: Path,
) -> None:
    begins = date(2026, 2, 18)

    _, found = ingested(tmp_path, date(2026, 2, 1), date(2026, 2, 20), dropped_from=begins)

    ahead = offset_of(ZONE.key, begins)
    assert found is not None
    assert ahead == found.offset_minutes
    assert ZONE.key == found.names[0]
    assert (begins, date(2026, 2, 20), 3) == (found.first, found.last, found.days)
    assert not found.dst_only
    assert found.confidence > 0.8
    assert "baskets: the event times of 2026-02-18..2026-02-20 are" in found.sentence
    assert f"wall clock of {ZONE.key} were read as UTC" in found.sentence


def test_clean_days_and_the_weeks_around_a_change_of_the_clocks_are_silent(
    tmp_path: Path,
) -> None:
    first, last = date(2026, 3, 1), date(2026, 4, 12)
    assert switches(ZONE.key, first, last) or ZONE.key == "UTC"

    made, found = ingested(tmp_path, first, last)

    each = [
        zone_shift(made.store.lake, FEED, instant(day + timedelta(days=1), 6))
        for day in days_between(date(2026, 3, 10), last)[::4]
    ]
    assert found is None
    assert {None} == set(each)


def test_only_the_index_of_the_days_is_read(tmp_path: Path) -> None:
    made, _ = ingested(
        tmp_path, date(2026, 2, 1), date(2026, 2, 20), dropped_from=date(2026, 2, 18)
    )
    removed = list((tmp_path / "lake" / "bronze" / "baskets").rglob("*.parquet"))
    for file in removed:
        file.unlink()

    found = zone_shift(made.store.lake, FEED, made.clock.now)

    assert removed
    assert found is not None
    assert offset_of(ZONE.key, date(2026, 2, 18)) == found.offset_minutes


def test_days_that_were_committed_before_shapes_were_kept_say_nothing(tmp_path: Path) -> None:
    made = world(tmp_path)

    assert zone_shift(made.store.lake, FEED, made.clock.now) is None
    assert judge("baskets", [], ZONE, "UTC") is None


def shop(days: int, zone: ZoneInfo, *, first: date = date(2026, 1, 5)) -> list[DayShape]:
    """A shop's days, 2,000 rows each, without any noise."""
    hour = np.arange(SLOTS) / 4
    hills = np.exp(-((hour - 12.5) ** 2) / 5) + np.exp(-((hour - 18) ** 2) / 4) + 0.01
    counts = np.round(2_000 * hills / hills.sum())
    every = [first + timedelta(days=n) for n in range(days)]
    return [DayShape(day, counts, offset_slots(day, zone)) for day in every]


def moved(day: DayShape, minutes: int, *, lag: tuple[float, float, float] | None = None) -> Any:
    return replace(day, counts=np.roll(day.counts, minutes // 15), lag=lag)


@pytest.mark.parametrize("minutes", [-720, -300, -60, 60, 330, 345, 570, 780])
def test_every_offset_is_found_on_the_first_whole_day(minutes: int) -> None:
    days = shop(30, ZoneInfo("UTC"))

    found = judge("baskets", [*days[:-1], moved(days[-1], minutes)], ZoneInfo("UTC"), "UTC")

    assert found is not None
    assert 0 == (found.offset_minutes - minutes) % 1_440
    assert (1, days[-1].day) == (found.days, found.first)


def stored_later(days: list[DayShape], minutes: int, shifted: int) -> list[DayShape]:
    """The days as they are stored if all that happens on the last so many comes out later."""
    slots, begin = minutes // 15, (len(days) - shifted) * SLOTS
    flat = np.concatenate([day.counts for day in days])
    stored = np.zeros(len(flat) + abs(slots))
    stored[:begin] = flat[:begin]
    stored[begin + slots : len(flat) + slots] += flat[begin:]
    counts = stored[: len(flat)].reshape(-1, SLOTS)
    return [replace(day, counts=own) for day, own in zip(days, counts, strict=True) if own.any()]


@pytest.mark.parametrize("minutes", [-780, -660, 660, 780])
def test_offsets_a_day_apart_are_told_by_the_rhythm_of_the_week(minutes: int) -> None:
    days = [
        replace(day, counts=day.counts / 5 if day.day.weekday() >= 5 else day.counts)
        for day in shop(42, ZoneInfo("UTC"))
    ]

    found = judge("f", stored_later(days, minutes, 8), ZoneInfo("UTC"), "UTC")

    assert found is not None
    assert (minutes, []) == (found.offset_minutes, found.others)


def test_offsets_a_day_apart_that_nothing_tells_apart_are_both_told() -> None:
    days = shop(40, ZoneInfo("UTC"))

    found = judge("f", [*days[:-1], moved(days[-1], -720)], ZoneInfo("UTC"), "UTC")

    assert found is not None
    assert {-720, 720} == {found.offset_minutes, *found.others}
    assert "-12 h or +12 h" in found.sentence or "+12 h or -12 h" in found.sentence


def counted(seed: int, rows: int, *, shifted: int = 0) -> list[DayShape]:
    """A shop of few rows; on the last days its wall clock is stored as if it were UTC."""
    random = np.random.default_rng(seed)
    days = shop(34, NEW_YORK, first=date(2026, 6, 1))
    shape = days[0].counts / days[0].rows
    drawn = [replace(d, counts=random.poisson(rows * shape).astype(np.float64)) for d in days]
    return [*drawn[: 34 - shifted], *(moved(day, -240) for day in drawn[34 - shifted :])]


def test_of_few_rows_a_neighbour_that_fits_about_as_well_is_told_and_nothing_is_a_fact() -> None:
    found = judge("f", counted(0, 60, shifted=4), NEW_YORK, "UTC")

    assert found is not None
    assert -240 == found.offset_minutes
    assert {-300, -270, -210} <= set(found.others)
    assert "are about -4 h (-5 h to -3:30 h fit about as well) off" in found.sentence
    assert ", likeliest as if the wall clock of America/New_York were read as UTC" in found.sentence
    assert {"America/New_York", "America/Chicago", "Asia/Kabul"} <= set(found.names)


def test_of_many_rows_one_offset_is_told() -> None:
    found = judge("f", counted(0, 20_000, shifted=4), NEW_YORK, "UTC")

    assert found is not None
    assert (-240, []) == (found.offset_minutes, found.others)
    assert "are -4 h off the usual hours, as if the wall clock of America/New" in found.sentence


def test_the_partition_zone_s_own_offset_needs_less_proof_than_another() -> None:
    told = [judge("f", counted(seed, 60, shifted=4), NEW_YORK, "UTC") for seed in range(20)]
    clean = [judge("f", counted(seed, 60), NEW_YORK, "UTC") for seed in range(20)]

    assert sum(one is not None and one.offset_minutes == -240 for one in told) >= 16
    assert {None} == set(clean)


def test_where_the_hours_leave_neighbours_the_distance_to_arrival_tells() -> None:
    lags = (60.0, 300.0, 600.0)
    early = (lags[0] + 14_400, lags[1] + 14_400, lags[2] + 14_400)
    days = counted(0, 60, shifted=4)
    known = [replace(d, lag=early if n >= 30 else lags) for n, d in enumerate(days)]

    found = judge("f", known, NEW_YORK, "UTC")

    assert found is not None
    assert (-240, []) == (found.offset_minutes, found.others)


def test_an_offset_that_no_two_zones_have_is_none() -> None:
    days = shop(30, ZoneInfo("UTC"))

    assert judge("f", [*days[:-1], moved(days[-1], 15)], ZoneInfo("UTC"), "UTC") is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda c: np.where(np.arange(SLOTS) < 52, 0, c), id="half a day"),
        pytest.param(lambda c: c + 4_000 * (np.arange(SLOTS) // 8 == 9), id="a flash sale"),
        pytest.param(lambda c: c * 5, id="five times the rows"),
        pytest.param(lambda c: np.full(SLOTS, c.mean()), id="an even day"),
        pytest.param(lambda c: np.round(c / 200), id="hardly any rows"),
    ],
)
def test_another_shape_is_no_shift(change: Any) -> None:
    days = shop(40, NEW_YORK)

    changed = [replace(day, counts=change(day.counts)) for day in days[-3:]]

    assert judge("baskets", [*days[:-3], *changed], NEW_YORK, "UTC") is None


def test_a_conversion_that_knows_no_daylight_saving_is_told_as_such() -> None:
    days = shop(50, NEW_YORK, first=date(2026, 1, 28))
    switch = date(2026, 3, 8)
    late = [moved(day, 60) if day.day >= switch else day for day in days]

    found = judge("baskets", late, NEW_YORK, "UTC")

    assert found is not None
    assert (60, True, switch) == (found.offset_minutes, found.dst_only, found.first)
    assert ["America/New_York"] == found.names
    assert "since the clocks changed in America/New_York" in found.sentence


def test_a_batch_that_stays_at_its_hour_in_utc_does_not_alarm_when_the_clocks_change() -> None:
    batch = np.zeros(SLOTS)
    batch[8:12] = 500
    days = shop(50, NEW_YORK, first=date(2026, 1, 28))
    by_utc = [
        replace(day, counts=np.roll(batch, day.utc_offset - days[0].utc_offset)) for day in days
    ]

    assert clock_of(by_utc) == "either"
    assert {judge("f", by_utc[:n], NEW_YORK, "UTC") for n in range(38, 51)} == {None}


def test_rows_that_arrive_before_they_happened_show_a_shift_of_a_flat_feed() -> None:
    flat = [
        replace(day, counts=np.full(SLOTS, 50.0), lag=(60.0, 300.0, 600.0))
        for day in shop(20, NEW_YORK)
    ]
    ahead = replace(flat[-1], lag=(60.0 - 18_000, 300.0 - 18_000, 600.0 - 18_000))
    held_up = replace(flat[-1], lag=(18_060.0, 18_300.0, 18_600.0))

    found = judge("feed", [*flat[:-1], ahead], NEW_YORK, "UTC")

    assert found is not None
    assert 300 == found.offset_minutes
    assert judge("feed", [*flat[:-1], held_up], NEW_YORK, "UTC") is None
    assert judge("feed", flat, NEW_YORK, "UTC") is None


def test_a_shift_that_only_arrival_shows_stays_one_for_weeks_and_keeps_its_first_day() -> None:
    lags, early = (60.0, 300.0, 600.0), (14_460.0, 14_700.0, 15_000.0)
    flat = [replace(d, counts=np.full(SLOTS, 50.0), lag=lags) for d in shop(70, NEW_YORK)]
    late = replace(flat[0], lag=(60.0, 40_000.0, 80_000.0))
    shifted = [replace(day, lag=early) for day in flat[35:60]]
    shifted[5] = replace(shifted[5], lag=late.lag)

    told = [judge("f", [*flat[:35], *shifted[:n]], NEW_YORK, "UTC") for n in range(1, 26)]

    assert [None, None] == told[:2]
    offsets_told = [one and one.offset_minutes for one in told[2:]]
    assert -240 == offsets_told[0] == offsets_told[-1]
    assert {-240, None} >= set(offsets_told)
    assert offsets_told.count(None) <= 3, "the late day and the two after it"
    assert {shifted[0].day} == {one.first for one in told[2:] if one}


def test_a_steady_delay_of_three_days_is_a_shift_only_where_the_hours_do_not_deny_it() -> None:
    lags = (60.0, 300.0, 600.0)
    delayed = (14_460.0, 14_700.0, 15_000.0)
    usual = [replace(day, lag=lags) for day in shop(20, NEW_YORK)]
    flat = [replace(day, counts=np.full(SLOTS, 50.0)) for day in usual]

    of_flat = judge("f", [*flat[:-3], *(replace(d, lag=delayed) for d in flat[-3:])], ZONE, "UTC")
    of_shop = judge("f", [*usual[:-3], *(replace(d, lag=delayed) for d in usual[-3:])], ZONE, "UTC")

    assert of_flat is not None
    assert -240 == of_flat.offset_minutes
    assert of_shop is None


def test_hours_and_lags_are_counted_by_the_wall_clock_of_the_zone() -> None:
    times = pl.Series([datetime(2026, 7, 1, 16, 20), datetime(2026, 7, 2, 3, 59)])
    times = times.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")

    hours = hours_of(times, NEW_YORK)
    lag = lag_of(times, times + timedelta(minutes=5))

    assert {49: 1, 95: 1} == {slot: count for slot, count in enumerate(hours) if count}
    assert [300, 300, 300] == lag
    assert [] == lag_of(times.clear(), times.clear())


def test_the_distance_is_how_far_rows_have_to_move_around_the_clock() -> None:
    one = np.zeros(SLOTS)
    one[4] = 1.0

    assert [0.0, 1.0, 12.0, 1.0] == distance(one, rolled(one)[[0, 4, 48, 92]]).tolist()


def test_zones_are_named_by_what_their_clock_differs_from_the_declared_one() -> None:
    summer, winter = [date(2026, 7, 1)], [date(2026, 1, 1)]

    assert "America/New_York" == fitting(-240, summer, "UTC", ["UTC", "America/New_York"])[0]
    assert "Asia/Kathmandu" in fitting(345, summer, "UTC", [])
    assert "UTC" == fitting(300, winter, "America/New_York", [])[0]
    assert {-56, 56, 22, 23, 4, -4} <= set(offsets(summer[0], "UTC"))
    assert 0 not in offsets(summer[0], "Europe/Berlin")


def test_the_picture_is_small_and_has_both_shapes() -> None:
    shape = shop(1, NEW_YORK)[0].counts
    shares = (shape / shape.sum()).tolist()

    svg = shift_svg(shares, np.roll(shares, 16).tolist())

    assert svg is not None
    assert len(svg) < 700
    assert 2 == svg.count("<path")
    assert shift_svg((), ()) is None
