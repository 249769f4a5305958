"""Passwords that nobody repeats, and entity keys that are data whatever is in them."""

import io
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lockstep.cli import app
from lockstep.codec import encode_key
from lockstep.errors import ConfigError, LockstepError
from lockstep.stores.address import Address
from lockstep.stores.deadline import Deadline
from lockstep.stores.reading import Reading
from lockstep.stores.redis import OnlineStore
from lockstep.stores.resp import Batch, EntityReads
from lockstep.stores.server import EmbeddedServer
from tests.online_rows import BUCKETS, ENTITY, VIEW, keys_of, packed, push, push_rows, seals_of
from tests.secured_servers import NAMESPACE, PASSWORDS, ROLES, GuardedServer
from tests.servers import open_store
from tests.source_tree import ROOT

LUA = (ROOT / "lockstep" / "stores" / "lockstep.lua").read_text("utf-8")
CANARIES = [*PASSWORDS.values(), "canary/wrong:one"]


def attempts(server: GuardedServer) -> Iterator[Callable[[], object]]:
    """Ways to fail, each with a password in its URL."""
    for role in ROLES:
        for url in (server.url(role), server.url(role, password=CANARIES[-1])):
            for namespace in (NAMESPACE, "lockstep:other"):
                store = OnlineStore(url, namespace=namespace)
                yield store.ensure_ready
                yield lambda store=store: push(store, 7)
                yield lambda store=store: store.wipe(ENTITY, VIEW, BUCKETS, table_id=None)
                yield lambda store=store: list(store.scan(ENTITY, VIEW))
                yield lambda store=store: store.fetch(ENTITY, keys_of(), [VIEW], BUCKETS)
                yield lambda store=store: store.ask("CONFIG", "GET", "*")
                yield store.close
            yield lambda url=url: Reading(Address.parse(url)).read(some_reads(), Deadline.after(5))
            yield lambda url=url: OnlineStore(f"{url}1?ssl_ca_certs=x", namespace=NAMESPACE).ping()
            yield lambda url=url: OnlineStore(url.replace("%", "/"), namespace=NAMESPACE)
            yield lambda url=url: Address.parse(url.replace("%", "/"))
            yield lambda url=url: Address.parse(url.replace("redis://", "rediss://")).security
            yield lambda url=url: OnlineStore(url.replace(":", "::"), namespace=NAMESPACE)


def some_reads() -> Batch:
    names = OnlineStore("redis://127.0.0.1:1", namespace=NAMESPACE).names
    reads = EntityReads(names, ENTITY, BUCKETS, [VIEW])
    return Batch(reads.commands(keys_of()), lambda: reads.slots(keys_of()))


