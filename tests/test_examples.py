"""The example script runs as it stands: a model is trained, and served with the same values."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from demo.landing import land
from lockstep.ingest import ingest, ingest_snapshot
from lockstep.materialize import materialize
from lockstep.store import Store, open_store
from lockstep.time import days_between, last_full_day
from tests.source_tree import ROOT

CUTS = (45, 30, 15, 0)
LONGEST_WINDOW = 90


@pytest.fixture
def environment(tmp_path: Path, redis_url: str) -> dict[str, str]:
    """A lake of its own with what the example reads: the days before its cuts, and yesterday."""
    own = {
        "LOCKSTEP_PROJECT": str(ROOT),
        "LOCKSTEP_ROOT": str(tmp_path / "lake"),
        "LOCKSTEP_REDIS_URL": redis_url,
        "LOCKSTEP_ENV": "example",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        build(open_store())
    return {**os.environ, **own, "PYTHONPATH": str(ROOT)}


def build(store: Store) -> None:
    last = last_full_day(store.now(), store.project.zone)
    days = sorted(last - timedelta(days=cut) for cut in CUTS)
    reading = days_between(days[0] - timedelta(days=LONGEST_WINDOW), last)
    land(store, reading[0], last)
    wanted = [store.views[name] for name in store.catalog.features("churn_v1")]
    read = {item.of.name for view in wanted for item in view.inputs}
    for source in store.catalog.sources.values():
        if source.name in read:
            list(ingest(store.lake, source, reading, now=store.now))
    for snapshot in store.catalog.snapshots.values():
        if snapshot.name in read:
            ingest_snapshot(store.lake, snapshot, now=store.now)
    for view in store.views.values():
        if view in wanted or view.name in read:
            list(materialize(store.lake, view, days, store.reader(), now=store.now))
            store.push(view, throttled=False)


def test_the_churn_example_trains_a_model_and_serves_it_the_same_values(
    environment: dict[str, str],
) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "churn.py")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "AUC on" in done.stdout
    assert 5 == done.stdout.count("churns with a probability of")
