"""Incidents that come from upstream: what lands is wrong, or does not land."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from demo.incident.base import NEXT, NIGHTS
from demo.incident.incident import (
    Entity,
    Incident,
    for_hours,
    for_minutes,
    for_nights,
    through_the_day,
)
from demo.incident.night import Night
from demo.incident.watch import Watch
from lockstep.time import days_between

LANDS: Final = 0.5
"""Hours after midnight."""
HEALED: Final = 6.0
"""Hours after midnight: upstream delivers again, as it should have been."""
STAMP: Final = "transaction_timestamp"
MADE_UP: Final = 60_000
WEEK: Final = 7
ZONE: Final = "America/New_York"


def best_customer(night: Night) -> Entity:
    """Return the household that bought most on the day that goes wrong."""
    bought = night.next_file("transactions", NEXT).group_by("household_id").len()
    return {"household_id": bought.sort("len", "household_id").row(-1)[0]}


def _told_its_size(night: Night) -> Entity:
    known = night.next_file("demographics").drop_nulls("household_size")
    return {"household_id": known["household_id"].sort()[0]}


def _landed(night: Night) -> datetime:
    """Let the platform take what has just landed; returns when it landed."""
    at = night.clock.now
    night.new_files()
    return at


def _landing(edit: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Night], datetime]:
    """Return what lets the day's transactions land, changed."""

    def lands(night: Night) -> datetime:
        night.at(LANDS)
        night.land("transactions", edit)
        return _landed(night)

    return lands


def _delivered_again(watch: Watch) -> str:
    night = watch.night
    night.at(HEALED)
    night.land("transactions")
    done = [outcome for outcome in night.new_files() if outcome.status == "committed"]
    days = len({outcome.day for outcome in done})
    return f"The right file was delivered; the sensor computed and pushed {days} days again."


# A dropped zone conversion


def _wall_clock(frame: pl.DataFrame) -> pl.DataFrame:
    local = pl.col(STAMP).dt.replace_time_zone("UTC").dt.convert_time_zone(ZONE)
    return frame.with_columns(local.dt.replace_time_zone(None).alias(STAMP))


def _conversion_restored(watch: Watch) -> str:
    night = watch.night
    night.at(HEALED)
    for day in days_between(NEXT, night.day):
        night.land("transactions", day=day)
    days = {outcome.day for outcome in night.new_files() if outcome.status == "committed"}
    return f"Every file was delivered as it should have been; {len(days)} days were computed again."


DROPPED_ZONE_CONVERSION: Final = Incident(
    name="dropped-zone-conversion",
    title="A dropped zone conversion",
    broken="A release of the tills' export writes the stores' wall clock where it wrote UTC. The "
    "column, its type and every row look as they always did.",
    feature="shopping_hours:mean_hour_30d",
    cause="zone shift",
    catchers=frozenset({"alert zone_shift"}),
    whose=best_customer,
    breaks=_landing(_wall_clock),
    mends=_conversion_restored,
    notices=for_nights(NIGHTS, _landing(_wall_clock), "alert zone_shift"),
)


# Half-null feature


def _half_null(frame: pl.DataFrame) -> pl.DataFrame:
    kept = pl.when(pl.int_range(pl.len()) % 2 == 0)
    return frame.with_columns(kept.then("age").alias("age"), kept.then("income").alias("income"))


def _lands_half_null(night: Night) -> datetime:
    night.at(LANDS)
    night.land("transactions")
    night.new_files()
    night.at(2)
    night.land("demographics", _half_null)
    at = night.clock.now
    night.daily()
    return at


def _whole_again(watch: Watch) -> str:
    night = watch.night
    night.at(HEALED)
    night.land("demographics")
    night.daily()
    return "The whole snapshot was delivered, and the day was computed again."


HALF_NULL: Final = Incident(
    name="half-null-feature",
    title="A half-null feature",
    broken="A join in the loyalty system loses age and income of every second household; the "
    "snapshot lands with all its rows.",
    feature="household_profile:household_size",
    cause="quarantined",
    catchers=frozenset({"check completeness"}),
    whose=_told_its_size,
    breaks=_lands_half_null,
    mends=_whole_again,
    notices=for_minutes(1),
)


# Doubled amounts


def _doubled(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("sales_value") * 2)


