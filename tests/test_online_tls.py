"""TLS to the online store: verified unless the URL says otherwise, on one server and on three."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from lockstep.errors import ConfigError, OnlineError
from lockstep.online import Vectors
from lockstep.serving.aclient import AsyncClient
from lockstep.serving.client import Client
from lockstep.stores.address import Address
from lockstep.stores.deadline import Deadline
from lockstep.stores.reading import Reading
from lockstep.stores.resp import batch_of
from tests.certificates import Authority
from tests.online_rows import BUCKETS, ENTITY, IDS, VIEW, keys_of, packed, push, seals_of
from tests.secured_servers import TlsServer, tls_client, tls_settings
from tests.servers import binary_of, open_store, running_cluster
from tests.small_world import USERS, asked_of, small_world


def written(url: str) -> None:
    """Connect as a writer does."""
    store = open_store(url)
    try:
        store.ping()
    finally:
        store.close()


def read(url: str) -> None:
    """Connect as the feature service does."""
    with Reading(Address.parse(url)) as reading:
        reading.read(batch_of([(b"HGET", b"key", b"field")]), Deadline.after(5))


BOTH = pytest.mark.parametrize("connect", [written, read])


@BOTH
def test_a_certificate_of_an_unknown_authority_is_refused(
    tls_server: TlsServer, connect: Callable[[str], None]
) -> None:
    with pytest.raises(OnlineError, match="certificate that cannot be verified: self-signed") as no:
        connect(tls_server.url(query=""))

    assert "ssl_ca_certs=FILE" in str(no.value)
    assert f"localhost:{tls_server.server.port}" in str(no.value)


@BOTH
def test_a_certificate_of_another_authority_is_refused(
    tls_server: TlsServer, connect: Callable[[str], None], tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")

    with pytest.raises(OnlineError, match="certificate that cannot be verified"):
        connect(tls_server.url(query=other.query()))


@BOTH
def test_a_certificate_for_another_host_is_refused(
    tls_server: TlsServer, connect: Callable[[str], None]
) -> None:
    with pytest.raises(OnlineError, match=r"not valid for '127\.0\.0\.1'\."):
        connect(tls_server.url(host="127.0.0.1"))


@BOTH
def test_verification_is_left_out_only_where_the_url_says_so(
    tls_server: TlsServer, connect: Callable[[str], None]
) -> None:
    trusting = tls_server.authority.query()

    connect(tls_server.url())
    connect(tls_server.url(host="127.0.0.1", query=f"{trusting}&ssl_check_hostname=false"))
    connect(tls_server.url(host="127.0.0.1", query="ssl_cert_reqs=none"))


@BOTH
def test_a_server_that_wants_a_certificate_gets_one(
    tmp_path: Path, connect: Callable[[str], None]
) -> None:
    folder, binary = tmp_path / "strict", binary_of("redis")
    with TlsServer.running(folder, binary, certified_clients=True) as server:
        shown = server.authority.query(server.authority.sign("client"))
        with pytest.raises(OnlineError, match="cannot be used"):
            connect(server.url())

        connect(server.url(query=shown))


@BOTH
def test_a_plain_client_is_turned_away(
    tls_server: TlsServer, connect: Callable[[str], None]
) -> None:
    with pytest.raises(OnlineError, match="cannot be used"):
        connect(f"redis://localhost:{tls_server.server.port}/0")


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("ssl_ca_certs=/nowhere/authority.pem", "No such file"),
        (f"ssl_ca_certs={__file__}", "no certificate"),
        ("ssl_cert_reqs=perhaps", "perhaps"),
        (f"ssl_certfile={__file__}", "TLS options"),
    ],
)
@pytest.mark.parametrize("use", [open_store, lambda url: Address.parse(url).security])
def test_tls_options_that_cannot_be_used_are_found_before_anything_is_sent(
    use: Callable[[str], object], query: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        use(f"rediss://localhost:1/0?{query}")

    assert "ssl_ca_certs, ssl_certfile and ssl_keyfile" in str(refused.value)


def test_a_store_pushes_reads_and_wipes_over_tls(tls_server: TlsServer) -> None:
    store = open_store(tls_server.url())
    store.ensure_ready()

    push(store, 7)

    assert store.encrypted
    assert store.fetch(ENTITY, keys_of(), [VIEW], BUCKETS) == [[row] for row in packed(7)]
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(7)
    assert len(dict(store.scan(ENTITY, VIEW))) == len(IDS)
    assert store.wipe(ENTITY, VIEW, BUCKETS, table_id=None) == len(IDS)
    store.close()


def test_the_session_tickets_of_a_new_connection_disturb_nobody(tls_server: TlsServer) -> None:
    """They arrive after the handshake, sooner or later: redis-py may see data nobody asked for."""
    for _ in range(100):
        written(tls_server.url())


def test_both_clients_answer_over_tls(tls_server: TlsServer, tmp_path: Path) -> None:
    made = small_world(tmp_path / "project", tls_server.url())
    namespace, catalog = made.store.project.namespace, made.store.catalog

    async def asynchronously() -> Vectors:
        async with AsyncClient(
            catalog, tls_server.url(), namespace=namespace, deadline=5, now=made.clock
        ) as client:
            return await client.fetch(*asked_of(USERS))

    with Client(
        catalog, tls_server.url(), namespace=namespace, deadline=5, now=made.clock
    ) as client:
        found = client.fetch(*asked_of(USERS))

    assert found.columns == [[f"C{user}" for user in USERS]]
    assert found.cells == [["present"] * len(USERS)]
    assert asyncio.run(asynchronously()).rows() == found.rows()
    made.store.online_store.close()


def test_a_cluster_by_tls_only_is_walked_with_the_same_trust(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    tester = authority.sign("tester")

    def settings(port: int) -> dict[str, str]:
        own = tls_settings(authority, port, "localhost", address="127.0.0.1")
        return {**own, "tls-cluster": "yes", "tls-auth-clients": "optional"}

    def client(port: int) -> "redis.Redis":
        return tls_client(port, authority, tester)

    with running_cluster(
        "redis", tmp_path / "cluster", settings=settings, client_of=client
    ) as cluster:
        url = f"rediss://127.0.0.1:{cluster.ports[0]}/0?{authority.query()}"
        made = small_world(tmp_path / "project", url)
        with Client(
            made.store.catalog,
            url,
            namespace=made.store.project.namespace,
            deadline=5,
            now=made.clock,
        ) as reader:
            found = reader.fetch(*asked_of(USERS))

        assert found.cells == [["present"] * len(USERS)]
        assert [parity.holds for parity in made.store.parity("profile")] == [True]
        assert len(made.store.online_store.nodes()) == 3
        made.store.online_store.close()
