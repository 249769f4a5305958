"""Which views are known to be complete online: seals, claims and notes, read in the background.

A view is ready if every bucket has a seal, all seals name one table, none is being wiped, the
entity has the declared number of buckets, and nobody has noted that it is unready. What is known
here decides only what a cell without a stored row is called: "missing", or "error".
"""

import json
import logging
from collections.abc import Generator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import hiredis

from lockstep.errors import OnlineError
from lockstep.layout import Names, Seal, pairs
from lockstep.schema import Entity
from lockstep.stores.resp import Batch, Reply, batch_of
from lockstep.view import FeatureView

Snapshot: TypeAlias = "Mapping[str, Mapping[int, Seal | None]]"

_NOT_LOOKED: Final = "The online store has not been looked at yet."
_WIPING: Final = b"wiping "
_LOGGER: Final = logging.getLogger("lockstep.serving")


class Watch:
    """What was found at the last look. Replaced as a whole, so any thread may read it.

    Attributes:
        seals: View → bucket → seal, None where there is none.
        facts: View → what was said of it after the last push; see lockstep/facts.py.
        not_ready: View → why it is not ready, in one sentence.
        problem: Why the last look failed; None if it did not.
    """

    def __init__(self, names: Names, views: Iterable[FeatureView]) -> None:
        self._names: Final = names
        self._views: Final = tuple(views)
        self._parsed: dict[bytes, Seal | str] = {}
        self._seen: dict[bytes, Seal | str] = {}
        self.seals: Snapshot = MappingProxyType({})
        self.facts: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
        self.not_ready: Mapping[str, str] = MappingProxyType(
            {view.name: _NOT_LOOKED for view in self._views}
        )
        self.problem: str | None = _NOT_LOOKED

    @property
    def schemas(self) -> Batch:
        """The command that reads the row schemas."""
        return batch_of([(b"HGETALL", self._names.schemas())])

    def look(self) -> Generator[Batch, Sequence[Reply], Mapping[bytes, bytes]]:
        """Yield one batch, take its answers in, and return the row schemas that they hold.

        Raises:
            OnlineError: The server refused a command; nothing was taken in.
        """
        entities = list(dict.fromkeys(view.contract.entity for view in self._views))
        own = {
            entity: [v for v in self._views if v.contract.entity == entity] for entity in entities
        }
        calls: list[tuple[bytes, ...]] = [
            (b"HGETALL", self._names.schemas()),
            (b"HGETALL", self._names.notes("facts")),
            (b"HGETALL", self._names.notes("unready")),
        ]
        for entity, views in own.items():
            calls.append((b"HGET", self._names.entity_meta(entity.name), b"buckets"))
            fields = [f.encode() for v in views for f in (v.name, f"table:{v.name}")]
            calls += [
                (b"HMGET", self._names.bucket_key(entity.name, bucket), *fields)
                for bucket in range(entity.buckets)
            ]
        replies = yield batch_of(calls)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise OnlineError(
                    f"The online store does not let its seals be read: {reply}.",
                    fix="Check the ACL of this user: it needs HGET, HMGET and HGETALL.",
                )
        schemas, facts, unready, *rest = replies
        answers = iter(rest)
        self._take_in(
            {
                entity: (next(answers), [next(answers) for _ in range(entity.buckets)])
                for entity in own
            },
            own,
            _documents(facts),
            _documents(unready),
        )
        return pairs(schemas)

    def failed(self, problem: Exception) -> None:
        """Note that a look failed, and log the first of several; what was known before stays."""
        first = self.problem is None
        self.problem = str(problem) or type(problem).__name__
        if first:
            _LOGGER.warning("The online store is lost. %s", self.problem)

    def _take_in(
        self,
        found: Mapping[Entity, tuple[bytes | None, Sequence[Sequence[bytes | None]]]],
        own: Mapping[Entity, Sequence[FeatureView]],
        facts: Mapping[str, Mapping[str, Any]],
        unready: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._seen = {}
        seals: dict[str, dict[int, Seal | None]] = {}
        reasons: dict[str, str] = {}
        for entity, (declared, buckets) in found.items():
            for at, view in enumerate(own[entity]):
                texts = [bucket[2 * at] for bucket in buckets]
                claims = [bucket[2 * at + 1] or b"" for bucket in buckets]
                parsed = [self._seal(text) if text else None for text in texts]
                seals[view.name] = {
                    bucket: seal if isinstance(seal, Seal) else None
                    for bucket, seal in enumerate(parsed)
                }
                reason = _why_unready(entity, declared, parsed, claims)
                if view.name in unready:
                    reason = str(unready[view.name].get("reason") or "It is noted as unready.")
                if reason:
                    reasons[view.name] = reason
        self._parsed = self._seen
        self.seals = MappingProxyType(seals)
        self.facts = MappingProxyType(dict(facts))
        self.not_ready = MappingProxyType(reasons)
        if self.problem not in {None, _NOT_LOOKED}:
            _LOGGER.info("The online store answers again.")
        self.problem = None

    def _seal(self, text: bytes) -> Seal | str:
        """The seal, or why it can't be read. Most buckets carry the same text."""
        if text not in self._seen:
            try:
                self._seen[text] = self._parsed.get(text) or Seal.parse(text)
            except OnlineError as error:
                self._seen[text] = str(error)
        return self._seen[text]


def _why_unready(
    entity: Entity,
    declared: bytes | None,
    seals: Sequence[Seal | str | None],
    claims: Sequence[bytes],
) -> str | None:
    if declared is not None and declared != b"%d" % entity.buckets:
        return (
            f"Entity {entity.name} has {declared[:40].decode(errors='replace')} buckets online "
            f"and {entity.buckets} declared: keys would be looked for in the wrong ones."
        )
    if any(claim.startswith(_WIPING) for claim in claims):
        return "It is being wiped, to be built anew."
    unreadable = [seal for seal in seals if isinstance(seal, str)]
    if unreadable:
        return unreadable[0]
    unsealed = sum(seal is None for seal in seals)
    if unsealed == len(seals):
        return "It was never pushed completely, or the online store has lost it."
    if unsealed:
        return f"{unsealed} of its {len(seals)} buckets have no seal: a push is due or under way."
    tables = {seal.table_id for seal in seals if isinstance(seal, Seal)}
    if len(tables) > 1:
        return f"Its buckets hold rows of {len(tables)} Delta tables."
    return None


def _documents(flat: Sequence[bytes]) -> dict[str, Mapping[str, Any]]:
    """View → JSON object; what is none is left out of the facts, and a note says nothing more."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, text in pairs(flat).items():
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        found[name.decode(errors="replace")] = document if isinstance(document, dict) else {}
    return found
