"""Everything around the rules: committers, pushers, wipers, the network, two servers per shard.

A world is a value; `happen` gives the world after an event, or the same one if the event cannot
happen in it (so that any sublist of a history is a history). A process that never gets its next
event has crashed; a call that never arrives was dropped; a chunk may arrive in any order, late and
as often as one likes, a call of a wipe late and twice. A replica is the primary as it was when it
last replicated; a failover makes it the primary.
"""

from typing import Any, NamedTuple, TypeAlias

from tests.protocol_model_rules import (
    PER_TABLE,
    SPARED,
    Bucket,
    Chunk,
    Lake,
    Rules,
    Seal,
    Step,
    empty,
    plan,
    take,
    wipe,
)
from tests.protocol_model_wipes import Wiper, next_step, next_turn, wiped

Event: TypeAlias = tuple[Any, ...]
Commit: TypeAlias = tuple[int, frozenset[int]]


class Setting(NamedTuple):
    """What a world is made of, and how much may happen in it."""

    scripts: tuple[tuple[Commit, ...], ...]  # per table, in the order of the swaps
    keys: int = 2
    buckets: int = 1
    shards: int = 1
    pushers: int = 2
    plans: int = 3
    now: int = 1
    ttl: int | None = None
    begun: bool = True  # every bucket was wiped once, for the first table
    stepwise: bool = False  # a wipe's calls one by one, else at once
    named: tuple[tuple[int, ...] | None, ...] = (None,)  # which days a push may be asked for
    faults: tuple[tuple[str, int | None], ...] = ()  # event → how often; None without a bound

    @property
    def per_bucket(self) -> int:
        return -(-self.keys // self.buckets)


class Server(NamedTuple):
    primary: tuple[Bucket, ...]
    replica: tuple[Bucket, ...]


class Pusher(NamedTuple):
    """idle → looked at seals and claims → pinned a table (wiping if foreign) → idle."""

    seals: tuple[Seal | None, ...] | None = None
    named: tuple[int, ...] | None = None
    now: int = 0
    head: Lake | None = None
    wiper: Wiper | None = None


class World(NamedTuple):
    setting: Setting
    rules: Rules
    lakes: tuple[Lake, ...]
    now: int
    servers: tuple[Server, ...]
    pushers: tuple[Pusher, ...]
    pushes: tuple[tuple[Chunk, ...], ...] = ()
    steps: tuple[Step, ...] = ()  # calls of wipes that were sent
    eras: int = 1
    wipes: int = 0
    looks: int = 0
    happened: tuple[tuple[str, int], ...] = ()  # fault → how often

    @property
    def lake(self) -> Lake:
        return self.lakes[-1]

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Of the primaries, by number."""
        return buckets_of(tuple(server.primary for server in self.servers))

    def bucket(self, number: int) -> Bucket:
        shards = len(self.servers)
        return self.servers[number % shards].primary[number // shards]


def buckets_of(by_shard: tuple[tuple[Bucket, ...], ...]) -> tuple[Bucket, ...]:
    """By number: bucket n is on shard n % shards."""
    count = sum(map(len, by_shard))
    return tuple(by_shard[n % len(by_shard)][n // len(by_shard)] for n in range(count))


def begin(setting: Setting, rules: Rules) -> World:
    """The world before anything happened."""
    one = empty(setting.per_bucket)
    if setting.begun:
        one = one._replace(claim=(PER_TABLE, 0), newest=0 if rules.by_version else None)
    shards = [0] * setting.shards
    for number in range(setting.buckets):
        shards[number % setting.shards] += 1
    servers = tuple(Server((one,) * count, (one,) * count) for count in shards)
    return World(setting, rules, (Lake(0),), setting.now, servers, (Pusher(),) * setting.pushers)


def put(world: World, number: int, bucket: Bucket) -> World:
    """The world with another bucket on a primary."""
    at, shards = number % len(world.servers), len(world.servers)
    primary = list(world.servers[at].primary)
    primary[number // shards] = bucket
    return serve(world, at, world.servers[at]._replace(primary=tuple(primary)))


def serve(world: World, at: int, server: Server) -> World:
    return world._replace(servers=(*world.servers[:at], server, *world.servers[at + 1 :]))


def happen(world: World, event: Event) -> World:
    """The world after an event."""
    name, *arguments = event
    after = _HAPPENS[name](world, *arguments)
    if after is world or dict(world.setting.faults).get(name) is None:
        return after
    count = dict(world.happened)
    count[name] = count.get(name, 0) + 1
    return after._replace(happened=tuple(sorted(count.items())))


def _commit(world: World) -> World:
    lake, script = world.lake, world.setting.scripts[world.lake.table]
    if len(lake.commits) == len(script) or script[len(lake.commits)][0] >= world.now:
        return world
    longer = lake._replace(commits=(*lake.commits, script[len(lake.commits)]))
    return world._replace(lakes=(*world.lakes[:-1], longer))


def _swap(world: World) -> World:
    """The view is rebuilt offline: another table takes the old one's place."""
    if len(world.lakes) == len(world.setting.scripts) or not world.lake.commits:
        return world
    script = world.setting.scripts[len(world.lakes)]
    if script[0][0] >= world.now:
        return world
    return world._replace(lakes=(*world.lakes, Lake(len(world.lakes), script[:1])))


def _tick(world: World) -> World:
    """A day ends, and rows that are kept no longer go, wherever they are."""
    now = world.now + 1
    servers = tuple(
        Server(*(tuple(_expired(bucket, now) for bucket in side) for side in server))
        for server in world.servers
    )
    return world._replace(now=now, servers=servers)


def _expired(bucket: Bucket, now: int) -> Bucket:
    kept = (row if row and (row.until is None or now <= row.until) else None for row in bucket.rows)
    return bucket._replace(rows=tuple(kept))


def _look(world: World, at: int, named: tuple[int, ...] | None) -> World:
    if world.pushers[at] != Pusher() or world.looks == world.setting.plans:
        return world
    seals = tuple(bucket.seal for bucket in world.buckets)
    looked = _pusher(world, at, Pusher(seals, named, world.now))
    return looked._replace(looks=world.looks + 1)


def _pin(world: World, at: int) -> World:
    """The planner takes the table's head, then wipes or plans."""
    pusher, lake = world.pushers[at], world.lake
    if pusher.seals is None or pusher.head is not None or not lake.commits:
        return world
    now = world.now if world.rules.clock_after_head else pusher.now
    pinned, ahead = pusher._replace(head=lake, now=now), is_ahead(pusher.seals, lake)
    if not ahead and not foreign(world.buckets, lake, world.rules):
        return _planned(world, at, pinned)
    if world.setting.stepwise:
        return _wiping(world, at, pinned, own_rows_too=ahead)
    for number, bucket in enumerate(world.buckets):
        if ahead or bucket.claim != (PER_TABLE, lake.table):
            world = put(world, number, wiped(bucket, lake.table, world.rules, world.eras))
    seals = tuple(bucket.seal for bucket in world.buckets)
    return _planned(world, at, pinned._replace(seals=seals))


def is_ahead(seals: tuple[Seal | None, ...], lake: Lake) -> bool:
    """Whether a seal is of a future that the table does not know."""
    return any(seal is not None and seal.version > lake.version for seal in seals)


def foreign(buckets: tuple[Bucket, ...], lake: Lake, rules: Rules) -> bool:
    """Whether a bucket belongs to another table than this one, or all or (a rule) one to none."""
    claims = {bucket.claim for bucket in buckets}
    if not rules.claimed_only and claims != {None}:
        claims -= {None}
    return claims != {(PER_TABLE, lake.table)}


def _rebuild(world: World, at: int) -> World:
    """A pusher removes everything before it plans."""
    if world.pushers[at] != Pusher() or not world.lake.commits:
        return world
    if world.setting.stepwise:
        return _wiping(world, at, Pusher(), own_rows_too=True)
    for number, bucket in enumerate(world.buckets):
        world = put(world, number, wiped(bucket, world.lake.table, world.rules, world.eras))
    return world


def _wiping(world: World, at: int, pusher: Pusher, *, own_rows_too: bool) -> World:
    head = pusher.head or world.lake
    wiper = Wiper(world.wipes, head.table, own_rows_too)
    return _pusher(world, at, pusher._replace(wiper=wiper))._replace(wipes=world.wipes + 1)


def _planned(world: World, at: int, pusher: Pusher) -> World:
    """The push is on its way; the process that sends it may be taken for another one's."""
    chunks = plan(
        pusher.head or world.lake,
        pusher.now,
        pusher.seals or (),
        pusher.named,
        push=len(world.pushes),
        ttl=world.setting.ttl,
        rules=world.rules,
    )
    done = _pusher(world, at, Pusher())
    return done._replace(pushes=(*done.pushes, chunks)) if chunks else done


def _pusher(world: World, at: int, pusher: Pusher) -> World:
    return world._replace(pushers=(*world.pushers[:at], pusher, *world.pushers[at + 1 :]))


def _wipe_on(world: World, at: int) -> World:
    """The next call of a wipe: begin all; scan and rows, bucket by bucket; finish all.

    The scan and the removal of what it found are two events; nothing found, nothing is sent. A
    bucket that was spared takes part in none of it.
    """
    pusher, count = world.pushers[at], world.setting.buckets
    wiper = pusher.wiper
    if wiper is None:
        return world
    kind, number = next_turn(wiper, count)
    if kind == "scan":
        rows = world.bucket(number).rows
        spared = wiper.eras[number] == SPARED
        found = () if spared else tuple(place for place, row in enumerate(rows) if row is not None)
        wiper = wiper._replace(found=(*wiper.found, found))
        return _wiped_on(world, at, wiper._replace(done=wiper.done + (1 if found else 2)))
    step = next_step(wiper, kind, number)
    changed, era = wipe(world.bucket(number), step, world.rules, world.eras)
    world = _sent(put(world, number, changed), step)
    if era is None:  # somebody else wipes it, or a server lost it: plan again
        return _pusher(world, at, Pusher())
    if kind == "begin":
        wiper = wiper._replace(eras=(*wiper.eras, era))
    return _wiped_on(world, at, wiper._replace(done=wiper.done + 1))


def _wiped_on(world: World, at: int, wiper: Wiper) -> World:
    """The wiper at its next call; if there is none, the push it was for is planned."""
    count, pusher = world.setting.buckets, world.pushers[at]
    while wiper.done < count * 4:
        kind, number = next_turn(wiper, count)
        if kind != "finish" or wiper.eras[number] != SPARED:
            return _pusher(world, at, pusher._replace(wiper=wiper))
        wiper = wiper._replace(done=wiper.done + 1)
    if pusher.head is None:
        return _pusher(world, at, Pusher())
    seals = tuple(bucket.seal for bucket in world.buckets)
    return _planned(world, at, pusher._replace(seals=seals, wiper=None))


def _sent(world: World, step: Step) -> World:
    """Remember a call that may arrive again, and use up an era."""
    eras = world.eras + (step.kind == "begin" and world.rules.name_wipes)
    late = "again" in dict(world.setting.faults) and step not in world.steps
    return world._replace(eras=eras, steps=(*world.steps, step) if late else world.steps)


def _deliver(world: World, push: int, chunk: int) -> World:
    if push >= len(world.pushes) or chunk >= len(world.pushes[push]):
        return world
    sent = world.pushes[push][chunk]
    changed, _ = take(world.bucket(sent.bucket), sent, world.rules, world.now)
    return put(world, sent.bucket, changed)


def _again(world: World, which: int) -> World:
    """A call of a wipe arrives once more, late; nobody waits for its answer."""
    if which >= len(world.steps):
        return world
    step = world.steps[which]
    changed, _ = wipe(world.bucket(step.bucket), step, world.rules, world.eras)
    return _sent(put(world, step.bucket, changed), step)


def _replicate(world: World, shard: int) -> World:
    server = world.servers[shard]
    return serve(world, shard, Server(server.primary, server.primary))


def _failover(world: World, shard: int) -> World:
    server = world.servers[shard]
    promoted = server.replica
    if not world.rules.seals_with_rows:
        kept = zip(server.primary, promoted, strict=True)
        promoted = tuple(hash_._replace(rows=old.rows, lost=old.lost) for hash_, old in kept)
    return serve(world, shard, Server(promoted, promoted))


def _flush(world: World, shard: int) -> World:
    server = world.servers[shard]
    return serve(
        world,
        shard,
        server._replace(primary=(empty(world.setting.per_bucket),) * len(server.primary)),
    )


def _evict(world: World, key: int) -> World:
    number, place = key % world.setting.buckets, key // world.setting.buckets
    bucket = world.bucket(number)
    row = bucket.rows[place]
    if row is None:
        return world
    rows = (*bucket.rows[:place], None, *bucket.rows[place + 1 :])
    lost = (*bucket.lost[:place], row.version, *bucket.lost[place + 1 :])
    return put(world, number, bucket._replace(rows=rows, lost=lost))


def _forget(world: World, number: int) -> World:
    """The bucket's hash is evicted; its rows stay."""
    return put(world, number, world.bucket(number).forgotten())


def _reconcile(world: World) -> World:
    return settle(world) or world


def settle(world: World) -> World | None:
    """The world after two rounds of a reconcile that nothing disturbs; None without a table.

    Rows of days that are not sealed are no concern of the first round: the push seals them, and the
    second one looks at all.
    """
    if not world.lake.commits:
        return None
    return _round(_round(world))


def _round(world: World) -> World:
    from tests.protocol_model_checks import rows_are_wrong  # it needs the world

    lake, buckets, rules = world.lake, world.buckets, world.rules
    seals = tuple(bucket.seal for bucket in buckets)
    lost = any(bucket.claim is None for bucket in buckets)
    if lost or foreign(buckets, lake, rules) or is_ahead(seals, lake) or rows_are_wrong(world):
        buckets = tuple(wiped(bucket, lake.table, rules, world.eras) for bucket in buckets)
        seals = (None,) * len(buckets)
    changed = list(buckets)
    for chunk in plan(lake, world.now, seals, None, push=-1, ttl=world.setting.ttl, rules=rules):
        changed[chunk.bucket], _ = take(changed[chunk.bucket], chunk, rules, world.now)
    for number, bucket in enumerate(changed):
        world = put(world, number, bucket)
    return world


_HAPPENS = {
    "commit": _commit,
    "swap": _swap,
    "tick": _tick,
    "look": _look,
    "pin": _pin,
    "wipe": _wipe_on,
    "deliver": _deliver,
    "again": _again,
    "replicate": _replicate,
    "failover": _failover,
    "flush": _flush,
    "evict": _evict,
    "forget": _forget,
    "rebuild": _rebuild,
    "reconcile": _reconcile,
}
