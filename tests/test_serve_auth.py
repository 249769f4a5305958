"""Who may ask for what: every route, every kind of token, and where the service may listen."""

import hashlib
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lockstep.cli import app
from lockstep.errors import ConfigError
from lockstep.serving.auth import Tokens, create_token, read_tokens
from lockstep.serving.server import require_safe
from lockstep.serving.settings import ServingSettings
from lockstep.stores.address import Address
from tests.serving_world import (
    NOW,
    Reply,
    Running,
    make_catalog,
    new_namespace,
    push_all,
    running,
)

SCOPES = {
    "all": ["view:*", "pii", "metrics"],
    "no_pii": ["view:*"],
    "spend": ["view:spend"],
    "contact": ["view:contact", "pii"],
    "contact_no_pii": ["view:contact"],
    "prometheus": ["metrics"],
}
USER = {"user_id": [1]}
REQUESTS: dict[str, tuple[str, str, Any]] = {
    "features": ("POST", "/v1/features", {"features": ["spend:amount"], "entities": USER}),
    "two views": (
        "POST",
        "/v1/features",
        {"features": ["spend:amount", "contact:city"], "entities": USER},
    ),
    "pii": ("POST", "/v1/features", {"features": ["contact:email"], "entities": USER}),
    "pii set": ("POST", "/v1/features", {"feature_set": "contact_v1", "entities": USER}),
    "set": ("GET", "/v1/feature-sets/spending_v1", None),
    "set of pii": ("GET", "/v1/feature-sets/contact_v1", None),
    "set with keys": ("GET", "/v1/feature-sets/spending_v1?user_id=1", None),
    "pii set with keys": ("GET", "/v1/feature-sets/contact_v1?user_id=1", None),
    "feast": ("POST", "/get-online-features", {"features": ["spend:amount"], "entities": USER}),
    "feast pii": (
        "POST",
        "/get-online-features",
        {"feature_service": "contact_v1", "entities": USER},
    ),
    "metrics": ("GET", "/metrics", None),
    "openapi": ("GET", "/openapi.json", None),
    "healthz": ("GET", "/healthz", None),
    "readyz": ("GET", "/readyz", None),
}
OPEN = {"healthz", "readyz"}
ALLOWED: dict[str, set[str]] = {
    "all": set(REQUESTS),
    "no_pii": set(REQUESTS) - {"pii", "pii set", "pii set with keys", "feast pii", "metrics"},
    "spend": {"features", "set", "set with keys", "feast", "openapi"} | OPEN,
    "contact": {"pii", "pii set", "set of pii", "pii set with keys", "feast pii", "openapi"} | OPEN,
    "contact_no_pii": {"set of pii", "openapi"} | OPEN,
    "prometheus": {"metrics", "openapi"} | OPEN,
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    made = {name: create_token(path, name, scopes) for name, scopes in SCOPES.items()}
    made["expired"] = create_token(path, "expired", SCOPES["all"], NOW)
    made["valid"] = create_token(path, "valid", SCOPES["all"], NOW + timedelta(seconds=1))
    return {**made, "path": str(path)}


@pytest.fixture(scope="module")
def served(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, tokens: Mapping[str, str]
) -> Iterator[Running]:
    namespace = new_namespace()
    push_all(redis_url, namespace, make_catalog())
    folder = tmp_path_factory.mktemp("auth")
    with running(redis_url, namespace, folder, tokens=tokens["path"]) as it:
        yield it


def ask(served: Running, name: str, token: str | None) -> Reply:
    method, path, document = REQUESTS[name]
    caller = served.as_(token)
    return caller.get(path) if method == "GET" else caller.post(path, document)


def test_every_route_is_in_the_matrix(served: Running) -> None:
    asked = {(method, path.partition("?")[0]) for method, path, _ in REQUESTS.values()}
    routes = served.service.app.routes

    assert set(routes) == {
        (method, "/v1/feature-sets/" if "/feature-sets/" in path else path)
        for method, path in asked
    }


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("token", [*SCOPES, "none", "wrong", "empty", "expired", "hash", "valid"])
def test_each_route_answers_exactly_those_who_may(
    served: Running, tokens: Mapping[str, str], token: str, request_name: str
) -> None:
    said = {
        "none": None,
        "empty": "",
        "wrong": tokens["all"][:-1] + "_",
        "hash": hashlib.sha256(tokens["all"].encode()).hexdigest(),
    }
    answer = ask(served, request_name, said[token] if token in said else tokens[token])

    if token in {*ALLOWED, "valid"}:
        expected = 200 if request_name in ALLOWED.get(token, REQUESTS) else 403
    else:
        expected = 200 if request_name in OPEN else 401
    assert expected == answer.status, answer.body
    assert b"canary-pii" not in answer.body or "pii" in SCOPES.get(token, ["pii"])


def test_a_refusal_says_what_is_lacking_and_how_to_ask(
    served: Running, tokens: Mapping[str, str]
) -> None:
    nobody = ask(served, "features", None)
    somebody = ask(served, "pii set", tokens["spend"])

    assert 'Bearer realm="lockstep"' == nobody.headers["www-authenticate"]
    assert "view:contact, pii" in somebody.json["error"]["message"]


@pytest.mark.parametrize("scheme", ["Basic", "Token", "bearer2", ""])
def test_other_schemes_are_refused_and_bearer_has_no_case(
    served: Running, tokens: Mapping[str, str], scheme: str
) -> None:
    refused = served.get("/openapi.json", Authorization=f"{scheme} {tokens['all']}")
    let_in = served.get("/openapi.json", Authorization=f"bEARER {tokens['all']}")

    assert (401, 200) == (refused.status, let_in.status)


def test_who_may_not_see_every_view_is_told_no_names(
    served: Running, tokens: Mapping[str, str]
) -> None:
    asked = {"features": ["contac:email"], "entities": USER}

    narrow = served.as_(tokens["spend"]).post("/v1/features", asked)
    wide = served.as_(tokens["no_pii"]).post("/v1/features", asked)

    assert b"contact" not in narrow.body
    assert b"Did you mean 'contact'?" in wide.body


def test_the_openapi_document_shows_a_caller_only_its_views(
    served: Running, tokens: Mapping[str, str]
) -> None:
    document = ask(served, "openapi", tokens["spend"]).body

    assert b"spend:amount" in document
    assert b"contact" not in document
    assert b"everything" not in document


def test_a_changed_file_counts_without_a_restart(
    served: Running, tokens: Mapping[str, str]
) -> None:
    path = Path(tokens["path"])
    before = path.read_text(encoding="utf-8")
    later = create_token(path, "later", ["view:*"])

    while ask(served, "features", later).status == 401:
        pass
    path.write_text("tokens = 3", encoding="utf-8")  # a broken file changes nothing
    still = [ask(served, "features", later).status for _ in range(20)]
    path.write_text(before, encoding="utf-8")
    while ask(served, "features", later).status == 200:
        pass

    assert {200} == set(still)
    assert 200 == ask(served, "features", tokens["all"]).status


def test_no_token_is_in_the_file_and_only_its_owner_reads_it(tokens: Mapping[str, str]) -> None:
    path = Path(tokens["path"])
    text = path.read_text(encoding="utf-8")

    assert [] == [name for name, token in tokens.items() if name != "path" and token in text]
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_tokens_are_random_and_long(tmp_path: Path) -> None:
    made = {create_token(tmp_path / "t.toml", f"t{at}", ["view:*"]) for at in range(20)}

    assert 20 == len(made)
    assert all(len(token) >= 43 for token in made)


def test_expiry_is_exclusive_of_its_instant(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    said = f"Bearer {create_token(path, 'a', ['view:*'], NOW)}".encode()
    tokens = Tokens(path)

    assert tokens.caller(said, NOW - timedelta(microseconds=1)) is not None
    assert tokens.caller(said, NOW) is None


HASH = "0" * 64


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "x = 1",
        "tokens = 1",
        "[tokens]\na = 1",
        "[tokens.a]\nsha256 = 'short'\nscopes = []",
        f"[tokens.a]\nsha256 = '{HASH}'\nscopes = 'view:*'",
        f"[tokens.a]\nsha256 = '{HASH}'\nscopes = ['view:../x']",
        f"[tokens.a]\nsha256 = '{HASH}'\nscopes = ['admin']",
        f"[tokens.a]\nsha256 = '{HASH}'\nscopes = []\nexpires = 2027-01-01",
        f"[tokens.a]\nsha256 = '{HASH}'\nscopes = []\ntoken = 'plain'",
        f"[tokens.a]\nsha256 = '{HASH}'\nscopes = []\n[tokens.b]\nsha256 = '{HASH}'\nscopes = []",
    ],
)
def test_a_wrong_file_is_refused_and_its_text_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match="tokens") as caught:
        read_tokens(path)
    assert HASH not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "scopes"),
    [("A", ["view:*"]), ("a b", ["view:*"]), ("a", []), ("a", ["view:X"]), ("a", ["admin"])],
)
def test_a_token_that_makes_no_sense_is_not_created(
    tmp_path: Path, name: str, scopes: list[str]
) -> None:
    with pytest.raises(ConfigError, match="cannot be created"):
        create_token(tmp_path / "tokens.toml", name, scopes)
    assert not (tmp_path / "tokens.toml").exists()


