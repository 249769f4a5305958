"""Views to serve, rows put into Redis behind the store's back, and both clients behind one face.

activity   of a user, every column type, for three days
profile    of a user, for ever; a country must be there ("fail")
footfall   of a shop (text and integer key), for ever
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import redis

from lockstep import Entity, Feature, Features, FeatureSet, FeatureView, Source, feature_view
from lockstep.catalog import Catalog
from lockstep.codec import RowCodec, bucket_of, encode_key
from lockstep.layout import Names, Seal
from lockstep.online import Vectors
from lockstep.serving.aclient import AsyncClient
from lockstep.serving.client import Client

DAY = date(2026, 11, 20)
EVENT = datetime(2026, 11, 21, 5, tzinfo=UTC)
NOW = EVENT + timedelta(hours=7)
TTL = timedelta(days=3)
EARLIEST = datetime.min.replace(tzinfo=UTC)
PATIENT = 10.0
"""Seconds; so long that a test on a busy machine never meets it."""

USER = Entity("user", {"user_id": pl.Int64}, buckets=4)
SHOP = Entity("shop", {"city": pl.String, "shop_id": pl.Int32}, buckets=3)
EVENTS = Source(
    "events",
    {"user_id": pl.Int64, "city": pl.String, "shop_id": pl.Int32, "at": pl.Datetime("us", "UTC")},
    event_time="at",
    unique_by=["user_id", "at"],
    start=date(2026, 1, 1),
)


def declared() -> Catalog:
    """The views, declared anew."""

    class Activity(Features, entity=USER, owner="team:tests", ttl=TTL):
        """What a user did."""

        n = Feature(pl.Int64, "A count.", default=0)
        score = Feature(pl.Float64, "A score.", on_missing="default", default=-1)
        small = Feature(pl.Float32, "A small number.")
        ok = Feature(pl.Boolean, "A flag.", default=False)
        name = Feature(pl.String, "A name.", on_missing="default", default="nobody")
        blob = Feature(pl.Binary, "Bytes.")
        on = Feature(pl.Date, "A day.", default=date(2000, 1, 1))
        seen = Feature(pl.Datetime("us", "UTC"), "An instant.")
        price = Feature(pl.Decimal(10, 2), "A price.", default=3)
        marks = Feature(pl.List(pl.Int64), "Marks.", default=[])
        spot = Feature(pl.Struct({"x": pl.Int64, "since": pl.Date}), "A spot.")

    class Profile(Features, entity=USER, owner="team:tests"):
        """Who a user is."""

        country = Feature(pl.String, "A country.", on_missing="fail")
        age = Feature(pl.Int32, "An age.")

    class Footfall(Features, entity=SHOP, owner="team:tests"):
        """Who came to a shop."""

        visits = Feature(pl.Int64, "Visits.", default=7)

    @feature_view(Activity, inputs=[EVENTS.trailing(days=1)])
    def activity(events: pl.LazyFrame) -> pl.LazyFrame:
        return events

    @feature_view(Profile, inputs=[EVENTS.trailing(days=1)])
    def profile(events: pl.LazyFrame) -> pl.LazyFrame:
        return events

    @feature_view(Footfall, inputs=[EVENTS.trailing(days=1)])
    def footfall(events: pl.LazyFrame) -> pl.LazyFrame:
        return events

    views = {view.name: view for view in (activity, profile, footfall)}
    chosen = FeatureSet(
        "churn_v1", [Activity.n, Profile.age, Activity.name], "Who leaves.", "team:tests"
    )
    return Catalog(
        {"user": USER, "shop": SHOP}, {"events": EVENTS}, {}, views, {"churn_v1": chosen}, {}
    )


CATALOG = declared()
ACTIVITY, PROFILE, FOOTFALL = CATALOG.views.values()
CODECS = {name: RowCodec(view.contract.feature_types) for name, view in CATALOG.views.items()}
ACTIVITY_FEATURES = [f"activity:{name}" for name in ACTIVITY.contract.features]
ALL_FEATURES = [f"{v.name}:{n}" for v in CATALOG.views.values() for n in v.contract.features]
FULL: Mapping[str, Any] = {
    "n": 3,
    "score": 0.5,
    "small": 0.25,
    "ok": True,
    "name": "é",
    "blob": b"\x00\xff",
    "on": date(2026, 1, 2),
    "seen": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "price": 1,
    "marks": [1, None, 3],
    "spot": {"x": 1, "since": date(2026, 1, 1)},
}


def packed(
    codec: RowCodec, row: Mapping[str, Any], *, event: datetime = EVENT, version: int = 1
) -> bytes:
    """One row as its codec packs it, of the day before; what the row leaves out is null."""
    day = max(event, EARLIEST + timedelta(days=1)).date() - timedelta(days=1)
    schema = {
        "day": pl.Date,
        "revision": pl.Int64,
        "event_timestamp": pl.Datetime("us", "UTC"),
        **codec.columns,
    }
    values = {"day": day, "revision": 1, "event_timestamp": event, **row}
    frame = pl.DataFrame({name: [values.get(name)] for name in schema}, schema=schema)
    (value,) = codec.encode(frame, version=version).to_list()
    return bytes(value)


def tombstone(codec: RowCodec) -> bytes:
    return codec.tombstone(version=2, day=DAY, revision=2, event_timestamp=EVENT)


@dataclass
class Shelf:
    """One namespace of a server, written to as no push would."""

    raw: "redis.Redis"
    namespace: str
    names: Names = field(init=False)

    def __post_init__(self) -> None:
        self.names = Names(self.namespace)

    def put(self, view: FeatureView, key: Sequence[int | str], value: bytes) -> bytes:
        """Store a value; return the Redis key."""
        name = self.name_of(view, key)
        self.raw.hset(name, view.name, value)
        return name

    def name_of(self, view: FeatureView, key: Sequence[int | str]) -> bytes:
        entity, encoded = view.contract.entity, encode_key(key)
        return self.names.entity_key(entity.name, bucket_of(encoded, entity.buckets), encoded)

    def seal(self, *views: FeatureView, table: str = "table-a") -> None:
        """Seal every bucket of the views, as a finished push does."""
        for view in views:
            entity = view.contract.entity
            self.raw.hset(self.names.entity_meta(entity.name), "buckets", entity.buckets)
            for bucket in range(entity.buckets):
                fields = {view.name: Seal(table, 1, "", 0).text, f"table:{view.name}": table}
                self.raw.hset(self.names.bucket_key(entity.name, bucket), mapping=fields)

    def unseal(self, view: FeatureView, bucket: int) -> None:
        self.raw.hdel(self.names.bucket_key(view.contract.entity.name, bucket), view.name)

    def teach(self, codec: RowCodec) -> None:
        """Keep a schema, as a push does before its first row."""
        self.raw.hset(self.names.schemas(), codec.fingerprint.hex(), codec.schema_json)

    def note(self, kind: Any, view: FeatureView, text: str) -> None:
        self.raw.hset(self.names.notes(kind), view.name, text)


class Both:
    """A blocking and an asynchronous client of one store; every fetch asks both and compares."""

    def __init__(self, url: str, namespace: str, **options: Any) -> None:
        self.at = NOW
        self.clock = 0.0
        settings = {
            "deadline": PATIENT,
            "poll": 3600.0,
            "now": lambda: self.at,
            "clock": lambda: self.clock,
            **options,
        }
        self.runner = asyncio.Runner()
        self.sync = Client(CATALOG, url, namespace=namespace, **settings)
        self.other = AsyncClient(CATALOG, url, namespace=namespace, **settings)

    def look(self) -> None:
        self.sync.look()
        self.runner.run(self.other.look())

    def fetch(self, *args: Any, **options: Any) -> Vectors:
        """What both clients answer, or raise."""
        first = told(lambda: self.sync.fetch(*args, **options))
        second = told(lambda: self.runner.run(self.other.fetch(*args, **options)))
        assert repr(first) == repr(second), f"{first!r} {second!r}"
        if isinstance(first, Exception):
            raise first
        assert repr(comparable(first)) == repr(comparable(second))
        assert first.readable
        return first.vectors

    def close(self) -> None:
        self.sync.close()
        self.runner.run(self.other.close())
        self.runner.close()


@dataclass
class Told:
    vectors: Vectors
    readable: bool = True


def told(ask: Callable[[], Vectors]) -> Any:
    """An answer, or the error in its place."""
    try:
        return Told(ask())
    except Exception as error:  # noqa: BLE001 - both clients must raise the same
        return error


def comparable(told_: Told) -> tuple[Any, ...]:
    """Everything an answer says; NaN and -0.0 stay apart in its repr."""
    found = told_.vectors
    return (
        dict(found.key_columns),
        list(found.features),
        found.columns,
        found.cells,
        dict(found.event_us),
        found.at,
        dict(found.not_ready),
        str(found.outage),
    )
