"""Faults put into a world of `tests.why_world`, each asked about where it is: what is named?

A chain of faults runs through one world, for a fault that is put right is what the next one begins
with. Days, shoppers and features are drawn with a seed.
"""

import random
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import redis

from lockstep import Feature, Features, feature_view
from lockstep.codec import bucket_of, encode_key
from lockstep.rebuild import rebuild
from lockstep.time import days_between
from lockstep.view import FeatureView
from lockstep.why.answer import Explanation, explain
from lockstep.why.causes import Cause
from tests.scenario import instant
from tests.why_world import (
    BUCKETS,
    BUYING,
    LAST,
    SALES,
    SHOPPER,
    STOPPED,
    STRANGERS,
    VIEWS,
    WhyWorld,
    last_sale,
    sale,
    sales_of,
    share,
    spend_3d,
)

FEATURES = ("spend_3d:spend", "last_sale:biggest", "share:mean")


@dataclass(frozen=True)
class Asked:
    """One question and what came of it."""

    expected: Cause
    found: Explanation
    where: str

    @property
    def right(self) -> bool:
        return self.found.cause == self.expected

    def __str__(self) -> str:
        also = [each.cause for each in self.found.also]
        return (
            f"{self.where}: {self.expected}, got {self.found.cause} {also}: {self.found.sentence}"
        )


@dataclass
class Tally:
    """Every question so far."""

    asked: list[Asked] = field(default_factory=list)

    def ask(
        self, world: WhyWorld, expected: Cause, shoppers: Iterable[int], *features: str
    ) -> list[Explanation]:
        found = []
        for who in shoppers:
            for feature in features:
                answer = explain(world.store, {"shopper": who}, feature)
                self.asked.append(Asked(expected, answer, f"{feature} of {who}"))
                found.append(answer)
        return found


def bucket(who: int) -> int:
    return bucket_of(encode_key([who]), BUCKETS)


def in_buckets(world: WhyWorld, buckets: Iterable[int]) -> list[bytes]:
    """The Redis keys of some buckets: rows and seals."""
    names = world.store.online_store.names
    with closing(redis.Redis.from_url(world.store.project.redis_url or "")) as client:
        found: Any = client.keys(f"{names.namespace}:*")
    tags = [b"{shopper:%d}" % number for number in buckets]
    return [name for name in found if any(tag in name for tag in tags)]


def remembered(world: WhyWorld, buckets: Iterable[int]) -> dict[bytes, bytes]:
    """What lies in some buckets, to be put back as it was."""
    with closing(redis.Redis.from_url(world.store.project.redis_url or "")) as client:
        return {name: client.dump(name) for name in in_buckets(world, buckets)}  # type: ignore[misc]


def put_back(world: WhyWorld, before: dict[bytes, bytes]) -> None:
    with closing(redis.Redis.from_url(world.store.project.redis_url or "")) as client:
        for name, value in before.items():
            client.restore(name, 0, value, replace=True)


def deleted(world: WhyWorld, names: Sequence[bytes]) -> None:
    with closing(redis.Redis.from_url(world.store.project.redis_url or "")) as client:
        client.delete(*names)


def key_of(world: WhyWorld, who: int) -> bytes:
    key = encode_key([who])
    return world.store.online_store.names.entity_key("shopper", bucket(who), key)


def corrections(world: WhyWorld, rng: random.Random, tally: Tally) -> None:
    """Late rows come in, are ingested, computed, pushed in part, pushed."""
    for round_ in range(2):
        day = LAST - timedelta(days=rng.randrange(2))
        late = sorted(rng.sample(BUYING, 5))
        others = sorted(set(BUYING) - set(late))[:1]
        world.clock.now += timedelta(minutes=10)
        world.land(
            sale(f"late-{round_}-{who}", who, _noon(day), rng.uniform(100, 900)) for who in late
        )
        tally.ask(world, "late data", late[:2], "spend_3d:spend", "share:mean")
        tally.ask(world, "as it should be", others, "spend_3d:spend")
        world.ingest([day])
        tally.ask(world, "late data", late[:2], "spend_3d:spend")
        tally.ask(world, "as it should be", others, "spend_3d:spend")
        world.build("spend_3d", days_between(day, LAST))
        tally.ask(world, "correction not pushed", late[:4], "spend_3d:spend")
        tally.ask(world, "late data", late[:1], "share:mean")
        _pushed_in_part(world, rng, tally)
        world.push("spend_3d")
        tally.ask(world, "as it should be", late[:1], "spend_3d:spend")


