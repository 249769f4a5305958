"""The scenario as Dagster runs it: `definitions.build_definitions`, a real store, an instance."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from dagster_aws.s3 import S3Resource

from definitions import build_definitions
from lockstep.store import Store
from lockstep.view import FeatureView
from resources.store import StoreResource
from tests.scenario import (
    ZONE,
    Clock,
    Views,
    World,
    catalog_of,
    event,
    instant,
    make_views,
    world,
)

D1, D2, D3, D4, D5, D6, D7, D8, D9, D10, D11, D12 = DAYS = [date(2026, 3, n) for n in range(3, 15)]
"""From the first day whose window of three days lies within the source."""
NAN: Final = float("nan")
_STORES: dict[str, Store] = {}


class OpenedStore(StoreResource):
    """Opens the store that the test holds, with the test's clock and views."""

    def open(self) -> Store:
        return _STORES[self.folder]


@dataclass(frozen=True)
class DagsterWorld:
    """The scenario, its definitions, and an instance that remembers the runs."""

    world: World
    definitions: dg.Definitions
    instance: dg.DagsterInstance

    @property
    def views(self) -> Views:
        return self.world.views

    def land(self, day: date, *events: Mapping[str, Any], file: str | None = None) -> Path:
        return self.world.land("events", events, f"{file or day}.parquet")

    def run(
        self,
        first: date,
        last: date | None = None,
        *names: str,
        job: str = "daily",
        tags: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run one partition, or a range in one run; all assets if none is named."""
        ranged = {} if last is None else range_tags(first, last)
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=None if ranged else str(first),
            tags={**ranged, **(tags or {})},
            asset_selection=[dg.AssetKey(name) for name in names] or None,
            raise_on_error=False,
        )

    def materialized(
        self, name: str, run: dg.ExecuteInProcessResult | None = None
    ) -> dict[str, dict[str, Any]]:
        """Return day → metadata of its newest materialization, of all runs or of one."""
        records = self.instance.fetch_materializations(dg.AssetKey(name), limit=1000).records
        found: dict[str, dict[str, Any]] = {}
        for record in reversed(records):
            made = record.asset_materialization
            if made is not None and (run is None or record.run_id == run.run_id):
                found[str(made.partition)] = {k: v.value for k, v in made.metadata.items()}
        return found

    def checks(self, name: str, check: str, run: dg.ExecuteInProcessResult) -> dict[str, bool]:
        """Return day → whether the check passed on it in the run."""
        history = self.instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey(name), check), limit=1000
        )
        events = [record.event for record in history if record.run_id == run.run_id]
        told = [entry.dagster_event for entry in events if entry and entry.dagster_event]
        evaluations = [found.asset_check_evaluation_data for found in told]
        return {str(found.partition): found.passed for found in evaluations}

    def state_of_the_world(self) -> dict[str, dg.AssetCheckEvaluation]:
        """Run the checks on the state of the world; return `asset:check` → what it found."""
        job = self.definitions.resolve_job_def("state_of_the_world")
        result = job.execute_in_process(instance=self.instance)
        found = result.get_asset_check_evaluations()
        return {f"{one.asset_key.path[-1]}:{one.check_name}": one for one in found}

    def online(self, user_id: int) -> float | None:
        """Return what is served of somebody's spend."""
        (row,) = self.world.store.online(["spend_3d:amount_3d"], [{"user_id": user_id}]).rows()
        return row["spend_3d:amount_3d"]

    def revision(self, view: FeatureView, day: date) -> int:
        return int(self.world.store.committed(view)[day].revision)


def range_tags(first: date, last: date) -> dict[str, str]:
    return {ASSET_PARTITION_RANGE_START_TAG: str(first), ASSET_PARTITION_RANGE_END_TAG: str(last)}


def failures(run: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Return step → what its failure says."""
    found = {}
    for told in run.all_events:
        if told.is_step_failure:
            data = told.step_failure_data
            said = data.user_failure_data
            found[str(told.step_key)] = str(said.description if said else data.error)
    return found


@contextmanager
def dagster_world(
    folder: Path,
    redis_url: str,
    *,
    fill_rate: float | None = None,
    now: datetime | None = None,
    more: Sequence[FeatureView] = (),
) -> Iterator[DagsterWorld]:
    """Open the scenario with its people landed, and `more` views, on an instance of its own."""
    clock = Clock(now or instant(D6, 3))
    views = make_views(fill_rate=fill_rate)
    made = world(folder / "project", redis_url=redis_url, views=views, now=clock)
    made.store.__dict__["catalog"] = catalog_of([*views.all, *more])
    made.land("people", [{"user_id": 1, "country": "NZ"}], "people.parquet")
    _STORES[str(folder)] = made.store
    lockstep = OpenedStore(folder=str(folder), s3=S3Resource())
    defs = build_definitions(made.store.catalog, ZONE.key, lockstep)
    home = folder / "home"
    home.mkdir()
    settings = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(home), overrides=settings) as instance:
        yield DagsterWorld(made, defs, instance)
    del _STORES[str(folder)]


def usual(day: date) -> list[dict[str, Any]]:
    """Return a day's usual events: users 1 and 2 spend 1.0 each."""
    return [event(f"{day}/{user}", user, day, 1.0) for user in (1, 2)]


def unfilled(day: date) -> list[dict[str, Any]]:
    """Return a day on which three more have no amount: two of five rows are filled."""
    return [*usual(day), *(event(f"{day}/{user}", user, day, NAN) for user in (11, 12, 13))]


def crowded(day: date) -> list[dict[str, Any]]:
    """Return a day with six more, so that the unfilled ones before it are few enough."""
    return [*usual(day), *(event(f"{day}/{user}", user, day, 1.0) for user in range(21, 27))]
