"""What Lockstep leans on in Redis 7, Valkey and redis-py; an upgrade that changes it turns red."""

import os
import signal
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from lockstep.codec import bucket_of, encode_key
from lockstep.layout import Names
from lockstep.stores.server import EmbeddedServer

FAR = 4_102_444_800_000

LIBRARY = """#!lua name=upstream
redis.register_function('upstream_unpack', function(keys, args)
  local kind, version = struct.unpack('>BI8', args[1])
  return { kind, string.format('%.0f', version) }
end)
redis.register_function('upstream_json', function(keys, args)
  local t = cjson.decode(args[1])
  t.added = 2
  return { cjson.encode(cjson.decode('{}')), tostring(t.known), tostring(t.unknown) }
end)
redis.register_function('upstream_refuse', function(keys, args)
  return redis.error_reply('LSGAP some words')
end)
redis.register_function('upstream_two_writes', function(keys, args)
  redis.call('SET', keys[1], 'first')
  return redis.call('HSET', keys[1], 'field', 'fails: not a hash')
end)
redis.register_function('upstream_set', function(keys, args)
  return redis.call('SET', keys[1], args[1])
end)
redis.register_function({ function_name = 'upstream_room', flags = { 'allow-oom' },
  callback = function(keys, args) return redis.call('DEL', keys[1]) end })
"""


@pytest.fixture
def raw(own_server: EmbeddedServer) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(own_server.url, protocol=2) as client:
        client.function_load(LIBRARY)
        yield client


def test_an_expiry_in_the_past_deletes_the_whole_hash(raw: "redis.Redis") -> None:
    raw.hset("h", mapping={"one_view": "1", "another": "2"})

    raw.pexpireat("h", 1000)

    assert raw.exists("h") == 0


def test_gt_is_ignored_on_a_key_without_expiry_and_only_raises_others(raw: "redis.Redis") -> None:
    raw.hset("kept", "f", "1")
    raw.hset("aging", "f", "1")
    raw.pexpireat("aging", FAR)

    assert raw.pexpireat("kept", FAR, gt=True) == 0
    assert raw.pexpireat("aging", FAR - 1, gt=True) == 0
    assert raw.pexpireat("aging", FAR + 1, gt=True) == 1

    assert (raw.pexpiretime("kept"), raw.pexpiretime("aging")) == (-1, FAR + 1)


def test_hset_keeps_the_expiry_of_the_key(raw: "redis.Redis") -> None:
    raw.hset("h", "f", "1")
    raw.pexpireat("h", FAR)

    raw.hset("h", "f", "2")

    assert raw.pexpiretime("h") == FAR


@pytest.mark.parametrize("version", [0, 255, 256, 2**31, 2**53 - 1])
def test_lua_reads_big_endian_integers_exactly_up_to_two_to_the_53(
    raw: "redis.Redis", version: int
) -> None:
    answer = raw.fcall("upstream_unpack", 0, b"\x01" + version.to_bytes(8, "big"))

    assert answer == [1, b"%d" % version]


def test_lua_json_keeps_an_empty_map_a_map(raw: "redis.Redis") -> None:
    assert raw.fcall("upstream_json", 0, '{"known":3}') == [b"{}", b"3", b"nil"]


def test_a_refusal_arrives_with_its_own_first_word(raw: "redis.Redis") -> None:
    with pytest.raises(redis.ResponseError, match=r"^LSGAP some words$"):
        raw.fcall("upstream_refuse", 0)


def test_an_error_in_mid_function_leaves_its_earlier_writes(raw: "redis.Redis") -> None:
    with pytest.raises(redis.ResponseError):
        raw.fcall("upstream_two_writes", 1, "k")

    assert raw.get("k") == b"first"


def test_a_missing_function_is_told_by_exactly_these_words(raw: "redis.Redis") -> None:
    with pytest.raises(redis.ResponseError, match=r"^Function not found$"):
        raw.fcall("nobody_loaded_this", 0)


def test_a_library_is_not_loaded_twice_and_says_so(raw: "redis.Redis") -> None:
    with pytest.raises(redis.ResponseError, match="already exists"):
        raw.function_load(LIBRARY)


def test_functions_survive_flushall_and_not_function_flush(raw: "redis.Redis") -> None:
    raw.flushall()
    assert len(raw.function_list()) == 1

    raw.function_flush()

    assert raw.function_list() == []


def test_functions_survive_a_restart_with_an_append_only_file(
    raw: "redis.Redis", own_server: EmbeddedServer
) -> None:
    own_server.kill()
    own_server.start()

    assert len(raw.function_list()) == 1


def test_a_full_server_refuses_functions_but_those_that_make_room(raw: "redis.Redis") -> None:
    raw.set("k", "v")
    raw.config_set("maxmemory", 1)

    with pytest.raises(redis.exceptions.OutOfMemoryError):
        raw.fcall("upstream_set", 1, "k", "w")

    assert raw.fcall("upstream_room", 1, "k") == 1


def test_errors_hide_inside_a_pipeline_that_is_told_not_to_raise(raw: "redis.Redis") -> None:
    raw.config_set("maxmemory", 1)
    pipeline = raw.pipeline(transaction=False)
    for n in range(3):
        pipeline.hset(f"h{n}", "f", "1")

    answers = pipeline.execute(raise_on_error=False)

    assert [type(answer) for answer in answers] == [redis.exceptions.OutOfMemoryError] * 3


def test_a_write_that_timed_out_is_carried_out_later(
    raw: "redis.Redis", own_server: EmbeddedServer
) -> None:
    pid = own_server.process_id
    assert pid is not None
    retry = Retry(NoBackoff(), 0)
    with redis.Redis.from_url(own_server.url, socket_timeout=0.1, retry=retry) as hasty:
        hasty.ping()
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(redis.exceptions.TimeoutError):
                hasty.set("k", "late")
        finally:
            os.kill(pid, signal.SIGCONT)

    assert raw.get("k") == b"late"


def test_info_says_what_the_store_reads(raw: "redis.Redis") -> None:
    facts = raw.info()

    wanted = {"run_id", "process_id", "used_memory", "maxmemory", "maxmemory_policy"}
    assert wanted | {"evicted_keys", "aof_enabled", "redis_version"} <= facts.keys()
    assert facts["maxmemory_policy"] == "noeviction"


@pytest.mark.parametrize("text", ["plain", "{", "}", "{x}", "a{b}c", "}{", "\r\n", "\0"])
def test_rows_and_seal_of_a_bucket_share_a_slot_whatever_the_key(text: str) -> None:
    names, key = Names("lockstep:dev"), encode_key([text])
    bucket = bucket_of(key, 64)

    row, seal = names.entity_key("household", bucket, key), names.bucket_key("household", bucket)

    assert key_slot(row) == key_slot(seal)


def test_a_compact_hash_stays_compact_up_to_the_configured_value(raw: "redis.Redis") -> None:
    raw.hset("small", "f", b"x" * 1024)
    raw.hset("large", "f", b"x" * 1025)

    assert raw.object("encoding", "small") == b"listpack"
    assert raw.object("encoding", "large") == b"hashtable"
