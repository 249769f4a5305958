"""What notebooks, the command line and Dagster's resources use: one project, opened."""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import polars as pl

from lockstep.catalog import Catalog, discover
from lockstep.clock import utc_now
from lockstep.errors import LockstepWarning
from lockstep.ingest import held_days
from lockstep.lake import Lake
from lockstep.online import MissingPolicy, Vectors
from lockstep.parity import Parity, parity
from lockstep.project import Project, find_project
from lockstep.push import Pushed, push
from lockstep.reader import Reader
from lockstep.serving.client import Client, url_of
from lockstep.serving.entities import Entities
from lockstep.serving.plan import Features
from lockstep.sources import Readable
from lockstep.stores.redis import OnlineStore
from lockstep.throttle import Throttle
from lockstep.time import parse_days
from lockstep.training.leakage import Leakage, compare_modes
from lockstep.training.manifest import Manifest, Mode
from lockstep.training.order import order
from lockstep.training.plan import Plan, Progress, build, plan_set
from lockstep.training.reproduce import pinned_like
from lockstep.training.spine import AnySpine
from lockstep.training.training_set import TrainingSet
from lockstep.view import FeatureView

_PATIENCE = 5.0
"""Seconds that people wait for Redis; see `lockstep.serving.client.DEADLINE` for services."""


@dataclass(frozen=True)
class ViewTable:
    """The committed rows of one view."""

    view: FeatureView
    _lake: Lake

    def scan(self, days: str | Collection[date] | None = None) -> pl.LazyFrame:
        """Return keys, event_timestamp, features, known_at and day of committed rows.

        Args:
            days: `"2026-11-01..2026-11-21"`, one date, or dates; everything if not given.
        """
        chosen = parse_days(days) if isinstance(days, str) else days
        return self._lake.table(self.view).scan(chosen)


