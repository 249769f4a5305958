"""What fetching means, without any I/O: both clients run these steps and only carry the bytes.

A step generator yields a batch of commands, is sent the answers (or thrown an OnlineError), and
returns what was asked for.
"""

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import datetime
from itertools import islice
from threading import Lock
from typing import Any, Final, Literal, TypeAlias

import hiredis

from lockstep.catalog import Catalog
from lockstep.errors import OnlineError
from lockstep.layout import Names, pairs
from lockstep.online import CellStatus, MissingPolicy, Vectors, require_values
from lockstep.serving.breaker import Breaker
from lockstep.serving.decoding import (
    Heads,
    Stored,
    ViewColumns,
    ViewPart,
    undisturbed,
)
from lockstep.serving.entities import Asked, Entities, read_entities
from lockstep.serving.plan import Features, Plan, Policies, compile_plan
from lockstep.serving.schemas import Schemas
from lockstep.serving.watch import Watch
from lockstep.stores.resp import Batch, EntityReads, Reply
from lockstep.time import micros
from lockstep.view import FeatureSet

Steps: TypeAlias = "Generator[Batch, Sequence[Reply], Vectors]"
Outage: TypeAlias = Literal["fallback", "raise"]

_PLANS: Final = 512
_DAMAGED: Final = b""
_OF_ONE_KEY: Final = "WRONGTYPE"


