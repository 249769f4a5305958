"""The whole look of the engine: what the lake and Redis show. Dagster adds what its log shows."""

import os
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from lockstep.alerts.asking import Model
from lockstep.alerts.deliver import Ticked, tick
from lockstep.alerts.lake import look_at_lake
from lockstep.alerts.online import SEALS, look_at_online
from lockstep.alerts.problem import Drifting, Look
from lockstep.alerts.retraining import write_requests
from lockstep.alerts.settings import AlertSettings, parse_alerts
from lockstep.alerts.spines import newest_kept
from lockstep.alerts.state import States
from lockstep.alerts.unexpected import UNEXPECTED, unexpected
from lockstep.catalog import Catalog
from lockstep.lake import Lake
from lockstep.store import Store


def settings_of(store: Store) -> AlertSettings:
    """Return what the project says of alerts.

    Raises:
        ConfigError: Something in `[tool.lockstep.alerts]` is wrong.
    """
    return parse_alerts(store.project.alerts)


def look(store: Store) -> Look:
    """Return the problems that the lake and the online store show now.

    Raises:
        ConfigError: Something in `[tool.lockstep.alerts]` is wrong.
        StoreError: The lake does not answer.
    """
    owner = settings_of(store).owner
    found = look_at_lake(store.lake, store.catalog, store.now(), owner)
    return found + guarded({"not_ready", SEALS}, lambda: look_at_online(store, owner))


def guarded(beginnings: Collection[str], finder: Callable[[], Look]) -> Look:
    """Return what a finder finds; if it breaks unexpectedly, that its part is unknown.

    Args:
        beginnings: Of the keys that it looks for.
    """
    try:
        return finder()
    except UNEXPECTED as error:
        names = ", ".join(sorted(beginnings))
        why = unexpected(f"{names} could not be looked at", error)
        return Look([], frozenset(), dict.fromkeys(beginnings, why))


def told(
    store: Store, found: Look, now: datetime, environment: Mapping[str, str] = os.environ
) -> Ticked:
    """Keep what a look found, tell the receivers, and request the training sets that drift wants.

    Args:
        now: When the look began; of two looks at once the older changes nothing.
        environment: Where secrets are.

    Raises:
        ConfigError: Something in `[tool.lockstep.alerts]` is wrong.
        ConflictError: Others kept changing the state of the alerts.
        StoreError: The lake does not answer.
    """
    store.lake.require_safe_commits()
    states = States(store.lake.place)
    ticked = tick(
        states,
        found,
        settings_of(store),
        project=store.project.namespace,
        models=models_of(store.catalog, store.lake, found.drifting),
        now=now,
        environment=environment,
    )
    failed = write_requests(store, states, ticked.state)
    return Ticked(ticked.state, ticked.sent, {**ticked.failed, **failed})


def models_of(catalog: Catalog, lake: Lake, drifting: Collection[Drifting]) -> list[Model]:
    """Return the feature sets, each with the entities that it joins.

    Raises:
        StoreError: The lake does not answer.
    """
    drift = {each.feature for each in drifting}
    found = []
    for chosen in catalog.feature_sets.values():
        views = {name.partition(":")[0] for name in chosen.names} & catalog.views.keys()
        entities = {catalog.views[name].contract.entity.name for name in views}
        # Every kept set's manifest would be read at every tick.
        asks = len(entities) > 1 and not drift.isdisjoint(chosen.names)
        kept = newest_kept(lake, chosen.name) if asks else ""
        found.append(Model(chosen.name, chosen.names, sorted(entities), kept))
    return found
