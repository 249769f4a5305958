"""Where the steps of a run are executed: in this process, in several, or on a Dask cluster.

The run's configuration says which:

    execution: {config: {in_process: {}}}                     the default
    execution: {config: {multiprocess: {max_concurrent: 2}}}
    execution: {config: {dask: {local: {n_workers: 2}}}}
    execution: {config: {dask: {existing: {address: "tcp://scheduler:8786"}}}}

dagster-dask's own executor can't do these runs: it submits the steps that are known when the run
begins, so none of a mapped op, and Dask can't pack a run that has a partition. So the cluster is
made as dagster-dask makes it, and Dagster's delegating executor hands over one step at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import dagster as dg
from dagster._cli.api import _execute_step_command_body
from dagster._core.events import DagsterEvent
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)
from dagster._grpc.types import ExecuteStepArgs
from dagster_shared.serdes import deserialize_value, serialize_value

from lockstep.errors import ConfigError

_LOOK_EVERY: Final = 0.2
"""Seconds between two looks at what the workers have recorded."""

_CLUSTER: Final = dg.Selector(
    {
        "local": dg.Field(
            dg.Permissive(),
            description="A cluster for this run: what Dask's LocalCluster takes, e.g. n_workers.",
        ),
        "existing": dg.Field(
            {"address": dg.StringSource},
            description="A scheduler whose workers have this project and reach its lake.",
        ),
    }
)


_OWN: Final = {
    "in_process": dg.in_process_executor,
    "multiprocess": dg.multiprocess_executor,
}


def _requirements(config: Mapping[str, Any]) -> Sequence[Any]:
    return [] if "in_process" in config else dg.multiple_process_executor_requirements()


@dg.executor(
    name="in_process_multiprocess_or_dask",
    config_schema=dg.Field(
        dg.Selector(
            {
                "in_process": dg.in_process_executor.config_schema.as_field(),
                "multiprocess": dg.multiprocess_executor.config_schema.as_field(),
                "dask": dg.Field(_CLUSTER, description="Execute steps on a Dask cluster."),
            }
        ),
        default_value={"in_process": {}},
    ),
    requirements=_requirements,
)
def chosen_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """Return the executor that the run's configuration names; in process if it names none."""
    chosen: Any = context.executor_config
    ((kind, config),) = chosen.items()
    if kind == "dask":
        return DaskExecutor(config)
    make: Any = _OWN[kind].executor_creation_fn
    return make(context._replace(executor_config=config))


class DaskExecutor(StepDelegatingExecutor):
    """Executes each step on a worker of a Dask cluster, which exists as long as the run.

    Args:
        cluster: `local` with the arguments of its cluster, or `existing` with an address.
    """

    def __init__(self, cluster: Mapping[str, Any]) -> None:
        self._workers = _Workers()
        self._cluster = cluster
        super().__init__(self._workers, retries=RetryMode.DISABLED, sleep_seconds=_LOOK_EVERY)

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[DagsterEvent]:
        """Yield the events of the run's steps as the workers record them."""
        with self._workers.of(self._cluster, plan_context.job_name):
            yield from super().execute(plan_context, execution_plan)


class _Workers(StepHandler):
    """Gives steps to the workers of a cluster; a step that its worker did not survive has failed.

    A worker records the events of its step in the instance, from where the executor reads them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._client: Any = None
        self._given: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return "DaskStepHandler"

    def of(self, cluster: Mapping[str, Any], job: str) -> ExitStack:
        """Connect to the cluster; the result ends the connection, and a cluster that is the run's.

        Raises:
            ConfigError: dagster-dask is not installed.
        """
        try:
            from dagster_dask.executor import DaskExecutor as Upstream
            from dask.distributed import Client, LocalCluster
        except ImportError as error:
            raise ConfigError(
                "The run is to be executed on Dask, and dagster-dask is not installed here.",
                fix="Install it: pip install 'dagster-dask==0.29.27'. Or choose another executor.",
                effect="Nothing was executed.",
            ) from error
        ((kind, config),) = cluster.items()
        with ExitStack() as stack:
            at = (
                config["address"]
                if kind == "existing"
                else stack.enter_context(LocalCluster(**Upstream(kind, config).build_dict(job)))
            )
            self._client = stack.enter_context(Client(at))
            return stack.pop_all()

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        step = _step_of(step_handler_context)
        packed = serialize_value(step_handler_context.execute_step_args)
        self._given[step] = self._client.submit(execute_step, packed, pure=False, retries=0)
        yield from ()

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        given = self._given[_step_of(step_handler_context)]
        if given.status in ("pending", "finished"):
            return CheckStepHealthResult.healthy()
        return CheckStepHealthResult.unhealthy(f"On its worker it is {given.status}: {_why(given)}")

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        self._given[_step_of(step_handler_context)].cancel()
        yield from ()


def execute_step(packed: str) -> None:
    """Execute one step in a worker; what happens is recorded in the instance.

    Args:
        packed: The step, its run and its instance, as Dagster packs them for other processes.
    """
    step: Any = deserialize_value(packed, ExecuteStepArgs)
    with dg.DagsterInstance.from_ref(step.instance_ref) as instance:
        run: Any = instance.get_run_by_id(step.run_id)
        for _ in _execute_step_command_body(step, instance, run):
            pass


def _step_of(context: StepHandlerContext) -> str:
    (step,) = context.execute_step_args.step_keys_to_execute or ()
    return step


def _why(given: Any) -> str:
    return "it was lost" if given.status != "error" else repr(given.exception())
