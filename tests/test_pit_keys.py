"""Keys as small numbers: every kind of key, and what the spine does not have."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from lockstep.training import pit_keys
from lockstep.training.pit_keys import Keys


@pytest.mark.parametrize("count", [1, 2, 1000])
@pytest.mark.parametrize("kind", ["near", "far", "text", "two"])
def test_keys_are_numbered_whatever_they_are(kind: str, count: int) -> None:
    chance = np.random.default_rng(count)
    near = chance.integers(0, 5 * count, 3 * count)
    far = near * np.int64(0x0123_4567_89AB_CDEF)  # wraps around: spread over all of 64 bits
    columns = {"near": [near], "far": [far], "text": [near.astype(str)], "two": [near // 9, far]}
    both = pl.DataFrame({str(n): column for n, column in enumerate(columns[kind])})
    spine, view = both[:count], both[count:].unique(maintain_order=True)

    keys, ids = Keys.among(spine)

    known = spine.unique(maintain_order=True).rows()
    number = {row: int(ids[spine.rows().index(row)]) for row in known}
    assert sorted(number.values()) == list(range(keys.count)) == list(range(len(known)))
    assert [number[row] for row in spine.rows()] == ids.tolist()
    assert [number.get(row, keys.count) for row in view.rows()] == keys.of(view).tolist()


def test_a_null_key_of_a_view_is_nobodys() -> None:
    for one in (pl.Series("k", [0, 7]), pl.Series("k", ["", "a"])):
        keys, ids = Keys.among(one.to_frame())
        withnull = pl.concat([one, pl.Series("k", [None], dtype=one.dtype)]).to_frame()

        assert [*ids, keys.count] == keys.of(withnull).tolist()


def test_texts_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def poor(values: pl.Series, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        lengths = values.str.len_bytes().cast(pl.Int64).fill_null(0)
        return (
            lengths if seed == 0 else lengths * 2 + (values == "bb").fill_null(value=False)
        ).to_numpy()

    monkeypatch.setattr(pit_keys, "_hashes", poor)

    keys, ids = Keys.among(pl.DataFrame({"k": ["aa", "bb", "aa"]}))

    assert (2, True, True) == (keys.count, ids[0] == ids[2], ids[0] != ids[1])
    assert [ids[1], 2, 2] == keys.of(pl.DataFrame({"k": ["bb", "cc", None]})).tolist()
