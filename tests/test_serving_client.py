"""Both clients: every status, every policy, every value exactly, on real servers."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import msgspec
import polars as pl
import pytest
import redis

from lockstep.codec import HEADER_BYTES, RowCodec
from lockstep.errors import InputError, MissingFeatureError, OnlineError, UnknownNameError
from lockstep.serving.client import Client
from tests.served_views import (
    ACTIVITY,
    ACTIVITY_FEATURES,
    CATALOG,
    CODECS,
    EARLIEST,
    EVENT,
    FOOTFALL,
    FULL,
    NOW,
    PROFILE,
    TTL,
    Both,
    Shelf,
    packed,
    tombstone,
)
from tests.servers import Place

ANCIENT = packed(CODECS["activity"], FULL, event=EARLIEST)
HOSTILE = (
    "a\r\nFLUSHALL\r\n",
    "\x00",
    "*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$1\r\ny\r\n",
    "$-1\r\n",
    "",
    " trailing ",
    "{user:1}",
    "}!seal",
    "é",
    "e\u0301",
    "😀",
    "x" * 1000,
)


@pytest.fixture
def shelf(shared_place: Place, raw: "redis.Redis") -> Shelf:
    return Shelf(raw, f"test:{uuid4().hex}")


@pytest.fixture
def both(shared_place: Place, shelf: Shelf) -> Iterator[Both]:
    made = Both(shared_place.url, shelf.namespace)
    shelf.seal(ACTIVITY, PROFILE, FOOTFALL)
    made.look()
    yield made
    made.close()


def one(both: Both, feature: str, key: int = 1, **options: Any) -> tuple[Any, str]:
    """The value and status of one cell of one user."""
    found = both.fetch([feature], [{"user_id": key}], **options)
    return found.columns[0][0], found.cells[0][0]


def test_every_type_comes_back_exactly(both: Both, shelf: Shelf) -> None:
    shelf.put(ACTIVITY, [1], packed(CODECS["activity"], FULL))

    found = both.fetch(ACTIVITY_FEATURES, [{"user_id": 1}])

    assert {**FULL, "price": Decimal("1.00")} == dict(
        zip(ACTIVITY.contract.features, found.values[0], strict=True)
    )
    assert {"present"} == set(found.statuses[0])
    assert [EVENT] == found.event_timestamps["activity"]
    assert [7 * 3600.0] == found.age_seconds("activity")
    assert found.to_frame().schema == {
        "user_id": pl.Int64,
        **dict(zip(found.features, found.types, strict=True)),
    }


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**53 + 1, 0, -1, None])
def test_whole_numbers_are_exact(both: Both, shelf: Shelf, value: int | None) -> None:
    shelf.put(ACTIVITY, [1], packed(CODECS["activity"], {"n": value}))

    assert (value, "null" if value is None else "present") == one(both, "activity:n")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7e308])
@pytest.mark.parametrize("column", ["score", "small"])
def test_floats_are_exact(both: Both, shelf: Shelf, value: float, column: str) -> None:
    if column == "small" and abs(value) in {5e-324, 1.7e308}:
        value = math.copysign(2.0**-149 if value < 1 else 2.0**127, value)
    shelf.put(ACTIVITY, [1], packed(CODECS["activity"], {column: value}))

    found, status = one(both, f"activity:{column}")

    assert repr(value) == repr(found)
    assert "present" == status


def test_every_status_is_told_apart(both: Both, shelf: Shelf) -> None:
    codec = CODECS["activity"]
    shelf.put(ACTIVITY, [1], packed(codec, FULL))
    shelf.put(ACTIVITY, [2], packed(codec, {"score": 1.0}))
    shelf.put(ACTIVITY, [4], tombstone(codec))
    shelf.put(ACTIVITY, [5], packed(codec, FULL, event=NOW - TTL - timedelta(seconds=1)))
    shelf.put(ACTIVITY, [6], packed(codec, FULL, event=NOW - TTL))
    shelf.put(ACTIVITY, [7], packed(codec, FULL, event=NOW + timedelta(seconds=1)))
    shelf.put(ACTIVITY, [8], packed(codec, FULL)[:-1])
    shelf.raw.set(shelf.name_of(ACTIVITY, [9]), "no hash")

    found = both.fetch(["activity:n"], {"user_id": list(range(1, 10))})

    assert found.cells == [
        ["present", "null", "missing", "missing", "expired", "present", "expired", "error", "error"]
    ]
    assert found.columns == [[3, None, None, None, None, 3, None, None, None]]
    events = found.event_timestamps["activity"]
    assert [EVENT, EVENT, None, None] == events[:4]
    assert [NOW - TTL, EVENT, None] == [events[5], events[7], events[8]]


@pytest.mark.parametrize(
    "value",
    [
        b"?",
        b"",
        b"\x01" * (HEADER_BYTES - 1),
        b"\x03" + bytes(HEADER_BYTES),
        tombstone(CODECS["activity"]) + b"\x90",
        packed(CODECS["activity"], FULL)[:HEADER_BYTES],
        packed(CODECS["activity"], FULL) + b"\xc0",
        packed(CODECS["activity"], FULL)[:HEADER_BYTES] + msgspec.msgpack.encode(["x"] * 11),
        packed(CODECS["activity"], FULL)[:HEADER_BYTES] + msgspec.msgpack.encode([1] * 3),
        packed(CODECS["activity"], FULL)[:4] + b"\x7f" * 5 + packed(CODECS["activity"], FULL)[9:],
        b"\xff".join([ANCIENT[:9], ANCIENT[10:]]),
    ],
)
def test_a_damaged_value_is_an_error_and_harms_no_other(
    both: Both, shelf: Shelf, value: bytes
) -> None:
    shelf.put(ACTIVITY, [1], packed(CODECS["activity"], FULL))
    shelf.put(ACTIVITY, [2], value)
    shelf.put(ACTIVITY, [3], packed(CODECS["activity"], FULL))

    found = both.fetch(["activity:name", "activity:n"], {"user_id": [1, 2, 3]})

    assert [["present", "error", "present"]] * 2 == found.cells
    assert [["é", "nobody", "é"], [3, None, 3]] == found.columns


def test_a_date_that_no_calendar_has_is_an_error(both: Both, shelf: Shelf) -> None:
    codec = RowCodec({"on": pl.Int32()})
    value = packed(codec, {"on": 2**31 - 1})
    forged = value[:12] + RowCodec({"on": pl.Date()}).fingerprint + value[HEADER_BYTES:]
    shelf.teach(RowCodec({"on": pl.Date()}))
    shelf.put(ACTIVITY, [1], forged)

    assert (None, "error") == one(both, "activity:on")


def test_several_views_and_entities_come_in_the_asked_order(both: Both, shelf: Shelf) -> None:
    shelf.put(ACTIVITY, [1], packed(CODECS["activity"], FULL))
    shelf.put(PROFILE, [1], packed(CODECS["profile"], {"country": "NZ", "age": 40}))
    shelf.put(FOOTFALL, ["Ulm", 5], packed(CODECS["footfall"], {"visits": 12}))
    wanted = ["profile:age", "footfall:visits", "activity:n", "profile:country"]

    found = both.fetch(wanted, {"user_id": [1], "shop_id": [5], "city": ["Ulm"], "other": ["?"]})

    assert wanted == list(found.features)
    assert [[40, 12, 3, "NZ"]] == found.values
    assert ["profile", "footfall", "activity"] == list(found.event_us)
    assert {"user_id": [1], "city": ["Ulm"], "shop_id": [5]} == found.key_columns


def test_rows_columns_and_frames_ask_the_same(both: Both, shelf: Shelf) -> None:
    shelf.put(ACTIVITY, [1], packed(CODECS["activity"], FULL))
    keys = [2, 1]
    forms: list[Any] = [
        [{"user_id": key, "label": 0} for key in keys],
        {"user_id": keys},
        {"user_id": pl.Series(keys)},
        {"user_id": pl.Series(keys).to_numpy()},
        pl.DataFrame({"user_id": keys, "label": [0, 0]}),
    ]

    found = [both.fetch("activity:n", form) for form in forms]

    assert [[[None, 3]]] * 5 == [each.columns for each in found]
    assert [{"user_id": 2}, {"user_id": 1}] == found[-1].entities
    assert [{"user_id": 2, "activity:n": None}, {"user_id": 1, "activity:n": 3}] == found[0].rows()


def test_the_same_entity_may_be_asked_for_twice(both: Both, shelf: Shelf) -> None:
    shelf.put(ACTIVITY, [1], packed(CODECS["activity"], FULL))

    assert [[3, None, 3]] == both.fetch(["activity:n"], {"user_id": [1, 2, 1]}).columns


def test_nobody_asked_for_is_an_empty_answer(both: Both) -> None:
    found = both.fetch(["activity:n", "footfall:visits"], [])

    assert ([[], []], [[], []], []) == (found.columns, found.cells, found.values)


def test_a_feature_set_brings_its_name_and_version(both: Both) -> None:
    plan = both.sync.plan("churn_v1")

    assert ("churn_v1", CATALOG.feature_sets["churn_v1"].version) == (
        plan.feature_set,
        plan.version,
    )
    assert plan is both.sync.plan("churn_v1")
    assert list(plan.features) == list(both.fetch(plan, {"user_id": [1]}).features)


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ([{}], "no usable 'user_id'"),
        ([{"user_id": None}], "no usable 'user_id'"),
        ([{"user_id": "1"}], "no usable 'user_id'"),
        ([{"user_id": 1}, {"user_id": True}], "got True in row 1"),
        ([{"user_id": 1.0}], "no usable 'user_id'"),
        ({"user": [1]}, "no such column"),
        ({"user_id": "12"}, "no usable 'user_id'"),
        ([{"user_id": 2**63}], "64 bits"),
        ([{"user_id": -(2**63) - 1}], "64 bits"),
        (pl.DataFrame({"user_id": [1.5]}), "no usable 'user_id'"),
    ],
)
def test_an_unusable_key_is_refused_before_anything_is_sent(
    both: Both, entities: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        both.fetch(["activity:n"], entities)

    assert "closed" == both.sync.breaker.state


def test_key_columns_of_different_length_are_refused(both: Both) -> None:
    with pytest.raises(InputError, match="differ in length"):
        both.fetch(["footfall:visits"], {"city": ["a", "b"], "shop_id": [1]})


@pytest.mark.parametrize("city", HOSTILE)
def test_a_hostile_key_finds_its_own_row_and_no_other(both: Both, shelf: Shelf, city: str) -> None:
    for visits, name in enumerate(HOSTILE):
        shelf.put(FOOTFALL, [name, 1], packed(CODECS["footfall"], {"visits": visits}))
    before = shelf.raw.dbsize()

    found = both.fetch(["footfall:visits"], {"city": [city, *HOSTILE], "shop_id": [1] * 13})

    assert [HOSTILE.index(city), *range(len(HOSTILE))] == found.columns[0]
    assert before == shelf.raw.dbsize()


@pytest.mark.parametrize("city", ["\ud800", "x" * 1024, "a\udfffb"])
def test_a_key_that_no_row_can_have_is_refused(both: Both, city: str) -> None:
    with pytest.raises(InputError, match=r"surrogate|too long"):
        both.fetch(["footfall:visits"], [{"city": "a", "shop_id": 1}, {"city": city, "shop_id": 1}])


# Policies.


def test_contracts_say_what_a_missing_cell_gets(both: Both) -> None:
    found = both.fetch(["activity:n", "activity:score", "activity:name"], {"user_id": [1]})

    assert [[None, -1.0, "nobody"]] == found.values
    assert [["missing"] * 3] == found.statuses


def test_a_request_may_say_otherwise_for_all_or_one(both: Both) -> None:
    features = ["activity:n", "activity:score", "activity:price", "activity:spot"]
    keys = {"user_id": [1]}

    assert [[None] * 4] == both.fetch(features, keys, on_missing="null").values
    filled = both.fetch(features, keys, on_missing="default").values
    assert [[0, -1.0, Decimal("3.00"), None]] == filled
    mixed = both.fetch(
        features, keys, on_missing={"activity:score": "null", "activity:n": "default"}
    )
    assert [[0, None, None, None]] == mixed.values


def test_fail_lists_what_was_missing(both: Both, shelf: Shelf) -> None:
    shelf.put(PROFILE, [1], packed(CODECS["profile"], {"country": None}))

    both.fetch(["profile:country"], {"user_id": [1]})
    with pytest.raises(MissingFeatureError, match="1 of 2 cells") as refused:
        both.fetch(["profile:country", "profile:age"], {"user_id": [1, 2]})

    assert [({"user_id": 2}, "profile:country", "missing")] == list(refused.value.missing)
    assert "profile:country of {'user_id': 2} is missing" in str(refused.value)


def test_fail_shows_ten_cells_and_counts_the_rest(both: Both) -> None:
    with pytest.raises(MissingFeatureError, match="; and 20 more") as refused:
        both.fetch(["activity:n"], {"user_id": list(range(30))}, on_missing="fail")

    assert 30 == len(refused.value.missing)


@pytest.mark.parametrize("policy", ["drop", "", {"activity:n": "no"}])
def test_a_word_that_is_no_policy_is_refused(both: Both, policy: Any) -> None:
    with pytest.raises(InputError, match="on_missing is"):
        both.fetch(["activity:n"], {"user_id": [1]}, on_missing=policy)


def test_a_policy_for_what_is_not_asked_for_is_refused(both: Both) -> None:
    with pytest.raises(UnknownNameError, match="profile:age"):
        both.fetch(["activity:n"], {"user_id": [1]}, on_missing={"profile:age": "null"})


# Readiness.


def no_bucket(shelf: Shelf) -> str:
    for bucket in range(4):
        shelf.unseal(ACTIVITY, bucket)
    return "never pushed completely"


def one_bucket(shelf: Shelf) -> str:
    shelf.unseal(ACTIVITY, 2)
    return "1 of its 4 buckets"


def wiping(shelf: Shelf) -> str:
    shelf.raw.hset(shelf.names.bucket_key("user", 3), "table:activity", "wiping table-b")
    return "being wiped"


def two_tables(shelf: Shelf) -> str:
    text = '{"at":0,"days":"","table_id":"table-b","version":1}'
    shelf.raw.hset(shelf.names.bucket_key("user", 0), "activity", text)
    return "2 Delta tables"


def foreign_seal(shelf: Shelf) -> str:
    shelf.raw.hset(shelf.names.bucket_key("user", 0), "activity", "sealed")
    return "not in the form"


def noted(shelf: Shelf) -> str:
    shelf.note("unready", ACTIVITY, json.dumps({"reason": "It is behind Delta.", "at_us": 1}))
    return "It is behind Delta"


def noted_unreadably(shelf: Shelf) -> str:
    shelf.note("unready", ACTIVITY, "{")
    return "noted as unready"


def other_buckets(shelf: Shelf) -> str:
    shelf.raw.hset(shelf.names.entity_meta("user"), "buckets", 64)
    return "64 buckets online and 4 declared"


UNREADY = [
    no_bucket,
    one_bucket,
    wiping,
    two_tables,
    foreign_seal,
    noted,
    noted_unreadably,
    other_buckets,
]


@pytest.mark.parametrize("why", UNREADY)
def test_in_a_view_that_is_not_ready_a_row_is_served_and_none_is_an_error(
    both: Both, shelf: Shelf, why: Any
) -> None:
    shelf.put(ACTIVITY, [1], packed(CODECS["activity"], FULL))
    shelf.put(ACTIVITY, [3], tombstone(CODECS["activity"]))
    reason = why(shelf)
    both.look()

    found = both.fetch(
        ["activity:n", "footfall:visits"],
        {"user_id": [1, 2, 3], "city": ["a"] * 3, "shop_id": [1] * 3},
    )

    assert [["present", "error", "missing"], ["missing"] * 3] == found.cells
    assert reason in found.not_ready["activity"]
    assert "footfall" not in found.not_ready
    assert reason in both.sync.readiness["activity"]


def test_a_flushed_server_is_noticed_and_so_is_its_repair(both: Both, shelf: Shelf) -> None:
    assert (None, "missing") == one(both, "activity:n")
    for name in shelf.raw.scan_iter(f"{shelf.namespace}*"):
        shelf.raw.delete(name)

    both.look()
    lost = one(both, "activity:n")
    shelf.seal(ACTIVITY)
    both.look()

    assert (None, "error") == lost
    assert (None, "missing") == one(both, "activity:n")


def test_before_the_first_look_nothing_is_called_missing(shared_place: Place, shelf: Shelf) -> None:
    shelf.seal(ACTIVITY)
    fresh = Both(shared_place.url, shelf.namespace)

    assert (None, "error") == one(fresh, "activity:n")
    fresh.close()


def test_seals_and_facts_are_there_for_metrics(both: Both, shelf: Shelf) -> None:
    shelf.note("facts", ACTIVITY, '{"rows": 5}')
    shelf.note("facts", PROFILE, "[]")
    both.look()

    assert {"rows": 5} == both.sync.watch.facts["activity"]
    assert {0, 1, 2, 3} == set(both.sync.watch.seals["activity"])
    assert both.sync.watch.problem is None


# Schemas.


def test_a_row_of_another_release_is_decoded_by_name(both: Both, shelf: Shelf) -> None:
    older = RowCodec({"gone": pl.String(), "n": pl.Int32(), "name": pl.String()})
    shelf.put(ACTIVITY, [1], packed(older, {"gone": "x", "n": 4, "name": "Zoë"}))
    shelf.put(ACTIVITY, [2], packed(CODECS["activity"], FULL))
    shelf.teach(older)

    found = both.fetch(["activity:n", "activity:score", "activity:name"], {"user_id": [1, 2]})

    assert [[4, 3], [None, 0.5], ["Zoë", "é"]] == found.columns
    assert [["present"] * 2, ["null", "present"], ["present"] * 2] == found.cells


def test_a_column_that_a_row_never_had_is_null(both: Both, shelf: Shelf) -> None:
    older = RowCodec({"n": pl.Int64(), "name": pl.String()})
    shelf.put(ACTIVITY, [1], packed(older, {"n": 4, "name": "Zoë"}))
    shelf.teach(older)

    found = both.fetch(["activity:n", "activity:ok"], {"user_id": [1]}, on_missing="default")

    assert [[4], [None]] == found.columns
    assert [["present"], ["null"]] == found.cells


def test_a_column_of_another_type_is_an_error_not_another_value(both: Both, shelf: Shelf) -> None:
    other = RowCodec({"n": pl.String(), "name": pl.String()})
    shelf.teach(other)
    shelf.put(ACTIVITY, [1], packed(other, {"n": "4", "name": "Zoë"}))

    found = both.fetch(["activity:n", "activity:name"], {"user_id": [1]}, on_missing="default")

    assert [[0], ["Zoë"]] == found.columns
    assert [["error"], ["present"]] == found.cells


def test_an_unknown_schema_is_an_error_until_the_store_has_it(both: Both, shelf: Shelf) -> None:
    newer = RowCodec({"n": pl.Int64(), "more": pl.Int64()})
    shelf.put(ACTIVITY, [1], packed(newer, {"n": 4}))

    before = one(both, "activity:n")
    shelf.teach(newer)
    both.look()

    assert (None, "error") == before
    assert (4, "present") == one(both, "activity:n")


def test_a_schema_under_a_foreign_fingerprint_is_not_believed(both: Both, shelf: Shelf) -> None:
    newer = RowCodec({"n": pl.Int64(), "more": pl.Int64()})
    forged = RowCodec({"more": pl.Int64(), "n": pl.Int64()})
    shelf.put(ACTIVITY, [1], packed(newer, {"n": 4, "more": 5}))
    shelf.raw.hset(shelf.names.schemas(), newer.fingerprint.hex(), forged.schema_json)
    shelf.raw.hset(shelf.names.schemas(), "no hex", "no schema")

    assert (None, "error") == one(both, "activity:n")


def test_a_store_that_is_not_there_is_told_in_our_words(tmp_path: Any) -> None:
    with Client(CATALOG, f"unix://{tmp_path}/nothing.sock", namespace="x") as client:
        found = client.fetch(["activity:name"], {"user_id": [1]})
        with pytest.raises(OnlineError, match=r"nothing\.sock/0 cannot be used: No such file"):
            client.fetch(["profile:country"], {"user_id": [1]})

    assert ([["nobody"]], [["error"]]) == (found.columns, found.cells)
    assert "No such file" in str(client.watch.problem)


def test_a_timestamp_far_from_now_has_an_age(both: Both, shelf: Shelf) -> None:
    old = datetime(1, 1, 1, tzinfo=UTC)
    shelf.put(FOOTFALL, ["a", 1], packed(CODECS["footfall"], {"visits": 1}, event=old))

    found = both.fetch(["footfall:visits"], {"city": ["a"], "shop_id": [1]})

    assert [old] == found.event_timestamps["footfall"]
    assert [(NOW - old).total_seconds()] == found.age_seconds("footfall")
    assert date(1, 1, 1) == old.date()
