"""Dagster on S3: credentials of the S3 resource alone, compute logs, and no secret anywhere."""

import os
import re
import sqlite3
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster_aws.s3 import S3Resource

from checks.audits import audit_specs
from feature_assets._build import build_snapshot, build_source, build_view
from lockstep.store import Store
from lockstep.stores.files import AWS_VARIABLES, open_place
from resources import store as store_module
from resources.store import StoreResource
from schedules.daily import daily_job
from schedules.new_files import new_files_sensor
from tests.s3_server import BUCKET, S3, Faults, faulty, s3_server
from tests.s3_world import put, set_up
from tests.scenario import EVENTS, PEOPLE, World, catalog_of, event, make_views

# Dagster calls what it deprecates, where a resource inside a resource has settings.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

ROOT = Path(__file__).parents[1]
D1, D2, D3 = DAYS = [date(2026, 3, 1) + timedelta(days=n) for n in range(3)]
# Which requests are refused, while which assets run.
REFUSALS = {
    "/landing/": ("events", "people"),
    "/lake/.*/bronze/.*parquet": ("spend_3d",),
    "/offline/.*/_delta_log": ("pace", "profile_online"),
    "/offline/spend_3d/.*parquet": ("pace",),
}
SECRETS = {
    "LAKE_KEY": "CANARYACCESSKEY",
    "LAKE_SECRET": "CANARYSECRETKEY",
    "LAKE_TOKEN": "CANARYSESSIONTOKEN",
}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as running:
        yield running


@dataclass(frozen=True)
class Ran:
    """One successful run of a day, and the Dagster home that it left behind."""

    world: World
    home: Path
    instance: dg.DagsterInstance
    definitions: dg.Definitions
    result: dg.ExecuteInProcessResult


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as made:
        yield made


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory, s3: S3, redis_url: str, patch: pytest.MonkeyPatch
) -> Iterator[Ran]:
    """Three days are landed by somebody else's credentials; the run has those of the resource."""
    folder = tmp_path_factory.mktemp("s3 dagster")
    root = f"s3://{BUCKET}/{folder.name}"
    made = set_up(folder / "project", redis_url=redis_url, LOCKSTEP_ROOT=root, **s3.options)
    for day in DAYS:
        put(made, "events", [event(f"e{day}", 1, day, 2.0)], f"{day}.parquet")
    put(made, "people", [{"user_id": 1, "country": "NZ"}], "p.parquet")
    defs = definitions(made, s3, patch)
    home, settings = folder / "home", {"telemetry": {"enabled": False}}
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home), overrides=settings) as instance:
        yield Ran(made, home, instance, defs, run(defs, instance))


def definitions(made: World, s3: S3, patch: pytest.MonkeyPatch) -> dg.Definitions:
    """Compose the scenario as definitions.py composes a project, without any AWS variable."""
    for name, value in SECRETS.items():
        patch.setenv(name, value)
    patch.setenv("LOCKSTEP_ROOT", made.store.project.root)
    patch.setenv("LOCKSTEP_ENV", made.store.project.namespace.partition(":")[2])
    patch.setenv("LOCKSTEP_REDIS_URL", made.store.project.redis_url or "")
    assert not [name for name in AWS_VARIABLES if name in os.environ]
    store_module._opened.cache_clear()
    patch.setattr(
        store_module, "Store", lambda project, options: Store(project, made.clock, options)
    )
    views = make_views().all
    days = dg.DailyPartitionsDefinition(start_date=str(D1), timezone="America/New_York")
    s3_resource = S3Resource(
        endpoint_url=s3.endpoint,
        use_ssl=False,
        region_name="us-east-1",
        aws_access_key_id=dg.EnvVar("LAKE_KEY"),
        aws_secret_access_key=dg.EnvVar("LAKE_SECRET"),
        aws_session_token=dg.EnvVar("LAKE_TOKEN"),
    )
    folder = str(made.store.project.folder)
    return dg.Definitions(
        assets=[
            build_source(EVENTS, days, views),
            build_snapshot(PEOPLE),
            *(
                asset
                for view in views
                for asset in build_view(view, days, audit_specs(view, days), views)
            ),
        ],
        jobs=[daily_job()],
        sensors=[new_files_sensor(catalog_of(views))],
        resources={"lockstep": StoreResource(folder=folder, s3=s3_resource)},
        executor=dg.in_process_executor,
    )


