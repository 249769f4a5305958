"""What a push carries does not depend on how it is cut: blocks, groups of keys, days one by one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep import push_rows
from lockstep.push_rows import RowsToPush
from tests.scenario import USER
from tests.test_g8_parity import DAYS, TTL, USERS, History, begin

DAY = st.dictionaries(st.sampled_from(USERS), st.none() | st.just(1.0) | st.just(2.0))
"""Who has a row on a day, and its value."""


def history_of(folder: Path, redis_url: str, days: Sequence[dict[int, Any]]) -> History:
    """One at three in the night after the third day, so that a fourth has not ended."""
    history = begin(folder, redis_url, TTL)
    for number, values in enumerate(days):
        history.commit(number, values)
    return history


def carried(history: History, changed: Sequence[int]) -> dict[bytes, bytes]:
    """Every key and value that a push of the days would send; no key comes twice."""
    store = history.made.store
    table = store.lake.table(history.view)
    rows = RowsToPush(
        history.view,
        table,
        table.head(),
        store.project.zone,
        {DAYS[day]: 0 for day in changed},
        history.made.clock(),
    )
    pairs = [
        pair
        for block in rows
        for pair in zip(block.keys.to_list(), block.values.to_list(), strict=True)
    ]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    days=st.lists(DAY, min_size=1, max_size=4),
    corrected=st.dictionaries(st.integers(0, 3), DAY, max_size=2),
    changed=st.sets(st.integers(0, 3), min_size=1),
)
def test_groups_and_blocks_carry_the_same_rows_as_one_piece(
    tmp_path_factory: pytest.TempPathFactory,
    redis_url: str,
    days: list[dict[int, Any]],
    corrected: dict[int, dict[int, Any]],
    changed: set[int],
) -> None:
    history = history_of(tmp_path_factory.mktemp("cut"), redis_url, days)
    for number, values in corrected.items():
        if number < len(days):
            history.commit(number, values)
    asked = sorted(day for day in changed if day < len(days))
    whole = carried(history, asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(push_rows, "GROUP_ROWS", 1)
        patch.setattr(push_rows, "BLOCK_ROWS", 1)
        cut = carried(history, asked)

    assert cut == whole


def test_a_push_in_groups_of_keys_is_sealed_and_equal(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_rows, "GROUP_ROWS", 2)
    history = history_of(tmp_path, redis_url, [dict.fromkeys(USERS, float(n)) for n in range(3)])

    history.push()

    assert history.made.store.parity()[0].holds


def test_a_bucket_whose_own_hash_was_evicted_is_emptied_and_filled_again(
    tmp_path: Path, redis_url: str
) -> None:
    history = history_of(tmp_path, redis_url, [dict.fromkeys(USERS, float(n)) for n in range(3)])
    history.push()
    store = history.made.store.online_store
    with redis.Redis.from_url(redis_url) as raw:
        raw.delete(store.names.bucket_key("user", 1))

    history.push()

    assert set(store.claims("user", history.view.name, USER.buckets).values()) == {
        history.made.store.lake.table(history.view).head().table_id
    }
    with redis.Redis.from_url(redis_url) as raw:
        assert raw.hexists(store.names.bucket_key("user", 1), f"newest:{history.view.name}")
    assert history.made.store.parity()[0].holds
