"""A small catalog with rows in a real store, served in this process or by one of its own.

    user (Int64)          everything  a feature per case of `CASES`, rows of users 1 to 4; no ttl
                          spend       amount, visits (default 0), tier; ttl 3 days
                          strict      score: its contract says on_missing="fail"
                          contact     email is PII, city is not
    shop (country, shop)  shops       open_days, on a composite text key

Users of spend: 1 to 4 have rows of yesterday, 5 an expired one, 6 a null amount, 7 was removed, 8
was never written. `NOW` is what time it is.
"""

import json
import math
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self
from uuid import uuid4
from zoneinfo import ZoneInfo

import polars as pl

from lockstep import Entity, Feature, Features, FeatureSet, FeatureView, Source, feature_view
from lockstep.catalog import Catalog
from lockstep.codec import RowCodec, encode_keys
from lockstep.layout import PushRows, Seal
from lockstep.project import Project
from lockstep.serving.process import client_class
from lockstep.serving.server import Server, Service, bound_socket
from lockstep.serving.settings import ServingSettings
from lockstep.serving.tracing import Tracing
from lockstep.stores.redis import OnlineStore

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
YESTERDAY = datetime(2026, 11, 22, 5, tzinfo=UTC)
LONG_AGO = datetime(2026, 11, 10, 5, tzinfo=UTC)
INF, NAN = math.inf, math.nan
INSTANT = datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
US = pl.Datetime("us", "UTC")
PARTS = pl.Struct({"n": pl.Int64, "x": pl.Float64, "when": US, "raw": pl.Binary})

USER = Entity("user", {"user_id": pl.Int64}, "Somebody.", buckets=4)
SHOP = Entity("shop", {"country": pl.String, "shop": pl.String}, "A shop.", buckets=2)
VISITS = Source(
    "visits",
    {"user_id": pl.Int64, "at": US},
    event_time="at",
    unique_by=["user_id", "at"],
    start=date(2026, 1, 1),
)

CASES: dict[str, tuple[pl.DataType, list[Any]]] = {
    "int64": (pl.Int64(), [1, -(2**63), 2**63 - 1, 2**53 + 1]),
    "int64_null": (pl.Int64(), [1, None, 2**53 + 1, 2**63 - 1]),
    "int32": (pl.Int32(), [1, -(2**31), 2**31 - 1]),
    "int32_null": (pl.Int32(), [1, None, 7]),
    "int16": (pl.Int16(), [-(2**15), 2**15 - 1]),
    "int8": (pl.Int8(), [-128, 127, 0]),
    "float64": (pl.Float64(), [0.1, -0.0, 5e-324, 1.7976931348623157e308]),
    "float64_sum": (pl.Float64(), [1.7976931348623157e308] * 4),
    "float64_nan_inf": (pl.Float64(), [NAN, INF, -INF, 1.0]),
    "float64_null_vs_nan": (pl.Float64(), [None, NAN, 1.5]),
    "float32": (pl.Float32(), [0.5, 3.25, None, 0.10000000149011612]),
    "float32_nan": (pl.Float32(), [NAN, -INF]),
    "bool": (pl.Boolean(), [True, False]),
    "bool_null": (pl.Boolean(), [True, None, False]),
    "string": (pl.String(), ["abc", "", "żółć 漢字 🙂", "a\0b"]),
    "string_null": (pl.String(), ["x", None, "", "NaN"]),
    "bytes": (pl.Binary(), [b"\x00\xff", b""]),
    "bytes_null": (pl.Binary(), [b"\x00\xff", None]),
    "ts_us": (US, [INSTANT, INSTANT.replace(microsecond=0)]),
    "ts_null": (US, [INSTANT.replace(microsecond=0), None]),
    "ts_epoch": (US, [datetime(1970, 1, 1, tzinfo=UTC), datetime(1960, 1, 1, tzinfo=UTC)]),
    "date": (pl.Date(), [date(2025, 1, 2), date(1, 1, 1), date(9999, 12, 31), None]),
    "decimal": (pl.Decimal(20, 4), [Decimal("1.2345"), Decimal("9999999999999.9999")]),
    "list_int": (pl.List(pl.Int64), [[1, 2], [2**53 + 1]]),
    "list_empty": (pl.List(pl.Int64), [[1], []]),
    "list_null": (pl.List(pl.Int64), [[1], None]),
    "list_null_item": (pl.List(pl.Int64), [[1, None, 3]]),
    "list_str": (pl.List(pl.String), [["a", ""], ["ż"], ["a", None]]),
    "list_float": (pl.List(pl.Float64), [[0.1, NAN], [INF, None]]),
    "list_ts": (pl.List(US), [[INSTANT, INSTANT.replace(microsecond=0)]]),
    "list_decimal": (pl.List(pl.Decimal(9, 2)), [[Decimal("0.10"), None]]),
    "struct": (
        PARTS,
        [{"n": 2**53 + 1, "x": -INF, "when": INSTANT, "raw": b"\xff"}, None],
    ),
}
COLUMNS = {name: values + [None] * (4 - len(values)) for name, (_, values) in CASES.items()}


