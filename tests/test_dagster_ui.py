"""Dagster's UI for others: the read-only server refuses to act, and the page tells the truth."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.dagster_answers import answering
from tests.documents import blocks
from tests.source_tree import ROOT

PAGE = ROOT / "docs" / "how-to-dagster-ui.md"
PROXY = ROOT / "deploy" / "proxy" / "dagster-ui.conf"

SELECTOR = {
    "repositoryLocationName": "lockstep",
    "repositoryName": "__repository__",
    "jobName": "reconcile",
}
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on UnauthorizedError { message } }
}
"""
STOP_SENSOR = """
mutation Start($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename ... on UnauthorizedError { message } }
}
"""
WIPE = """
mutation Wipe($ranges: [PartitionsByAssetSelector!]!) {
  wipeAssets(assetPartitionRanges: $ranges) { __typename }
}
"""
READ = "{ assetNodes { assetKey { path } } }"


def webservers() -> list[list[str]]:
    """The webservers that the page starts, as words."""
    lines = [line for _, code in blocks(PAGE, "sh") for line in code.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("dagster-webserver")]


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page's read-only webserver answers, on a port of the test's own."""
    home = tmp_path_factory.mktemp("dagster home")
    settings = (ROOT / "dagster.yaml").read_text(encoding="utf-8")
    (home / "dagster.yaml").write_text(settings.replace(".lockstep/dagster", str(home / "kept")))
    (words,) = [command for command in webservers() if "--read-only" in command]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [port if word == words[words.index("-p") + 1] else word for word in words[1:]]
    log = home / "webserver.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "dagster_webserver", *words],
            cwd=ROOT,
            env={
                **os.environ,
                "DAGSTER_HOME": str(home),
                "LOCKSTEP_PROJECT": str(ROOT),
                "LOCKSTEP_ROOT": str(home / "lake"),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield answering(f"http://127.0.0.1:{port}", child, log)
        finally:
            child.terminate()
            child.wait(30)


def asked(address: str, query: str, **variables: Any) -> Any:
    """What GraphQL answers."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    headers = {"Content-Type": "application/json"}
    request = Request(f"{address}/graphql", body, headers)  # noqa: S310 - loopback
    with urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def test_the_read_only_server_shows_everything(viewer: str) -> None:
    found = asked(viewer, READ)["data"]["assetNodes"]

    assert ["txn_7d"] in [node["assetKey"]["path"] for node in found]


def test_the_read_only_server_launches_no_run(viewer: str) -> None:
    params = {"selector": SELECTOR, "mode": "default", "runConfigData": "{}"}

    refused = asked(viewer, LAUNCH, params=params)["data"]["launchRun"]
    runs = asked(viewer, "{ runsOrError { ... on Runs { results { runId } } } }")

    assert "UnauthorizedError" == refused["__typename"]
    assert [] == runs["data"]["runsOrError"]["results"]


def test_the_read_only_server_switches_no_sensor_and_deletes_nothing(viewer: str) -> None:
    sensor = {key: SELECTOR[key] for key in SELECTOR if key != "jobName"}
    sensor["sensorName"] = "reconcile"

    switched = asked(viewer, STOP_SENSOR, selector=sensor)["data"]["startSensor"]
    wiped = asked(viewer, WIPE, ranges=[{"assetKey": {"path": ["txn_7d"]}}])

    assert "UnauthorizedError" == switched["__typename"]
    assert "UnauthorizedError" == wiped["data"]["wipeAssets"]["__typename"]


def test_the_read_only_server_takes_no_report_of_a_materialization(viewer: str) -> None:
    address = f"{viewer}/report_asset_materialization/txn_7d"
    request = Request(address, b"{}", {"Content-Type": "application/json"})  # noqa: S310

    with pytest.raises(HTTPError) as refused:
        urlopen(request, timeout=60)  # noqa: S310

    with refused.value:
        assert 401 == refused.value.code


def test_every_webserver_of_the_page_listens_on_the_loopback_and_takes_its_options() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "dagster_webserver", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert 2 == len(webservers())
    for words in webservers():
        assert "127.0.0.1" == words[words.index("-h") + 1]
        assert (ROOT / words[words.index("-w") + 1]).is_file()
        for option in (word for word in words if word.startswith("-")):
            assert re.search(rf"(?<![\w-]){option}\b", told), option
    assert ["--read-only" in words for words in webservers()] == [False, True]


def directives(text: str) -> list[Any]:
    """A configuration of nginx: words, and after a block's words the list of what is in it."""
    stack: list[list[Any]] = [[]]
    words: list[str] = []
    said = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    for piece in re.findall(r'"[^"]*"|[{};]|[^\s{};]+', said):
        if piece == "{":
            inner: list[Any] = []
            stack[-1].append((words, inner))
            stack.append(inner)
        elif piece == "}":
            assert words == []
            stack.pop()
        elif piece == ";":
            stack[-1].append((words, []))
        else:
            words.append(piece)
            continue
        words = []
    assert [1, []] == [len(stack), words], "a brace or a semicolon is missing"
    return stack[0]


def named(block: list[Any], name: str) -> list[tuple[list[str], list[Any]]]:
    return [(words[1:], inner) for words, inner in block if words[0] == name]


def test_the_proxy_lets_nobody_through_without_a_password_and_reaches_the_loopback_only() -> None:
    ports = {words[words.index("-p") + 1]: "--read-only" in words for words in webservers()}
    reached = {}
    for _, server in named(directives(PROXY.read_text(encoding="utf-8")), "server"):
        ((listen, _),) = named(server, "listen")
        if listen == ["80"]:
            assert [["301", "https://$host$request_uri"]] == [w for w, _ in named(server, "return")]
            assert [] == named(server, "location")
            continue
        assert ["443", "ssl"] == listen
        assert '"off"' not in str(named(server, "auth_basic"))
        ((users, _),) = named(server, "auth_basic_user_file")
        ((path, location),) = named(server, "location")
        assert ["/"] == path
        ((upstream, _),) = named(location, "proxy_pass")
        ((condition, refusal),) = named(location, "if")
        assert (["($foreign_origin)"], [(["return", "403"], [])]) == (condition, refusal)
        assert [] == named(location, "auth_basic")
        host, _, port = upstream[0].removeprefix("http://").partition(":")
        assert "127.0.0.1" == host
        reached[port] = "viewers" in users[0]

    assert ports == reached


def test_the_proxy_takes_requests_of_its_own_pages_only() -> None:
    blocks_of = directives(PROXY.read_text(encoding="utf-8"))
    (origins,) = [inner for words, inner in named(blocks_of, "map") if words[0] == "$http_origin"]
    names = {
        f'"https://{name}"'
        for _, server in named(blocks_of, "server")
        for words, _ in named(server, "server_name")
        for name in words
    }

    allowed = {words[0] for words, _ in origins if words[1] == "0"}

    assert {'""', *names} == allowed
    assert ["default", "1"] in [words for words, _ in origins]


def test_every_file_and_name_of_the_page_is_in_the_configuration() -> None:
    page, conf = PAGE.read_text(encoding="utf-8"), PROXY.read_text(encoding="utf-8")

    for text in re.findall(
        r"/etc/nginx/dagster-\w+|\bdagster[\w-]*\.example\.com|\$\w+_origin", page
    ):
        assert text in conf, text
    assert "enabled: false" in (ROOT / "dagster.yaml").read_text(encoding="utf-8").split("nux")[0]
