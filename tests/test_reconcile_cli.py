"""`lockstep reconcile`, for people and for scripts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from lockstep.cli import app
from tests.tiny_project import TinyProject

ROOT = Path(__file__).parent.parent


def lockstep(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return result


def as_json(*arguments: str, status: int = 0) -> Any:
    return json.loads(lockstep(*arguments, "--json", status=status).stdout)


@pytest.fixture
def lost(tiny: TinyProject, tiny_server: Any) -> TinyProject:
    """Everything pushed and looked at; then a row of one view is deleted."""
    tiny.build()
    assert "3 views are online as they are committed." in lockstep("reconcile").stdout
    with redis.Redis.from_url(tiny_server.url) as client:
        (key,) = client.keys(f"*:{tiny.views}:*s3:bob")
        client.hdel(key, "orders_1d")
    return tiny


def test_a_dry_run_says_what_is_wrong_and_touches_nothing(lost: TinyProject) -> None:
    said = lockstep("reconcile", "--dry-run", status=1).stdout
    again = as_json("reconcile", "--dry-run", status=1)

    assert "1 of 3 entities are wrong online: 1 lost." in said
    assert "due: rebuild" in said
    (finding,) = again["findings"]
    assert ("orders_1d", "rows", "rebuild") == (
        *(finding[name] for name in ("view", "code", "repair")),
    )
    assert [] == again["repaired"]
    lockstep("parity", status=1)


def test_a_repair_is_shown_and_leaves_nothing_to_find(lost: TinyProject) -> None:
    found = as_json("reconcile")
    quiet = as_json("reconcile")

    (repaired,) = found["repaired"]
    assert ("orders_1d", True, 3) == (
        repaired["view"],
        repaired["holds"],
        repaired["pushed"]["receipt"]["written"],
    )
    assert [] == quiet["findings"]
    lockstep("parity")


def test_only_the_named_views_are_looked_at(lost: TinyProject) -> None:
    assert ["contact"] == as_json("reconcile", "contact")["views"]
    assert "There is no" in lockstep("reconcile", "contacts", status=2).stderr
    lockstep("reconcile", "orders_1d", "--dry-run", status=1)


def test_what_is_not_repaired_is_exit_1(lost: TinyProject, tiny_server: Any) -> None:
    with redis.Redis.from_url(tiny_server.url) as client:
        client.config_set("maxmemory", 1)
        try:
            said = lockstep("reconcile", status=1)
        finally:
            client.config_set("maxmemory", 0)

    assert "out of memory" in said.stdout
    assert "Readers could not be told" in said.stderr
    lockstep("reconcile")


def test_watching_repairs_what_is_lost_until_it_is_interrupted(
    lost: TinyProject, tiny_server: Any
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lockstep", "reconcile", "--watch", "1", "--json"],
        cwd=lost.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        first = json.loads(process.stdout.readline())
        with redis.Redis.from_url(tiny_server.url) as client:
            client.delete(*client.keys(f"*:{lost.views}:*"))
        later = next(look for line in process.stdout if (look := json.loads(line))["findings"])
        process.send_signal(signal.SIGINT)

    assert ["rows"] == [each["code"] for each in first["findings"]]
    assert {"lost"} == {each["code"] for each in later["findings"]}
    assert all(each["holds"] for each in later["repaired"])
    lockstep("parity", "orders_1d", "contact")  # the child's clock is the real one: no ttl


def test_readers_of_other_views_are_spared_while_it_repairs(
    lost: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lockstep import throttle

    made: list[throttle.Throttle] = []
    real = throttle.paced
    monkeypatch.setattr(throttle, "paced", lambda: made.append(real()) or made[-1])

    lockstep("reconcile")

    (paced,) = made
    assert paced.limit is not None, "what a reader waits was never asked"
