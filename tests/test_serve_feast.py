"""Feast's feature-server protocol: its requests and its responses, but with true statuses."""

from collections.abc import Iterator
from typing import Any

import pytest

from lockstep.serving.feast import STATUSES
from tests.serving_world import (
    Reply,
    Running,
    make_catalog,
    new_namespace,
    push_all,
    running,
)

NEVER = "1970-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def served(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    namespace = new_namespace()
    push_all(redis_url, namespace, make_catalog())
    with running(redis_url, namespace, tmp_path_factory.mktemp("feast")) as it:
        yield it


def ask(served: Running, **document: Any) -> Reply:
    return served.post("/get-online-features", document)


def test_keys_come_first_then_features_with_feasts_statuses(served: Running) -> None:
    answer = ask(
        served,
        features=["spend:amount", "spend:tier"],
        entities={"user_id": [1, 5, 6, 7, 8]},
        full_feature_names=False,
    )

    keys, amount, tier = answer.json["results"]
    assert {"metadata", "results"} == answer.json.keys()
    assert {"feature_names": ["user_id", "amount", "tier"]} == answer.json["metadata"]
    assert {
        "values": [1, 5, 6, 7, 8],
        "statuses": ["PRESENT"] * 5,
        "event_timestamps": [NEVER] * 5,
    } == keys
    assert {
        "values": [10.5, None, None, None, None],
        "statuses": ["PRESENT", "OUTSIDE_MAX_AGE", "NULL_VALUE", "NOT_FOUND", "NOT_FOUND"],
        "event_timestamps": [
            "2026-11-22T05:00:00Z",
            "2026-11-10T05:00:00Z",
            "2026-11-22T05:00:00Z",
            NEVER,
            NEVER,
        ],
    } == amount
    assert "gold" == tier["values"][0]


def test_full_names_have_two_underscores(served: Running) -> None:
    answer = ask(
        served,
        features=["spend:amount", "contact:city"],
        entities={"user_id": [1]},
        full_feature_names=True,
    )

    names = answer.json["metadata"]["feature_names"]
    assert ["user_id", "spend__amount", "contact__city"] == names


def test_a_feature_service_is_a_feature_set(served: Running) -> None:
    answer = ask(served, feature_service="spending_v1", entities={"user_id": [2]})

    assert ["user_id", "amount", "visits"] == answer.json["metadata"]["feature_names"]
    assert [[2], [20.0], [2]] == [each["values"] for each in answer.json["results"]]


def test_the_contracts_policies_hold_here_too(served: Running) -> None:
    default = ask(served, features=["spend:visits"], entities={"user_id": [8]})
    fails = ask(served, features=["strict:score"], entities={"user_id": [8]})

    assert ([0], ["NOT_FOUND"]) == (
        default.json["results"][1]["values"],
        default.json["results"][1]["statuses"],
    )
    assert 424 == fails.status


def test_entities_that_no_feature_needs_are_left_out(served: Running) -> None:
    """Feast's clients send request data and other entities along."""
    answer = ask(served, features=["spend:amount"], entities={"user_id": [1], "country": ["pl"]})

    assert ["user_id", "amount"] == answer.json["metadata"]["feature_names"]


def test_newer_clients_may_ask_for_versions(served: Running) -> None:
    answer = ask(
        served,
        features=["spend:amount"],
        entities={"user_id": [1]},
        include_feature_view_version_metadata=True,
    )

    assert [{"name": "spend", "version": 0}] == answer.json["metadata"]["feature_view_metadata"]


def test_instants_are_whole_seconds_as_feast_keeps_them(served: Running) -> None:
    names = ["ts_us", "ts_epoch", "date", "list_ts", "decimal", "float64_nan_inf", "int64"]

    answer = ask(
        served,
        features=[f"everything:{name}" for name in names],
        entities={"user_id": [1, 2, 3, 4]},
    )

    values = {
        name: each["values"] for name, each in zip(names, answer.json["results"][1:], strict=True)
    }
    assert 1735787045 == values["ts_us"][0]
    assert [0, -315619200] == values["ts_epoch"][:2]
    assert 1735776000 == values["date"][0]
    assert [[1735787045, 1735787045], None, None, None] == values["list_ts"]
    assert "1.2345" == values["decimal"][0]
    assert ["NaN", "Infinity", "-Infinity", 1.0] == values["float64_nan_inf"]
    assert [1, -(2**63), 2**63 - 1, 2**53 + 1] == values["int64"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"entities": {"user_id": [1]}},
        {"features": ["spend:amount"]},
        {"features": ["spend:amount"], "feature_service": "x", "entities": {"user_id": [1]}},
        {"features": ["spend:no"], "entities": {"user_id": [1]}},
        {"features": ["spend:amount"], "entities": {}},
        {"features": ["spend:amount"], "entities": {"user_id": ["x"]}},
        {"features": ["spend:amount"], "entities": [{"user_id": 1}]},
        {"feature_service": "everything", "entities": {"user_id": [1]}},
    ],
)
def test_what_feast_would_refuse_is_refused(served: Running, document: dict[str, Any]) -> None:
    answer = ask(served, **document)

    assert 400 == answer.status
    assert answer.json["error"]["message"]


def test_a_feature_asked_for_twice_is_refused(served: Running) -> None:
    names = {"features": ["spend:amount", "spend:amount"], "entities": {"user_id": [1]}}

    assert 400 == ask(served, **names).status


def test_an_outage_is_invalid_as_feast_has_no_word_for_it() -> None:
    assert "INVALID" == STATUSES["error"]
    assert {"present", "null", "missing", "expired", "error"} == STATUSES.keys()