def _lands_doubled(night: Night) -> datetime:
    night.at(LANDS)
    for back in range(1, WEEK):
        day = NEXT - timedelta(days=back)
        night.deliver("transactions", str(day), _doubled(night.landed("transactions", day)))
    night.land("transactions", _doubled)
    return _landed(night)


def _halved(watch: Watch) -> str:
    night = watch.night
    night.at(HEALED)
    for back in range(1, WEEK):
        day = NEXT - timedelta(days=back)
        twice = night.landed("transactions", day)
        right = twice.with_columns(pl.col("sales_value") / 2)
        night.deliver("transactions", str(day), right)
    return _delivered_again(watch)


DOUBLED: Final = Incident(
    name="doubled-amounts",
    title="Doubled amounts",
    broken="The tills' export delivers the last seven days again, every amount doubled by a join "
    "that matched twice.",
    feature="txn_7d:avg_basket_size_7d",
    cause="as it should be",
    catchers=frozenset({"check drift", "alert drift"}),
    whose=best_customer,
    breaks=_lands_doubled,
    mends=_halved,
    notices=for_minutes(1),
)


# Stale source


def _lands_nothing(night: Night) -> datetime:
    night.at(LANDS)
    at = _landed(night)
    night.daily()
    return at


STALE: Final = Incident(
    name="stale-source",
    title="A stale source",
    broken="The tills' export does not run; nothing of the day lands.",
    feature="txn_7d:sum_amt_7d",
    cause="late data",
    catchers=frozenset({"alert stale"}),
    whose=best_customer,
    breaks=_lands_nothing,
    mends=_delivered_again,
    notices=for_hours(HEALED),
)


# Schema rename


def _renamed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.rename({"sales_value": "net_amount"})


SCHEMA_RENAME: Final = Incident(
    name="schema-rename",
    title="A schema rename",
    broken="A release of the tills' export calls sales_value net_amount.",
    feature="txn_7d:sum_amt_7d",
    cause="schema change",
    catchers=frozenset({"alert held_file"}),
    whose=best_customer,
    breaks=_landing(_renamed),
    mends=_delivered_again,
    notices=for_minutes(1),
)


# Key explosion


def _exploded(frame: pl.DataFrame) -> pl.DataFrame:
    """Add baskets of households that do not exist."""
    first = 10 * int(frame["household_id"].max())  # type: ignore[arg-type]
    made_up = frame.sample(MADE_UP, with_replacement=True, seed=7).with_columns(
        pl.int_range(first, first + MADE_UP).alias("household_id"),
        pl.col("basket_id").max() + pl.int_range(1, MADE_UP + 1),
    )
    return pl.concat([frame, made_up])


KEY_EXPLOSION: Final = Incident(
    name="key-explosion",
    title="A key explosion",
    broken=f"A load test of the loyalty system runs against production: {MADE_UP:,} households "
    "that do not exist buy something.",
    feature="txn_7d:sum_amt_7d",
    cause="quarantined",
    catchers=frozenset({"check cardinality"}),
    whose=best_customer,
    breaks=_landing(_exploded),
    mends=_delivered_again,
    notices=for_minutes(1),
)


# Seasonal promo


def _promoted(frame: pl.DataFrame) -> pl.DataFrame:
    """Let every basket of the day come twice, an hour apart, with a third more on the bill."""
    more = frame.with_columns(
        pl.col("basket_id") + 10**9,
        pl.col(STAMP) + pl.duration(hours=1),
        pl.col("sales_value") * 1.3,
    )
    return pl.concat([frame, more])


def _lands_promoted(night: Night) -> datetime:
    at = _landing(_promoted)(night)
    night.daily()
    return at


def _nothing_to_mend(watch: Watch) -> str:
    del watch
    return "There is nothing to mend: people bought more."


SEASONAL_PROMO: Final = Incident(
    name="seasonal-promo",
    title="A seasonal promo",
    broken="Nothing: a promo Friday. Every household that shops comes twice and spends a third "
    "more the second time.",
    feature="txn_7d:sum_amt_7d",
    cause="as it should be",
    catchers=frozenset(),
    whose=best_customer,
    breaks=_lands_promoted,
    mends=_nothing_to_mend,
    notices=through_the_day(24.4, 2),
    quiet=True,
    as_if_nothing=False,
)