def _pushed_in_part(world: WhyWorld, rng: random.Random, tally: Tally) -> None:
    """A push that sealed some buckets only, and one that was killed before it sealed any."""
    before = remembered(world, range(BUCKETS))
    unreached = sorted(rng.sample(range(BUCKETS), 4))
    missed = [who for who in BUYING if bucket(who) in unreached]
    lost = {
        name: before[name]
        for name in before
        if any(b"{shopper:%d}" % number in name for number in unreached)
    }
    world.push("spend_3d")
    put_back(world, lost)
    tally.ask(world, "partial push", missed[:2], "spend_3d:spend")
    put_back(world, before)
    with suppress(KilledError):
        world.store.push(world.view("spend_3d"), throttled=False, on_rows=_killed)
    put_back(world, lost)
    tally.ask(world, "partial push", missed[:2], "spend_3d:spend")
    put_back(world, before)


class KilledError(Exception):
    """The process ends here."""


def _killed(_rows: int) -> None:
    raise KilledError


def new_days(world: WhyWorld, rng: random.Random, tally: Tally) -> None:
    """A day does not arrive, arrives broken, wrong, right; is computed; is pushed."""
    for offset in range(1, 3):
        day = LAST + timedelta(days=offset)
        world.clock.now = instant(day + timedelta(days=1), 6)
        rows = sales_of(day, rng)
        who = rng.sample(sorted({row["shopper"] for row in rows}), 4)
        tally.ask(world, "late data", who[:1], *FEATURES)
        broken = world.land(rows, f"{day}-broken")
        pl.read_parquet(broken).rename({"amount": "amount_usd"}).write_parquet(broken)
        tally.ask(world, "schema change", who[:1], *FEATURES)
        broken.unlink()
        wrong = [{**row, "amount": -30 * row["amount"]} for row in rows if row["shopper"] < 4]
        world.land([*rows, *wrong], f"{day}")
        tally.ask(world, "never computed", who[:1], "last_sale:biggest")
        world.ingest([day])
        tally.ask(world, "never computed", who[1:2], "spend_3d:spend", "share:mean")
        world.build("spend_3d", [day])
        tally.ask(world, "quarantined", who[:2], "spend_3d:spend", "share:mean")
        world.land(rows, f"{day}-again")
        world.ingest([day])
        for view in VIEWS:
            world.build(view.name, [day])
        tally.ask(world, "Redis behind", who[2:4], "spend_3d:spend", "last_sale:biggest")
        world.push_all()
        tally.ask(world, "as it should be", who[:1], "share:mean")


def lost_rows(world: WhyWorld, rng: random.Random, tally: Tally) -> None:
    """Rows, then whole buckets, leave Redis; rows are written by somebody else."""
    for who in rng.sample(BUYING, 6):
        deleted(world, [key_of(world, who)])
        tally.ask(world, "evicted", [who], rng.choice(["spend_3d:spend", "share:mean"]))
    for view in VIEWS:
        world.store.push(view, rebuild=True, throttled=False)
    everything = remembered(world, range(BUCKETS))
    for number in rng.sample(range(BUCKETS), 3):
        deleted(world, in_buckets(world, [number]))
        inside = [who for who in BUYING if bucket(who) == number]
        tally.ask(world, "evicted", inside[:2], "spend_3d:spend")
        put_back(world, everything)
    one, other = rng.sample(BUYING, 2)
    put_back(world, {key_of(world, one): everything[key_of(world, other)]})
    tally.ask(world, "overwritten", [one], "spend_3d:spend")
    put_back(world, everything)


def old_rows(world: WhyWorld, _rng: random.Random, tally: Tally) -> None:
    """Shoppers who stopped long ago, and some who never were there."""
    tally.ask(world, "expired", STOPPED[:4], *FEATURES)
    tally.ask(world, "as it should be", STRANGERS[:2], *FEATURES)


def doubled() -> FeatureView:
    """`spend_3d` by a code that counts every second shopper's spend twice."""

    class Spend3d(
        Features, entity=SHOPPER, owner="team:tests", ttl=timedelta(days=2), when_absent="empty"
    ):
        """What a shopper spent in three days."""

        spend = Feature(pl.Float64, "Spend.", unit="USD", at_least=0, empty=0.0)
        sales = Feature(pl.Int64, "Sales.", at_least=0, empty=0)

    @feature_view(Spend3d, inputs=[SALES.trailing(days=3)])
    def spend_3d(sales: pl.LazyFrame) -> pl.LazyFrame:
        found = sales.group_by("shopper").agg(
            spend=pl.col("amount").sum(), sales=pl.len().cast(pl.Int64)
        )
        twice = pl.when(pl.col("shopper") % 2 == 0).then(2.0).otherwise(1.0)
        return found.with_columns(spend=pl.col("spend") * twice)

    return spend_3d


