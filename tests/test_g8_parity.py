"""G8: once sealed, online equals the point-in-time join at now, for every entity, byte for byte.

After any history of commits, corrections, partial, late, torn, repeated and lost pushes.
"""

import contextlib
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lockstep import Feature, Features, FeatureView, feature_view
from lockstep.codec import bucket_of, encode_key, header_of
from lockstep.errors import ConflictError, NotCertifiedError
from lockstep.hashing import content_hash
from lockstep.stores import pushing
from lockstep.stores.proposal import Proposal
from lockstep.time import as_of
from tests.crash_story import unpacked
from tests.scenario import EVENTS, START, USER, World, catalog_of, instant, world

DAYS = [START + timedelta(days=n) for n in range(5)]
USERS = [1, 2, 3, 2**53 + 1]
TTL = timedelta(days=2)


class _DiedError(Exception):
    """Stands for the death of the pushing process."""


def make_view(ttl: timedelta | None) -> FeatureView:
    class Both(Features, entity=USER, owner="team:tests", ttl=ttl, min_rows=0):
        """Two columns that are always written together."""

        one = Feature(pl.Float64, "A number.")
        two = Feature(pl.String, "The same number as text.")

    @feature_view(Both, inputs=[EVENTS.trailing(days=1)])
    def both(events: pl.LazyFrame) -> pl.LazyFrame:
        return events.select("user_id", one="amount", two="kind")

    return both


@dataclass
class History:
    """A view whose days are committed and pushed as a test wishes."""

    made: World
    view: FeatureView
    delayed: list[tuple[Any, Any]] = field(default_factory=list)
    versions: dict[bytes, int] = field(default_factory=dict)

    def commit(self, day: int, values: Mapping[int, float | None]) -> None:
        rows = [
            (u, as_of(DAYS[day], self.zone), v, v and str(v)) for u, v in sorted(values.items())
        ]
        frame = pl.DataFrame(rows, schema=self.view.columns, orient="row")
        table = self.made.store.lake.table(self.view)
        table.create()
        table.commit([Proposal(DAYS[day], frame, content_hash(frame), {})], now=self.made.clock)

    @property
    def zone(self) -> Any:
        return self.made.store.project.zone

    @property
    def head(self) -> Mapping[date, Any]:
        return self.made.store.committed(self.view)

    def advance(self, hours: int) -> None:
        self.made.clock.now += timedelta(hours=hours)

    def push(self, days: Sequence[int] | None = None) -> None:
        if not self.head:
            return
        named = (
            None
            if days is None
            else [DAYS[d] for d in days if DAYS[d] in self.head and self._ended(DAYS[d])]
        )
        self.made.push(self.view, named)

    def _ended(self, day: date) -> bool:
        return as_of(day, self.zone) <= self.made.clock.now

    def delay(self) -> None:
        """Plan a push whose calls are on their way for long."""

        def caught(*args: Any, **kwargs: Any) -> Any:
            *where, blocks = args
            self.delayed.append(((*where, list(blocks)), kwargs))
            raise _DiedError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.made.store.online_store, "push", caught)
            self._dying()

    def tear(self) -> None:
        """Push, and die when a part has arrived."""

        def dying(point: str) -> None:
            if point == "mid_push":
                raise _DiedError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pushing, "crash_point", dying)
            self._dying()

    def _dying(self) -> None:
        try:
            self.push()
        except _DiedError:
            return

    def deliver(self, which: int) -> None:
        """Let a delayed push arrive, perhaps again."""
        if not self.delayed:
            return
        args, kwargs = self.delayed[which % len(self.delayed)]
        try:
            self.made.store.online_store.push(*args, **kwargs)
        except ConflictError:
            return

    def wipe(self) -> None:
        table = self.made.store.lake.table(self.view)
        kept = table.head().table_id if table.exists() else None
        self.made.store.online_store.wipe("user", self.view.name, USER.buckets, table_id=kept)
        self.versions.clear()

    def served(self) -> dict[int, Any]:
        found = {}
        for key, value in self.made.store.online_store.scan("user", self.view.name):
            row = unpacked(value)
            version = header_of(value).version
            assert version >= self.versions.get(key, 0), "an older version replaced a newer one"
            self.versions[key] = version
            ttl = self.view.contract.ttl
            if row[3] is not None and (ttl is None or self.made.clock.now <= row[2] + ttl):
                found[int(key.partition(b":")[2])] = row
        return found

    def expected(self) -> dict[int, Any]:
        """Look at every committed row: per user the latest that is valid now."""
        found: dict[int, Any] = {}
        table = self.made.store.lake.table(self.view)
        for day, record in sorted(self.head.items()):
            for user, at, one, two in table.read_day(day).drop("known_at", "day").rows():
                ttl = self.view.contract.ttl
                if at <= self.made.clock.now and (ttl is None or self.made.clock.now <= at + ttl):
                    found[user] = (day, record.revision, at, (one, two))
        return found


