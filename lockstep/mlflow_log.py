"""Training sets as datasets of MLflow's runs; needs the extra: pip install 'lockstep[mlflow]'."""

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import polars as pl

from lockstep.errors import ConfigError, InputError

if TYPE_CHECKING:
    from lockstep.training.training_set import TrainingSet

FOLDER: Final = "training_set"
"""Folder of the run's artifacts."""

_DIGEST: Final = 36  # characters that MLflow keeps of one
_TYPES: Final[Mapping[Any, str]] = {
    pl.Boolean: "boolean",
    pl.Int8: "integer",
    pl.Int16: "integer",
    pl.Int32: "integer",
    pl.Int64: "long",
    pl.Float32: "float",
    pl.Float64: "double",
    pl.String: "string",
    pl.Binary: "binary",
    pl.Date: "datetime",
    pl.Datetime: "datetime",
}


def log_training_set(training_set: "TrainingSet", run: Any = None) -> None:
    """Log a training set as the dataset that a run of MLflow was trained on.

    The dataset's digest is the beginning of the set's hash and its source is the set's file, if it
    has one; else its manifest. The manifest becomes the artifact `training_set/manifest.json`, from
    which `lockstep rebuild` makes the set again.

    Args:
        run: A run of MLflow or its id; the active one if not given.

    Raises:
        ConfigError: MLflow is not installed.
        InputError: No run is given, and none is active.
    """
    mlflow = _mlflow()
    active = run if run is not None else mlflow.active_run()
    if active is None:
        raise InputError(
            "There is no run of MLflow to log the training set to.",
            fix="Use `with mlflow.start_run(): …`, or name one: run=….",
            effect="Nothing was logged.",
        )
    run_id = active if isinstance(active, str) else active.info.run_id
    client, file = mlflow.MlflowClient(), f"{FOLDER}/manifest.json"
    client.log_text(run_id, training_set.manifest.to_bytes().decode(), file)
    stored = f"{client.get_run(run_id).info.artifact_uri}/{file}"
    dataset = mlflow.entities.Dataset(**_described(training_set, stored))
    tag = mlflow.entities.InputTag("mlflow.data.context", "training")
    client.log_inputs(run_id, datasets=[mlflow.entities.DatasetInput(dataset, [tag])])


def _mlflow() -> Any:
    # MLflow reports its use to its makers unless told otherwise before it is imported.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow
        import mlflow.entities
    except ImportError as error:
        raise ConfigError(
            "MLflow is not installed here.",
            fix="Install it: pip install 'lockstep[mlflow]'.",
            effect="Nothing was logged.",
        ) from error
    return mlflow


def _described(training_set: "TrainingSet", stored: str) -> dict[str, str]:
    """Return what MLflow keeps of a dataset; the rows are not read.

    Args:
        stored: Where the manifest is, which stands for a set that is in no file.
    """
    manifest = training_set.manifest
    source = str(training_set.path or stored)
    scheme = urlsplit(source).scheme
    of_set = manifest.feature_set["name"] if manifest.feature_set else FOLDER
    return {
        "name": manifest.name or of_set,
        "digest": manifest.output.hash[:_DIGEST],
        "source_type": "local" if scheme in ("", "file") else scheme,
        "source": json.dumps({"uri": source}),
        "schema": json.dumps({"mlflow_colspec": _columns(training_set)}),
        "profile": json.dumps(
            {
                "num_rows": manifest.rows,
                "num_elements": manifest.rows * len(manifest.output.columns),
            }
        ),
    }


def _columns(training_set: "TrainingSet") -> list[dict[str, Any]]:
    """Return the columns as MLflow writes them; a type that it does not know is text to it."""
    schema = training_set.scan().collect_schema()
    return [
        {"name": name, "type": _TYPES.get(dtype.base_type(), "string"), "required": False}
        for name, dtype in schema.items()
    ]
