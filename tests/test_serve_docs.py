"""What docs/how-to-serve.md shows of the service is so: every curl, every setting, every metric."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from lockstep.catalog import discover
from lockstep.errors import ConfigError
from lockstep.project import find_project
from lockstep.serving.served_log import SOURCE
from lockstep.serving.settings import ServingSettings
from tests.documents import blocks
from tests.serving_world import Running, new_namespace, running
from tests.source_tree import ROOT

PAGE = ROOT / "docs" / "how-to-serve.md"
SHOWN = [
    shlex.split(command)
    for _, code in blocks(PAGE, "sh")
    for command in re.findall(r"^curl .*?(?=^\w|\Z)", code, re.MULTILINE | re.DOTALL)
]


@pytest.fixture(scope="module")
def served(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    catalog = discover(find_project(ROOT))
    folder = tmp_path_factory.mktemp("docs")
    with running(redis_url, new_namespace(), folder, catalog=catalog) as it:
        yield it


@pytest.mark.parametrize("words", SHOWN, ids=lambda words: words[2][-40:])
def test_every_curl_that_is_shown_is_answered(served: Running, words: list[str]) -> None:
    curl, silent, address, *options = words
    path = address.removeprefix("http://127.0.0.1:6566")
    assert ("curl", "-s") == (curl, silent)

    match options:
        case ["--json", body]:
            answer = served.post(path, json.loads(body))
        case [] | ["-H", "Authorization: Bearer $TOKEN"]:
            answer = served.get(path)

    assert 200 == answer.status, answer.body


def test_there_are_examples() -> None:
    assert 6 == len(SHOWN)


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`? \|", PAGE.read_text("utf-8"), re.MULTILINE)
    )

    declared = {field.name: field.default for field in fields(ServingSettings)}
    assert MISSING not in declared.values()
    assert {
        name: "none" if default is None else str(default) for name, default in declared.items()
    } == {name: value for name, value in rows.items() if name in declared}


def test_every_metric_is_documented(served: Running) -> None:
    text = served.get("/metrics").body.decode()
    names = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    ours = {name for name in names if name.startswith(("feature_", "lockstep_"))}
    documented = set(re.findall(r"`((?:feature|lockstep)_\w+)`", PAGE.read_text("utf-8")))

    assert {name for name in ours if not name.endswith("_created")} <= documented


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"prot": 1}, "unknown settings: ['prot']"),
        ({"port": "80"}, "port must be a whole number"),
        ({"port": True}, "port must be a whole number"),
        ({"host": ""}, "host must be text"),
        ({"tokens": 3}, "tokens must be text"),
        ({"served_log_rate": 1.5}, "served_log_rate must be at least 0 and at most 1"),
        ({"served_log_rate": float("nan")}, "served_log_rate"),
        ({"read_seconds": 0}, "read_seconds must be above 0"),
        ({"non_finite": "nan"}, "non_finite must be one of"),
        ({"workers": 0, "max_queue": -1}, "workers must be"),
    ],
)
def test_wrong_settings_are_refused_all_at_once(table: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        ServingSettings.parse(table, None, Path("/x"))


def test_the_tokens_file_is_relative_to_the_project_and_the_environment_wins() -> None:
    table = {"tokens": "a.toml"}

    assert "/x/a.toml" == ServingSettings.parse(table, None, Path("/x")).tokens
    assert "/y/b.toml" == ServingSettings.parse(table, "/y/b.toml", Path("/x")).tokens
    assert ServingSettings.parse({}, None, Path("/x")).tokens is None


def test_the_unit_says_what_the_served_log_needs() -> None:
    unit = (ROOT / "deploy" / "serve" / "lockstep-serve.service").read_text("utf-8")

    assert "ProtectSystem=strict" in unit
    assert re.search(rf"^#ReadWritePaths=/srv/lockstep/\S+/landing/{SOURCE}$", unit, re.MULTILINE)


@pytest.mark.parametrize(
    "said",
    [
        "So let the balancer ask `/healthz`",
        "A row from the future of the service's clock counts as `expired`",
        "`feature_hit_rate` is since the process started",
        "rate(feature_cells_total{",
        "the key of the entity stands there as it is",
    ],
)
def test_what_an_operator_must_know_is_said(said: str) -> None:
    assert said in " ".join(PAGE.read_text("utf-8").split())
