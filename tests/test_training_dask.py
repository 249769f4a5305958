"""A set's parts joined in process, by processes and by the workers of a Dask cluster: same bits."""

import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from dagster_aws.s3 import S3Resource

from feature_assets.training_sets.asset import PARTITION_SET, build_training_sets
from lockstep.catalog import discover
from lockstep.project import find_project
from lockstep.training.request import FOLDER
from resources.store import StoreResource
from schedules.training_requests import training_job
from tests.tiny_project import CUSTOMERS, FIRST, VIEW_DAYS, TinyProject

# Dagster calls what it deprecates, where a resource inside a resource has settings.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

ROWS = 3_000
REQUEST = "spine: spine.parquet\nfeature_set: buying_v1\nmode: known\n"
EXECUTORS: Mapping[str, Mapping[str, Any]] = {
    "in_process": {},
    "multiprocess": {"multiprocess": {"max_concurrent": 2, "start_method": {"forkserver": {}}}},
    "dask": {"dask": {"local": {"n_workers": 2, "dashboard_address": None}}},
}


def build_job() -> dg.JobDefinition:
    """The job of the project that the environment names; every process calls it for itself.

    Without the rest of the definitions: each of eight processes would load them.
    """
    project = find_project(os.environ["LOCKSTEP_PROJECT"])
    store = StoreResource(folder=str(project.folder), s3=S3Resource())
    loaded = dg.Definitions(
        assets=[build_training_sets(list(discover(project).views.values()))],
        jobs=[training_job()],
        resources={"lockstep": store},
    )
    return loaded.resolve_job_def("build_training_set")


@pytest.fixture(scope="module")
def folder(built_once: TinyProject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the built project, for both tests: Dagster keeps a job that it has loaded."""
    copied = tmp_path_factory.mktemp("dask") / "my project"
    shutil.copytree(built_once.folder, copied)
    (copied / FOLDER).mkdir()
    write_spine(copied / "spine.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCKSTEP_PROJECT", str(copied))
        # One that an earlier test has started knows that test's environment, and not this.
        forkserver._forkserver._stop()
        yield copied


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    home = str(tmp_path_factory.mktemp("home"))
    settings = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(home, overrides=settings) as opened:
        yield opened


def write_spine(file: Path) -> None:
    random = np.random.default_rng(7)
    start = datetime(FIRST.year, FIRST.month, FIRST.day)
    hours = random.integers(0, 24 * 14, ROWS).tolist()
    pl.DataFrame(
        {
            "label": random.normal(size=ROWS),
            "customer": random.choice([*CUSTOMERS, "nobody"], ROWS).tolist(),
            "event_timestamp": [start + timedelta(hours=hour) for hour in hours],
        }
    ).with_columns(
        pl.col("event_timestamp").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    ).write_parquet(file)


def ask(folder: Path, instance: dg.DagsterInstance, name: str, text: str = REQUEST) -> None:
    (folder / FOLDER / f"{name}.yaml").write_text(text)
    instance.add_dynamic_partitions(PARTITION_SET, [name])


def run(
    instance: dg.DagsterInstance,
    name: str,
    executor: Mapping[str, Any],
    again: dg.ReexecutionOptions | None = None,
) -> dg.JobExecutionResult:
    return dg.execute_job(
        dg.reconstructable(build_job),
        instance,
        run_config={"execution": {"config": executor}} if executor else {},
        tags={"dagster/partition": name},
        reexecution_options=again,
        raise_on_error=False,
    )


def made_by(instance: dg.DagsterInstance, run_id: str) -> set[int]:
    """Return the processes that joined a part."""
    logs = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)
    entries = [log for log in logs if log.step_key and ".join[" in log.step_key]
    return {int(log.dagster_event.pid) for log in entries if log.dagster_event}


def test_a_set_has_the_same_bits_whoever_joins_its_parts(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    files, processes = {}, {}
    for name, executor in EXECUTORS.items():
        ask(folder, instance, name, f"{REQUEST}parts: {2 if executor else 1}\n")
        with run(instance, name, executor) as result:
            assert result.success
            processes[name] = made_by(instance, result.run_id)
        files[name] = (folder / "lake" / "training_sets" / name / "data.parquet").read_bytes()

    assert files["in_process"] == files["multiprocess"] == files["dask"]
    assert {os.getpid()} == processes["in_process"]
    assert os.getpid() not in processes["multiprocess"] | processes["dask"]
    assert (2, 2) == (len(processes["multiprocess"]), len(processes["dask"]))
    assert ROWS == pl.read_parquet(files["dask"]).height


def test_a_run_that_failed_goes_on_with_the_parts_that_are_missing(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    ask(folder, instance, "resumed", f"{REQUEST}parts: 3\n")
    ask(folder, instance, "whole")
    day = folder / "lake" / "offline" / "orders_1d" / f"day={VIEW_DAYS[-1]}"
    elsewhere = day.rename(folder / "elsewhere")

    with run(instance, "resumed", {}) as failed:
        broken = {str(event.step_key) for event in failed.all_events if event.is_step_failure}
    elsewhere.rename(day)
    again = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
    with run(instance, "resumed", {}, again) as resumed:
        done = {str(event.step_key) for event in resumed.all_events if event.is_step_success}
    with run(instance, "whole", {}) as whole:
        made = whole.success

    assert (False, True, True) == (failed.success, resumed.success, made)
    assert broken
    assert broken | {"training_sets.finish"} == done
    assert 1 <= len(broken) < 3
    sets = folder / "lake" / "training_sets"
    assert {"resumed", "whole"} <= {kept.name for kept in sets.iterdir()}
    assert [] == list(sets.glob(".work-*"))
    first, second = (sets / name / "data.parquet" for name in ("resumed", "whole"))
    assert first.read_bytes() == second.read_bytes()
