"""`/metrics` has the names that alert rules use, and its numbers rise while nothing is pushed."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lockstep.stores.redis import OnlineStore
from tests.serving_world import (
    CASES,
    FACTS,
    NOW,
    Clock,
    Running,
    make_catalog,
    new_namespace,
    push_all,
    raw_connection,
    received,
    running,
)

ROUTES = {
    *("/v1/features", "/v1/feature-sets/{name}", "/get-online-features"),
    *("/metrics", "/openapi.json", "/healthz", "/readyz", "other"),
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def served(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, clock: Clock
) -> Iterator[Running]:
    namespace = new_namespace()
    push_all(redis_url, namespace, make_catalog())
    with running(redis_url, namespace, tmp_path_factory.mktemp("metrics"), now=clock) as it:
        yield it


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(served: Running) -> Samples:
    answer = served.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_the_buckets_of_fetches_are_these(served: Running) -> None:
    served.features("spending_v1", [1])

    samples = scraped(served)

    bounds = [dict(labels)["le"] for name, labels in samples if name.endswith("seconds_bucket")]
    wanted = "0.0005 0.001 0.0025 0.005 0.01 0.05 0.1 0.25 0.5 1.0 2.0 +Inf"
    assert wanted.split() == bounds
    assert 1 == value(samples, "feature_fetch_seconds_count")
    assert 0 < value(samples, "feature_fetch_seconds_sum")


def test_freshness_rises_while_nothing_is_pushed(served: Running, clock: Clock) -> None:
    label = "spend:amount"
    before = value(scraped(served), "feature_freshness_seconds", feature=label)
    clock.now += timedelta(hours=5)

    after = value(scraped(served), "feature_freshness_seconds", feature=label)

    through = FACTS["data_through_us"]
    assert isinstance(through, int)
    assert NOW.timestamp() - through / 1e6 == before
    assert 5 * 3600 == after - before


def test_a_push_without_new_data_resets_nothing(
    served: Running, redis_url: str, clock: Clock
) -> None:
    before = value(scraped(served), "feature_freshness_seconds", feature="spend:visits")
    store = OnlineStore(redis_url, namespace=served.namespace)
    later = {**FACTS, "rows": 0, "at_us": int(clock.now.timestamp() * 1e6), "fill_rate": {}}
    store.note("facts", "spend", json.dumps(later))
    store.close()
    served_by = ("feature_fill_rate", frozenset({("feature", "spend:visits")}))
    while served_by in scraped(served):
        pass

    assert before == value(scraped(served), "feature_freshness_seconds", feature="spend:visits")


def test_the_numbers_of_the_last_push_are_told(served: Running) -> None:
    samples = scraped(served)

    assert 0.98 == value(samples, "feature_fill_rate", feature="spend:amount")
    assert 0.03 == value(samples, "feature_psi", feature="spend:amount")
    assert 0.25 == value(samples, "feature_new_entity_rate", view="spend")
    assert 7 * 3600 == value(samples, "feature_seal_lag_seconds", view="spend")
    assert ("feature_psi", frozenset({("feature", "spend:visits")})) not in samples


def test_time_counts_from_when_a_request_is_complete(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller may take its time over the body: that is not the service's."""
    seconds = [0.0]
    monkeypatch.setattr("lockstep.serving.app.perf_counter", lambda: seconds[0])
    body = b'{"feature_set": "spending_v1", "entities": {"user_id": [1]}}'
    with raw_connection(served.port) as connection:
        connection.sendall(b"POST /v1/features HTTP/1.1\r\nConnection: close\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body[:10]))
        while not served.server.server_state.tasks:
            pass
        served.get("/healthz")  # by its answer, what came before has been begun
        seconds[0] = 100.0
        connection.sendall(body[10:])
        answer = received(connection)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert 0 == value(scraped(served), "feature_fetch_seconds_sum")
    assert 1 == value(scraped(served), "feature_fetch_seconds_count")


@pytest.mark.parametrize(
    "damaged",
    [
        {"day_end_us": "soon", "new_entity_rate": [1], "psi": "high", "fill_rate": {"visits": {}}},
        {"day_end_us": {}, "new_entity_rate": True, "psi": 3, "fill_rate": {"visits": "1"}},
        {"day_end_us": 10**400, "new_entity_rate": 10**400, "psi": [], "fill_rate": {"visits": ""}},
    ],
)
def test_a_fact_that_is_no_number_is_left_out_and_no_other(
    served: Running, redis_url: str, damaged: dict[str, Any]
) -> None:
    whole = {"fill_rate": {**FACTS["fill_rate"], **damaged["fill_rate"]}}  # type: ignore[dict-item]
    store = OnlineStore(redis_url, namespace=served.namespace)
    store.note("facts", "spend", json.dumps({**FACTS, **damaged, **whole}))
    store.note("facts", "contact", "[" * 100_000)
    store.note("facts", "shops", json.dumps(FACTS))
    store.close()
    while ("feature_seal_lag_seconds", frozenset({("view", "shops")})) not in scraped(served):
        pass

    samples = scraped(served)

    assert 0.98 == value(samples, "feature_fill_rate", feature="spend:amount")
    assert 8 * 3600 == value(samples, "feature_freshness_seconds", feature="spend:amount")
    assert 0.25 == value(samples, "feature_new_entity_rate", view="shops")
    for name, label in [
        *(("feature_fill_rate", "spend:visits"), ("feature_psi", "spend:amount")),
        ("feature_freshness_seconds", "contact:city"),
    ]:
        assert (name, frozenset({("feature", label)})) not in samples
    for name in ("feature_seal_lag_seconds", "feature_new_entity_rate"):
        assert (name, frozenset({("view", "spend")})) not in samples


def test_cells_are_counted_by_status_and_hits_by_view(served: Running) -> None:
    served.features(["spend:amount", "spend:visits", "contact:city"], [1, 5, 6, 7, 8])
    served.features(["spend:amount"], [1])

    samples = scraped(served)

    found = {
        status: value(samples, "feature_cells_total", view="spend", status=status)
        for status in ("present", "null", "missing", "expired", "error")
    }
    assert {"present": 4, "null": 1, "missing": 4, "expired": 2, "error": 0} == found
    assert 5 / 11 == value(samples, "feature_hit_rate", view="spend")
    assert 1 / 5 == value(samples, "feature_hit_rate", view="contact")
    assert ("feature_hit_rate", frozenset({("view", "shops")})) not in samples


def test_the_state_of_the_service_is_told(served: Running) -> None:
    served.features("spending_v1", [1])
    served.get("/nothing-at-all")

    samples = scraped(served)

    assert 1 == value(samples, "lockstep_breaker_state", state="closed")
    assert 0 == value(samples, "lockstep_breaker_state", state="open")
    assert 0 == value(samples, "lockstep_shed_requests_total", reason="queue_full")
    assert 0 == value(samples, "lockstep_in_flight_requests")
    assert 0 == value(samples, "lockstep_served_log_dropped_total")
    assert 1 == value(samples, "lockstep_requests_total", route="/v1/features", status="200")
    assert 1 == value(samples, "lockstep_requests_total", route="other", status="404")
    assert 0 < value(samples, "process_resident_memory_bytes")


def test_views_that_are_not_ready_are_told(served: Running, redis_url: str) -> None:
    store = OnlineStore(redis_url, namespace=served.namespace)
    store.note("unready", "spend", json.dumps({"reason": "Lost.", "at_us": 0}))
    store.close()
    while value(scraped(served), "lockstep_view_ready", view="spend"):
        pass

    assert 1 == value(scraped(served), "lockstep_view_ready", view="contact")


def test_nothing_of_a_request_becomes_a_label(served: Running) -> None:
    """Whatever is asked for, however often: the labels are those that the project declares."""
    before = set(scraped(served))
    for at in range(200):
        served.features(["spend:amount"], [12_345_000 + at])
        served.get(f"/path-{at}?user_id={at}")
        served.get(f"/v1/feature-sets/set_{at}")
        served.call("POST", "/v1/features", b"{", {"X-Request-Id": f"id-{at}"})
    entities = {"country": ["canary-key"], "shop": ["canary-key"]}
    served.post("/v1/features", {"feature_set": "shops_v1", "entities": entities})

    samples = scraped(served)

    catalog = make_catalog()
    features = {f"{v.name}:{n}" for v in catalog.views.values() for n in v.contract.features}
    known = {
        "feature": features,
        "view": set(catalog.views),
        "route": ROUTES,
        "reason": {"queue_full", "deadline"},
        "state": {"closed", "open", "half-open"},
    }
    labels = {(key, text) for _, pairs in samples for key, text in pairs}
    for key, text in labels:
        assert key in {*known, "status", "le"}, key
        assert text in known.get(key, {text}), text
    assert len(set(samples) - before) < 20
    body = served.get("/metrics").body
    assert b"canary-key" not in body
    assert b"12345" not in body
    assert len(samples) < 100 + 4 * (len(CASES) + 10)


def test_every_metric_says_what_it_is(served: Running) -> None:
    text = served.get("/metrics").body.decode()

    names = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    explained = set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))
    assert names == explained
