"""The sweep frees dead rows and removed views, and nothing that anybody could still be served."""

from dataclasses import replace
from pathlib import Path

import pytest

from lockstep.errors import ConfigError
from lockstep.layout import Swept
from lockstep.stores.redis import OnlineStore
from lockstep.sweep import sweep
from tests.online_rows import BUCKETS, ENTITY, FAR, IDS, VIEW, keys_of, packed, push
from tests.scenario import USER, catalog_of
from tests.servers import Place
from tests.test_g8_parity import USERS, begin

OTHER = "recency"


def test_rows_past_their_time_go_and_living_ones_beside_them_stay(store: OnlineStore) -> None:
    push(store, 7)
    push(store, 7, view=OTHER)

    swept = store.sweep({ENTITY: {VIEW: 1, OTHER: FAR}})

    assert swept == Swept(looked_at=len(IDS), undeclared=0, dead=len(IDS))
    found = store.fetch(ENTITY, keys_of(), [VIEW, OTHER], BUCKETS)
    assert found == [[None, value] for value in packed(7)]


def test_fields_of_a_view_that_is_not_declared_go(store: OnlineStore) -> None:
    push(store, 7)
    push(store, 7, view=OTHER)

    swept = store.sweep({ENTITY: {OTHER: 0}})

    assert swept.undeclared == len(IDS)
    found = store.fetch(ENTITY, keys_of(), [VIEW, OTHER], BUCKETS)
    assert found == [[None, value] for value in packed(7)]


def test_an_entity_that_is_not_declared_goes_whole(store: OnlineStore) -> None:
    push(store, 7)

    swept = store.sweep({"product": {VIEW: 0}})

    assert swept.undeclared == len(IDS)
    assert dict(store.scan(ENTITY, VIEW)) == {}


def test_another_namespace_is_never_touched(store: OnlineStore, shared_place: Place) -> None:
    other = OnlineStore(shared_place.url, namespace=f"{store.names.namespace}2")
    push(store, 7)

    assert other.sweep({}) == Swept()

    assert len(dict(store.scan(ENTITY, VIEW))) == len(IDS)
    other.close()


def test_of_a_project_only_what_it_no_longer_declares_goes(tmp_path: Path, redis_url: str) -> None:
    history = begin(tmp_path, redis_url, None)  # the server's own clock decides
    history.commit(0, dict.fromkeys(USERS, 1.0))
    history.push()
    store = history.made.store
    kept = sweep(store.online_store, store.catalog)
    assert store.online_store.notes("facts").keys() == {history.view.name}

    gone = sweep(store.online_store, catalog_of([]))

    assert (kept.undeclared, kept.looked_at) == (0, len(USERS))
    assert gone.undeclared == len(USERS)
    assert store.online_store.notes("facts") == {}


def test_nothing_is_swept_while_a_view_file_is_broken(tmp_path: Path, redis_url: str) -> None:
    history = begin(tmp_path, redis_url, None)  # the server's own clock decides
    history.commit(0, dict.fromkeys(USERS, 1.0))
    history.push()
    store = history.made.store
    broken = replace(catalog_of([]), broken={Path("both.py"): "line 3: invalid syntax"})

    with pytest.raises(ConfigError, match=r"both\.py cannot be imported.*Nothing was removed"):
        sweep(store.online_store, broken)

    assert store.parity()[0].holds


def test_a_view_that_is_declared_again_is_pushed_whole(tmp_path: Path, redis_url: str) -> None:
    history = begin(tmp_path, redis_url, None)
    history.commit(0, dict.fromkeys(USERS, 1.0))
    history.push()
    store = history.made.store
    sweep(store.online_store, catalog_of([]))
    assert set(store.online_store.seals("user", history.view.name, USER.buckets).values()) == {None}

    history.push()

    assert store.parity()[0].holds