def test_the_command_prints_the_token_once_and_keeps_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.lockstep]\nviews = "v"\nroot = "lake"\ntime_zone = "UTC"\n'
        '[tool.lockstep.serving]\ntokens = "secrets/tokens.toml"\n'
    )
    monkeypatch.chdir(tmp_path)
    said = ["token", "create", "churn", "--view", "txn_7d", "--view", "*", "--pii"]

    made = CliRunner().invoke(app, [*said, "--expires", "2027-01-01"])
    again = CliRunner().invoke(app, said)

    (caller,) = read_tokens(tmp_path / "secrets" / "tokens.toml").values()
    token = made.stdout.split()[-1]
    kept = Tokens(tmp_path / "secrets" / "tokens.toml")
    assert caller == kept.caller(f"Bearer {token}".encode(), NOW)
    assert {"view:txn_7d", "view:*", "pii"} == caller.scopes
    assert datetime(2027, 1, 1, tzinfo=UTC) == caller.expires
    assert 2 == again.exit_code
    assert "already" in again.stderr


def test_without_a_file_the_command_says_where_to_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.lockstep]\nviews = "v"\nroot = "lake"\ntime_zone = "UTC"\n'
    )
    monkeypatch.chdir(tmp_path)

    refused = CliRunner().invoke(app, ["token", "create", "a", "--view", "x"])
    monkeypatch.setenv("LOCKSTEP_TOKENS", str(tmp_path / "t.toml"))
    made = CliRunner().invoke(app, ["token", "create", "a", "--view", "x"])

    assert 2 == refused.exit_code
    assert "LOCKSTEP_TOKENS" in refused.stderr
    assert (0, True) == (made.exit_code, (tmp_path / "t.toml").exists())


