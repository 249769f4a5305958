"""G2 and G3 as a reader sees them: what readers recorded while pushers fought is one history.

Pushes of several versions are planned from one seal, by the engine from Delta tables, and then sent
by five pushers at once in random order, some of them twice, some of them killed half way. Readers
read all the while and note when. Afterwards nobody may have seen a key go back, or a torn vector.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.resources import files
from pathlib import Path
from random import Random
from time import perf_counter
from typing import NamedTuple

import pytest

from lockstep.calls import FunctionLibrary, shipped_library
from lockstep.codec import RowCodec, encode_key
from lockstep.errors import ConflictError, LockstepError
from lockstep.stores import pushing
from lockstep.stores.redis import OnlineStore
from lockstep.stores.server import EmbeddedServer
from tests.scenario import USER
from tests.test_g8_parity import DAYS, History, begin

USERS = tuple(range(24))
PUSHERS, READERS, ROUNDS, VERSIONS = 5, 2, 3, 5
DAY = 2
SEED = 20261122


class DiedError(BaseException):
    """Stands for the death of a pusher; nothing catches it as an error."""


class Read(NamedTuple):
    """One value that one reader saw, and when the read began and ended."""

    began: float
    ended: float
    key: int
    version: int
    revision: int
    values: tuple[float, str] | None  # None for a tombstone
    day: date = DAYS[0]


@dataclass
class Fight:
    """One history of commits and pushes, and what readers saw of it."""

    history: History
    library: FunctionLibrary
    random: Random
    reads: list[Read] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    revision: int = 0
    conflicts: int = 0
    deaths: int = 0
    dying: threading.local = field(default_factory=threading.local)

    def store(self) -> OnlineStore:
        """A store of one's own, as another process would have it."""
        store = self.history.made.restart().store.online_store
        store._library = self.library
        return store

    def crash_point(self, name: str) -> None:
        if name == "mid_push" and getattr(self.dying, "now", False):
            raise DiedError

    def run(self) -> None:
        """All rounds, with readers beside them."""
        self.history.made.store.online_store._library = self.library
        self.commit()
        self.history.push()
        done = threading.Event()
        readers = [threading.Thread(target=self.reader, args=(done,)) for _ in range(READERS)]
        for reader in readers:
            reader.start()
        for _ in range(ROUNDS):
            self.round()
        done.set()
        for reader in readers:
            reader.join()
        if self.failures:
            raise self.failures[0]

    def round(self) -> None:
        """Some versions, planned from one seal and sent by everybody; then one push in peace."""
        self.history.delayed.clear()
        for _ in range(VERSIONS):
            self.commit()
            self.history.delay()
        orders = [self.random.choices(range(VERSIONS), k=4) for _ in range(PUSHERS)]
        kills = [[self.random.random() < 0.4 for _ in order] for order in orders]
        orders[0][:2], kills[0][:2] = [VERSIONS - 1, 0], [True, False]
        pushers = [
            threading.Thread(target=self.pusher, args=(order, of_it))
            for order, of_it in zip(orders, kills, strict=True)
        ]
        for pusher in pushers:
            pusher.start()
        for pusher in pushers:
            pusher.join()
        self.history.push()

    def commit(self) -> None:
        """Correct the day: every number in it is its revision, and a few users are not in it."""
        self.revision += 1
        used = [user for user in USERS if self.random.random() < 0.9]
        self.history.commit(DAY, dict.fromkeys(used, float(self.revision)))

    def pusher(self, order: Sequence[int], kills: Sequence[bool]) -> None:
        """Send planned pushes one after the other, look at the result, and plan once more."""
        try:
            store = self.store()
            for which, killed in zip(order, kills, strict=True):
                args, kwargs = self.history.delayed[which]
                self.dying.now = killed
                try:
                    store.push(*args, **kwargs)
                except ConflictError:
                    self.conflicts += 1
                except DiedError:
                    self.deaths += 1
                self.read(store)
            store.close()
        except (LockstepError, AssertionError) as error:
            self.failures.append(error)

    def reader(self, done: threading.Event) -> None:
        """Read until told to stop."""
        try:
            store = self.store()
            while not done.is_set():
                self.read(store)
            store.close()
        except (LockstepError, AssertionError) as error:
            self.failures.append(error)

    def read(self, store: OnlineStore) -> None:
        """Read every user once, and note what was seen and when."""
        view = self.history.view
        codec = RowCodec(view.contract.feature_types)
        began = perf_counter()
        found = store.fetch(USER.name, [encode_key([u]) for u in USERS], [view.name], USER.buckets)
        ended = perf_counter()
        for user, (value,) in zip(USERS, found, strict=True):
            if value is not None:
                row = codec.decode(value)
                values = (row.values["one"], row.values["two"]) if row.values else None
                header = row.header
                version, revision, day = header.version, header.revision, header.day
                self.reads.append(Read(began, ended, user, version, revision, values, day))


