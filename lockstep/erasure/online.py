"""A forgotten entity online: pushed away like any other change, then removed with its key."""

from collections.abc import Callable
from datetime import datetime
from time import sleep
from typing import Any, Final

from lockstep.catalog import Catalog
from lockstep.erasure.forgetting import Forgetting
from lockstep.errors import OnlineError
from lockstep.lake import Lake
from lockstep.push import push
from lockstep.stores.redis import OnlineStore
from lockstep.throttle import Throttle

_POLL_SECONDS: Final = 0.02
_POLLS: Final = 3000

FILES_LEFT: Final = (
    "Redis keeps what it wrote to its append-only file until that is rewritten, and this user may "
    "not ask for that: as one who may, BGREWRITEAOF (and BGSAVE, where it saves snapshots)."
)


def remove_online(
    lake: Lake,
    catalog: Catalog,
    online: OnlineStore,
    whom: Forgetting,
    now: Callable[[], datetime],
    throttle: Callable[[], Throttle],
) -> list[str]:
    """Push the views that are online, then remove everything under the entity's keys.

    Returns:
        Sentences about what is left.

    Raises:
        OnlineError: The online store does not answer.
        ConflictError: Others kept pushing a view.
    """
    for view in catalog.views.values():
        entity = view.contract.entity
        if entity.name not in whom.positions or not lake.table(view).exists():
            continue
        seals, claims = online.seals_and_claims(entity.name, view.name, entity.buckets)
        if any(seals.values()) or any(claims.values()):
            push(lake, online, view, now=now, throttle=throttle())
    for name in whom.positions:
        online.remove(name, _keys(online, whom, name), whom.entities[name].buckets)
    return _rewrite_files(online)


def stored_online(online: OnlineStore, whom: Forgetting) -> int:
    """Return how many rows and tombstones are stored of whom is forgotten.

    Raises:
        OnlineError: The online store does not answer.
    """
    return sum(
        online.stored_views(name, _keys(online, whom, name), whom.entities[name].buckets)
        for name in whom.positions
    )


def _keys(online: OnlineStore, whom: Forgetting, entity: str) -> list[bytes]:
    """The encoded keys of an entity that belong to whom is forgotten."""
    if list(whom.entities[entity].key) == list(whom.columns):
        return [whom.key]
    return [key for key in online.entity_keys(entity) if whom.has(entity, key)]


def _rewrite_files(online: OnlineStore) -> list[str]:
    """Have every server that keeps an append-only file write it anew, and wait until it has."""
    if not any(info.append_only for info in online.nodes().values()):
        return []
    try:
        online.ask("BGREWRITEAOF")
    except OnlineError:
        return [FILES_LEFT]
    for _ in range(_POLLS):
        if not any(map(_rewriting, online.ask("INFO", "persistence").values())):
            return []
        sleep(_POLL_SECONDS)
    return ["Redis is still rewriting its append-only file; until then it holds the rows."]


def _rewriting(facts: dict[str, Any]) -> bool:
    return any(
        int(facts.get(name, 0)) for name in ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
    )