class Store:
    """One opened project.

    Args:
        project: Where things are.
        now: Returns the present instant; a test passes its own.
        options: AWS settings by their environment names; they win over the environment.
    """

    def __init__(
        self,
        project: Project,
        now: Callable[[], datetime] = utc_now,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.project = project
        self.now = now
        self.lake = Lake(project, options)

    @cached_property
    def catalog(self) -> Catalog:
        """Everything that the project declares."""
        return discover(self.project)

    @cached_property
    def online_store(self) -> OnlineStore:
        """The connection to Redis; nothing is sent before the first call."""
        return OnlineStore(url_of(self.project), namespace=self.project.namespace)

    @cached_property
    def _client(self) -> Client:
        return Client(
            self.catalog,
            url_of(self.project),
            namespace=self.project.namespace,
            deadline=_PATIENCE,
            outage="raise",
            now=self.now,
        )

    @property
    def views(self) -> Mapping[str, FeatureView]:
        """Every view by name; a view stands after those it reads."""
        return self.catalog.views

    def view(self, name: str) -> ViewTable:
        """Return the committed rows of a view.

        Raises:
            UnknownNameError: There is no such view.
        """
        return ViewTable(self.catalog.view(name), self.lake)

    def reader(self) -> Reader:
        """Return a reader of committed inputs, pinned at what is committed when first asked."""

        def held(of: Readable) -> Mapping[date, str]:
            return {} if isinstance(of, FeatureView) else held_days(self.lake, of)

        return Reader(self.lake.table, held)

    def online(
        self,
        features: Features,
        entities: Entities,
        *,
        on_missing: MissingPolicy = None,
    ) -> Vectors:
        """Fetch feature vectors: one row per entity, in order.

        It looks whether the views are complete first, and waits up to five seconds. A service uses
        `lockstep.serving.client.Client`, which looks in the background and waits milliseconds.

        Args:
            features: A feature set (or its name), or a list of features or `view:feature`.
            entities: Key columns per row, e.g. `[{"household_id": 900}]`, a list per key column, or
                a frame.
            on_missing: "null", "default" (the feature's `default=`, else `empty=` value) or "fail",
                for all or per `view:feature`; as the contracts say if not given.

        Raises:
            UnknownNameError: A view, feature or feature set does not exist.
            InputError: A key is absent or has the wrong type.
            MissingFeatureError: A policy is "fail" and a cell has no value.
            OnlineError: The online store does not answer.
        """
        client = self._client
        client.look()
        return client.fetch(features, entities, on_missing=on_missing)

    def training_set(
        self,
        spine: AnySpine,
        features: Features,
        *,
        mode: Mode = "event",
        timestamp: str = "event_timestamp",
        time_zone: str | None = None,
        name: str | None = None,
        to: str | Path | None = None,
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> TrainingSet:
        """Join features to a spine, each with the value that was valid at the row's timestamp.

        Every spine row comes back once, in its order, with all its columns and a column
        `view:feature` per feature. A value counts while
        `event_timestamp <= t <= event_timestamp + ttl`, ends included; else the cell is null.

        Args:
            spine: Key columns, a timestamp, and anything else (labels): a Polars frame or
                LazyFrame, a pandas frame, an Arrow table, or the path of a .parquet or .csv file
                or of a Delta table.
            features: A feature set (or its name), or a list of features or `view:feature`.
            mode: "event": by event time, corrections included. "known": what the platform could
                have answered at that instant.
            timestamp: The spine's instant column; a date is the start of that day in the
                partition zone.
            time_zone: Zone of a naive timestamp column; without it a naive one is refused.
            name: Keep the set in the lake under this name, so that it can be rebuilt.
            to: Write the set to this .parquet or .csv file, its manifest beside it.
            memory: Bytes that the work may take; 60 % of what is free if not given. What is
                larger is split by time and goes over the disk.
            progress: Called with what is being done, how much of it is done, and how much there is.

        Raises:
            UnknownNameError: A view, feature or feature set does not exist.
            InputError: A key column is missing or has another type, the timestamp is naive, or
                the name is taken by another set.
            StoreError: The lake does not answer, or the content of a day is gone.

        Warns:
            LockstepWarning: The days of a view were built by different versions of its code, or
                rows of the spine lie in the future. `TrainingSet.warnings` says more.
        """
        asked = order(
            self,
            spine,
            features,
            mode=mode,
            timestamp=timestamp,
            time_zone=time_zone,
            name=name,
            to=to,
            memory=memory,
        )
        _warn(asked.pinned.code_warnings)
        found = build(self, asked, progress)
        _warn(found.future)
        return found

    def plan_training_set(
        self,
        spine: AnySpine,
        features: Features,
        *,
        mode: Mode = "event",
        timestamp: str = "event_timestamp",
        time_zone: str | None = None,
        name: str | None = None,
        to: str | Path | None = None,
        memory: int | None = None,
        parts: int | None = None,
        workers: int = 1,
    ) -> Plan:
        """Pin what `training_set` would read and split the spine, so that others join the parts.

        See `lockstep.training.plan`. The arguments are those of `training_set`, and its errors.

        Args:
            memory: Bytes that the work may take; 60 % of what is free if not given.
            parts: At least so many parts, up to 256.
            workers: How many processes of this machine join parts at a time; they share the memory.
        """
        asked = order(
            self,
            spine,
            features,
            mode=mode,
            timestamp=timestamp,
            time_zone=time_zone,
            name=name,
            to=to,
            memory=memory,
            workers=workers,
        )
        _warn(asked.pinned.code_warnings)
        plan = plan_set(self, asked, parts)
        _warn(plan.pinned.future)
        return plan

    def leakage(
        self,
        spine: AnySpine,
        features: Features,
        *,
        timestamp: str = "event_timestamp",
        time_zone: str | None = None,
        like: Manifest | None = None,
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> Leakage:
        """Compare the two modes: which cells hold what nobody could know at their instant.

        The other arguments are those of `training_set`, and its errors.

        Args:
            like: The manifest of a set of these features: both modes read the versions that it
                pins, whatever was committed since. Without it they read the newest.
        """
        pinned = None
        if like is not None:
            pinned = pinned_like(self, like, features, timestamp=timestamp, time_zone=time_zone)
        asked = order(
            self,
            spine,
            features,
            timestamp=timestamp,
            time_zone=time_zone,
            memory=memory,
            like=pinned,
        )
        return compare_modes(self, asked, progress)

    def parity(self, *names: str) -> list[Parity]:
        """Compare online with offline for every entity of the named views.

        Every view that was built, if none is named.

        Raises:
            UnknownNameError: There is no such view.
            StoreError: A named view was never built.
            OnlineError: The online store does not answer.
        """
        built = (view for view in self.views.values() if self.committed(view))
        chosen = [self.catalog.view(name) for name in names] or list(built)
        at = self.now()
        return [parity(self.lake, self.online_store, view, at) for view in chosen]

    def push(
        self,
        view: FeatureView,
        days: Collection[date] | None = None,
        *,
        rebuild: bool = False,
        throttled: bool = True,
        on_rows: Callable[[int], None] | None = None,
    ) -> Pushed:
        """Bring the online store in step with the committed days of a view.

        Args:
            days: Days to push; all that are committed and have ended if not given.
            rebuild: Remove the view's rows and seals first.
            throttled: Slow down while readers would notice.
            on_rows: Called with the number of rows of every acknowledged call.

        Raises:
            NotCertifiedError: A named day is not committed, or has not ended.
            OnlineError: The online store does not answer or refuses.
            ConflictError: Others kept pushing the same view.
        """
        return push(
            self.lake,
            self.online_store,
            view,
            days,
            now=self.now,
            rebuild=rebuild,
            on_rows=on_rows,
            throttle=Throttle(monotonic, sleep) if throttled else None,
        )

    def committed(self, of: Readable) -> Mapping[date, Any]:
        """Return day → what is certified for it; empty if nothing was built yet."""
        head = self.lake.table(of).head_or_none()
        return {} if head is None else head.days


def _warn(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        warnings.warn(sentence, LockstepWarning, stacklevel=3)


def open_store(folder: str | Path | None = None) -> Store:
    """Open the project at or above `folder` (the current one if not given).

    Raises:
        ConfigError: There is no project, or its settings are wrong.
    """
    return Store(find_project(folder))