def test_no_message_log_or_traceback_repeats_a_password(acl_server: GuardedServer) -> None:
    """On a server that refuses, and then on one that has gone."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    failed = 0
    try:
        for _ in range(2):
            for attempt in attempts(acl_server):
                try:
                    attempt()
                except LockstepError as error:
                    failed += 1
                    said.write("".join(traceback.format_exception(error)))
                    said.write(f"{error!r} {error.__context__!r}")
            acl_server.server.kill()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    said.write(repr(OnlineStore(acl_server.url("admin"), namespace=NAMESPACE)))
    said.write(repr(Address.parse(acl_server.url("admin"))))

    assert failed > 100
    assert f"127.0.0.1:{acl_server.server.port}" in said.getvalue()
    assert [canary for canary in CANARIES if repeated(canary, said.getvalue())] == []


def repeated(password: str, text: str) -> bool:
    """Whether the password, its escaped form or the secret end of it is in the text."""
    return any(form in text for form in (password, quote(password, safe=""), password[-8:]))


@pytest.mark.parametrize("command", ["up", "status", "doctor", "parity", "push", "reconcile"])
@pytest.mark.parametrize("password", [PASSWORDS["service"], CANARIES[-1]])
def test_no_command_prints_a_password(
    acl_server: GuardedServer, tmp_path: Path, command: str, password: str
) -> None:
    environment = {
        "LOCKSTEP_REDIS_URL": acl_server.url("service", password=password),
        "LOCKSTEP_ROOT": str(tmp_path / "lake"),
    }

    result = CliRunner().invoke(app, [command], env=environment)

    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert not repeated(password, result.output)


FRAGMENTS = [
    *("\r\n", "\n", "\0", "$", "*", "{", "}", "{}", ":", "!seal", " ", "'", '"', "\\", "%", "é"),
    *(
        "*1\r\n$8\r\nFLUSHALL\r\n",
        "\r\n*1\r\n$8\r\nFLUSHALL\r\n",
        "FLUSHALL\r\n",
        "\r\nDEL kept\r\n",
    ),
    *(
        "*2\r\n$3\r\nDEL\r\n$4\r\nkept\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "-ERR\r\n",
        "redis.call('FLUSHALL')",
    ),
    *("]] redis.call('DEL', 'kept') --", "lockstep:guarded:{household:0}!seal", "\ufeff", "🦊"),
]
HOSTILE = st.lists(
    st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=8), min_size=1, max_size=5).map("".join),
    min_size=1,
    max_size=8,
    unique=True,
)


@given(texts=HOSTILE)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_entity_key_is_data_and_never_a_command(
    own_server: EmbeddedServer, texts: list[str]
) -> None:
    store = open_store(own_server.url)
    keys = [encode_key([text]) for text in texts]
    rows = packed(7, range(len(keys)))
    with redis.Redis.from_url(own_server.url, protocol=2) as raw:
        raw.set("kept", "as it was")
        store.ensure_ready()
        before = calls_of(raw)

        store.push(ENTITY, VIEW, BUCKETS, push_rows(keys, rows), seals=seals_of(7), started_from={})
        reads = EntityReads(store.names, ENTITY, BUCKETS, [VIEW])
        with Reading(Address.parse(own_server.url)) as reading:
            batch = Batch(reads.commands(keys), lambda: reads.slots(keys))
            found = reading.read(batch, Deadline.after(5))

        assert found == store.fetch(ENTITY, keys, [VIEW], BUCKETS) == [[row] for row in rows]
        assert dict(store.scan(ENTITY, VIEW)) == dict(zip(keys, rows, strict=True))
        assert store.wipe(ENTITY, VIEW, BUCKETS, table_id=None) == len(keys)
        done = {name for name, count in calls_of(raw).items() if count != before.get(name)}
        assert done <= {"fcall", "hello", "info", "scan", "hmget", *INNER, "function|list"}
        assert calls_of(raw)["hmget"] - before.get("hmget", 0) == 2 * len(keys)
        assert raw.get("kept") == b"as it was"
    store.close()


INNER = {word.lower() for word in re.findall(r"call\('([A-Z]+)'", LUA)}


def calls_of(raw: "redis.Redis") -> dict[str, int]:
    """How often each command was carried out, this one aside."""
    found: dict[str, Any] = raw.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(stats["calls"]) for name, stats in found.items()}


def test_a_user_without_a_password_is_not_taken_for_nobody(acl_server: GuardedServer) -> None:
    """The test's own user needs none; `default` is switched off."""
    url = f"redis://test@127.0.0.1:{acl_server.server.port}/0"

    with Reading(Address.parse(url)) as reading:
        assert reading.read(some_reads(), Deadline.after(5)) == [[None]] * len(keys_of())
    open_store(url).ping()


@pytest.mark.parametrize("query", ["decode_responses=true", "socket_timeout=900", "ssl_x=1", "x=1"])
def test_what_a_url_says_beyond_our_words_is_refused(query: str) -> None:
    """Unknown options would be a misspelt ssl_ca_certs, or would change how answers are read."""
    for use in (Address.parse, open_store):
        with pytest.raises(ConfigError, match="in its query db, username, password or ssl_"):
            use(f"rediss://127.0.0.1:1/0?{query}")


def test_the_masters_behind_a_unix_socket_are_reached_by_their_addresses() -> None:
    node = Address.parse("unix:///run/redis.sock").node("10.0.0.1", 7000)

    assert (node.path, node.host, node.port) == (None, "10.0.0.1", 7000)
