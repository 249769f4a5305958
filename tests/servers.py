"""Real servers for the tests: the embedded Valkey and, where it is installed, Debian's Redis.

A pytest plugin: `pytest_plugins = ("tests.servers",)`. `store` shares one server per kind and test
process and has a namespace of its own; what stops, fills or flushes a server takes `own_server`.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from lockstep.stores.redis import OnlineStore
from lockstep.stores.server import EmbeddedServer

KINDS = ("valkey", "redis")


def server(kind: str, folder: Path, settings: Mapping[str, str] | None = None) -> EmbeddedServer:
    """A server of that kind, not started; skips the test where Debian's Redis is absent."""
    if kind == "valkey":
        return EmbeddedServer(folder, settings=settings)
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed (apt install redis-server)")
    return EmbeddedServer(folder, binary=Path(found), settings=settings)


def open_store(url: str, *, namespace: str | None = None, socket_timeout: float = 5) -> OnlineStore:
    """A store in a namespace of its own."""
    name = namespace or f"test:{uuid4().hex}"
    return OnlineStore(url, namespace=name, socket_timeout=socket_timeout)


@pytest.fixture(scope="session", params=KINDS)
def shared_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """A running server that tests must leave running, empty of settings and full of namespaces."""
    started = server(request.param, tmp_path_factory.mktemp("shared server"))
    started.start()
    yield started
    started.stop()


@pytest.fixture(params=KINDS)
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A running server that the test may stop, kill, flush or fill."""
    started = server(request.param, tmp_path / "own server")
    started.start()
    yield started
    started.kill()


@pytest.fixture
def store(shared_server: EmbeddedServer) -> Iterator[OnlineStore]:
    """A ready store in an empty namespace."""
    opened = open_store(shared_server.url)
    opened.ensure_ready()
    yield opened
    opened.close()


@pytest.fixture
def raw(shared_server: EmbeddedServer) -> Iterator["redis.Redis"]:
    """A plain client of the shared server, to look behind the store's back."""
    with redis.Redis.from_url(shared_server.url, protocol=2) as client:
        yield client