def check(reads: Sequence[Read]) -> None:
    """Do nothing if the reads are those of one history.

    Raises:
        AssertionError: A vector is torn, or a key went back from one read to a later one.
    """
    for read in reads:
        whole = (float(read.revision), str(float(read.revision)))
        assert read.values in {None, whole}, f"torn: {read}"
    by_key: dict[int, list[Read]] = {}
    for read in reads:
        by_key.setdefault(read.key, []).append(read)
    for of_key in by_key.values():
        for earlier, later in _pairs(of_key):
            assert later.version >= earlier.version, f"went back: {earlier}, then {later}"


def _pairs(reads: Sequence[Read]) -> Iterator[tuple[Read, Read]]:
    """Every read with the newest of those that had ended when it began."""
    ended = sorted(reads, key=lambda read: read.ended)
    newest: list[Read] = []
    for read in ended:
        newest.append(max(read, newest[-1], key=lambda r: r.version) if newest else read)
    ends = [read.ended for read in ended]
    for read in reads:
        before = bisect_left(ends, read.began)
        if before:
            yield newest[before - 1], read


@dataclass
class Backfill(Fight):
    """Old days that are corrected and pushed, beside the newest one that is, by two processes."""

    def run(self) -> None:
        """Both at once, with readers beside them; then one push in peace."""
        for day in range(DAY + 1):
            self.history.commit(day, dict.fromkeys(USERS, 1.0))
        self.history.push()
        done = threading.Event()
        readers = [threading.Thread(target=self.reader, args=(done,)) for _ in range(READERS)]
        pushers = [threading.Thread(target=self.correct, args=(days,)) for days in ([0, 1], [DAY])]
        for thread in (*readers, *pushers):
            thread.start()
        for pusher in pushers:
            pusher.join()
        done.set()
        for reader in readers:
            reader.join()
        if self.failures:
            raise self.failures[0]
        self.history.push()

    def correct(self, days: Sequence[int]) -> None:
        """Correct the days and push them, again and again, as a process of its own."""
        mine = History(self.history.made.restart(), self.history.view)
        mine.made.store.online_store._library = self.library
        try:
            for revision in range(2, 2 + ROUNDS * VERSIONS):
                for day in days:
                    mine.commit(day, dict.fromkeys(USERS, float(revision)))
                try:
                    mine.push(days)
                except ConflictError:  # the other one pushed a newer version
                    self.conflicts += 1
        except (LockstepError, AssertionError) as error:
            self.failures.append(error)


@pytest.fixture
def small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows in a call, and every call waits for the one before: much can come between."""
    monkeypatch.setattr(pushing, "CHUNK_ROWS", 2)
    monkeypatch.setattr(pushing, "BATCH_BYTES", 1)
    monkeypatch.setattr(pushing, "AHEAD", 0)


def fight(
    folder: Path, server: EmbeddedServer, library: FunctionLibrary, patch: pytest.MonkeyPatch
) -> Fight:
    history = begin(folder, server.url, None)
    made = Fight(history, library, Random(SEED))
    patch.setattr(pushing, "crash_point", made.crash_point)
    made.run()
    return made


def test_readers_see_no_key_go_back_and_no_torn_vector_whatever_pushers_do(
    tmp_path: Path,
    shared_server: EmbeddedServer,
    small_calls: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = fight(tmp_path, shared_server, shipped_library(), monkeypatch)

    check(found.reads)
    assert found.conflicts > 0
    assert found.deaths > 0
    assert len({read.version for read in found.reads}) > ROUNDS
    assert found.history.expected() == found.history.served()
    assert found.history.made.store.parity()[0].holds


def test_a_backfill_of_old_days_beside_live_pushes_takes_no_key_back(
    tmp_path: Path,
    shared_server: EmbeddedServer,
    small_calls: None,
) -> None:
    found = Backfill(begin(tmp_path, shared_server.url, None), shipped_library(), Random(SEED))

    found.run()

    check(found.reads)
    assert {read.day for read in found.reads} == {DAYS[DAY]}
    assert len({read.version for read in found.reads}) > ROUNDS
    assert found.history.expected() == found.history.served()
    assert found.history.made.store.parity()[0].holds


def test_without_comparing_versions_readers_see_a_key_go_back(
    tmp_path: Path,
    shared_server: EmbeddedServer,
    small_calls: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lua = files("lockstep.stores").joinpath("lockstep.lua").read_text("utf-8")
    guard = "if not newest or newest > version then"
    assert lua.count(guard) == 1
    broken = FunctionLibrary.of(lua.replace(guard, "if false then"))

    found = fight(tmp_path, shared_server, broken, monkeypatch)

    with pytest.raises(AssertionError, match="went back"):
        check(found.reads)


def test_the_checker_tells_a_torn_vector_and_a_key_that_went_back() -> None:
    first, torn = Read(0, 1, 7, 3, 2, (2.0, "2.0")), Read(2, 3, 7, 3, 2, (2.0, "1.0"))
    older, beside = Read(2, 3, 7, 2, 1, (1.0, "1.0")), Read(0.5, 2, 7, 2, 1, (1.0, "1.0"))

    check([first, beside])
    with pytest.raises(AssertionError, match="torn"):
        check([first, torn])
    with pytest.raises(AssertionError, match="went back"):
        check([older, first])
