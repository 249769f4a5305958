"""Incidents on the way from Delta to the reader: a run dies, Redis drops rows, code changes."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, Final

import polars as pl

from demo.incident.base import LAST
from demo.incident.deploy import redeployed
from demo.incident.incident import Entity, Incident, for_minutes
from demo.incident.night import Night
from demo.incident.upstream_incidents import LANDS
from demo.incident.watch import Watch

LATE_BASKETS: Final = 10**9
EVICTED: Final = 100
TWO_O_CLOCK: Final = 2.0
THREE: Final = 3.0
"""Hours after midnight."""
BACKFILLED: Final = tuple(LAST - timedelta(days=back) for back in (1, 0))


def _customer_of_last_day(night: Night) -> Entity:
    bought = night.landed("transactions", LAST).group_by("household_id").len()
    return {"household_id": bought.sort("len", "household_id").row(-1)[0]}


def _differing(view: str, night: Night, kind: str = "") -> Entity:
    """Return an entity of a view whose served row is not the committed one."""
    (found,) = night.store.parity(view)
    for each in found.examples:
        if not kind or each.kind == kind:
            return dict(zip(night.view(view).contract.keys, map(int, each.key), strict=True))
    return _customer_of_last_day(night)


# A backfill that never reached Redis


def _late_baskets(night: Night, day: date) -> pl.DataFrame:
    """Return the day's baskets of one store in four once more, under other numbers."""
    landed = night.landed("transactions", day)
    return landed.filter(pl.col("store_id") % 4 == 0).with_columns(
        pl.col("basket_id") + LATE_BASKETS
    )


def _backfills(night: Night) -> datetime:
    night.at(TWO_O_CLOCK, LAST)
    for day in BACKFILLED:
        night.deliver("transactions", f"{day}-late", _late_baskets(night, day))
    night.new_files(pushing=False)
    return night.clock.now


def _household_of_late_baskets(night: Night) -> Entity:
    late = _late_baskets(night, LAST).group_by("household_id").agg(pl.col("sales_value").sum())
    return {"household_id": late.sort("sales_value", "household_id").row(-1)[0]}


def _reconciled(watch: Watch) -> str:
    told = watch.reconcile()
    return f"The job `reconcile`, which the sensor requests, did: {' '.join(told)}"


BACKFILL: Final = Incident(
    name="backfill-not-pushed",
    title="A backfill that never reached Redis",
    broken="Late receipts of two days are ingested and the days computed again; the machine goes "
    "down between the commit in Delta and the push.",
    feature="txn_7d:sum_amt_7d",
    cause="correction not pushed",
    catchers=frozenset({"sensor reconcile"}),
    whose=_household_of_late_baskets,
    breaks=_backfills,
    mends=_reconciled,
    notices=for_minutes(10.5),
    asks=None,
    as_if_nothing=False,
)


# Partial push


def _pushes_half(night: Night) -> datetime:
    night.at(LANDS)
    night.land("transactions")
    night.new_files(pushing=False)
    night.push("shopping_hours")
    night.push("txn_7d", cut=20)
    return night.clock.now


def _reconciled_before_daily(watch: Watch) -> str:
    told = _reconciled(watch)
    watch.night.daily()
    return f"{told} The daily run went on as usual."


PARTIAL_PUSH: Final = Incident(
    name="partial-push",
    title="A partial push",
    broken="The process that pushes the new day is killed half way: some households have new "
    "rows, others the old ones, and no bucket is sealed.",
    feature="txn_7d:sum_amt_7d",
    cause="partial push",
    catchers=frozenset({"check parity", "sensor reconcile"}),
    whose=lambda night: _differing("txn_7d", night, "stale"),
    breaks=_pushes_half,
    mends=_reconciled_before_daily,
    notices=for_minutes(10.5),
    asks=None,
)


# Evicted keys


def _evicts(night: Night) -> datetime:
    night.at(THREE, LAST)
    online = night.store.online_store
    online.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    limit, before = (int(_memory(night)[fact]) for fact in ("used_memory", "evicted_keys"))
    while int(_memory(night)["evicted_keys"]) < before + EVICTED:
        limit -= 4_096
        online.ask("CONFIG", "SET", "maxmemory", str(limit))
    # It goes on to need as much as it has now: nothing more is dropped.
    online.ask("CONFIG", "SET", "maxmemory", str(2 * limit))
    return night.clock.now


def _memory(night: Night) -> Mapping[str, Any]:
    (facts,) = night.store.online_store.ask("INFO").values()
    found: Mapping[str, Any] = facts
    return found


def _given_memory(watch: Watch) -> str:
    night, online = watch.night, watch.night.store.online_store
    online.ask("CONFIG", "SET", "maxmemory", "0")
    online.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    night.clock.now += timedelta(minutes=1)
    return f"The server got its memory and noeviction. {_reconciled(watch)}"


EVICTED_KEYS: Final = Incident(
    name="evicted-keys",
    title="Evicted keys",
    broken="Somebody gives Redis an eviction policy and too little memory: it silently drops "
    f"{EVICTED} keys and more.",
    feature="txn_7d:sum_amt_7d",
    cause="evicted",
    catchers=frozenset({"sensor reconcile", "check parity"}),
    whose=lambda night: _differing("txn_7d", night, "missing"),
    breaks=_evicts,
    mends=_given_memory,
    notices=for_minutes(1),
    asks=None,
    as_if_nothing=False,
)


# Code change


def _changes_code(night: Night) -> datetime:
    night.at(THREE, LAST)
    edits = {"txn_7d": ('pl.col("sales_value").sum()', '(pl.col("sales_value") * 0.9).sum()')}
    night.store.redeclare(redeployed(night.folder, edits, tuple(night.store.views)))
    return night.clock.now


def _computed_anew(watch: Watch) -> str:
    night = watch.night
    days = sorted(night.store.committed(night.view("txn_7d")))
    night.compute({"txn_7d": days})
    return f"All {len(days)} days were computed by the new code and pushed."


CODE_CHANGE: Final = Incident(
    name="code-change",
    title="A code change",
    broken="A release of txn_7d takes a tenth off every amount (net of tax, says the commit) and "
    "computes no committed day again.",
    feature="txn_7d:sum_amt_7d",
    cause="code changed",
    catchers=frozenset({"alert code_changed"}),
    whose=_customer_of_last_day,
    breaks=_changes_code,
    mends=_computed_anew,
    notices=for_minutes(16),
    asks=None,
    as_if_nothing=False,
)
