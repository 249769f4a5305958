"""The embedded server's life: started once, found again, stopped by its own lock, never two."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from lockstep.errors import OnlineError
from lockstep.stores.redis import OnlineStore
from lockstep.stores.server import EmbeddedServer
from tests.servers import server

ROOT = Path(__file__).parent.parent


def test_starting_it_again_finds_the_one_that_runs(own_server: EmbeddedServer) -> None:
    pid = own_server.process_id

    again = EmbeddedServer(own_server.folder)

    assert again.start() == own_server.url
    assert again.process_id == pid


def test_it_listens_on_loopback_only_keeps_every_write_and_evicts_nothing(
    own_server: EmbeddedServer,
) -> None:
    store = OnlineStore(own_server.url, namespace="x")

    info = store.info()

    assert own_server.url.startswith("redis://127.0.0.1:")
    assert info.append_only
    assert info.maxmemory_policy == "noeviction"
    with redis.Redis.from_url(own_server.url) as raw:
        assert raw.config_get("bind")["bind"] == "127.0.0.1"
        assert raw.config_get("hash-max-listpack-value") == {"hash-max-listpack-value": "1024"}
    store.close()


def test_stopping_it_twice_is_harmless_and_it_starts_again_on_its_port(
    own_server: EmbeddedServer,
) -> None:
    url = own_server.url

    assert own_server.stop()
    assert not own_server.stop()
    assert not own_server.running()
    assert own_server.process_id is None
    assert own_server.start() == url


def test_it_outlives_the_process_that_started_it_and_another_one_stops_it(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    script = (
        "import sys; from pathlib import Path; from lockstep.stores.server import EmbeddedServer;"
        "EmbeddedServer(Path(sys.argv[1])).start()"
    )

    subprocess.run([sys.executable, "-c", script, str(folder)], cwd=ROOT, check=True)

    found = EmbeddedServer(folder)
    assert found.running()
    OnlineStore(found.url, namespace="x").ping()
    assert found.stop()
    assert not found.running()


def test_starters_at_the_same_time_share_one_server(tmp_path: Path) -> None:
    found: list[tuple[str, int | None]] = []

    def start() -> None:
        mine = EmbeddedServer(tmp_path)
        found.append((mine.start(), mine.process_id))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 4
    assert len(set(found)) == 1
    assert EmbeddedServer(tmp_path).stop()


def test_a_process_id_left_by_a_killed_server_is_not_trusted(own_server: EmbeddedServer) -> None:
    own_server.kill()
    (own_server.folder / "server.pid").write_text(str(os.getpid()))

    assert not own_server.running()
    assert not own_server.stop()
    own_server.start()
    assert own_server.process_id != os.getpid()


def test_a_server_that_hangs_is_not_doubled_but_named_and_can_be_stopped(
    own_server: EmbeddedServer,
) -> None:
    pid = own_server.process_id
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    with pytest.raises(OnlineError, match="is still starting, or hangs"):
        own_server.start(timeout=0.1)

    assert own_server.process_id == pid
    assert own_server.stop(timeout=0.1)
    assert not own_server.running()


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_port_that_is_taken_is_said_with_the_servers_own_words(kind: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        unlucky = EmbeddedServer(tmp_path, port=port, binary=server(kind, tmp_path).binary)

        with pytest.raises(OnlineError, match=r"ended at once.*(?i:in use|listening)"):
            unlucky.start()


def test_a_folder_without_a_server_says_how_to_start_one(tmp_path: Path) -> None:
    never = EmbeddedServer(tmp_path / "never")

    with pytest.raises(OnlineError, match="lockstep up"):
        _ = never.url
    assert not never.running()
    assert not never.stop()


def test_settings_replace_ours(tmp_path: Path) -> None:
    small = EmbeddedServer(tmp_path, settings={"maxmemory": "5mb", "appendonly": "no"})
    store = OnlineStore(small.start(), namespace="x")

    info = store.info()

    assert (info.maxmemory, info.append_only) == (5 * 1024 * 1024, False)
    store.close()
    small.stop()
