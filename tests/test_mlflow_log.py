"""A training set as the dataset of a run, in a local MLflow."""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lockstep.errors import ConfigError, InputError
from lockstep.mlflow_log import log_training_set
from lockstep.training.manifest import Manifest
from lockstep.training.training_set import TrainingSet
from tests.scenario import SPRING, World, instant
from tests.small_world import FEATURE, built_world
from tests.source_tree import ROOT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, of what it imports
    import mlflow

# MLflow's storage calls what SQLAlchemy deprecates, and leaves files to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An experiment in an SQLite file, MLflow's default store."""
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/runs.db")
    yield mlflow.create_experiment("churn", artifact_location=str(folder / "artifacts"))
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> World:
    return built_world(tmp_path_factory.mktemp("world"), redis_url)


def spine() -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": [3, 2, 99], "event_timestamp": [instant(SPRING)] * 3, "label": [1.0, 0.0, 1.0]},
        schema_overrides={"event_timestamp": pl.Datetime("us", "UTC")},
    )


def logged(run: Any) -> tuple[Any, dict[str, Any]]:
    """Return the dataset of a run, and the manifest among its artifacts."""
    client = mlflow.MlflowClient()
    found = client.get_run(run.info.run_id)
    (given,) = found.inputs.dataset_inputs
    assert {"mlflow.data.context": "training"} == {tag.key: tag.value for tag in given.tags}
    file = Path(found.info.artifact_uri) / "training_set" / "manifest.json"
    return given.dataset, json.loads(file.read_text())


def require_logged(run: Any, training: TrainingSet, source: str, name: str) -> None:
    dataset, manifest = logged(run)
    assert (name, training.manifest.output.hash[:36]) == (dataset.name, dataset.digest)
    assert ("local", {"uri": source}) == (dataset.source_type, json.loads(dataset.source))
    columns = json.loads(dataset.schema)["mlflow_colspec"]
    assert [
        ("user_id", "long"),
        ("event_timestamp", "datetime"),
        ("label", "double"),
        (FEATURE, "string"),
    ] == [(column["name"], column["type"]) for column in columns]
    assert {"num_rows": 3, "num_elements": 12} == json.loads(dataset.profile)
    assert training.manifest == Manifest.from_bytes(json.dumps(manifest).encode(), "the artifact")


def test_a_kept_set_is_the_dataset_of_the_active_run(tracking: str, world: World) -> None:
    training = world.store.training_set(spine(), [FEATURE], name="people")

    with mlflow.start_run(experiment_id=tracking) as run:
        log_training_set(training)

    require_logged(run, training, str(training.path), "people")


def test_a_set_in_memory_is_known_by_its_manifest(tracking: str, world: World) -> None:
    training = world.store.training_set(spine(), [FEATURE])
    with mlflow.start_run(experiment_id=tracking) as run:
        pass

    log_training_set(training, run=run.info.run_id)

    artifacts = mlflow.MlflowClient().get_run(run.info.run_id).info.artifact_uri
    require_logged(run, training, f"{artifacts}/training_set/manifest.json", "training_set")


def test_without_a_run_it_says_how_to_start_one(tracking: str, world: World) -> None:
    training = world.store.training_set(spine(), [FEATURE])

    with pytest.raises(InputError, match=r"There is no run of MLflow.*Nothing was logged"):
        log_training_set(training)


def test_without_mlflow_it_says_what_to_install(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = world.store.training_set(spine(), [FEATURE])
    monkeypatch.setitem(sys.modules, "mlflow", None)

    with pytest.raises(ConfigError, match=r"pip install 'lockstep\[mlflow\]'"):
        log_training_set(training)


def test_the_engine_does_not_load_mlflow_unasked() -> None:
    program = "import sys, lockstep.mlflow_log; print('mlflow' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "False" == done.stdout.strip()
