"""What notebooks, the command line and Dagster's resources use: one project, opened."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Literal

import polars as pl

from lockstep.catalog import Catalog, discover
from lockstep.clock import utc_now
from lockstep.errors import InputError, LockstepWarning
from lockstep.ingest import held_days
from lockstep.lake import Lake
from lockstep.online import MissingPolicy, Vectors
from lockstep.parity import Parity, parity
from lockstep.project import Project, find_project
from lockstep.push import Pushed, push
from lockstep.reader import Reader
from lockstep.serving.client import Client, url_of
from lockstep.serving.entities import Entities
from lockstep.serving.plan import Features, compile_plan
from lockstep.sources import Readable
from lockstep.status import code_versions
from lockstep.stores.causes import answering
from lockstep.stores.redis import OnlineStore
from lockstep.throttle import Throttle
from lockstep.time import parse_days, span, to_utc
from lockstep.training import Joined, point_in_time
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
        spine: pl.DataFrame | pl.LazyFrame,
        features: Features,
        *,
        timestamp: str = "event_timestamp",
        time_zone: str | None = None,
        mode: Literal["event"] = "event",
    ) -> pl.DataFrame:
        """Join features to a spine, each with the value that was valid at the row's timestamp.

        Every spine row comes back once, in its order, with all its columns and a column
        `view:feature` per feature. A value counts while
        `event_timestamp <= t <= event_timestamp + ttl`, ends included; else the cell is null.

        Args:
            spine: Key columns, a timestamp, and anything else (labels).
            features: A feature set (or its name), or a list of features or `view:feature`.
            timestamp: The spine's instant column, UTC.
            time_zone: Zone of a naive timestamp column; without it a naive one is refused.
            mode: "event": by event time, corrections included.

        Raises:
            UnknownNameError: A view, feature or feature set does not exist.
            InputError: A key column is missing or has another type, or the timestamp is naive.

        Warns:
            LockstepWarning: The days of a view were built by different versions of its code.
        """
        if mode != "event":
            raise InputError(f"mode is {mode!r}.", expected="'event'", effect="Nothing was joined.")
        # The order that serving answers in: a model may know its columns by position.
        names = compile_plan(self.catalog, features).features
        frame = spine.collect() if isinstance(spine, pl.LazyFrame) else spine
        instant = _instant(frame, timestamp, time_zone)
        views = [
            self._joined(self.catalog.view(view), of_view)
            for view, of_view in self.catalog.features(names).items()
        ]
        self._warn_of_mixed_code(names)
        with answering(f"The lake {self.lake.place.uri}"):
            joined = point_in_time(frame.with_columns(instant), timestamp, views)
        if timestamp in frame.columns:
            joined = joined.with_columns(frame[timestamp])
        return joined.select([*frame.columns, *names])

    def _warn_of_mixed_code(self, features: Sequence[str]) -> None:
        for name in self.catalog.features(features):
            committed = self.committed(self.catalog.view(name))
            versions = code_versions(committed, self.lake.latest_entries(name))
            if len(versions) > 1:
                days = "; ".join(f"{version}: {span(of)}" for version, of in versions.items())
                warnings.warn(
                    f"The days of {name} mix versions of its code ({days}). To make them one: "
                    f"lockstep materialize {name} --days …",
                    LockstepWarning,
                    stacklevel=3,
                )

    def _joined(self, view: FeatureView, features: Sequence[str]) -> Joined:
        table = self.lake.table(view)
        rows = (
            table.scan()
            if table.exists()
            else pl.LazyFrame(schema={**view.columns, "day": pl.Date})
        )
        return Joined(view.name, view.contract.keys, features, rows, view.contract.ttl)

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


def _instant(frame: pl.DataFrame, timestamp: str, time_zone: str | None) -> list[pl.Expr]:
    """Convert a spine's timestamp to UTC microseconds, where that loses nothing."""
    dtype = frame.schema.get(timestamp)
    if not isinstance(dtype, pl.Datetime):
        return []
    if dtype.time_zone is None:
        return [] if time_zone is None else [to_utc(timestamp, time_zone).dt.cast_time_unit("us")]
    return [pl.col(timestamp).dt.convert_time_zone("UTC").dt.cast_time_unit("us")]


def open_store(folder: str | Path | None = None) -> Store:
    """Open the project at or above `folder` (the current one if not given).

    Raises:
        ConfigError: There is no project, or its settings are wrong.
    """
    return Store(find_project(folder))
