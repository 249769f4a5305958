"""deploy/redis/redis.conf on both servers: what it sets, what the doctor says, its TLS lines."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lockstep.clock import utc_now
from lockstep.doctor_online import examine_online
from lockstep.stores.redis import OnlineStore
from lockstep.stores.server import LISTPACK_VALUE
from tests.certificates import Authority
from tests.documents import blocks
from tests.redis_cluster import Server, free_ports
from tests.scenario import make_views
from tests.secured_servers import (
    NAMESPACE,
    PASSWORDS,
    ROLES,
    login,
    rules,
    tls_client,
    tls_settings,
)
from tests.servers import KINDS, binary_of
from tests.source_tree import ROOT

CONF = ROOT / "deploy" / "redis" / "redis.conf"
PAGE = ROOT / "docs" / "how-to-redis.md"
LINES = CONF.read_text("utf-8").splitlines()


def directives(*, commented: bool = False) -> dict[str, str]:
    """The settings of the file, or those that a "#" switches off."""
    chosen = [line for line in LINES if line and line.startswith("#") == commented]
    if commented:
        chosen = [line[1:] for line in chosen if not line.startswith("# ")]
    return dict(line.split(maxsplit=1) for line in chosen)


@pytest.fixture(params=KINDS)
def configured(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server with the file's settings, a port and users of the test's own."""
    users = tmp_path / "users.acl"
    lines = [f"user {user} {said}\n" for user, said in rules().items()]
    users.write_text("".join([*lines, "user test on nopass ~* &* +@all\n"]), encoding="utf-8")
    settings = {**directives(), "aclfile": f'"{users}"'}
    (port,) = free_ports(1)
    del settings["port"]
    server = Server(
        tmp_path / "server",
        port,
        binary=binary_of(request.param),
        settings=settings,
        client=lambda port: redis.Redis(port=port, username="test", protocol=2),
    )
    server.start()
    yield server
    server.kill()


def test_both_servers_take_every_line(configured: Server) -> None:
    with configured.client() as client:
        found = client.config_get("*")

    expected = directives()
    assert expected["hash-max-listpack-value"] == str(LISTPACK_VALUE)
    for name in expected.keys() - {"port", "aclfile", "maxmemory", "save"}:
        assert found[name] == expected[name], name
    assert (found["maxmemory"], found["save"]) == (str(4 * 1024**3), "")


def test_the_doctor_has_nothing_to_say(configured: Server) -> None:
    url = f"redis://{login('admin')}127.0.0.1:{configured.port}/0"
    store = OnlineStore(url, namespace=NAMESPACE)
    store.ensure_ready()

    found = list(examine_online(store, url, make_views().all, now=utc_now))

    assert [advice for advice in found if advice.level != "ok"] == []
    store.close()


def test_the_lines_for_tls_and_cluster_are_real_settings(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    (port,) = free_ports(1)
    own = tls_settings(authority, port, "localhost")
    off = directives(commented=True)
    server = Server(
        tmp_path / "server",
        port,
        binary=binary_of("redis"),
        settings={**off, **own, "cluster-port": str(free_ports(1)[0])},
        client=lambda port: tls_client(port, authority, authority.sign("tester")),
    )
    server.start()
    try:
        with server.client() as client:
            found = client.config_get("*")
    finally:
        server.kill()

    assert off.keys() > own.keys()
    for name in off.keys() - own.keys():
        assert found[name] == off[name].strip('"'), name


def test_the_page_fills_the_template_in_as_the_tests_do(tmp_path: Path) -> None:
    """Its shell lines, run; with the tests' passwords and namespace."""
    (shell,) = [code for _, code in blocks(PAGE, "sh") if "digest()" in code]
    script = shell.replace("lockstep:prod", NAMESPACE).replace("/etc/redis", f"'{tmp_path}'")
    passwords = {f"{role.upper()}_PASSWORD": PASSWORDS[role] for role in ROLES}

    subprocess.run(["sh", "-euc", script], cwd=ROOT, env={**os.environ, **passwords}, check=True)

    written = (tmp_path / "users.acl").read_text("utf-8").splitlines()
    found = dict(line.removeprefix("user ").split(maxsplit=1) for line in written if line)
    assert found == rules()
