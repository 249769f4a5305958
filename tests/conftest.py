"""Settings of every test run: one clock zone, a clean environment, no network beyond loopback."""

import ipaddress
import os
import sys
import time
from collections.abc import Generator, Iterator
from socket import SOCK_DGRAM, socket

import pytest
from hypothesis import settings

from lockstep.stores.server import EmbeddedServer

pytest_plugins = ("tests.servers", "tests.tiny_project", "tests.s3_server", "tests.day_tables")

# What a developer's shell or a CI runner may say, and the tests must not hear.
_FOREIGN_PREFIXES = ("LOCKSTEP_", "DAGSTER_", "AWS_")
_FOREIGN = {
    "CLICOLOR_FORCE",
    "FORCE_COLOR",
    "GITHUB_ACTIONS",
    "MAKEFLAGS",
    "MAKELEVEL",
    "NO_COLOR",
    "PY_COLORS",
}
_OURS = {
    "COLUMNS": "160",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "LOCKSTEP_TESTING": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "TZ": "UTC",
    "no_proxy": "127.0.0.1,localhost",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails the run")


def pytest_configure() -> None:
    for name in list(os.environ):
        if name.startswith(_FOREIGN_PREFIXES) or name in _FOREIGN:
            del os.environ[name]
    os.environ.update(_OURS)
    time.tzset()
    sys.addaudithook(_only_loopback)
    settings.register_profile("dev", deadline=None)
    settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
    settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report, collector.config)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    if report.skipped and config.getoption("--no-skips"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"Nothing may be skipped in this run. {reason}"


def _only_loopback(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook: a test that reaches beyond this machine fails, also where it would succeed."""
    if event != "socket.connect":
        return
    connecting, address = arguments
    if not isinstance(address, tuple) or not isinstance(connecting, socket):
        return
    host = str(address[0])
    if connecting.type == SOCK_DGRAM or host == "localhost" or _loopback(host):
        return
    message = f"A test connects to {host}. Tests reach this machine only."
    raise RuntimeError(message)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a budget of one byte pass, so that a small spine is split like a large one."""
    monkeypatch.setattr("lockstep.training.order.require_memory", lambda _: None)