def run(
    defs: dg.Definitions, instance: dg.DagsterInstance, *names: str
) -> dg.ExecuteInProcessResult:
    """Run a day of the named assets; of all if none is named."""
    return defs.resolve_job_def("daily").execute_in_process(
        instance=instance,
        partition_key=str(D3),
        asset_selection=[dg.AssetKey(name) for name in names] or None,
        raise_on_error=False,
    )


def test_a_run_needs_no_aws_variable_beside_the_s3_resource(ran: Ran) -> None:
    store, views = ran.world.store, ran.world.views

    assert ran.result.success
    assert [D1, D2, D3] == sorted(store.committed(EVENTS))
    assert [D3] == list(store.committed(views.spend_3d))
    assert [True] * 3 == [found.holds for found in store.parity()]


def test_the_sensor_needs_no_aws_variable_beside_the_s3_resource(ran: Ran) -> None:
    sensor = ran.definitions.resolve_sensor_def("new_files")
    resources = ran.definitions.resources

    with dg.build_sensor_context(ran.instance, resources=resources) as context:
        nothing_new = sensor.evaluate_tick(context)
        put(ran.world, "events", [event("late", 2, D3)], "late.parquet")
        something_new = sensor.evaluate_tick(context)

    assert [] == nothing_new.run_requests
    assert nothing_new.skip_message
    (request,) = something_new.run_requests
    assert (request.run_key or "").startswith(f"events:{D3}..{D3}:")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, databases in full and their packed columns unpacked."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[str(path)] = path.read_bytes()
            if path.suffix == ".db":
                found[f"{path} (unpacked)"] = b"\n".join(packed_columns(path))
    return found


def packed_columns(database: Path) -> Iterator[bytes]:
    with sqlite3.connect(database) as connection:
        named = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in named.fetchall():
            for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608 - its own tables
                for cell in row:
                    if isinstance(cell, bytes) and cell[:1] == b"\x78":
                        yield zlib.decompress(cell)
    connection.close()


@pytest.mark.timeout(120)
def test_no_secret_is_found_in_dagsters_home_its_logs_or_the_lake(
    ran: Ran,
    s3: S3,
    patch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = []
    for place, assets in REFUSALS.items():
        with faulty(s3, Faults(refuse=place)) as refusing:
            failed = run(definitions(ran.world, refusing, patch), ran.instance, *assets)
        failures = [event.step_failure_data for event in failed.all_events if event.is_step_failure]
        assert len(assets) == len(failures)
        told += [failure.error.to_string() for failure in failures]

    lake = open_place(ran.world.store.project.root, s3.options)
    out, err = capfd.readouterr()
    stored = contents(ran.home) | {info.path: lake.read(info.path) for info in lake.list()}
    stored |= {"output": f"{out}{err}{caplog.text}".encode(), "errors": "\n".join(told).encode()}
    for error in told:
        assert "SignatureDoesNotMatch" in error
        assert "Check the credentials" in error
    assert [] == [name for name, data in stored.items() if b"CANARY" in data]
    # What is stored packed is searched too.
    assert any("unpacked" in name and b"spend_3d" in data for name, data in stored.items())


def with_logs_on_s3(text: str) -> str:
    """Return dagster.yaml with its block for compute logs on S3 in the place of the local one."""
    blocks = r"(compute_logs:\n(?:  .*\n)+)# Compute logs on S3 instead[^\n]*\n((?:#.*\n)+)"
    local, remote = re.findall(blocks, text)[0]
    return text.replace(local, "").replace(remote, re.sub(r"(?m)^# ?", "", remote))


def test_compute_logs_go_to_s3_with_the_block_of_dagster_yaml(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = with_logs_on_s3((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    (tmp_path / "dagster.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    for name, value in (s3.options | {"LOCKSTEP_LOG_BUCKET": BUCKET}).items():
        monkeypatch.setenv(name, value)

    @dg.op
    def speaks() -> None:
        sys.stderr.write("said by the op\n")

    @dg.job
    def talk() -> None:
        speaks()

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        result = talk.execute_in_process(instance=instance)

    place = open_place(f"s3://{BUCKET}/compute-logs", s3.options)
    logs = [place.read(info.path) for info in place.list() if result.run_id in info.path]
    assert any(b"said by the op" in log for log in logs)