USED = st.dictionaries(
    st.sampled_from(USERS), st.one_of(st.none(), st.sampled_from([0.0, 10.0, 999.0])), max_size=4
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.integers(0, 4), USED),
        st.tuples(st.just("commit"), st.integers(0, 4), USED),
        st.tuples(st.just("push"), st.none() | st.lists(st.integers(0, 4), max_size=3)),
        st.tuples(st.just("delay")),
        st.tuples(st.just("tear")),
        st.tuples(st.just("deliver"), st.integers(0, 3)),
        st.tuples(st.just("advance"), st.integers(1, 30)),
        st.tuples(st.just("wipe")),
    ),
    min_size=4,
    max_size=12,
)

SEALED_BEYOND_WHAT_WAS_PUSHED = [  # the seal of day 0 is newer than the correction of day 2
    ("commit", 2, {1: 10.0, 2: 10.0}),
    ("push", None),
    ("commit", 2, {2: 10.0}),
    ("commit", 0, {2: 0.0}),
    ("push", [0]),
]
VANISHES_AND_AN_OLDER_ROW_COUNTS_AGAIN = [
    ("commit", 1, {1: 10.0}),
    ("commit", 2, {1: 999.0, 2: 0.0}),
    ("push", None),
    ("commit", 2, {2: 0.0}),
]
OLD_PUSH_ARRIVES_AFTER_A_NEWER_ONE = [
    ("commit", 2, {1: 10.0}),
    ("delay",),
    ("commit", 2, {1: 999.0}),
    ("push", None),
    ("deliver", 0),
]
TORN_THEN_CORRECTED = [
    ("commit", 2, dict.fromkeys(USERS, 10.0)),
    ("tear",),
    ("commit", 2, {}),
]
NOT_ENDED = [("commit", 2, {1: 1.0}), ("push", None), ("commit", 4, {1: 2.0}), ("push", None)]


@pytest.fixture(scope="module", params=[TTL, None], ids=["two days", "for ever"])
def ttl(request: pytest.FixtureRequest) -> timedelta | None:
    return request.param