def retyped() -> FeatureView:
    """`spend_3d` by a contract that promises a number of sales with decimals."""

    class Spend3d(
        Features, entity=SHOPPER, owner="team:tests", ttl=timedelta(days=2), when_absent="empty"
    ):
        """What a shopper spent in three days."""

        spend = Feature(pl.Float64, "Spend.", unit="USD", at_least=0, empty=0.0)
        sales = Feature(pl.Float64, "Sales.", at_least=0, empty=0.0)

    @feature_view(Spend3d, inputs=[SALES.trailing(days=3)])
    def spend_3d(sales: pl.LazyFrame) -> pl.LazyFrame:
        return sales.group_by("shopper").agg(
            spend=pl.col("amount").sum(), sales=pl.len().cast(pl.Float64)
        )

    return spend_3d


def unbuilt() -> FeatureView:
    """A view that nobody has built."""

    class Visits(Features, entity=SHOPPER, owner="team:tests", ttl=timedelta(days=2)):
        """A shopper's sales of a day."""

        visits = Feature(pl.Int64, "Sales.")

    @feature_view(Visits, inputs=[SALES.trailing(days=1)])
    def visits(sales: pl.LazyFrame) -> pl.LazyFrame:
        return sales.group_by("shopper").agg(visits=pl.len().cast(pl.Int64))

    return visits


def other_code(world: WhyWorld, rng: random.Random, tally: Tally) -> None:
    """The function, then the contract, is another one than the days were computed by."""
    world.declare(doubled(), last_sale, share)
    who = rng.sample(BUYING, 12)
    tally.ask(world, "code changed", [n for n in who if not n % 2], "spend_3d:spend")
    tally.ask(world, "as it should be", [n for n in who if n % 2][:2], "spend_3d:spend")
    tally.ask(world, "as it should be", [who[0]], "spend_3d:sales")
    world.declare(spend_3d, last_sale, share, unbuilt())
    tally.ask(world, "never computed", who[:3], "visits:visits")
    world.declare(retyped(), last_sale, share)
    tally.ask(world, "schema change", who[:3], "spend_3d:spend")
    rebuild_as_declared(world)
    tally.ask(world, "schema change", who[:3], "spend_3d:spend")
    world.push("spend_3d")
    tally.ask(world, "as it should be", who[:1], "spend_3d:sales")


def rebuild_as_declared(world: WhyWorld) -> None:
    view = world.view("spend_3d")
    for outcome in rebuild(world.store.lake, view, world.store.reader(), now=world.clock):
        assert outcome.certified


def shifted_hours(world: WhyWorld, rng: random.Random, tally: Tally) -> None:
    """Somebody dropped the conversion: wall-clock times arrive four hours early."""
    days = [LAST + timedelta(days=offset) for offset in (1, 2)]
    world.clock.now = instant(days[-1] + timedelta(days=1), 6)
    for day in days:
        rows = [{**row, "at": row["at"] - timedelta(hours=4)} for row in sales_of(day, rng)]
        world.land(rows, str(day))
    world.ingest(days)
    for view in VIEWS:
        world.build(view.name, days)
    tally.ask(world, "Redis behind", [1], "spend_3d:spend")
    world.push_all()
    tally.ask(world, "zone shift", rng.sample(BUYING, 4), "spend_3d:spend", "share:mean")


def _noon(day: date) -> Any:
    return instant(day, 12).replace(tzinfo=None)


CHAINS = {
    "corrections": corrections,
    "new days": new_days,
    "lost rows": lost_rows,
    "old rows": old_rows,
    "shifted hours": shifted_hours,
    "other code": other_code,
}


def injected(base: WhyWorld, folder: Path) -> Tally:
    """Every chain, each in a world of its own unless it leaves things as they were."""
    tally, rng = Tally(), random.Random(20260918)
    for number, (name, chain) in enumerate(CHAINS.items()):
        reused = name in {"lost rows", "old rows"}
        world = base if reused else base.copy(folder / str(number))
        chain(world, rng, tally)
    return tally
