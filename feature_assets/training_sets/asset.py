"""The asset `training_sets`: one partition per request file, its parts joined as mapped steps.

The steps hand each other nothing: the plan and what the parts joined are in the lake, so that they
may be executed wherever the lake is reached. A run executed again from its failure goes on where
it stopped.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import dagster as dg

from feature_assets.training_sets.shown import set_metadata
from lockstep.errors import LockstepError
from lockstep.store import Store
from lockstep.training.plan import join_part
from lockstep.training.request import FOLDER, requested
from lockstep.training.requested_sets import (
    Planned,
    compare_request,
    find_planned,
    finish_request,
    plan_request,
)
from lockstep.view import FeatureView
from resources.store import StoreResource

PARTITION_SET: Final = "training_sets"
KEY: Final = dg.AssetKey("training_sets")
PARTITIONS: Final = dg.DynamicPartitionsDefinition(name=PARTITION_SET)
PLAN: Final = "lockstep/training_plan"
"""The run's tag that says where the plan is."""


def build_training_sets(views: Sequence[FeatureView]) -> dg.AssetsDefinition:
    """Return the asset that builds the training sets that request files ask for.

    Its lineage is every view, as any request may read any; what a set read is in its metadata.
    """
    plan = _plan_op(views)
    ins = {
        view.name: dg.AssetIn(
            key=view.name,
            dagster_type=dg.Nothing,
            # A set reads days, not a day: which ones is a matter of its spine.
            partition_mapping=dg.AllPartitionMapping(),
        )
        for view in views
    }

    @dg.graph_asset(
        key=KEY,
        ins=ins,
        partitions_def=PARTITIONS,
        group_name="training",
        kinds={"parquet"},
        description=f"Point-in-time training sets: one partition per file in `{FOLDER}/`. Write a "
        "file, or change one, and the sensor `training_requests` builds what it asks for.",
    )
    def training_sets(**read: Any) -> Any:
        return finish(plan(**read).map(join).collect())

    return training_sets


def _plan_op(views: Sequence[FeatureView]) -> Any:
    @dg.op(
        ins={view.name: dg.In(dg.Nothing) for view in views},
        out=dg.DynamicOut(dg.Nothing),
        description="Reads the request, pins what is committed, and splits the spine into parts.",
    )
    def plan(
        context: dg.OpExecutionContext, lockstep: StoreResource
    ) -> Iterator[dg.DynamicOutput[None]]:
        store = lockstep.open()
        with _telling():
            request = requested(store.project, context.partition_key, store.lake.place)
            planned = plan_request(store, request, _workers(context.run_config))
        context.instance.add_run_tags(context.run.run_id, {PLAN: planned.folder})
        parts = len(planned.plan.parts)
        rows = f"{planned.plan.spine.rows:,}"
        context.log.info("%s: %s rows in %d parts.", request.file, rows, parts)
        for part in range(parts):
            yield dg.DynamicOutput(None, mapping_key=str(part))

    return plan


@dg.op(
    ins={"planned": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    description="Joins the features to one part of the spine, each as it was at the row's time.",
)
def join(context: dg.OpExecutionContext, lockstep: StoreResource) -> None:
    """Join one part of a planned set."""
    store = lockstep.open()
    with _telling():
        join_part(store, _planned(context, store).plan, int(context.get_mapping_key() or 0))


@dg.op(
    ins={"joined": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    description="Puts the parts into the spine's order; writes the set, its manifest and profile.",
)
def finish(context: dg.OpExecutionContext, lockstep: StoreResource) -> dg.Output[None]:
    """Finish a planned set whose parts are joined."""
    store = lockstep.open()
    with _telling():
        planned = _planned(context, store)
        made = finish_request(store, planned)
        leakage = compare_request(store, planned.request, made.manifest)
    for sentence in made.warnings:
        context.log.warning(sentence)
    return dg.Output(
        None,
        metadata=set_metadata(made, planned.request, store.catalog, leakage),
        data_version=dg.DataVersion(made.manifest.output.hash),
    )


@contextmanager
def _telling() -> Iterator[None]:
    """Fail the step in the very words of the error, as the command line would say it.

    Raises:
        Failure: An error of ours was raised.
    """
    try:
        yield
    except LockstepError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _planned(context: dg.OpExecutionContext, store: Store) -> Planned:
    """Return the plan of this run, or of the one that it goes on with."""
    run = context.instance.get_run_by_id(context.run.run_id)
    while run is not None and PLAN not in run.tags and run.parent_run_id is not None:
        run = context.instance.get_run_by_id(run.parent_run_id)
    return find_planned(store, run.tags.get(PLAN, "") if run else "")


def _workers(run_config: Any) -> int:
    """Return how many processes of this machine the run's configuration gives to the parts."""
    chosen = run_config.get("execution", {}).get("config") or {}
    if "multiprocess" in chosen:
        return (chosen["multiprocess"] or {}).get("max_concurrent") or _cores()
    local = (chosen.get("dask") or {}).get("local")
    return 1 if local is None else local.get("n_workers") or _cores()


def _cores() -> int:
    return os.cpu_count() or 1
