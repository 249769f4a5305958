"""Real servers for the tests: the embedded Valkey and, where it is installed, Debian's Redis.

A pytest plugin: `pytest_plugins = ("tests.servers",)`. `store` shares one server per kind and test
process and has a namespace of its own; what stops, fills or flushes a server takes `own_server`.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import pytest
import redis

from lockstep.stores.redis import OnlineStore
from lockstep.stores.server import EmbeddedServer
from tests.redis_cluster import Cluster
from tests.secured_servers import GuardedServer, TlsServer

KINDS = ("valkey", "redis")
PLACES = (*KINDS, "cluster")
Place: TypeAlias = EmbeddedServer | Cluster


def binary_of(kind: str) -> Path | None:
    """The program, None for the embedded one; skips the test where Debian's Redis is absent."""
    if kind == "valkey":
        return None
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed (apt install redis-server)")
    return Path(found)


def server(kind: str, folder: Path, settings: Mapping[str, str] | None = None) -> EmbeddedServer:
    """A server of that kind, not started; skips the test where Debian's Redis is absent."""
    return EmbeddedServer(folder, binary=binary_of(kind), settings=settings)


def open_store(url: str, *, namespace: str | None = None, socket_timeout: float = 5) -> OnlineStore:
    """A store in a namespace of its own."""
    name = namespace or f"test:{uuid4().hex}"
    return OnlineStore(url, namespace=name, socket_timeout=socket_timeout)


@contextmanager
def running_cluster(kind: str, folder: Path, **settings: Any) -> Iterator[Cluster]:
    """A cluster that serves every slot, killed afterwards."""
    cluster = Cluster(folder, binary_of(kind), **settings)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Cluster]]:
    """Gives the cluster of a kind, started when it is first asked for."""
    with ExitStack() as stack:

        @cache
        def of(kind: str) -> Cluster:
            folder = tmp_path_factory.mktemp(f"{kind} cluster")
            return stack.enter_context(running_cluster(kind, folder))

        yield of


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory, shared_cluster: Callable[[str], Cluster]
) -> Iterator[Callable[[str], Place]]:
    """Gives the running place of a kind, started when it is first asked for."""
    with ExitStack() as stack:

        @cache
        def of(kind: str) -> Place:
            if kind == "cluster":
                return shared_cluster("valkey")
            started = server(kind, tmp_path_factory.mktemp("shared server"))
            started.start()
            stack.callback(started.stop)
            return started

        yield of


@pytest.fixture(scope="session", params=KINDS)
def shared_server(request: pytest.FixtureRequest, shared: Callable[[str], Place]) -> EmbeddedServer:
    """A running server that tests must leave running, empty of settings and full of namespaces."""
    found = shared(request.param)
    assert isinstance(found, EmbeddedServer)
    return found


@pytest.fixture(scope="session", params=PLACES)
def shared_place(request: pytest.FixtureRequest, shared: Callable[[str], Place]) -> Place:
    """A shared server, or the shared cluster."""
    return shared(request.param)


@pytest.fixture(scope="session", params=KINDS)
def cluster(request: pytest.FixtureRequest, shared_cluster: Callable[[str], Cluster]) -> Cluster:
    """Three masters that tests must leave running, every slot served and none of them moving."""
    return shared_cluster(request.param)


@pytest.fixture(params=KINDS)
def own_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """Three masters that the test may stop, replace and rebuild."""
    with running_cluster(request.param, tmp_path / "own cluster") as started:
        yield started


@pytest.fixture(params=KINDS)
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A running server that the test may stop, kill, flush or fill."""
    started = server(request.param, tmp_path / "own server")
    started.start()
    yield started
    started.kill()


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[TlsServer]:
    """Debian's Redis, reached by TLS only (the embedded server has none)."""
    with TlsServer.running(tmp_path / "tls server", binary_of("redis")) as started:
        yield started


@pytest.fixture(params=KINDS)
def acl_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GuardedServer]:
    """A server with the users of deploy/redis/users.acl and nobody else but the test."""
    folder = tmp_path / "acl server"
    with GuardedServer.running(folder, binary_of(request.param)) as started:
        yield started


@pytest.fixture
def store(shared_place: Place) -> Iterator[OnlineStore]:
    """A ready store in an empty namespace."""
    opened = open_store(shared_place.url)
    opened.ensure_ready()
    yield opened
    opened.close()


@pytest.fixture
def raw(shared_place: Place) -> Iterator["redis.Redis | redis.RedisCluster"]:
    """A plain client of the shared place, to look behind the store's back."""
    kind = redis.RedisCluster if isinstance(shared_place, Cluster) else redis.Redis
    with kind.from_url(shared_place.url, protocol=2) as client:
        yield client