class FetchSteps:
    """The meaning of a client's calls; shared by the blocking and the asynchronous one.

    Args:
        catalog: What is declared.
        namespace: Beginning of every key, e.g. "lockstep:dev".
        place: The store's address, for messages.
        breaker: Spares a store that does not answer, and whoever would wait for it.
        outage: What a fetch does when the store does not answer: answer with fallbacks, or raise.
        now: Returns the present instant (UTC), which decides what has expired.
        clock: Returns seconds that never go back, for the breaker.
    """

    def __init__(
        self,
        catalog: Catalog,
        namespace: str,
        place: str,
        *,
        breaker: Breaker,
        outage: Outage,
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self.catalog: Final = catalog
        self.names: Final = Names(namespace)
        self.breaker: Final = breaker
        self.watch: Final = Watch(self.names, catalog.views.values())
        self.schemas: Final = Schemas(catalog.views.values())
        self._place: Final = place
        self._raises: Final = outage == "raise"
        self._now: Final = now
        self._clock: Final = clock
        self._looked = -math.inf
        self._saw = -math.inf
        self._lock: Final = Lock()
        self._plans: dict[Any, Plan] = {}
        self._reads: dict[Plan, tuple[EntityReads, ...]] = {}

    def plan(self, features: Features) -> Plan:
        """The compiled plan of a list of features; each is compiled once.

        Raises:
            UnknownNameError: A view, feature or feature set does not exist.
        """
        key = features if isinstance(features, str | FeatureSet) else tuple(map(str, features))
        found = self._plans.get(key)
        if found is None:
            found = compile_plan(self.catalog, key)
            self._keep(self._plans, key, found)
        return found

    def _keep(self, kept: dict[Any, Any], key: Any, value: Any) -> None:
        """Remember the newest: callers choose the lists, so there may be any number."""
        with self._lock:
            if len(kept) >= _PLANS:
                del kept[next(iter(kept))]
            kept[key] = value

    def warm(self) -> None:
        """Compile the plans of all feature sets."""
        for name in self.catalog.feature_sets:
            self._packers(self.plan(name))

    def steps(
        self, features: Plan | Features, entities: Entities, on_missing: MissingPolicy
    ) -> Steps:
        """Fetch vectors: one batch, and one more only if a row's schema has to be learnt.

        Raises:
            InputError: A key is absent or has the wrong type.
            MissingFeatureError: A cell has no value and its policy is "fail".
            OnlineError: The store does not answer, and a policy is "fail" or outages are raised.
        """
        plan = features if isinstance(features, Plan) else self.plan(features)
        policies = plan.policies(on_missing)
        asked = read_entities(plan.entities, entities)
        at = self._now()
        outage: OnlineError | None = None
        found: list[ViewColumns] = []
        if asked.count and not self.breaker.allows(self._clock()):
            outage = self._spared()
        elif asked.count:
            try:
                replies = yield self._batch(plan, asked)
                stored = self._stored(plan, asked.count, replies)
            except OnlineError as error:
                self.breaker.failed(self._clock())
                outage = error
            else:
                self.breaker.succeeded()
                found = yield from self._decoded(plan, policies, stored, micros(at))
        if outage is not None and (self._raises or policies.failing):
            raise outage
        if not found:
            found = [
                part.outage(asked.count, _own(policies, places)) for part, places in _parts_of(plan)
            ]
        vectors = self._vectors(plan, asked, at, found, outage)
        if policies.failing:
            require_values(vectors, policies.failing)
        return vectors

    def look_is_due(self, every: float) -> bool:
        """Whether the last look began so many seconds ago; if so, the next is taken to begin."""
        clock = self._clock()
        due = clock - self._looked >= every
        if due:
            self._looked = clock
        return due

    @property
    def last_look(self) -> float:
        """Seconds since the last look that did not fail; infinite if there was none."""
        return self._clock() - self._saw

    def look(self) -> "Generator[Batch, Sequence[Reply], None]":
        """Look at seals, notes and schemas once.

        Raises:
            OnlineError: The store does not answer, or refuses.
        """
        try:
            self.schemas.learn((yield from self.watch.look()))
            self._saw = self._clock()
        except OnlineError as error:
            self.watch.failed(error)
            raise

    def probe(self) -> "Generator[Batch, Sequence[Reply], None]":
        """Try whether a store that was spared answers again, so that no caller has to."""
        if self.breaker.state == "closed" or not self.breaker.allows(self._clock()):
            return
        try:
            (reply,) = yield self.watch.schemas
        except OnlineError:
            reply = None
        if isinstance(reply, list):
            self.breaker.succeeded()
        else:
            self.breaker.failed(self._clock())

    def _packers(self, plan: Plan) -> tuple[EntityReads, ...]:
        found = self._reads.get(plan)
        if found is None:
            found = tuple(
                EntityReads(
                    self.names,
                    part.entity.name,
                    part.entity.buckets,
                    [each.name for each in part.parts],
                )
                for part in plan.parts
            )
            self._keep(self._reads, plan, found)
        return found

    def _batch(self, plan: Plan, asked: Asked) -> Batch:
        packers = self._packers(plan)
        pairs = list(zip(packers, asked.keys, strict=True))
        commands = [command for packer, keys in pairs for command in packer.commands(keys)]
        return Batch(
            commands, lambda: [slot for packer, keys in pairs for slot in packer.slots(keys)]
        )

    def _stored(self, plan: Plan, count: int, replies: Sequence[Reply]) -> list[Stored]:
        """Per view, in the order of `_parts_of`, the stored value of every entity.

        Raises:
            OnlineError: The server refused a command for a reason that is not the key's own.
        """
        if hiredis.ReplyError in set(map(type, replies)):
            replies = [self._readable(reply, plan) for reply in replies]
        rows = iter(replies)
        return [
            values
            for part in plan.parts
            for values in _turned(islice(rows, count), len(part.parts))
        ]

    def _readable(self, reply: Reply, plan: Plan) -> Reply:
        """The reply; in place of an error that concerns one key, values that can't be read."""
        if not isinstance(reply, hiredis.ReplyError):
            return reply
        if not str(reply).startswith(_OF_ONE_KEY):
            raise OnlineError(
                f"The online store at {self._place} refused to read: {reply}.",
                fix="See its log; it may still be loading, or its ACL forbids HMGET to this user.",
                effect="Nothing was fetched.",
            )
        return [_DAMAGED] * len(plan.views)

    def _decoded(
        self, plan: Plan, policies: Policies, stored: Sequence[Stored], at_us: int
    ) -> "Generator[Batch, Sequence[Reply], list[ViewColumns]]":
        heads = [Heads(values) for values in stored]
        fingerprints = set().union(*(each.fingerprints for each in heads))
        if self.schemas.worth_seeking(fingerprints, self._clock()):
            yield from self._sought(fingerprints)
        not_ready = self.watch.not_ready
        found = []
        with undisturbed():
            for (part, places), values, own in zip(_parts_of(plan), stored, heads, strict=True):
                absent: CellStatus = "error" if part.name in not_ready else "missing"
                fallbacks = _own(policies, places)
                found.append(
                    part.decode(
                        values, own, self.schemas, at_us=at_us, absent=absent, fallbacks=fallbacks
                    )
                )
        return found

    def _sought(self, fingerprints: set[bytes]) -> "Generator[Batch, Sequence[Reply], None]":
        """Learn the schemas of rows that a newer release, or an older one, has pushed."""
        try:
            (flat,) = yield self.watch.schemas
            self.schemas.learn(pairs(flat))
        except OnlineError:
            pass  # what can be decoded is served; the rest says "error"
        self.schemas.not_found(fingerprints, self._clock())

    def _vectors(
        self,
        plan: Plan,
        asked: Asked,
        at: datetime,
        found: Sequence[ViewColumns],
        outage: OnlineError | None,
    ) -> Vectors:
        columns: list[Any] = [None] * len(plan.features)
        cells: list[Any] = [None] * len(plan.features)
        event_us: dict[str, list[int | None]] = {}
        for (part, places), view in zip(_parts_of(plan), found, strict=True):
            event_us[part.name] = view.event_us
            for place, column, statuses in zip(places, view.columns, view.cells, strict=True):
                columns[place], cells[place] = column, statuses
        not_ready = self.watch.not_ready
        return Vectors(
            key_columns=asked.key_columns,
            features=plan.features,
            types=plan.types,
            columns=columns,
            cells=cells,
            event_us={view.name: event_us[view.name] for view in plan.views},
            at=at,
            not_ready={v.name: not_ready[v.name] for v in plan.views if v.name in not_ready},
            outage=outage,
            keys=asked.keys,
        )

    def _spared(self) -> OnlineError:
        return OnlineError(
            f"The online store at {self._place} is not asked: {self.breaker.failures} calls in a "
            "row failed.",
            fix="It is tried again within a second; see whether it is up.",
            effect="Nothing was fetched.",
        )


def _turned(rows: Iterable[Sequence[bytes | None]], views: int) -> list[Stored]:
    """The answers of one entity type by view."""
    turned: list[Stored] = list(zip(*rows, strict=True))
    if len(turned) != views:
        raise OnlineError("The online store answered for other views than were asked for.")
    return turned


def _parts_of(plan: Plan) -> list[tuple[ViewPart, tuple[int, ...]]]:
    return [pair for each in plan.parts for pair in zip(each.parts, each.places, strict=True)]


def _own(policies: Policies, places: Sequence[int]) -> list[Any]:
    return [policies.fallbacks[place] for place in places]
