"""A blocking failure keeps yesterday online, present and older by the hour; so says the service."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lockstep import Feature, Features, feature_view
from tests.scenario import EVENTS, START, USER, World, catalog_of, event, instant, world
from tests.serving_world import Clock, Running, running

YESTERDAY, TODAY = START, START + timedelta(days=1)
FEATURES = ["daily:amount"]
MORNING = timedelta(hours=3)


class Daily(Features, entity=USER, owner="team:tests", ttl=timedelta(days=3)):
    """What somebody spent on one day."""

    amount = Feature(pl.Float64, "Spend.", at_least=0)


@feature_view(Daily, inputs=[EVENTS.trailing(days=1)])
def daily(events: pl.LazyFrame) -> pl.LazyFrame:
    return events.group_by("user_id").agg(amount=pl.col("amount").sum())


@pytest.fixture
def made(tmp_path: Path, redis_url: str) -> World:
    """Yesterday certified and pushed; today breaks its contract, and is run and pushed."""
    opened = world(tmp_path, redis_url=redis_url)
    opened.store.__dict__["catalog"] = catalog_of([daily])
    for day, amount in ((YESTERDAY, 1.0), (TODAY, -5.0)):
        opened.clock.now = instant(day + timedelta(days=1)) + MORNING
        opened.land("events", [event(f"{day}", 7, day, amount)], f"{day}.parquet")
        opened.ingest(day, day)
        opened.build(daily, day)
        opened.push(daily)
    return opened


@pytest.fixture
def served(made: World, redis_url: str, tmp_path: Path) -> Iterator[tuple[Running, Clock]]:
    clock = Clock(made.clock.now)
    namespace, catalog = made.store.project.namespace, made.store.catalog
    with running(redis_url, namespace, tmp_path / "s", catalog=catalog, now=clock) as service:
        yield service, clock


def answer(served: tuple[Running, Clock], at: datetime) -> dict[str, Any]:
    service, clock = served
    clock.now = at
    found: dict[str, Any] = service.features(FEATURES, [7]).json
    return found


def age(document: dict[str, Any]) -> float:
    (seconds,) = document["views"]["daily"]["age_seconds"]
    return float(seconds)


def test_the_service_answers_with_yesterday_and_a_growing_age(
    made: World, served: tuple[Running, Clock]
) -> None:
    assert [YESTERDAY] == list(made.store.committed(daily))
    since = instant(TODAY)

    hours = [27, 28, 40, 71]
    documents = [answer(served, since + timedelta(hours=n)) for n in hours]

    assert [[[1.0]]] * 4 == [document["values"] for document in documents]
    assert [[["present"]]] * 4 == [document["statuses"] for document in documents]
    assert [n * 3600.0 for n in hours] == [age(document) for document in documents]


def test_it_ends_with_the_ttl_and_never_with_the_failed_value(
    served: tuple[Running, Clock],
) -> None:
    document = answer(served, instant(TODAY) + timedelta(days=3, seconds=1))

    assert [["expired"]] == document["statuses"]
    assert [[None]] == document["values"]


def test_the_fix_replaces_yesterday_and_the_age_starts_anew(
    made: World, served: tuple[Running, Clock]
) -> None:
    made.land("events", [event(f"{TODAY}", 7, TODAY, 5.0)], f"{TODAY}.parquet")
    made.ingest(TODAY, TODAY)
    made.build(daily, TODAY)
    made.push(daily)

    document = answer(served, made.clock.now)

    assert [[5.0]] == document["values"]
    assert MORNING.total_seconds() == age(document)


def test_the_client_in_process_says_the_same(made: World) -> None:
    vectors = made.store.online(FEATURES, [{"user_id": 7}])

    assert ([[1.0]], [["present"]]) == (vectors.values, vectors.statuses)
    assert [27 * 3600.0] == vectors.age_seconds("daily")
