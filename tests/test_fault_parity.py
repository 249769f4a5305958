"""The server fails in the middle of a push; afterwards every entity of every view equals Delta.

A real table and a real server; every fault is done while the rows of a push are on their way.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from lockstep.calls import FunctionLibrary, shipped_library
from lockstep.errors import OnlineError, PushFailedError
from lockstep.push import Pushed, push
from lockstep.stores.redis import OnlineStore
from lockstep.stores.server import EmbeddedServer
from tests.lost_redis import LAST, Lost, lost
from tests.scenario import event
from tests.servers import server

VIEWS = ("spend_3d", "profile", "pace")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server and one project for all faults: each finds what the one before has left."""
    started = server("valkey", tmp_path_factory.mktemp("server"))
    started.start()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def project(running: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Lost:
    return lost(tmp_path_factory.mktemp("project"), running.url)


@pytest.fixture
def found(project: Lost) -> Lost:
    """Three views, pushed; then every row of their newest day changed."""
    restate_everybody(project)
    return project


def restate_everybody(found: Lost) -> None:
    found.wait(1)
    made, name = found.made, f"{found.made.clock.now:%H%M%S}"
    extra = [event(f"late {name}/{user}", user, LAST, 1000.0) for user in range(1, 61)]
    made.land("events", extra, f"late {name}.parquet")
    made.ingest(LAST, LAST)
    people = [{"user_id": user, "country": f"{name} {user}"} for user in range(1, 61)]
    made.land("people", people, f"people {name}.parquet")
    made.ingest_people()
    for view in made.views.all:
        made.build(view, LAST)


@dataclass
class Once:
    """Called with acknowledged rows; does something when the first ones came."""

    fault: Callable[[], object]
    done: bool = False

    def __call__(self, rows: int) -> None:
        if rows and not self.done:
            self.done = True
            self.fault()


def pushed(
    found: Lost,
    fault: Callable[[], object],
    *,
    online: OnlineStore | None = None,
) -> Pushed:
    """Push a view, with a fault when a part of its rows has been acknowledged."""
    store, once = found.made.store, Once(fault)
    try:
        return push(
            store.lake,
            online or store.online_store,
            found.made.views.spend_3d,
            now=found.made.clock,
            on_rows=once,
        )
    finally:
        assert once.done


def check_every_entity(found: Lost) -> None:
    """After a push of every view, which may find nothing to do, all is equal to Delta."""
    for view in found.views:
        found.made.push(view)
    parities = found.made.store.parity()

    assert {found.view for found in parities} == set(VIEWS)
    assert all(parity.holds for parity in parities), [parity.sentence for parity in parities]
    assert found.look() == {}


def test_a_server_that_fills_up_in_mid_push_is_caught_up_once_there_is_room(found: Lost) -> None:
    with found.raw() as client:
        with pytest.raises(PushFailedError, match="out of memory") as refused:
            pushed(found, lambda: client.config_set("maxmemory", 1))
        unequal = {each.view for each in found.made.store.parity() if not each.holds}
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 50_000_000)

    assert refused.value.receipt.written > 0
    assert unequal == set(VIEWS)
    check_every_entity(found)


def test_a_server_that_stops_for_a_moment_in_mid_push_loses_nothing(
    found: Lost, running: EmbeddedServer
) -> None:
    continuing: list[threading.Timer] = []

    def stop() -> None:
        os.kill(process(running), signal.SIGSTOP)
        continuing.append(threading.Timer(0.3, os.kill, (process(running), signal.SIGCONT)))
        continuing[0].start()

    done = pushed(found, stop)
    continuing[0].join()

    assert done.receipt.written > 0
    check_every_entity(found)


def process(server: EmbeddedServer) -> int:
    assert server.process_id is not None
    return server.process_id


@contextmanager
def hasty(found: Lost, timeout: float = 0.2) -> Iterator[OnlineStore]:
    """The same store as somebody who hardly waits sees it."""
    namespace = found.made.store.project.namespace
    opened = OnlineStore(found.url, namespace=namespace, socket_timeout=timeout)
    yield opened
    opened.close()


def time_out(
    found: Lost, running: EmbeddedServer, meanwhile: Callable[[], None] = lambda: None
) -> PushFailedError:
    """Push to a server that stops in the middle and answers nobody in time."""
    try:
        with hasty(found) as online, pytest.raises(PushFailedError, match="did not answer") as out:
            pushed(found, lambda: os.kill(process(running), signal.SIGSTOP), online=online)
        meanwhile()
    finally:
        os.kill(process(running), signal.SIGCONT)
    return out.value


def wait_for_late_rows(found: Lost, before: dict[bytes, bytes]) -> int:
    """How many rows changed, once those that were on their way have arrived."""
    deadline = time.monotonic() + 10
    while True:
        now = found.served("spend_3d")
        changed = sum(before.get(key) != value for key, value in now.items())
        if changed == len(now):
            return changed
        assert time.monotonic() < deadline, f"{changed} of {len(now)} rows arrived"


def test_rows_that_arrive_after_the_time_out_converge(found: Lost, running: EmbeddedServer) -> None:
    before = found.served("spend_3d")

    failed = time_out(found, running)

    assert failed.receipt.failed > 0
    assert failed.receipt.sealed == ()
    assert wait_for_late_rows(found, before) > failed.receipt.written
    check_every_entity(found)


def test_rows_that_arrive_during_a_newer_push_replace_nothing_newer(
    found: Lost, running: EmbeddedServer
) -> None:
    time_out(found, running, meanwhile=lambda: restate_everybody(found))

    check_every_entity(found)


def flushed(found: Lost) -> None:
    with found.raw() as client:
        client.script_flush()
        client.function_flush()


def test_functions_that_are_flushed_in_mid_push_are_loaded_by_the_next_attempt(found: Lost) -> None:
    done = pushed(found, lambda: flushed(found))

    assert len(done.receipt.sealed) == 4
    check_every_entity(found)


def older(name: str) -> str:
    """A library as of a release to which every stored row looks newer than the pushed one."""
    text = shipped_library().source.replace(shipped_library().name, name)
    compared = "if newer and newer[i] then"
    assert compared in text
    return text.replace(compared, "if redis.call('HEXISTS', keys[i], view) == 1 then")


def load(found: Lost, source: str) -> None:
    with found.raw() as client:
        client.function_load(source, replace=True)


def test_an_older_library_under_another_name_is_called_by_nobody_but_its_release(
    found: Lost,
) -> None:
    """Two releases at once: the older one loads its own while the newer one is in the middle."""
    theirs = FunctionLibrary.of(f"{older('lockstep_v1')}-- a release before")

    done = pushed(found, lambda: load(found, theirs.source))

    assert theirs.name != shipped_library().name
    assert done.receipt.superseded == 0
    check_every_entity(found)


def test_an_older_text_under_the_same_name_is_replaced_before_the_push(found: Lost) -> None:
    """It would take every stored row for a newer one, and seal over it."""
    own = shipped_library()
    load(found, older(own.name))

    done = found.made.push(found.made.views.spend_3d)

    with found.raw() as client:
        (loaded,) = client.function_list(own.name, withcode=True)
    assert own.source.encode() in loaded
    assert done.receipt.superseded == 0
    check_every_entity(found)


def test_an_older_text_under_the_same_name_in_mid_push_is_noticed_and_repaired(found: Lost) -> None:
    own = shipped_library()
    with pytest.raises(OnlineError, match="does not read back"):
        pushed(found, lambda: load(found, older(own.name)))

    assert all(each.holds for each in found.reconcile(patient=False))
    check_every_entity(found)
