"""Whether what a push would add fits into Redis, before the first row is sent.

What is certain is asked last, because it costs most: the committed rows of the days to push are an
upper bound that costs nothing; then their different keys are counted in Delta; then Redis is asked
which of them it has. Only that last count refuses a push.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from lockstep.codec import HEADER_BYTES, bucket_of
from lockstep.errors import OnlineError
from lockstep.layout import ServerInfo
from lockstep.push_rows import RowsToPush
from lockstep.stores.redis import OnlineStore
from lockstep.view import FeatureView

_CELL_BYTES: Final = 9
"""An item's widest form; text and lists are longer, most integers shorter."""
_KEY_BYTES: Final = 120
"""Name, hash and expiry of an entity's key, as measured with MEMORY USAGE."""
_FETCH: Final = 1_000
"""Keys per round trip; more would let readers wait."""


def projected_bytes(view: FeatureView, rows: int) -> int:
    """Return about how much memory so many new entities of the view take online."""
    return rows * (_KEY_BYTES + HEADER_BYTES + _CELL_BYTES * len(view.contract.features))


def require_room(
    online: OnlineStore,
    rows: RowsToPush,
    settled: Collection[object],
    nodes: Mapping[str, ServerInfo],
) -> int:
    """Return about how many bytes the push adds at most, if the servers have room for them.

    A source whose ids exploded fills the memory of every view; this says so while all are intact.
    Each master of a cluster is asked for room for its own buckets.

    Args:
        settled: Days that every bucket has sealed as they are committed: their entities are there.
        nodes: What the servers say about themselves; one without maxmemory has room.

    Raises:
        OnlineError: They have not. Nothing was pushed.
    """
    most = rows.most
    room = _Room.of(online, rows.view, nodes)
    if room is None or room.suffices_for(most):
        return projected_bytes(rows.view, most)
    new = rows.newcomers(settled)
    if room.suffices_for(new):
        return projected_bytes(rows.view, new)
    carried, absent = _counted(online, rows)
    room.require(absent, carried.total(), carried.total() - absent.total(), "Nothing was pushed")
    return projected_bytes(rows.view, absent.total())


def require_room_after_wipe(
    online: OnlineStore, rows: RowsToPush, nodes: Mapping[str, ServerInfo]
) -> None:
    """Do nothing if the rows would fit once every row of their view had been removed.

    Raises:
        OnlineError: They would not. Nothing was removed or pushed.
    """
    view, room = rows.view, _Room.of(online, rows.view, nodes)
    if room is None or room.suffices_for(rows.most):
        return
    entity = view.contract.entity
    carried: Counter[int] = Counter()
    for block in rows:
        carried.update(bucket_of(block.keys, entity.buckets).to_list())
    there: Counter[int] = Counter()
    for key, _ in online.scan(entity.name, view.name):
        there[bucket_of(key, entity.buckets)] += 1
    more = Counter({bucket: carried[bucket] - there[bucket] for bucket in carried | there})
    room.require(more, carried.total(), there.total(), "Nothing was removed or pushed")


def _counted(online: OnlineStore, rows: RowsToPush) -> tuple[Counter[int], Counter[int]]:
    """Return bucket → entities of the push, and → those of which Redis has nothing yet."""
    entity, name = rows.view.contract.entity, rows.view.name
    carried: Counter[int] = Counter()
    absent: Counter[int] = Counter()
    for block in rows:
        for keys in (block.keys[at : at + _FETCH] for at in range(0, len(block), _FETCH)):
            found = online.fetch(entity.name, keys.to_list(), [name], entity.buckets)
            buckets = bucket_of(keys, entity.buckets).to_list()
            carried.update(buckets)
            stored = zip(buckets, found, strict=True)
            absent.update(bucket for bucket, (value,) in stored if value is None)
    return carried, absent


@dataclass(frozen=True)
class _Room:
    """What is free below maxmemory.

    Attributes:
        free: Master → bytes, of those that have a limit.
        home: Bucket → its master.
    """

    view: FeatureView
    free: Mapping[str, int]
    home: Mapping[int, str]

    @classmethod
    def of(
        cls, online: OnlineStore, view: FeatureView, nodes: Mapping[str, ServerInfo]
    ) -> "_Room | None":
        """Return the room there is; None if no server has a limit."""
        entity = view.contract.entity
        free = {
            name: max(0, info.maxmemory - info.used_memory)
            for name, info in nodes.items()
            if info.maxmemory
        }
        if not free:
            return None
        buckets, only = range(entity.buckets), next(iter(nodes)) if len(nodes) == 1 else None
        return cls(view, free, {n: only or online.node_of(entity.name, n) for n in buckets})

    def suffices_for(self, entities: int) -> bool:
        """Whether so many new entities fit, spread evenly over the buckets, as hashes are."""
        share = entities / len(self.home)
        return self._full(dict.fromkeys(self.home, share)) is None

    def require(self, more: Mapping[int, float], entities: int, present: int, nothing: str) -> None:
        """Raise OnlineError if a master has no room for so many more entities in its buckets."""
        full = self._full(more)
        if full is None:
            return
        where = (
            f"the master {full} of the online store" if len(self.free) > 1 else "the online store"
        )
        raise OnlineError(
            f"{self.view.name} would not fit into {where}: {entities:,} entities to push, "
            f"{present:,} online before.",
            expected=f"about {self._wanted(more)[full] / 1e6:,.1f} MB of room",
            got=f"{self.free[full] / 1e6:,.1f} MB below maxmemory",
            fix="Look whether the source's keys exploded (lockstep status); if they are right, "
            "raise maxmemory.",
            effect=f"{nothing}; what was served before is.",
        )

    def _full(self, more: Mapping[int, float]) -> str | None:
        wanted = self._wanted(more)
        return next((name for name, free in self.free.items() if wanted.get(name, 0) > free), None)

    def _wanted(self, more: Mapping[int, float]) -> dict[str, int]:
        entities: dict[str, float] = {}
        for bucket, count in more.items():
            entities[self.home[bucket]] = entities.get(self.home[bucket], 0) + count
        return {
            name: projected_bytes(self.view, math.ceil(count)) for name, count in entities.items()
        }
