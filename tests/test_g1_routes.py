"""G1 by every route: whatever is tried, what failed its audit reaches neither store, by one byte.

Days 1 to 5 are certified and pushed. Then an upstream mistake lands: day 4 again, and day 6 for the
first time, with amounts missing. Each route is tried on the same world, one after the other, and
the tables and the server are compared byte for byte before and after it.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
from dagster._core.storage.tags import BACKFILL_ID_TAG
from typer.testing import CliRunner

from lockstep.cli import app
from lockstep.errors import InputError, NotCertifiedError
from lockstep.quarantine import Quarantine
from lockstep.rebuild import rebuild
from lockstep.release import release_frame
from lockstep.stores.server import EmbeddedServer
from schedules.new_files import landed_days, run_requests
from tests.dagster_world import (
    D1,
    D3,
    D4,
    D5,
    D6,
    D7,
    DagsterWorld,
    dagster_world,
    failures,
    unfilled,
    usual,
)
from tests.scenario import instant
from tests.tiny_project import LAST, TinyProject, orders

# Dagster calls what it deprecates, where a resource inside a resource has settings.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

FILL_RATE = 0.5
NAMES = ("spend_3d", "spend_3d_online", "pace", "pace_online")
ROOT = Path(__file__).parents[1]

Bytes = dict[Any, Any]


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[DagsterWorld]:
    """The world after the mistake was ingested and its first run failed."""
    folder = tmp_path_factory.mktemp("routes")
    with dagster_world(folder, redis_url, fill_rate=FILL_RATE, now=instant(D7, 3)) as made:
        for day in (D1, date(2026, 3, 4), D3, D4, D5):
            made.land(day, *usual(day))
        assert made.run(D1, D5).success
        for day in (D4, D6):
            made.land(day, *unfilled(day))
        made.run(D4, D6, "events", *NAMES)
        yield made


def offline(made: DagsterWorld) -> Bytes:
    """Return path → content of every file of the views' tables, their logs included."""
    tables = [Path(made.world.store.lake.table(view).uri) for view in made.views.all]
    return {
        path: path.read_bytes()
        for folder in tables
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def online(made: DagsterWorld, url: str) -> Bytes:
    """Return key → (dump, instant of expiry) of everything in the world's namespace."""
    with redis.Redis.from_url(url) as client:
        keys = sorted(client.scan_iter(f"{made.world.store.project.namespace}*", count=1000))
        return {key: (client.dump(key), client.pexpiretime(key)) for key in keys}


def the_partition(made: DagsterWorld) -> None:
    assert f"not certified ({D4})" in failures(made.run(D4))["spend_3d"]


def a_range(made: DagsterWorld) -> None:
    assert f"not certified ({D4}..{D6})" in str(failures(made.run(D4, D6, *NAMES)))


def a_backfill(made: DagsterWorld) -> None:
    run = made.run(D3, D6, *NAMES[:2], tags={BACKFILL_ID_TAG: "abcdefgh"})
    assert f"spend_3d of {D4}..{D6} is not certified" in failures(run)["spend_3d_online"]


def the_push_alone(made: DagsterWorld) -> None:
    assert f"spend_3d of {D6} is not certified" in str(failures(made.run(D6, None, NAMES[1])))


def the_push_of_what_only_dagster_believes_in(made: DagsterWorld) -> None:
    made.instance.report_runless_asset_event(dg.AssetMaterialization("spend_3d", partition=str(D6)))
    the_push_alone(made)


def landed_files(made: DagsterWorld) -> None:
    """The sensor's own request, as after a daemon was restarted and its cursor lost."""
    store = made.world.store
    made.land(D6, *unfilled(D6), file="again")
    (request,) = run_requests(store.catalog, store, landed_days(store.catalog, store))
    job = made.definitions.resolve_job_def("daily")
    run = job.execute_in_process(
        instance=made.instance,
        tags=dict(request.tags),
        asset_selection=list(request.asset_selection or ()),
        raise_on_error=False,
    )
    assert not run.success
    (Path(store.project.landing) / "events" / "again.parquet").unlink()


def the_reconcile_job(made: DagsterWorld) -> None:
    job = made.definitions.resolve_job_def("reconcile")
    assert job.execute_in_process(instance=made.instance, raise_on_error=False).success


def materialize_directly(made: DagsterWorld) -> None:
    again = made.world.restart()
    outcomes = again.build(made.views.spend_3d, D1, D6)
    statuses = {str(outcome.day): outcome.status for outcome in outcomes}
    assert ["quarantined"] * 3 == [statuses[str(day)] for day in (D4, D5, D6)]


def push_directly(made: DagsterWorld) -> None:
    made.world.push(made.views.spend_3d)
    made.world.restart().push(made.views.spend_3d, [D4])
    made.world.store.push(made.views.spend_3d)
    with pytest.raises(NotCertifiedError, match=f"spend_3d {D6} is not certified"):
        made.world.push(made.views.spend_3d, [D6])


def rebuild_directly(made: DagsterWorld) -> None:
    again = made.world.restart()
    reader = again.store.reader()
    with pytest.raises(NotCertifiedError, match="can't be rebuilt: 2 of 5 days fail"):
        list(rebuild(again.store.lake, made.views.spend_3d, reader, now=again.clock))


def release_directly(made: DagsterWorld) -> None:
    store = made.world.store
    for item in Quarantine(store.lake.quarantine).items("spend_3d"):
        with pytest.raises(InputError):
            release_frame(
                store.lake, made.views.spend_3d, item, " ", store.reader(), now=made.world.clock
            )


def another_process_that_is_killed(made: DagsterWorld) -> None:
    """Killed between the frame and its marker, and then run again to its end."""
    project = made.world.store.project
    asked = (project.folder, project.redis_url, project.namespace, made.world.clock.now)
    arguments = [str(one) for one in (*asked, FILL_RATE, D4, D6)]
    for crash, status in (("quarantining", -9), ("", 0)):
        ended = subprocess.run(
            [sys.executable, "-m", "tests.failing_rerun", *arguments],
            cwd=ROOT,
            env={**os.environ, "LOCKSTEP_TESTING": "1", "LOCKSTEP_CRASH": crash},
            capture_output=True,
            text=True,
            check=False,
        )
        assert status == ended.returncode, ended.stderr


def cli(*arguments: str, status: int = 0) -> Callable[[DagsterWorld], None]:
    """Return a route that is a command, which must end with that status."""

    def route(made: DagsterWorld) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lockstep.store.open_store", lambda: made.world.restart().store)
            result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == status, result.output

    route.__name__ = f"lockstep {' '.join(arguments)}"
    return route


ROUTES = [
    the_partition,
    a_range,
    a_backfill,
    the_push_alone,
    the_push_of_what_only_dagster_believes_in,
    landed_files,
    the_reconcile_job,
    materialize_directly,
    push_directly,
    rebuild_directly,
    release_directly,
    another_process_that_is_killed,
    cli("push"),
    cli("push", "spend_3d", "--days", f"{D4}"),
    cli("push", "spend_3d", "--days", f"{D6}", status=2),
    cli("reconcile"),
    cli("materialize", "spend_3d", "--rebuild", status=2),
    cli("preview", "spend_3d", "--day", str(D6), status=1),
    cli("quarantine", "show", "spend_3d", str(D6)),
    cli("quarantine", "release", "spend_3d", str(D6), "--reason", " ", status=2),
    cli("parity"),
]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__.replace("_", " "))
def test_no_route_lets_a_failed_frame_change_a_byte(
    spoiled: DagsterWorld, redis_url: str, route: Callable[[DagsterWorld], None]
) -> None:
    before = offline(spoiled), online(spoiled, redis_url)

    route(spoiled)

    after = offline(spoiled), online(spoiled, redis_url)
    assert before[0].keys() == after[0].keys()
    assert before[1].keys() == after[1].keys()
    assert before == after
    spend = spoiled.views.spend_3d
    revisions = {d: r.revision for d, r in spoiled.world.store.committed(spend).items()}
    assert dict.fromkeys((D1, date(2026, 3, 4), D3, D4, D5), 1) == revisions
    assert [3.0, None] == [spoiled.online(1), spoiled.online(11)]


def test_lockstep_materialize_lets_it_change_no_byte_either(
    tiny: TinyProject, tiny_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    tiny.build()
    tiny.land_orders("bad", orders(LAST, [-500], first_id=900))
    tiny.ingest([LAST])
    before = tiny_bytes(tiny, tiny_server.url)

    result = CliRunner().invoke(app, ["materialize", "spend_2d", "--days", str(LAST)])

    assert result.exit_code == 1, result.output
    assert "quarantined" in result.stdout
    assert before == tiny_bytes(tiny, tiny_server.url)


def tiny_bytes(tiny: TinyProject, url: str) -> tuple[Bytes, Bytes]:
    folder = Path(tiny.store.lake.table(tiny.store.views["spend_2d"]).uri)
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    with redis.Redis.from_url(url) as client:
        keys = sorted(client.scan_iter(f"{tiny.store.project.namespace}*", count=1000))
        return files, {key: (client.dump(key), client.pexpiretime(key)) for key in keys}
