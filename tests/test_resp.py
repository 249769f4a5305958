"""What is sent to Redis: whatever the words hold, a server reads as many commands as were meant."""

from collections.abc import Sequence

import hiredis
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from lockstep.codec import bucket_of, encode_key
from lockstep.errors import ConfigError, InputError
from lockstep.layout import Names
from lockstep.serving.entities import read_entities
from lockstep.stores.address import Address
from lockstep.stores.resp import EntityReads, batch_of, command, slot_of
from tests.served_views import SHOP, USER

NAMES = Names("test:fuzz")


def words_in(packed: bytes) -> list[list[bytes]]:
    """The commands that a server finds in a stream."""
    reader = hiredis.Reader(notEnoughData=Ellipsis)
    reader.feed(packed)
    found: list[list[bytes]] = []
    while (words := reader.gets()) is not Ellipsis:
        found.append(words)
    assert not reader.has_data()
    return found


@given(st.lists(st.binary(), min_size=1))
def test_a_command_has_exactly_its_words(words: list[bytes]) -> None:
    assert [words] == words_in(command(*words))


@given(st.lists(st.tuples(st.text(max_size=200), st.integers(-(2**63), 2**63 - 1)), max_size=5))
def test_no_entity_key_begins_a_second_command(asked: list[tuple[str, int]]) -> None:
    columns = {"city": [city for city, _ in asked], "shop_id": [shop for _, shop in asked]}
    keys = read_entities([SHOP], columns).keys[0]
    packer = EntityReads(NAMES, "shop", SHOP.buckets, ["footfall", "weather"])

    commands = packer.commands(keys)

    assert [encode_key(pair) for pair in asked] == keys
    names = [NAMES.entity_key("shop", bucket_of(key, SHOP.buckets), key) for key in keys]
    assert [[b"HMGET", name, b"footfall", b"weather"] for name in names] == words_in(
        b"".join(commands)
    )
    assert [slot_of(name) for name in names] == packer.slots(keys)


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_whole_columns_are_encoded_like_single_keys(asked: list[int]) -> None:
    assert [encode_key([key]) for key in asked] == read_entities([USER], {"user_id": asked}).keys[0]


@given(st.text(alphabet=st.characters(categories=["Cs"]), min_size=1))
def test_text_that_is_no_unicode_is_refused(city: str) -> None:
    with pytest.raises(InputError, match="lone surrogate"):
        read_entities([SHOP], {"city": [city], "shop_id": [1]})


@pytest.mark.parametrize("size", [0, 1, 1018, 1019, 1020, 2000])
def test_the_longest_key_is_as_long_as_a_push_allows(size: int) -> None:
    city, shop = "x" * size, 1
    fits = len(b"s%d:" % size) + size + len(b"i1:1") <= 1024

    if fits:
        (keys,) = read_entities([SHOP], {"city": [city], "shop_id": [shop]}).keys
        (packed,) = EntityReads(NAMES, "shop", 3, ["v"]).commands(keys)
        assert 1 == len(words_in(packed))
    else:
        with pytest.raises(InputError, match="too long"):
            read_entities([SHOP], {"city": [city], "shop_id": [shop]})


@given(st.binary())
def test_slots_are_those_of_redis(key: bytes) -> None:
    assert key_slot(key) == slot_of(key)


@pytest.mark.parametrize("key", [b"{}a", b"a{b}c", b"{a}{b}", b"{{a}}", b"}{", b"{a", b"123456789"])
def test_slots_of_odd_hash_tags_are_those_of_redis(key: bytes) -> None:
    assert key_slot(key) == slot_of(key)


def test_a_batch_knows_the_slots_of_its_keys() -> None:
    batch = batch_of([(b"HGETALL", b"a{x}"), (b"HGET", b"b{x}", b"f")])

    assert [[b"HGETALL", b"a{x}"], [b"HGET", b"b{x}", b"f"]] == words_in(b"".join(batch.commands))
    assert [slot_of(b"x")] * 2 == list(batch.slots())


# Addresses and greetings.

URLS = [
    "redis://localhost",
    "redis://localhost:7000/3",
    "redis://:p%40ss%2Fword@host:1/2",
    "redis://user:pw@[::1]:6380",
    "redis://u%2Fser:pw@host?db=4",
    "redis://host?username=u&password=p",
    "unix:///tmp/redis%20server.sock?db=2",
    "unix://user:pw@/tmp/redis.sock",
]


@pytest.mark.parametrize("url", URLS)
def test_urls_mean_what_they_mean_to_redis_py(url: str) -> None:
    expected = redis.ConnectionPool.from_url(url).connection_kwargs

    found = Address.parse(url)

    assert expected.get("path") == found.path
    if found.path is None:
        assert (expected.get("host"), expected.get("port", 6379)) == (found.host, found.port)
    assert int(expected.get("db", 0)) == found.database
    assert expected.get("username") == found.user
    assert expected.get("password") == found.password


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://host",
        "redis://:canary@host:port",
        "redis://:canary@host/x",
        "rediss://:canary@host?ssl_ciphers=all",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as refused:
        Address.parse(url)

    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "greeting"),
    [
        ("redis://h", [[b"HELLO", b"2", b"SETNAME", b"lockstep"]]),
        (
            "redis://:p\r\nFLUSHALL@h/7",
            [
                [b"HELLO", b"2", b"AUTH", b"default", b"pFLUSHALL", b"SETNAME", b"lockstep"],
                [b"SELECT", b"7"],
            ],
        ),
        (
            "redis://u:p%0D%0AFLUSHALL@h",
            [[b"HELLO", b"2", b"AUTH", b"u", b"p\r\nFLUSHALL", b"SETNAME", b"lockstep"]],
        ),
    ],
)
def test_the_greeting_says_who_one_is(url: str, greeting: Sequence[Sequence[bytes]]) -> None:
    packed, count = Address.parse(url).greeting

    assert greeting == words_in(packed)
    assert len(greeting) == count


def test_a_password_is_in_no_message_and_no_repr() -> None:
    address = Address.parse("redis://user:canary@host:1/2")
    errors = [
        address.refused("ERR wrong canary"),
        address.refused("WRONGPASS canary"),
        address.unusable(OSError("canary refused")),
        address.late(0.05),
    ]

    assert not [text for text in [repr(address), *map(str, errors)] if "canary" in text]
    assert all("host:1/2" in str(error) for error in errors)


def test_tls_verifies_unless_told_otherwise() -> None:
    strict = Address.parse("rediss://host").security
    unnamed = Address.parse("rediss://host?ssl_check_hostname=false").security
    trusting = Address.parse("rediss://host?ssl_cert_reqs=none").security
    assert strict is not None
    assert unnamed is not None
    assert trusting is not None

    assert (True, 2) == (strict.check_hostname, int(strict.verify_mode))
    assert (False, 2) == (unnamed.check_hostname, int(unnamed.verify_mode))
    assert (False, 0) == (trusting.check_hostname, int(trusting.verify_mode))
    assert Address.parse("redis://host").security is None


@pytest.mark.parametrize("option", ["ssl_ca_certs=/none.pem", "ssl_certfile=/none.pem"])
def test_tls_files_that_are_not_there_are_told(option: str) -> None:
    with pytest.raises(ConfigError, match="TLS options of the online store at host:6379/0"):
        Address.parse(f"rediss://host?{option}")
