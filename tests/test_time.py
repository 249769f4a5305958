"""What a day means, against slow oracles that share nothing with the code but the zone database."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockstep.errors import ConfigError, InputError
from lockstep.time import (
    INSTANT,
    as_of,
    assign_days,
    contiguous,
    count_odd_times,
    day_of,
    day_start,
    days_between,
    days_within,
    decode_revisions,
    encode_revisions,
    following_days,
    is_valid,
    last_full_day,
    parse_days,
    span,
    to_utc,
    trailing_days,
    zone_named,
)

NAMES = [
    "America/New_York",
    "America/Sao_Paulo",  # midnight did not exist on the first day of summer
    "Asia/Beirut",  # the same, and a change announced days ahead
    "America/St_Johns",  # clocks went back at 00:01, so midnight came twice
    "Pacific/Apia",  # 2011-12-30 did not happen
    "Asia/Kolkata",
    "Africa/Cairo",
    "Australia/Lord_Howe",  # shifts by half an hour
    "America/Havana",  # back at 01:00, forward at 00:00
    "Africa/Casablanca",
    "UTC",
]
ZONES = st.sampled_from([ZoneInfo(name) for name in NAMES])
DATES = st.dates(date(1975, 1, 1), date(2035, 12, 31))
MINUTE = timedelta(minutes=1)


def first_minute(day: date, zone: ZoneInfo) -> datetime:
    """Walk minute by minute to the first one whose wall clock shows the date, or a later one."""
    instant = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=26)
    while instant.astimezone(zone).date() < day:
        instant += MINUTE
    return instant


@st.composite
def zones_and_days(draw: st.DrawFn) -> tuple[ZoneInfo, date]:
    """Any zone and day; half of them next to a change of the clocks."""
    zone, day = draw(ZONES), draw(DATES)
    if draw(st.booleans()):
        return zone, day
    month = datetime(day.year, draw(st.sampled_from([3, 4, 9, 10, 11])), 1, tzinfo=UTC)
    near = [month + timedelta(hours=h) for h in range(0, 24 * 31, 3)]
    odd = [a for a in near if _offset(a, zone) != _offset(a + timedelta(hours=3), zone)]
    return zone, (odd[0].astimezone(zone).date() if odd else day)


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta | None:
    return instant.astimezone(zone).utcoffset()


@settings(max_examples=60)
@given(zones_and_days())
@example((ZoneInfo("America/Sao_Paulo"), date(2017, 10, 15)))
@example((ZoneInfo("Asia/Beirut"), date(2023, 3, 30)))
@example((ZoneInfo("America/St_Johns"), date(2005, 10, 30)))
@example((ZoneInfo("America/St_Johns"), date(2005, 4, 3)))
@example((ZoneInfo("Pacific/Apia"), date(2011, 12, 30)))
@example((ZoneInfo("Pacific/Apia"), date(2011, 12, 31)))
@example((ZoneInfo("Africa/Cairo"), date(2023, 4, 28)))
@example((ZoneInfo("America/Havana"), date(2024, 3, 10)))
def test_a_day_starts_at_the_first_instant_of_its_date(found: tuple[ZoneInfo, date]) -> None:
    zone, day = found

    assert first_minute(day, zone) == day_start(day, zone)
    assert first_minute(day + timedelta(days=1), zone) == as_of(day, zone)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/New_York", date(2026, 3, 8), 23),
        ("America/New_York", date(2026, 11, 1), 25),
        ("America/New_York", date(2026, 11, 2), 24),
        ("America/Sao_Paulo", date(2017, 10, 15), 23),
        ("Australia/Lord_Howe", date(2025, 10, 5), 23.5),
        ("Pacific/Apia", date(2011, 12, 30), 0),
    ],
)
def test_a_day_lasts_as_long_as_its_clocks_say(zone: str, day: date, hours: float) -> None:
    start, end = day_start(day, ZoneInfo(zone)), as_of(day, ZoneInfo(zone))

    assert timedelta(hours=hours) == end - start


@settings(max_examples=100)
@given(zones_and_days(), st.lists(st.integers(-200_000, 200_000), min_size=1, max_size=8))
@example((ZoneInfo("America/St_Johns"), date(2005, 10, 30)), [0, 60, 3600, -60, 86_400])
@example((ZoneInfo("Pacific/Apia"), date(2011, 12, 30)), [0, -1, 1])
def test_every_instant_falls_on_the_day_whose_bounds_hold_it(
    found: tuple[ZoneInfo, date], seconds: list[int]
) -> None:
    zone, day = found
    instants = [day_start(day, zone) + timedelta(seconds=second) for second in seconds]
    near = days_between(day - timedelta(days=5), day + timedelta(days=5))
    expected = [
        next(d for d in near if day_start(d, zone) <= instant < as_of(d, zone))
        for instant in instants
    ]

    assert expected == assign_days(pl.Series(instants, dtype=INSTANT), zone).to_list()
    assert expected == [day_of(instant, zone) for instant in instants]
    assert [d - timedelta(days=1) for d in expected] == [last_full_day(i, zone) for i in instants]


def test_no_instants_have_no_days() -> None:
    found = assign_days(pl.Series([], dtype=INSTANT), ZoneInfo("UTC"))

    assert (pl.Date, 0) == (found.dtype, len(found))


def test_instants_that_are_null_have_no_day_and_are_refused() -> None:
    with pytest.raises(TypeError, match="without nulls"):
        assign_days(pl.Series([None], dtype=INSTANT), ZoneInfo("UTC"))


WALL_CLOCKS = st.datetimes(datetime(1995, 1, 1), datetime(2035, 12, 31))


@st.composite
def wall_clocks(draw: st.DrawFn) -> tuple[ZoneInfo, list[datetime | None]]:
    """Wall-clock times of a zone, most of them within hours of a change of the clocks."""
    zone, day = draw(zones_and_days())
    day = day if day.year >= 1995 else date(2017, 10, 15)
    near = st.integers(-36 * 60, 36 * 60).map(
        lambda minutes: datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)
    )
    return zone, draw(st.lists(st.one_of(near, WALL_CLOCKS, st.none()), min_size=1, max_size=30))


@settings(max_examples=100)
@given(wall_clocks())
@example((ZoneInfo("America/New_York"), [datetime(2026, 3, 8, 2, 30), datetime(2026, 3, 8, 3)]))
@example((ZoneInfo("America/New_York"), [datetime(2026, 11, 1, 1, 30), None]))
@example((ZoneInfo("America/Sao_Paulo"), [datetime(2017, 10, 15, 0, 30)]))
@example((ZoneInfo("Pacific/Apia"), [datetime(2011, 12, 30, 12)]))
@example((ZoneInfo("Australia/Lord_Howe"), [datetime(2025, 10, 5, 2, 15)]))
def test_wall_clock_times_become_the_instants_that_python_says(
    found: tuple[ZoneInfo, list[datetime | None]],
) -> None:
    """PEP 495 with fold=0: forward through a gap, the first of two."""
    zone, times = found
    expected = [t and t.replace(tzinfo=zone).astimezone(UTC) for t in times]
    frame = pl.DataFrame({"at": times}, schema={"at": pl.Datetime("us")})

    assert expected == frame.select(to_utc("at", zone.key)).to_series().to_list()
    assert _odd(times, zone) == frame.select(*count_odd_times("at", zone.key)).row(0)


def _odd(times: list[datetime | None], zone: ZoneInfo) -> tuple[int, int]:
    present = [time for time in times if time is not None]
    gaps = sum(_back(t.replace(tzinfo=zone), zone) != t for t in present)
    folds = sum(
        t.replace(tzinfo=zone, fold=1).utcoffset() != t.replace(tzinfo=zone).utcoffset()
        for t in present
    )
    return gaps, folds - gaps


def _back(aware: datetime, zone: ZoneInfo) -> datetime:
    return aware.astimezone(UTC).astimezone(zone).replace(tzinfo=None)


def test_the_odd_hours_of_new_york_are_moved_and_counted() -> None:
    times = [datetime(2026, 3, 8, 2, 30), datetime(2026, 11, 1, 1, 30), datetime(2026, 6, 1)]
    frame = pl.DataFrame({"at": times}, schema={"at": pl.Datetime("us")})

    moved = frame.select(to_utc("at", "America/New_York")).to_series().to_list()

    assert datetime(2026, 3, 8, 7, 30, tzinfo=UTC) == moved[0]  # 03:30 EDT
    assert datetime(2026, 11, 1, 5, 30, tzinfo=UTC) == moved[1]  # 01:30 EDT, the first
    assert (1, 1) == frame.select(*count_odd_times("at", "America/New_York")).row(0)


@given(st.dictionaries(DATES, st.integers(1, 5), max_size=40))
def test_revisions_survive_their_text_form_whose_order_is_fixed(
    revisions: dict[date, int],
) -> None:
    text = encode_revisions(revisions)

    assert revisions == decode_revisions(text)
    assert text == encode_revisions(dict(sorted(revisions.items(), reverse=True)))


def test_runs_of_days_with_one_revision_are_written_once() -> None:
    days = days_between(date(2026, 9, 23), date(2026, 11, 20))

    text = encode_revisions({**dict.fromkeys(days, 1), date(2026, 11, 21): 2})

    assert "2026-09-23..2026-11-20=1,2026-11-21=2" == text


@pytest.mark.parametrize(
    ("at", "valid"),
    [
        (timedelta(microseconds=-1), False),
        (timedelta(0), True),
        (timedelta(days=2), True),
        (timedelta(days=2, microseconds=1), False),
    ],
)
def test_both_bounds_of_validity_are_inclusive(at: timedelta, valid: bool) -> None:
    event = as_of(date(2026, 3, 7), ZoneInfo("America/New_York"))  # before a day of 23 hours

    assert valid is is_valid(event, timedelta(days=2), event + at)
    assert (at >= timedelta(0)) is is_valid(event, None, event + at)


@settings(max_examples=40)
@given(zones_and_days(), st.integers(25, 400))
def test_the_days_within_a_ttl_are_at_least_those_whose_rows_are_valid(
    found: tuple[ZoneInfo, date], hours: int
) -> None:
    zone, day = found
    ttl = timedelta(hours=hours)
    reach = days_between(day - timedelta(days=20), day)
    valid = {d for d in reach if is_valid(as_of(d, zone), ttl, as_of(day, zone))}

    assert valid <= set(days_within(ttl, day, date(1970, 1, 1)))


def test_windows_count_days_and_not_hours() -> None:
    day = date(2026, 3, 10)

    assert days_between(date(2026, 3, 8), day) == trailing_days(day, 3)
    assert days_between(day, date(2026, 3, 12)) == following_days(day, 3)
    assert all(day in trailing_days(later, 3) for later in following_days(day, 3))


def test_days_are_named_for_people_and_read_back() -> None:
    days = [date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 4)]

    assert "2026-11-01..2026-11-02, 2026-11-04" == span(reversed(days))
    assert [(days[0], days[1]), (days[2], days[2])] == contiguous(days)
    assert days[:2] == parse_days("2026-11-01..2026-11-02")
    assert [days[2]] == parse_days("2026-11-04")


@pytest.mark.parametrize("text", ["", "2026-13-01", "2026-11-02..2026-11-01", "2026-11-01..", "x"])
def test_text_that_names_no_days_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="names no days"):
        parse_days(text)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "", "America/New York"])
def test_an_unknown_zone_is_named(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        zone_named(name)

    assert str(raised.value) == (
        f"Time zone {name!r} is not known. Expected a name of the IANA database, e.g. "
        "'America/New_York' or 'UTC'. Correct it; on a system without zone data, install tzdata."
    )


def test_the_first_day_of_the_calendar_has_a_start_unless_it_lies_before_it() -> None:
    assert datetime(1, 1, 1, tzinfo=UTC) == day_start(date.min, ZoneInfo("UTC"))
    assert date.min == day_start(date.min, ZoneInfo("America/New_York")).date()
    with pytest.raises(InputError, match="begins before year 1"):
        day_start(date.min, ZoneInfo("Asia/Tokyo"))