def _view(name: str, contract: type[Features]) -> FeatureView:
    def function(visits: pl.LazyFrame) -> pl.LazyFrame:
        return visits

    function.__name__ = name
    return feature_view(contract, inputs=[VISITS.trailing(days=1)])(function)


def _everything() -> type[Features]:
    columns = {name: Feature(dtype, f"{dtype}.") for name, (dtype, _) in CASES.items()}
    return type(
        "Everything",
        (Features,),
        {"__doc__": "Every type.", **columns},
        entity=USER,
        owner="team:tests",
        ttl=None,
    )


def make_catalog() -> Catalog:
    """The declarations, new ones each time: a contract belongs to one view."""

    class Spend(Features, entity=USER, owner="team:tests", ttl=timedelta(days=3)):
        """What a user spent."""

        amount = Feature(pl.Float64, "Spend.", unit="USD")
        visits = Feature(pl.Int64, "Visits.", on_missing="default", default=0)
        tier = Feature(pl.String, "Tier.", default="none")

    class Strict(Features, entity=USER, owner="team:tests", ttl=None):
        """What a model can't do without."""

        score = Feature(pl.Float64, "Score.", on_missing="fail")

    class Contact(Features, entity=USER, owner="team:privacy", ttl=None):
        """Where a user is."""

        email = Feature(pl.String, "E-mail address.", pii=True)
        city = Feature(pl.String, "City.")

    class Shops(Features, entity=SHOP, owner="team:tests", ttl=None):
        """A shop."""

        open_days = Feature(pl.Int64, "Days open.")

    everything = _everything()
    contracts = {
        "everything": everything,
        "spend": Spend,
        "strict": Strict,
        "contact": Contact,
        "shops": Shops,
    }
    sets = [
        FeatureSet("spending_v1", [Spend.amount, Spend.visits], "Spending.", "team:tests"),
        FeatureSet("contact_v1", [Contact.email, Contact.city], "Contact.", "team:privacy"),
        FeatureSet("shops_v1", [Shops.open_days], "Shops.", "team:tests"),
        FeatureSet(
            "everything_v1",
            list(everything.contract.features.values()),
            "All.",
            "team:tests",
        ),
    ]
    return Catalog(
        entities={"user": USER, "shop": SHOP},
        sources={"visits": VISITS},
        snapshots={},
        views={name: _view(name, contract) for name, contract in contracts.items()},
        feature_sets={each.name: each for each in sets},
        broken={},
    )


def _frames() -> dict[str, pl.DataFrame]:
    users = list(range(1, 7))
    return {
        "everything": pl.DataFrame(
            {
                "user_id": [1, 2, 3, 4],
                **{n: pl.Series(values, dtype=CASES[n][0]) for n, values in COLUMNS.items()},
            }
        ).with_columns(event_timestamp=pl.lit(YESTERDAY, US)),
        "spend": pl.DataFrame(
            {
                "user_id": users,
                "amount": [10.5, 20.0, 0.0, -0.0, 50.0, None],
                "visits": [1, 2, 0, 2**53 + 1, 5, 6],
                "tier": ["gold", "none", "", "gold", "gold", "gold"],
                "event_timestamp": pl.Series([YESTERDAY] * 4 + [LONG_AGO, YESTERDAY], dtype=US),
            }
        ),
        "strict": pl.DataFrame({"user_id": [1, 2], "score": [0.5, None]}).with_columns(
            event_timestamp=pl.lit(YESTERDAY, US)
        ),
        "contact": pl.DataFrame(
            {"user_id": [1], "email": ["canary-pii@example.com"], "city": ["Kraków"]}
        ).with_columns(event_timestamp=pl.lit(YESTERDAY, US)),
        "shops": pl.DataFrame(
            {"country": ["pl", "de"], "shop": ["a:b", "\r\n"], "open_days": [6, 7]}
        ).with_columns(event_timestamp=pl.lit(YESTERDAY, US)),
    }


def push_all(url: str, namespace: str, catalog: Catalog) -> None:
    """Push every row, sealed, with facts about spend."""
    store = OnlineStore(url, namespace=namespace)
    store.ensure_ready()
    for name, frame in _frames().items():
        push_frame(store, catalog.views[name], frame)
    spend = catalog.views["spend"]
    codec = RowCodec(spend.contract.feature_types)
    removed = codec.tombstone(
        version=2, day=date(2026, 11, 21), revision=2, event_timestamp=YESTERDAY
    )
    key = encode_keys(pl.DataFrame({"user_id": [7]}), ["user_id"])
    _push(store, spend, key, pl.Series([removed], dtype=pl.Binary), 2)
    store.note("facts", "spend", json.dumps(FACTS))
    store.close()


