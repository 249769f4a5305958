"""Feast users switch by changing a URL: checked with Feast's own remote client.

    python3 -m venv /tmp/feast && /tmp/feast/bin/pip install feast==0.67.0
    FEAST_PYTHON=/tmp/feast/bin/python .venv/bin/python -m pytest \
        tests/with_feast/check_remote_client.py

Feast lives in an environment of its own, because its requirements are not ours.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.serving_world import CASES, make_catalog, new_namespace, push_all, running

PYTHON = os.environ.get("FEAST_PYTHON", sys.executable)


@pytest.fixture(scope="module")
def found(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What Feast's client makes of the service's answers."""
    there = subprocess.run([PYTHON, "-c", "import feast"], capture_output=True, check=False)
    if there.returncode:
        pytest.skip(f"feast cannot be imported by {PYTHON}")
    namespace, folder = new_namespace(), tmp_path_factory.mktemp("feast")
    push_all(redis_url, namespace, make_catalog())
    with running(redis_url, namespace, folder) as served:
        script = Path(__file__).parent / "remote_client.py"
        done = subprocess.run(
            [PYTHON, str(script), f"http://127.0.0.1:{served.port}", str(folder)],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_values_arrive(found: Any) -> None:
    assert [1, 5, 6, 7, 8] == found["values"]["user_id"]
    assert [10.5, None, None, None, None] == found["values"]["amount"]
    assert ["gold", None, "gold", None, None] == found["values"]["tier"]


def test_statuses_are_true_in_feasts_words(found: Any) -> None:
    assert [
        "PRESENT",
        "OUTSIDE_MAX_AGE",
        "NULL_VALUE",
        "NOT_FOUND",
        "NOT_FOUND",
    ] == found["statuses"]["amount"]
    assert ["PRESENT"] * 5 == found["statuses"]["user_id"]


def test_full_names_and_feature_services_work(found: Any) -> None:
    assert ["everything__int64", "spend__amount", "user_id"] == found["full"]
    assert {"user_id", "amount", "visits"} == found["service"].keys()


def test_types_are_exact_where_feast_has_them(found: Any) -> None:
    for name in ("int64", "float64", "string"):
        assert CASES[name][1] == found["exact"][name], name
    assert [True, False, None, None] == found["exact"]["bool"]
