"""Whatever is stored and asked: both clients answer what a slow reading of each cell says."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.codec import RowCodec, header_of
from lockstep.errors import MissingFeatureError, OnlineError
from tests.served_views import (
    ACTIVITY,
    CATALOG,
    CODECS,
    NOW,
    PROFILE,
    TTL,
    Both,
    Shelf,
    packed,
    tombstone,
)
from tests.servers import Place

OLDER = RowCodec({"n": pl.Int16(), "score": pl.Float32(), "name": pl.Int64()})
UNKNOWN = RowCodec({"n": pl.Int64(), "else": pl.Int64()})
READABLE = {codec.fingerprint: codec for codec in (*CODECS.values(), OLDER)}
FEATURES = [f"{v.name}:{n}" for v in (ACTIVITY, PROFILE) for n in v.contract.features]
WIDENS = {(pl.Int16, pl.Int64), (pl.Float32, pl.Float64)}

instants = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(
    lambda at: at.replace(tzinfo=UTC)
)
int64 = st.integers(-(2**63), 2**63 - 1)
cells: dict[str, st.SearchStrategy[Any]] = {
    "n": int64,
    "score": st.floats(),
    "small": st.floats(width=32),
    "ok": st.booleans(),
    "name": st.text(),
    "blob": st.binary(max_size=50),
    "on": st.dates(),
    "seen": instants,
    "price": st.decimals(-(10**8) + 1, 10**8 - 1, places=2),
    "marks": st.lists(st.none() | int64, max_size=3),
    "spot": st.fixed_dictionaries({"x": st.none() | int64, "since": st.none() | st.dates()}),
    "country": st.text(max_size=3),
    "age": st.integers(-(2**31), 2**31 - 1),
}
events = st.sampled_from(
    [
        NOW - timedelta(hours=1),
        NOW,
        NOW - TTL,
        NOW - TTL - timedelta(seconds=1),
        NOW + timedelta(seconds=1),
        datetime(1, 1, 1, tzinfo=UTC),
    ]
)


def row_of(codec: RowCodec, columns: Mapping[str, st.SearchStrategy[Any]]) -> Any:
    row = st.fixed_dictionaries({name: st.none() | column for name, column in columns.items()})
    return st.builds(lambda values, event: packed(codec, values, event=event), row, events)


def of_view(name: str) -> Any:
    """Something that may be stored for one entity; None is nothing."""
    codec = CODECS[name]
    plain = row_of(codec, {column: cells[column] for column in codec.columns})
    older = row_of(OLDER, {"n": st.integers(-9, 9), "score": st.floats(width=32), "name": int64})
    newer = row_of(UNKNOWN, {"n": int64})
    cut = st.builds(lambda value, end: value[:end], plain, st.integers(0, 60))
    return st.none() | plain | st.just(tombstone(codec)) | older | newer | cut | st.binary()


@dataclass(frozen=True)
class Case:
    stored: Sequence[tuple[bytes | None, bytes | None]]
    asked: Sequence[int]
    features: Sequence[str]
    on_missing: Any
    ready: bool


words = st.sampled_from(["null", "default", "fail"])
cases = st.builds(
    Case,
    st.lists(st.tuples(of_view("activity"), of_view("profile")), min_size=1, max_size=5),
    st.lists(st.integers(0, 6), max_size=8),
    st.lists(st.sampled_from(FEATURES), min_size=1, max_size=8, unique=True),
    st.none() | words | st.just({}),
    st.booleans(),
)


def expected_cell(value: bytes | None, feature: str, *, ready: bool) -> tuple[Any, str]:
    """Value and status of one cell, None where there is no value."""
    view, name = feature.split(":")
    contract = CATALOG.views[view].contract
    if value is None:
        return None, "missing" if ready else "error"
    try:
        header = header_of(value)
        if header.removed:
            return None, "missing"
        if header.event_timestamp > NOW:
            return None, "expired"
        if contract.ttl is not None and header.event_timestamp + contract.ttl < NOW:
            return None, "expired"
        codec = READABLE.get(header.fingerprint)
        if codec is None:
            return None, "error"
        row = codec.decode(value).values or {}
    except OnlineError:
        return None, "error"
    stored, wanted = codec.columns.get(name), contract.features[name].type
    if stored is not None and stored != wanted and (type(stored), type(wanted)) not in WIDENS:
        return None, "error"
    return row.get(name), "null" if row.get(name) is None else "present"


def expected_event(value: bytes | None) -> datetime | None:
    try:
        header = header_of(value) if value is not None else None
    except OnlineError:
        return None
    return None if header is None or header.removed else header.event_timestamp


def word_of(feature: str, on_missing: Any) -> str:
    view, name = feature.split(":")
    declared = CATALOG.views[view].contract.features[name].on_missing
    return on_missing if isinstance(on_missing, str) else declared


def fallback_of(feature: str) -> Any:
    view, name = feature.split(":")
    return CATALOG.views[view].contract.features[name].fallback


@pytest.fixture
def new_shelf(shared_place: Place, raw: "redis.Redis") -> Iterator[Callable[[], Any]]:
    made: list[Both] = []

    def make() -> Any:
        while made:
            made.pop().close()
        shelf = Shelf(raw, f"test:{uuid4().hex}")
        shelf.teach(OLDER)
        shelf.seal(PROFILE)
        both = Both(shared_place.url, shelf.namespace)
        made.append(both)
        return shelf, both

    yield make
    for both in made:
        both.close()


def check(shelf: Shelf, both: Both, case: Case) -> None:
    for key, values in enumerate(case.stored):
        for view, value in zip((ACTIVITY, PROFILE), values, strict=True):
            if value is not None:
                shelf.put(view, [key], value)
    if case.ready:
        shelf.seal(ACTIVITY)
    both.look()
    table: dict[str, list[tuple[Any, str]]] = {}
    stored = [
        dict(zip(("activity", "profile"), case.stored[key], strict=True))
        if key < len(case.stored)
        else {"activity": None, "profile": None}
        for key in case.asked
    ]
    for feature in case.features:
        view = feature.partition(":")[0]
        ready = case.ready or view == "profile"
        table[feature] = [expected_cell(row[view], feature, ready=ready) for row in stored]
    failing = [
        feature
        for feature, column in table.items()
        if word_of(feature, case.on_missing) == "fail"
        and {"missing", "expired", "error"} & {status for _, status in column}
    ]
    request = (case.features, {"user_id": list(case.asked)})
    if failing:
        with pytest.raises(MissingFeatureError) as refused:
            both.fetch(*request, on_missing=case.on_missing)
        assert set(failing) == {feature for _, feature, _ in refused.value.missing}
        return

    found = both.fetch(*request, on_missing=case.on_missing)

    for feature, values, statuses in zip(found.features, found.columns, found.cells, strict=True):
        column = table[feature]
        fills = word_of(feature, case.on_missing) == "default"
        fallback = fallback_of(feature) if fills else None
        wanted = [value if status in {"present", "null"} else fallback for value, status in column]
        assert [status for _, status in column] == statuses, feature
        assert repr(wanted) == repr(values), feature
    for view, instants_found in found.event_timestamps.items():
        assert [expected_event(row[view]) for row in stored] == list(instants_found)


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(case=cases)
def test_both_clients_answer_what_the_oracle_says(case: Case, new_shelf: Callable[[], Any]) -> None:
    check(*new_shelf(), case)
