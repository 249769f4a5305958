"""A project with three pushed views, to lose them in every way, and what a look then finds."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import redis

from lockstep import Feature, Features, FeatureView, feature_view
from lockstep.crash import CrashPoint
from lockstep.hashing import content_hash
from lockstep.last_look import Memory
from lockstep.reconcile import Look, Repaired, look, mark, reconcile
from lockstep.serving.client import Client
from lockstep.stores.proposal import Proposal
from lockstep.time import as_of, days_between
from tests.scenario import EVENTS, START, USER, Clock, World, catalog_of, event, instant, world

ROOT = Path(__file__).parent.parent
FIRST, LAST = START + timedelta(days=2), START + timedelta(days=6)
"""The built days of `spend_3d`; its window is three days long."""
USERS = range(1, 41)
PUSHING = """
import sys
from pathlib import Path
from tests.lost_redis import pushed_by_a_child

pushed_by_a_child(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4])
"""


@dataclass
class Lost:
    """A world whose online store is about to be lost, and the memory of the looks at it."""

    made: World
    url: str
    memory: Memory
    views: list[FeatureView] = field(default_factory=list)

    def look(self, *, patient: bool = True) -> dict[str, str]:
        """View → code of what a look finds."""
        found = self.looked(patient=patient)
        return {finding.view: finding.code for finding in found.findings}

    def looked(self, *, patient: bool = True) -> Look:
        store = self.made.store
        return look(
            store.lake,
            store.online_store,
            self.views,
            now=self.made.clock,
            memory=self.memory,
            patient=patient,
        )

    def marked(self) -> set[str]:
        """Views that a look marks as not ready."""
        mark(self.made.store.online_store, self.looked())
        return set(self.made.store.online_store.notes("unready"))

    def reconcile(self, *, patient: bool = True) -> list[Repaired]:
        store = self.made.store
        _, repaired = reconcile(
            store.lake,
            store.online_store,
            self.views,
            now=self.made.clock,
            memory=self.memory,
            patient=patient,
        )
        return repaired

    def is_whole(self) -> bool:
        """Whether every view is equal to Delta, byte for byte, and none is marked."""
        store = self.made.store
        return all(found.holds for found in store.parity()) and not store.online_store.notes(
            "unready"
        )

    def not_ready(self) -> set[str]:
        """Views that a reader, looking now, holds for not ready."""
        store = self.made.store
        client = Client(store.catalog, self.url, namespace=store.project.namespace)
        client.look()
        client.close()
        return set(client.readiness)

    def wait(self, seconds: float) -> None:
        self.made.clock.now += timedelta(seconds=seconds)

    def raw(self) -> "redis.Redis":
        return redis.Redis.from_url(self.url, protocol=2)

    def served(self, view: str) -> dict[bytes, bytes]:
        return dict(self.made.store.online_store.scan("user", view))

    def names(self, view: str) -> list[bytes]:
        """Redis keys of the view's rows."""
        with self.raw() as client:
            pattern = self.made.store.online_store.names.entity_pattern("user")
            return sorted(name for name in client.scan_iter(pattern) if client.hexists(name, view))


def lost(folder: Path, url: str, *, users: range = USERS) -> Lost:
    """Return the scenario built, pushed and looked at once, all in order."""
    made = world(folder, redis_url=url, now=Clock(instant(LAST + timedelta(days=1), 3)))
    people = [{"user_id": user, "country": f"C{user}"} for user in users]
    made.land("people", people, "people.parquet")
    made.ingest_people()
    for day in days_between(START, LAST):
        some = [user for user in users if (user + day.day) % 3]
        made.land("events", [event(f"{day}/{u}", u, day, u + 0.5) for u in some], f"{day}.parquet")
    made.ingest(START, LAST)
    for view in made.views.all:
        made.build(view, FIRST, LAST)
        made.push(view)
    return opened(made, url, made.views.all)


def opened(made: World, url: str, views: list[FeatureView]) -> Lost:
    """Return the world with a first look that finds nothing."""
    online = made.store.online_store
    found = Lost(made, url, Memory.of_store(made.store.project.state, online), views)
    assert found.look() == {}
    return found


def make_wide(parity: int) -> FeatureView:
    class Wide(Features, entity=USER, owner="team:tests", ttl=None, min_rows=0, parity=parity):
        """A number per user, written without computing anything."""

        number = Feature(pl.Int64, "A number.")

    @feature_view(Wide, inputs=[EVENTS.trailing(days=1)])
    def wide(events: pl.LazyFrame) -> pl.LazyFrame:
        return events.select("user_id", number=pl.col("user_id"))

    return wide


def commit_wide(made: World, view: FeatureView, day: date, numbers: Mapping[int, int]) -> None:
    at = as_of(day, made.store.project.zone)
    frame = pl.DataFrame(
        {"user_id": list(numbers), "number": list(numbers.values())}, schema_overrides=view.columns
    ).select("user_id", pl.lit(at).alias("event_timestamp"), "number")
    frame = frame.cast({"event_timestamp": pl.Datetime("us", "UTC")}).sort("user_id")
    table = made.store.lake.table(view)
    table.create()
    table.commit([Proposal(day, frame, content_hash(frame), {})], now=made.clock)


def lost_wide(folder: Path, url: str, users: int, *, parity: int = 100_000) -> Lost:
    """Return one view of many users, pushed and looked at once."""
    made = world(folder, redis_url=url, now=Clock(instant(LAST + timedelta(days=1), 3)))
    view = make_wide(parity)
    made.store.__dict__["catalog"] = catalog_of([view])
    commit_wide(made, view, LAST, {user: user * 7 for user in range(users)})
    made.push(view)
    return opened(made, url, [view])


def restate(found: Lost, view: FeatureView, day: date) -> None:
    """Commit another revision of a built day of `spend_3d` and push nothing."""
    extra = [event(f"late {day} {found.made.clock.now}", 1, day, 1000.0)]
    found.made.land("events", extra, f"late {day} {found.made.clock.now.isoformat()}.parquet")
    found.made.ingest(day, day)
    found.made.build(view, day)


def push_and_die(
    found: Lost, view: FeatureView, point: CrashPoint, *, rebuild: bool = False
) -> int:
    """Push one view in a process that is killed at a crash point; return its exit status."""
    project = found.made.store.project
    how = "rebuild" if rebuild else "push"
    words = [str(project.folder), found.url, project.namespace, f"{how} {view.name}"]
    child = subprocess.run(
        [sys.executable, "-c", PUSHING, *words],
        cwd=ROOT,
        env={**os.environ, "LOCKSTEP_TESTING": "1", "LOCKSTEP_CRASH": point},
        check=False,
    )
    return child.returncode


def pushed_by_a_child(folder: Path, url: str, namespace: str, what: str) -> None:
    from lockstep.push import push

    clock = Clock(instant(LAST + timedelta(days=1), 3))
    made = world(folder, redis_url=url, namespace=namespace, now=clock)
    how, _, name = what.partition(" ")
    view: Any = {each.name: each for each in made.views.all}[name]
    online = made.store.online_store
    push(made.store.lake, online, view, now=made.clock, rebuild=how == "rebuild")