FACTS = {
    "data_through_us": int((YESTERDAY - timedelta(hours=1)).timestamp() * 1_000_000),
    "sealed_day": "2026-11-21",
    "day_end_us": int(YESTERDAY.timestamp() * 1_000_000),
    "rows": 6,
    "fill_rate": {"amount": 0.98, "visits": 1.0},
    "psi": {"amount": 0.03},
    "new_entity_rate": 0.25,
    "at_us": int(YESTERDAY.timestamp() * 1_000_000),
}


def push_frame(store: OnlineStore, view: FeatureView, frame: pl.DataFrame) -> None:
    """Push one version of rows; keys, event_timestamp and features."""
    contract = view.contract
    codec = RowCodec(contract.feature_types)
    store.declare_entity(contract.entity.name, contract.entity.buckets)
    store.learn_schema(codec)
    rows = frame.with_columns(
        day=pl.col("event_timestamp").dt.date().dt.offset_by("-1d"),
        revision=pl.lit(1, dtype=pl.Int64),
    )
    _push(store, view, encode_keys(rows, contract.keys), codec.encode(rows, version=1), 1)


def _push(
    store: OnlineStore, view: FeatureView, keys: pl.Series, values: pl.Series, version: int
) -> None:
    entity = view.contract.entity
    store.push(
        entity.name,
        view.name,
        entity.buckets,
        PushRows(keys.alias("keys"), values.alias("values")),
        seals=dict.fromkeys(range(entity.buckets), Seal("table", version, "{}", 0)),
        started_from=store.seals(entity.name, view.name, entity.buckets),
        keep_ms=0,
    )


@dataclass
class Clock:
    """What time it is for a service."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_constant=_no_constant)

    @property
    def error(self) -> str:
        kind: str = self.json["error"]["type"]
        return kind


def _no_constant(name: str) -> Any:
    message = f"JSON holds a bare {name}"
    raise AssertionError(message)


@dataclass
class Caller:
    """Somebody who asks a service, each time on a connection of its own."""

    port: int
    token: str | None = None
    timeout: float = 10

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)
        told = dict(headers or {})
        if self.token is not None:
            told["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, path, body, told)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.call("GET", path, headers=headers)

    def post(self, path: str, document: Any, **headers: str) -> Reply:
        told = {"Content-Type": "application/json", **headers}
        return self.call("POST", path, json.dumps(document).encode(), told)

    def features(self, features: Sequence[str] | str, users: Sequence[Any], **more: Any) -> Reply:
        what = "feature_set" if isinstance(features, str) else "features"
        return self.post("/v1/features", {what: features, "entities": {"user_id": users}, **more})


@dataclass
class Running(Caller):
    """A service on a thread of this process."""

    namespace: str = field(kw_only=True)
    server: Server = field(kw_only=True)
    service: Service = field(kw_only=True)
    thread: threading.Thread = field(kw_only=True)

    def as_(self, token: str | None) -> Caller:
        return Caller(self.port, token)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def running(
    url: str,
    namespace: str,
    folder: Path,
    *,
    catalog: Catalog | None = None,
    now: Clock | None = None,
    tracing: Tracing | None = None,
    **settings: Any,
) -> Running:
    """Start a service on any free port; it is listening on return."""
    clock = now or Clock()
    served = catalog or make_catalog()
    # A busy machine must not turn a test about something else into one about deadlines.
    chosen = ServingSettings(**{"port": 0, "deadline_ms": 5000, **settings})
    spans = tracing or Tracing()
    client = client_class(spans)(
        served, url, namespace=namespace, deadline=chosen.deadline, poll=0.1, now=clock
    )
    service = Service(project_at(folder, namespace), served, client, chosen, spans, clock)
    listening = bound_socket(chosen)
    ready = threading.Event()
    server = Server(service, lambda _: ready.set())
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    port: int = listening.getsockname()[1]
    thread.start()
    if not ready.wait(10):
        message = "The service did not start."
        raise AssertionError(message)
    return Running(port, namespace=namespace, server=server, service=service, thread=thread)


def project_at(folder: Path, namespace: str) -> Project:
    """A project without files, whose lake is in the folder."""
    return Project(folder, "none", str(folder / "lake"), ZoneInfo("UTC"), namespace, None, None)


@contextmanager
def raw_connection(port: int) -> Iterator[socket.socket]:
    """A connection to say anything on."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection


def received(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def new_namespace() -> str:
    return f"serve:{uuid4().hex[:10]}"


def words(value: Any) -> Any:
    """A value in a form that tells apart NaN, -0.0, None, 1, 1.0 and True, to the last bit."""
    if isinstance(value, float):
        return ("nan",) if math.isnan(value) else ("float", struct.pack(">d", value))
    if isinstance(value, dict):
        return {name: words(item) for name, item in value.items()}
    if isinstance(value, list | tuple | pl.Series):
        return [words(item) for item in value]
    return (type(value).__name__, value)