EVERYWHERE = "0.0.0.0"  # noqa: S104 - what these tests are about
SAFE = "rediss://service:secret@redis.example/0"


@pytest.mark.parametrize(
    ("host", "tokens", "url", "problem"),
    [
        (EVERYWHERE, None, SAFE, "nobody needs a token"),
        ("192.0.2.1", None, SAFE, "nobody needs a token"),
        ("::", None, SAFE, "nobody needs a token"),
        ("service.example", None, SAFE, "nobody needs a token"),
        (EVERYWHERE, "t", "rediss://redis.example/0", "asks for no password"),
        (EVERYWHERE, "t", "redis://127.0.0.1/0", "asks for no password"),
        (EVERYWHERE, "t", "redis://u:secret@redis.example/0", "not encrypted"),
        (EVERYWHERE, "t", f"{SAFE}?ssl_cert_reqs=none", "not encrypted and verified"),
    ],
)
def test_other_machines_are_not_let_in_unless_told(
    host: str, tokens: str | None, url: str, problem: str
) -> None:
    settings = ServingSettings(host=host, tokens=tokens)

    with pytest.raises(ConfigError, match=problem) as caught:
        require_safe(settings, Address.parse(url), insecure=False)
    assert "--insecure" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert any(
        problem in warning for warning in require_safe(settings, Address.parse(url), insecure=True)
    )


@pytest.mark.parametrize(
    ("host", "tokens", "url"),
    [
        (EVERYWHERE, "t", SAFE),
        (EVERYWHERE, "t", "redis://u:secret@127.0.0.1/0"),
        (EVERYWHERE, "t", "unix:///run/redis.sock"),
        ("127.0.0.1", None, "redis://u:secret@redis.example/0"),
        ("::1", None, "redis://u:secret@127.0.0.1/0"),
        ("localhost", None, SAFE),
    ],
)
def test_what_is_safe_is_let_in(host: str, tokens: str | None, url: str) -> None:
    settings = ServingSettings(host=host, tokens=tokens)

    require_safe(settings, Address.parse(url), insecure=False)


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("redis://127.0.0.1/0", True),
        ("redis://default@127.0.0.1/0", True),
        ("redis://:secret@127.0.0.1/0", False),
        ("redis://service:secret@127.0.0.1/0", False),
    ],
)
def test_the_default_user_without_a_password_is_warned_of(url: str, warned: bool) -> None:
    found = require_safe(ServingSettings(), Address.parse(url), insecure=False)

    assert warned == any("'default' without a password" in warning for warning in found)


def test_without_tokens_others_see_no_pii(redis_url: str, tmp_path: Path) -> None:
    namespace = new_namespace()
    push_all(redis_url, namespace, make_catalog())

    with running(redis_url, namespace, tmp_path, host=EVERYWHERE) as exposed:
        refused = ask(exposed, "pii", None)
        open_to_all = ask(exposed, "features", None)

    assert (403, 200) == (refused.status, open_to_all.status)


def test_on_loopback_without_tokens_everything_is_seen(redis_url: str, tmp_path: Path) -> None:
    namespace = new_namespace()
    push_all(redis_url, namespace, make_catalog())

    with running(redis_url, namespace, tmp_path) as local:
        answers = {name: ask(local, name, None).status for name in REQUESTS}

    assert dict.fromkeys(REQUESTS, 200) == answers