@pytest.fixture
def histories(
    ttl: timedelta | None, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    return lambda: begin(tmp_path_factory.mktemp("g8"), redis_url, ttl)


def begin(folder: Path, redis_url: str, ttl: timedelta | None = TTL) -> History:
    """A history at three in the night after day 3 (index 2), of a view with nothing committed."""
    made = world(folder, redis_url=redis_url)
    view = make_view(ttl)
    made.store.__dict__["catalog"] = catalog_of([view])
    made.clock.now = instant(DAYS[3], 3)
    return History(made, view)


def check_history(history: History, steps: Sequence[tuple[Any, ...]]) -> None:
    for name, *arguments in steps:
        getattr(history, name)(*arguments)
        history.served()
    if not history.head:
        return
    history.push()
    assert history.expected() == history.served()
    (found,) = history.made.store.parity()
    assert found.holds, found.sentence


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
@example(steps=SEALED_BEYOND_WHAT_WAS_PUSHED)
@example(steps=VANISHES_AND_AN_OLDER_ROW_COUNTS_AGAIN)
@example(steps=OLD_PUSH_ARRIVES_AFTER_A_NEWER_ONE)
@example(steps=TORN_THEN_CORRECTED)
@example(steps=NOT_ENDED)
def test_after_any_history_online_equals_offline_once_sealed(
    histories: Any, steps: list[tuple[Any, ...]]
) -> None:
    check_history(histories(), steps)


def test_a_torn_push_leaves_some_rows_and_the_next_one_completes_them(
    tmp_path: Path, redis_url: str
) -> None:
    history = begin(tmp_path, redis_url)
    history.commit(2, dict.fromkeys(range(40), 10.0))
    history.tear()
    arrived = len(history.served())
    online = history.made.store.online_store
    sealed = [seal for seal in online.seals("user", "both", USER.buckets).values() if seal]

    history.push()

    assert 0 < arrived < 40
    assert len(sealed) < USER.buckets
    assert 40 == len(history.served())
    assert history.made.store.parity()[0].holds


def test_pushing_twice_changes_nothing(tmp_path: Path, redis_url: str) -> None:
    history = begin(tmp_path, redis_url)
    history.commit(2, {1: 10.0})
    history.push()
    before = dict(history.made.store.online_store.scan("user", "both"))

    again = history.made.push(history.view)

    assert ([], 0) == (again.days, again.receipt.written)
    assert before == dict(history.made.store.online_store.scan("user", "both"))


def test_a_day_that_has_not_ended_is_not_pushed_by_name_or_otherwise(
    tmp_path: Path, redis_url: str
) -> None:
    history = begin(tmp_path, redis_url)
    history.commit(2, {1: 10.0})
    history.commit(3, {1: 999.0})

    pushed = history.made.push(history.view)
    with pytest.raises(NotCertifiedError, match="both 2026-03-04 has not ended"):
        history.made.push(history.view, [DAYS[3]])

    assert [DAYS[2]] == pushed.days
    assert [[10.0]] == history.made.store.online(["both:one"], [{"user_id": 1}]).values
    assert history.made.store.parity()[0].holds


def test_a_lost_row_is_found_and_comes_back_after_a_wipe(tmp_path: Path, redis_url: str) -> None:
    history = begin(tmp_path, redis_url)
    history.commit(2, {1: 10.0, 2: 10.0})
    history.push()
    online = history.made.store.online_store
    name = online.names.entity_key(
        "user", bucket_of(encode_key([1]), USER.buckets), encode_key([1])
    )
    with redis.Redis.from_url(redis_url) as client:
        client.delete(name)

    lost = history.made.store.parity()[0]
    history.wipe()
    history.push()

    assert (False, 1) == (lost.holds, lost.missing)
    assert history.made.store.parity()[0].holds


def test_readers_see_one_revision_whole_and_never_an_older_one_again(
    tmp_path: Path, redis_url: str
) -> None:
    """G2 and G3 through the engine: two pushers of two revisions by turns, one reader."""
    history = begin(tmp_path, redis_url)
    users = [{"user_id": user} for user in range(30)]
    features = ["both:one", "both:two"]
    done, failures = threading.Event(), queue.SimpleQueue[str]()
    seen = [0.0] * len(users)

    def push() -> None:
        other = history.made.restart()
        while not done.is_set():
            with contextlib.suppress(ConflictError):  # the other one kept winning
                other.push(history.view)

    history.commit(2, {user["user_id"]: 1.0 for user in users})
    history.push()
    pushers = [threading.Thread(target=push) for _ in range(2)]
    for pusher in pushers:
        pusher.start()
    for revision in range(2, 10):
        history.commit(2, {user["user_id"]: float(revision) for user in users})
        for _ in range(30):
            rows = history.made.store.online(features, users).values
            for at, (one, two) in enumerate(rows):
                if str(one) != two:
                    failures.put(f"torn: {one} beside {two}")
                if one < seen[at]:
                    failures.put(f"went back from {seen[at]} to {one}")
                seen[at] = one
    done.set()
    for pusher in pushers:
        pusher.join()

    assert failures.empty(), failures.get()
    history.push()
    assert [[9.0, "9.0"]] * len(users) == history.made.store.online(features, users).values
    assert history.made.store.parity()[0].holds
