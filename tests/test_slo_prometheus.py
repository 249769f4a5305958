"""A real Prometheus with the exported rules scrapes a real `lockstep serve`: every query answers.

The project is the tiny one, with a fill rate and a PSI limit promised. Its data is of 2025, so by
the clock of the machine it is stale.
"""

import json
import math
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from lockstep.catalog import discover
from lockstep.project import find_project
from lockstep.slo.export import DASHBOARD, RULES, exported
from lockstep.stores.server import EmbeddedServer
from tests.redis_cluster import free_ports
from tests.serving_processes import Process, Shop, serving
from tests.serving_world import Caller
from tests.slo_world import SETTINGS, program
from tests.source_tree import ROOT
from tests.tiny_files import write_files
from tests.tiny_project import CUSTOMERS, LAST, enter, land_all, orders

PATIENCE = 60
"""Seconds that a loaded machine may take until everything was scraped and evaluated."""


@dataclass(frozen=True)
class Watched:
    """A service and the Prometheus that scrapes it."""

    service: Process
    prometheus: Caller
    files: dict[str, str]

    def ask(self) -> None:
        """Let the service answer something."""
        entities = {"customer": [*CUSTOMERS, "nobody"]}
        answer = self.service.post(
            "/v1/features", {"feature_set": "buying_v1", "entities": entities}
        )
        assert 200 == answer.status, answer.body

    def query(self, expression: str) -> list[float]:
        """The samples that an expression gives now."""
        answer = self.prometheus.get(f"/api/v1/query?query={quote(expression)}")
        assert 200 == answer.status, (expression, answer.body)
        data = answer.json["data"]
        return [float(each["value"][1]) for each in data["result"]]

    def pending(self) -> set[tuple[str, str, str]]:
        """Name, view and state of what is told, or soon will be."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("view", ""), alert["state"])
            for rule in self.rules()
            for alert in rule.get("alerts", ())
        }

    def rules(self) -> list[dict[str, Any]]:
        groups = self.prometheus.get("/api/v1/rules").json["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


def shop(folder: Path, server: EmbeddedServer, patch: pytest.MonkeyPatch) -> Shop:
    """A project whose promises are all pushed; its last day is over the limit."""
    views = write_files(folder, CUSTOMERS)
    spend = folder / views / "spend_2d.py"
    text = spend.read_text("utf-8")
    spend.write_text(text.replace("fill_rate=0.5", "fill_rate=0.5, max_psi=0.2"), "utf-8")
    project = land_all(enter(folder, views, server.url, patch))
    project.land_orders(str(LAST), orders(LAST, [9000, 9001, 9002, 9003]))
    project.build()
    environment = {
        **os.environ,
        "LOCKSTEP_REDIS_URL": server.url,
        "LOCKSTEP_ENV": views,
        "PYTHONPATH": str(ROOT),
    }
    return Shop(folder, environment)


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, tiny_server: EmbeddedServer
) -> Iterator[Watched]:
    binary = program("prometheus")
    folder = tmp_path_factory.mktemp("watched")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        project = shop(folder / "my project", tiny_server, patch)
        service = stack.enter_context(serving(project, folder / "serve.log", "--port", "0"))
        files = exported(discover(find_project(project.folder)).views.values(), SETTINGS)
        port = stack.enter_context(prometheus(binary, folder, files[RULES], service.port))
        yield Watched(service, Caller(port), files)


@contextmanager
def prometheus(binary: str, folder: Path, rules: str, scraped: int) -> Iterator[int]:
    """A server on loopback that scrapes and evaluates every second; its port."""
    (port,) = free_ports(1)
    (folder / RULES).write_text(rules, "utf-8")
    target = {"targets": [f"127.0.0.1:{scraped}"]}
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [RULES],
        "scrape_configs": [{"job_name": "lockstep", "static_configs": [target]}],
    }
    config, log = folder / "prometheus.yml", folder / "prometheus.log"
    config.write_text(json.dumps(settings), "utf-8")  # JSON is YAML
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        ends = time.monotonic() + PATIENCE
        while not ready(port):
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < ends, log.read_text("utf-8")
        yield port
    finally:
        process.kill()
        process.wait()


def ready(port: int) -> bool:
    try:
        return Caller(port).get("/-/ready").status == 200
    except (OSError, HTTPException):
        return False


def expressions(document: str, view: str = ".+") -> list[str]:
    """The queries of a dashboard, as Grafana asks them."""
    return [
        target["expr"].replace("$view", view).replace("$__rate_interval", "1m")
        for panel in json.loads(document)["panels"]
        for target in panel.get("targets", [])
    ]


def test_every_query_of_the_dashboard_has_data(watched: Watched) -> None:
    waiting = expressions(watched.files[DASHBOARD])
    asked = len(waiting)
    ends = time.monotonic() + PATIENCE
    while waiting:
        watched.ask()
        waiting = [e for e in waiting if not any(map(math.isfinite, watched.query(e)))]
        assert time.monotonic() < ends, waiting

    assert asked >= 30


def test_one_view_may_be_chosen_and_then_only_its_series_are_there(watched: Watched) -> None:
    ends = time.monotonic() + PATIENCE
    age = 'max by (feature) (feature_freshness_seconds{feature=~"$view:.+"})'
    while len(watched.query(age.replace("$view", ".+"))) < 4:
        assert time.monotonic() < ends

    assert 2 == len(watched.query(age.replace("$view", "spend_2d")))
    assert 3 == len(watched.query(age.replace("$view", "(spend_2d|orders_1d)")))


def test_every_rule_is_evaluated_without_an_error(watched: Watched) -> None:
    written = yaml.safe_load(watched.files[RULES])
    count = sum(len(group["rules"]) for group in written["groups"])
    ends = time.monotonic() + PATIENCE
    while any(rule["health"] == "unknown" for rule in watched.rules()):
        assert time.monotonic() < ends

    rules = watched.rules()
    assert count == len(rules)
    assert [] == [rule["name"] for rule in rules if rule["health"] != "ok"]


def test_stale_data_is_about_to_be_told_and_nothing_else(watched: Watched) -> None:
    """It must be so for ten minutes before anybody is; at first, what is not yet known is too."""
    expected = {("FeaturesStale", v, "pending") for v in ("contact", "orders_1d", "spend_2d")}
    ends = time.monotonic() + PATIENCE
    while (pending := watched.pending()) != expected:
        assert time.monotonic() < ends, pending


def test_the_service_tells_the_days_in_a_row_only_of_features_with_a_limit(
    watched: Watched,
) -> None:
    told = [
        line
        for line in watched.service.get("/metrics").body.decode().splitlines()
        if line.startswith("feature_psi_windows_over{")
    ]

    assert ['feature_psi_windows_over{feature="spend_2d:spend"} 1.0'] == told
