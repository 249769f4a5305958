"""Every served cell says what is true of it, and a cell without a value gets what was declared."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from lockstep.stores.redis import OnlineStore
from tests.serving_world import (
    NOW,
    YESTERDAY,
    Clock,
    Running,
    make_catalog,
    new_namespace,
    push_all,
    running,
)

USERS = [1, 5, 6, 7, 8]
STATUSES = ["present", "expired", "null", "missing", "missing"]


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def served(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, clock: Clock
) -> Iterator[Running]:
    namespace = new_namespace()
    push_all(redis_url, namespace, make_catalog())
    with running(redis_url, namespace, tmp_path_factory.mktemp("cells"), now=clock) as it:
        yield it


def test_the_status_of_every_cell_is_true(served: Running) -> None:
    document = served.features(["spend:amount", "spend:visits"], USERS).json

    assert STATUSES == document["statuses"][0]
    assert ["present", "expired", "present", "missing", "missing"] == document["statuses"][1]
    assert [10.5, None, None, None, None] == document["values"][0]


def test_the_answer_lists_what_is_missing_and_where(served: Running) -> None:
    document = served.features(["spend:amount", "everything:int8"], USERS).json

    assert [
        {
            "feature": "spend:amount",
            "entities": [1, 3, 4],
            "statuses": ["expired", "missing", "missing"],
        },
        {"feature": "everything:int8", "entities": [1, 2, 3, 4], "statuses": ["missing"] * 4},
    ] == document["missing"]


def test_every_view_has_its_event_timestamps_and_ages(served: Running) -> None:
    document = served.features(["spend:amount", "contact:city"], [1, 5, 8]).json

    spend = document["views"]["spend"]
    assert ["2026-11-22T05:00:00Z", "2026-11-10T05:00:00Z", None] == spend["event_timestamp"]
    assert [25200.0, 25200.0 + 12 * 86400, None] == spend["age_seconds"]
    assert ["2026-11-22T05:00:00Z", None, None] == document["views"]["contact"]["event_timestamp"]


def test_a_row_is_valid_to_the_last_microsecond_of_its_ttl(served: Running, clock: Clock) -> None:
    try:
        clock.now = YESTERDAY + timedelta(days=3)
        at_the_end = served.features(["spend:amount"], [1]).json["statuses"]
        clock.now += timedelta(microseconds=1)
        after = served.features(["spend:amount"], [1]).json["statuses"]
    finally:
        clock.now = NOW

    assert ([["present"]], [["expired"]]) == (at_the_end, after)


def test_without_a_word_the_contract_decides(served: Running) -> None:
    document = served.features(["spend:amount", "spend:visits", "spend:tier"], USERS).json

    assert [[10.5] + [None] * 4, [1, 0, 6, 0, 0]] == document["values"][:2]
    assert ["gold", None, "gold", None, None] == document["values"][2]


@pytest.mark.parametrize(
    ("policy", "visits", "tier"),
    [
        ("null", [1, None], ["gold", None]),
        ("default", [1, 0], ["gold", "none"]),
        ({"spend:tier": "default"}, [1, 0], ["gold", "none"]),
        ({"spend:visits": "null", "spend:tier": "null"}, [1, None], ["gold", None]),
    ],
)
def test_a_request_may_say_otherwise(
    served: Running, policy: Any, visits: list[Any], tier: list[Any]
) -> None:
    names = ["spend:visits", "spend:tier"]

    document = served.features(names, [1, 8], on_missing=policy).json

    assert [visits, tier] == document["values"]
    assert [["present", "missing"]] * 2 == document["statuses"]


def test_fail_is_424_with_the_complete_list(served: Running) -> None:
    names = ["spend:amount", "contact:city"]

    answer = served.features(names, USERS, on_missing="fail")

    assert (424, "MissingFeatureError") == (answer.status, answer.error)
    assert [
        {
            "feature": "spend:amount",
            "entities": [1, 3, 4],
            "statuses": ["expired", "missing", "missing"],
        },
        {"feature": "contact:city", "entities": [1, 2, 3, 4], "statuses": ["missing"] * 4},
    ] == answer.json["missing"]


def test_fail_for_one_feature_lists_only_that(served: Running) -> None:
    names = ["spend:amount", "contact:city"]

    answer = served.features(names, USERS, on_missing={"contact:city": "fail"})

    assert ["contact:city"] == [each["feature"] for each in answer.json["missing"]]


def test_null_is_a_value_and_fails_nothing(served: Running) -> None:
    assert 200 == served.features(["spend:amount"], [6], on_missing="fail").status


def test_a_contract_that_says_fail_fails_unless_the_request_says_otherwise(
    served: Running,
) -> None:
    assert 200 == served.features(["strict:score"], [1, 2]).status
    assert 424 == served.features(["strict:score"], [1, 3]).status
    assert 200 == served.features(["strict:score"], [1, 3], on_missing="null").status
    assert 424 == served.get("/v1/feature-sets/spending_v1?user_id=8&on_missing=fail").status


@pytest.mark.parametrize(
    "policy", ["no", 1, {"spend:amount": "no"}, {"contact:city": "null"}, {"": "null"}, []]
)
def test_unknown_policies_and_policies_for_others_are_refused(served: Running, policy: Any) -> None:
    assert 400 == served.features(["spend:amount"], [1], on_missing=policy).status


def test_features_come_in_asked_order_across_views(served: Running) -> None:
    names = ["contact:city", "spend:visits", "everything:int8", "spend:amount"]

    document = served.features(names, [1]).json

    assert names == document["features"]
    assert [["Kraków"], [1], [-128], [10.5]] == document["values"]


def test_entities_come_in_asked_order_also_twice(served: Running) -> None:
    document = served.features(["spend:visits"], [3, 1, 3]).json

    assert [[0, 1, 0]] == document["values"]
    assert {"user_id": [3, 1, 3]} == document["entities"]


def test_no_entities_are_an_empty_answer(served: Running) -> None:
    document = served.features(["spend:visits", "contact:city"], []).json

    assert ([[], []], [[], []]) == (document["values"], document["statuses"])


def test_a_feature_set_is_answered_with_its_version(served: Running) -> None:
    document = served.features("spending_v1", [1]).json

    declared = make_catalog().feature_set("spending_v1")
    assert {"name": "spending_v1", "version": declared.version} == document["feature_set"]
    assert declared.names == document["features"]
    assert served.features(["spend:amount"], [1]).json["feature_set"] is None


def test_a_feature_set_describes_itself(served: Running) -> None:
    document = served.get("/v1/feature-sets/spending_v1").json

    assert "spending_v1" == document["name"]
    assert "team:tests" == document["owner"]
    assert {"user": {"user_id": "Int64"}} == document["entities"]
    assert {
        "name": "spend:amount",
        "type": "Float64",
        "description": "Spend.",
        "unit": "USD",
        "nullable": True,
        "pii": False,
        "on_missing": "null",
    } == document["features"][0]
    assert 259200.0 == document["views"]["spend"]["ttl_seconds"]


def test_a_feature_set_with_keys_in_the_query_gives_vectors(served: Running) -> None:
    document = served.get("/v1/feature-sets/spending_v1?user_id=1&user_id=8&on_missing=null").json
    text = served.get("/v1/feature-sets/shops_v1?country=de&shop=%0D%0A").json

    assert [[10.5, None], [1, None]] == document["values"]
    assert [[7]] == text["values"]


def test_names_that_do_not_exist_are_said_with_the_nearest(served: Running) -> None:
    unknown = served.get("/v1/feature-sets/spendin_v1")

    assert (404, "UnknownNameError") == (unknown.status, unknown.error)
    assert "Did you mean 'spending_v1'?" in unknown.json["error"]["message"]
    for names in (["spend:amout"], ["spent:amount"], ["spend"], [""], ["a:b:c"]):
        assert (400, "UnknownNameError") == (
            served.features(names, [1]).status,
            served.features(names, [1]).error,
        )


def test_a_view_that_is_not_ready_says_so_and_knows_no_missing_rows(
    served: Running, redis_url: str
) -> None:
    store = OnlineStore(redis_url, namespace=served.namespace)
    store.note("unready", "spend", json.dumps({"reason": "Rows were lost.", "at_us": 0}))
    try:
        while not (document := served.features(["spend:amount", "contact:city"], [1, 8]).json)[
            "not_ready"
        ]:
            pass
        failed = served.features(["spend:amount"], [8], on_missing="fail")
        ready = served.get("/readyz")
    finally:
        store.note("unready", "spend", None)
        while served.service.readiness()[1]:
            pass
        store.close()

    assert {"spend": "Rows were lost."} == document["not_ready"]
    assert [["present", "error"], ["present", "missing"]] == document["statuses"]
    assert 424 == failed.status
    assert "Rows were lost." in failed.json["error"]["message"]
    assert (200, 1) == (ready.status, ready.json["views_not_ready"])


def test_a_row_that_cannot_be_decoded_is_an_error_and_harms_no_other(
    served: Running, redis_url: str, raw_store: Any
) -> None:
    names = ["spend:amount", "contact:city"]
    document = raw_store(served.namespace, lambda: served.features(names, [1, 2]).json)

    assert [["error", "present"], ["present", "missing"]] == document["statuses"]
    assert [[None, 20.0], ["Kraków", None]] == document["values"]


@pytest.fixture
def raw_store(redis_url: str) -> Any:
    """Damage user 1's row of spend while something is called."""
    import redis

    from lockstep.keys import bucket_of, encode_key
    from lockstep.layout import Names

    def call(namespace: str, asked: Any) -> Any:
        key = encode_key([1])
        name = Names(namespace).entity_key("user", bucket_of(key, 4), key)
        with redis.Redis.from_url(redis_url, protocol=2) as client:
            before: Any = client.hget(name, "spend")  # type: ignore[arg-type]
            client.hset(name, "spend", before[:-1])  # type: ignore[arg-type]
            try:
                return asked()
            finally:
                client.hset(name, "spend", before)  # type: ignore[arg-type]

    return call
