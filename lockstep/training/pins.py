"""What a training set reads, pinned before the first row is read: versions, days, revisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from lockstep.catalog import Catalog
from lockstep.errors import InputError, StoreError
from lockstep.lake import Lake
from lockstep.serving.plan import Features, compile_plan
from lockstep.status import code_versions
from lockstep.stores.delta import DayTable
from lockstep.stores.history import SliceReader
from lockstep.time import ONE_DAY, as_of, micros, span, zone_named
from lockstep.training.manifest import MODES, Mode, ViewPin
from lockstep.training.timeline import Slice, event_slices, known_slices
from lockstep.training.widths import widths_of
from lockstep.view import FeatureView


@dataclass(frozen=True)
class Pinned:
    """One request for a training set with the versions that it reads.

    Attributes:
        feature_set: {"name", "version"}, if one was asked for.
        features: `view:feature` in asked order: the order of the set's columns.
        time_zone: In which naive timestamps of the spine are read.
        partition_zone: The zone of the days.
        views: In order of first feature.
        code_warnings: A sentence per view whose days mix versions of its code.
        warnings: Every sentence that is known without joining, those included.
        future: Those of them on rows of the spine that lie in the future.
    """

    created_at: datetime
    feature_set: Mapping[str, str] | None
    features: tuple[str, ...]
    mode: Mode
    timestamp: str
    time_zone: str | None
    partition_zone: str
    views: tuple[ViewPin, ...]
    code_warnings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    future: tuple[str, ...] = ()

    @property
    def types(self) -> dict[str, pl.DataType]:
        """`view:feature` → type, in column order."""
        found = {
            f"{pin.view}:{name}": dtype
            for pin in self.views
            for name, dtype in pin.features.items()
        }
        return {name: found[name] for name in self.features}

    @property
    def keys(self) -> dict[str, Mapping[str, pl.DataType]]:
        """View → key column → type."""
        return {pin.view: pin.keys for pin in self.views}

    @property
    def key_columns(self) -> list[str]:
        """Every key column of any view, each once."""
        return list(dict.fromkeys(key for pin in self.views for key in pin.keys))

    @property
    def zone(self) -> ZoneInfo:
        """The partition time zone."""
        return zone_named(self.partition_zone)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "created_at": self.created_at.isoformat(),
            "feature_set": None if self.feature_set is None else dict(self.feature_set),
            "features": list(self.features),
            "mode": self.mode,
            "timestamp": self.timestamp,
            "time_zone": self.time_zone,
            "partition_zone": self.partition_zone,
            "views": {pin.view: pin.to_json() for pin in self.views},
            "widths": {pin.view: dict(pin.widths) for pin in self.views},
            "code_warnings": list(self.code_warnings),
            "warnings": list(self.warnings),
            "future": list(self.future),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Pinned":
        """Read what `to_json` returned."""
        return cls(
            created_at=datetime.fromisoformat(data["created_at"]),
            feature_set=data["feature_set"],
            features=tuple(data["features"]),
            mode=data["mode"],
            timestamp=data["timestamp"],
            time_zone=data["time_zone"],
            partition_zone=data["partition_zone"],
            views=tuple(
                replace(ViewPin.from_json(name, pin), widths=data["widths"].get(name, {}))
                for name, pin in data["views"].items()
            ),
            code_warnings=tuple(data["code_warnings"]),
            warnings=tuple(data["warnings"]),
            future=tuple(data["future"]),
        )


@dataclass(frozen=True)
class PinnedView:
    """A view's table at its pinned version: what the join reads.

    Attributes:
        pin: The view.
        lake: Where its table is.
    """

    pin: ViewPin
    lake: Lake
    zone: ZoneInfo

    @cached_property
    def table(self) -> DayTable:
        """The table by what the pin says of it, whatever is declared now."""
        columns = {
            **self.pin.keys,
            "event_timestamp": pl.Datetime("us", "UTC"),
            **self.pin.features,
        }
        return DayTable(
            self.lake.place.path(f"offline/{self.pin.view}"),
            columns,
            name=self.pin.view,
            zone=self.zone.key,
            contract="",
            options=self.lake.place.options,
        )

    @cached_property
    def reader(self) -> SliceReader:
        """What reads rows and history at the pinned version.

        Raises:
            StoreError: The version is gone, or another table is in its place.
        """
        reader = SliceReader(self.table, self.pin.version)
        if reader.table_id != self.pin.table_id:
            raise StoreError(
                f"Version {self.pin.version} of {self.pin.view} is not the one that was pinned.",
                expected=f"the table {self.pin.table_id}",
                got=reader.table_id,
                fix="Restore the table's log from a backup.",
                effect="Nothing was joined.",
            )
        return reader

    def slices(self, mode: Mode) -> list[Slice]:
        """Return what may count at the pinned version; none for a view never materialized."""
        if self.pin.version is None:
            return []
        history = self.reader.history
        if mode == "event":
            return event_slices(history.current, self.zone)
        return known_slices(
            history.days, self.zone, self.pin.landing_delay, live=history.first_known_at
        )


def pin(
    catalog: Catalog,
    lake: Lake,
    features: Features,
    *,
    mode: str,
    timestamp: str,
    time_zone: str | None,
    now: datetime,
) -> Pinned:
    """Pin what is committed now.

    Raises:
        UnknownNameError: A view, feature or feature set does not exist.
        InputError: There is no such mode, no feature is named, or a key column means two things.
    """
    if mode not in MODES:
        raise InputError(
            f"mode is {mode!r}.", expected="'event' or 'known'", effect="Nothing was joined."
        )
    # The order that serving answers in: a model may know its columns by position.
    plan = compile_plan(catalog, features)
    by_view = catalog.features(plan.features)
    pins = [_pin_view(lake, catalog.view(name), wanted, mode) for name, wanted in by_view.items()]
    mixed = [sentence for pinned in pins for sentence in _mixed(pinned)]
    unbuilt = [
        f"{pinned.view} was never materialized: its features are null everywhere."
        for pinned in pins
        if pinned.version is None
    ]
    named = plan.feature_set is not None and plan.version is not None
    return Pinned(
        created_at=now.astimezone(UTC),
        feature_set={"name": plan.feature_set, "version": plan.version}  # type: ignore[dict-item]
        if named
        else None,
        features=plan.features,
        mode="event" if mode == "event" else "known",
        timestamp=timestamp,
        time_zone=time_zone,
        partition_zone=lake.project.zone.key,
        views=tuple(pins),
        code_warnings=tuple(mixed),
        warnings=(*mixed, *unbuilt),
    )


def _pin_view(lake: Lake, view: FeatureView, wanted: Sequence[str], mode: str) -> ViewPin:
    contract, table = view.contract, lake.table(view)
    types = contract.feature_types
    history = table.history() if table.exists() else None
    days: dict[date, Sequence[tuple[int, str]]] = {}
    versions: dict[str, str] = {}
    if history is not None:
        current = {day: (record,) for day, record in history.current.items()}
        days = {
            day: [(record.revision, record.content_hash) for record in records]
            for day, records in (current if mode == "event" else history.days).items()
        }
        produced = code_versions(history.current, lake.produced(view.name))
        versions = {version: span(of) for version, of in produced.items()}
    return ViewPin(
        view=view.name,
        table_id=history.table_id if history else None,
        version=history.version if history else None,
        keys=contract.entity.key_types,
        features={name: types[name] for name in wanted},
        ttl=contract.ttl,
        landing_delay=contract.landing_delay,
        contract_hash=contract.fingerprint,
        code_versions=versions,
        days=days,
        largest=max((r.rows for r in history.current.values()), default=0) if history else 0,
        widths=widths_of(table, history, {n: types[n] for n in wanted}) if history else {},
    )


def _mixed(pin: ViewPin) -> list[str]:
    if len(pin.code_versions) < 2:  # noqa: PLR2004 - one version mixes with none
        return []
    days = "; ".join(f"{version}: {of}" for version, of in pin.code_versions.items())
    sentence = (
        f"The days of {pin.view} mix versions of its code ({days}). To make them one: "
        f"lockstep materialize {pin.view} --days …"
    )
    return [sentence]


@dataclass(frozen=True)
class Reach:
    """Which instants a spine asks about.

    Attributes:
        first: The earliest, microseconds UTC; None if there is none.
        last: The latest.
        rows: Rows of the spine.
        beyond: Instant (microseconds) → how many rows lie at or after it.
    """

    first: int | None
    last: int | None
    rows: int
    beyond: Mapping[int, int]


def narrowed(pinned: Pinned, reach: Reach) -> Pinned:
    """Return the pins with only the days that the spine can meet, and warnings of its future."""
    future = tuple(_future(pinned, reach))
    return replace(
        pinned,
        views=tuple(_narrowed(pin, reach, pinned.zone) for pin in pinned.views),
        warnings=(*pinned.warnings, *future),
        future=future,
    )


def _narrowed(pin: ViewPin, reach: Reach, zone: ZoneInfo) -> ViewPin:
    if reach.first is None or reach.last is None:
        return replace(pin, days={})
    # In microseconds: an instant near year 1, less a ttl, is no datetime.
    first = None if pin.ttl is None else reach.first - pin.ttl // timedelta(microseconds=1)
    days = {
        day: found
        for day, found in pin.days.items()
        if (end := micros(as_of(day, zone))) <= reach.last and (first is None or end >= first)
    }
    return replace(pin, days=days)


def thresholds(pinned: Pinned) -> dict[str, datetime]:
    """Return view → the first instant whose value is not committed yet; "": just after now."""
    found = {"": pinned.created_at + timedelta(microseconds=1)}
    for view in pinned.views:
        if view.days:
            found[view.view] = as_of(max(view.days) + ONE_DAY, pinned.zone)
    return found


def _future(pinned: Pinned, reach: Reach) -> list[str]:
    said = []
    for view, instant in thresholds(pinned).items():
        count = reach.beyond.get(micros(instant), 0)
        if not count:
            continue
        how_many = f"{count:,} of {reach.rows:,} rows of the spine"
        if not view:
            shown = f"{instant:%Y-%m-%d %H:%M} UTC"
            said.append(f"{how_many} are later than now, {shown}: nobody knows their values yet.")
        else:
            newest = max(next(pin.days for pin in pinned.views if pin.view == view))
            said.append(
                f"The days of {view} go up to {newest}; {how_many} are at or after the end of the "
                "day after it, and get an older value or null."
            )
    return said
