"""What must hold in every state of the model, and which events can come next.

A lost row (evicted alone, under an intact seal) is no violation until it is written again or a
reconcile has run: no rule can notice it, so a sample of rows must.
"""

from collections.abc import Iterator
from functools import lru_cache

from tests.protocol_model_rules import (
    Bucket,
    Lake,
    Row,
    latest,
    revisions,
    sealed_days,
    valid,
)
from tests.protocol_model_world import Event, World, happen, put, settle


class ViolationError(AssertionError):
    """A state that must not exist."""


def step(world: World, event: Event) -> World:
    """The world after an event, if all holds there.

    Raises:
        ViolationError: Something does not.
    """
    after = happen(world, event)
    if event[0] == "deliver":
        _no_version_fell(world, after)
    if after.servers != world.servers or after.lakes != world.lakes or after.now != world.now:
        _every_seal_is_true(after)
        _online_is_offline(after)
    return after


def _no_version_fell(before: World, after: World) -> None:
    for number, (old, new) in enumerate(zip(before.buckets, after.buckets, strict=True)):
        for place, (was, row) in enumerate(zip(old.rows, new.rows, strict=True)):
            if was and row and was.table == row.table and row.version < was.version:
                key = place * len(after.buckets) + number
                raise ViolationError(f"key {key} went from version {was.version} to {row.version}")


def _every_seal_is_true(world: World) -> None:
    ttl = world.setting.ttl
    for number, bucket in enumerate(world.buckets):
        place = _lie(world.lakes, bucket, number, len(world.buckets), ttl, world.now)
        if place is not None and bucket.seal:
            key, row = place * len(world.buckets) + number, bucket.rows[place]
            raise ViolationError(f"sealed at {bucket.seal.version}, but key {key} holds {row}")


@lru_cache(maxsize=100_000)
def _lie(
    lakes: tuple[Lake, ...], bucket: Bucket, number: int, buckets: int, ttl: int | None, now: int
) -> int | None:
    """The first place of a bucket that does not hold what its seal says, None if all do."""
    seal = bucket.seal
    if seal is None:
        return None
    lake, sealed = lakes[seal.table], dict(seal.days)
    open_keys: set[int] = set()  # in a day that the seal does not cover as it is in its version
    for day, sets in revisions(lake, seal.version).items():
        if sealed.get(day) != len(sets):
            open_keys.update(*sets[max(sealed.get(day, 0) - 1, 0) :])
    for place, row in enumerate(bucket.rows):
        key = place * buckets + number
        if bucket.lost[place] >= 0 or key in open_keys:
            continue
        version = max(seal.version, row.version if row and row.table == seal.table else 0)
        expected = latest(lake, version, key, now)
        shown = expected if expected and valid(expected[0], ttl, now) else None
        if _shown(row, ttl, now) != (shown and (seal.table, *shown)):
            return place
    return None


def _shown(row: Row | None, ttl: int | None, now: int) -> tuple[int, int, int] | None:
    """What a reader gets from a stored row: table, day, revision; None if nothing."""
    if row is None or row.removed or not valid(row.day, ttl, now):
        return None
    return row.table, row.day, row.revision


def _online_is_offline(world: World) -> None:
    if not is_sealed(world):
        return
    for number, bucket in enumerate(world.buckets):
        for place, row in enumerate(bucket.rows):
            key = place * len(world.buckets) + number
            expected = offline(world, key)
            if bucket.lost[place] < 0 and _shown(row, world.setting.ttl, world.now) != expected:
                raise ViolationError(f"all is sealed, but key {key} holds {row} not {expected}")


def is_sealed(world: World) -> bool:
    """Whether every committed day that has ended is sealed in every bucket."""
    lake = world.lake
    days = sealed_days(lake, lake.version, world.now)
    return bool(lake.commits) and all(
        bucket.seal is not None and (bucket.seal.table, bucket.seal.days) == (lake.table, days)
        for bucket in world.buckets
    )


def offline(world: World, key: int) -> tuple[int, int, int] | None:
    """What the point-in-time join over the head says of a key: table, day, revision."""
    found = latest(world.lake, world.lake.version, key, world.now)
    if found is None or not valid(found[0], world.setting.ttl, world.now):
        return None
    return world.lake.table, *found


def rows_are_wrong(world: World) -> bool:
    """What a reconcile sees of the rows under the seals, lost ones too."""
    ttl, buckets = world.setting.ttl, world.buckets
    return any(
        _lie(world.lakes, _unexcused(bucket), number, len(buckets), ttl, world.now) is not None
        for number, bucket in enumerate(buckets)
    )


def _unexcused(bucket: Bucket) -> Bucket:
    return bucket._replace(lost=(-1,) * len(bucket.rows))


def settles(world: World) -> None:
    """Do nothing if a reconcile and a push alone bring online to what offline is.

    Raises:
        ViolationError: They do not.
    """
    key = (world.lakes, world.now, world.buckets, world.setting.ttl, world.rules)
    if key in _settled:
        return
    settled = settle(world)
    if settled is not None:
        if not is_sealed(settled):
            raise ViolationError("a reconcile and a push alone would not seal everything")
        for number, bucket in enumerate(settled.buckets):
            settled = put(settled, number, _unexcused(bucket))
        try:
            _online_is_offline(settled)
        except ViolationError as violation:
            raise ViolationError(f"after a reconcile and a push alone: {violation}") from None
    if len(_settled) >= _MOST_SETTLED:
        _settled.clear()
    _settled.add(key)


_settled: set[object] = set()
_MOST_SETTLED = 200_000


def next_events(world: World) -> Iterator[Event]:
    """Every event that may come next, within the setting's bounds."""
    setting = world.setting
    yield ("commit",)
    for at, pusher in enumerate(world.pushers):
        if pusher.wiper is not None:
            yield ("wipe", at)
        elif pusher.seals is not None:
            yield ("pin", at)
        elif at == 0 or world.pushers[at - 1] != pusher:  # idle pushers are alike
            yield from (("look", at, named) for named in setting.named)
    for push, chunks in enumerate(world.pushes):
        yield from (("deliver", push, chunk) for chunk in range(len(chunks)))
    happened = dict(world.happened)
    for name, most in setting.faults:
        if most is None or happened.get(name, 0) < most:
            yield from ((name, *of) for of in _places(world, name))


def _places(world: World, name: str) -> Iterator[tuple[int, ...]]:
    """What the event may be about; once nothing if it is about nothing."""
    if name in {"replicate", "failover", "flush"}:
        count = len(world.servers)
    elif name in {"evict", "forget"}:
        count = world.setting.keys if name == "evict" else world.setting.buckets
    elif name in {"again", "rebuild"}:
        count = len(world.steps if name == "again" else world.pushers)
    else:
        return iter([()])
    return ((n,) for n in range(count))
