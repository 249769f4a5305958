"""What is wrong with one served row, beside what is committed, and the likely cause. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Final, Literal, TypeAlias

from lockstep.codec import Header, bucket_of, decode_key, header_of, without_version
from lockstep.errors import InputError, OnlineError
from lockstep.layout import Seal
from lockstep.stores.day_index import Head
from lockstep.time import decode_revisions, is_valid

Kind: TypeAlias = Literal["mismatch", "missing", "extra", "stale"]
Cause: TypeAlias = Literal[
    "not pushed",
    "partial push",
    "evicted",
    "deleted",
    "expired",
    "another writer",
    "put back",
    "moving",
]
KINDS: Final[tuple[Kind, ...]] = ("mismatch", "missing", "extra", "stale")
WORDS: Final[Mapping[Cause, str]] = {
    "not pushed": "what was committed has not been pushed",
    "partial push": "a push has not reached all of its buckets",
    "evicted": "the server evicted keys, as its maxmemory-policy lets it",
    "deleted": "rows were deleted or evicted behind Lockstep's back",
    "expired": "what is stored has expired, and nothing newer was pushed",
    "another writer": "bytes are there that no push of this table wrote",
    "put back": "older rows came back after the push, as from a restored server",
    "moving": "it was committed to or pushed each time that it was compared, so nobody can say",
}

PENDING: Final[frozenset[Cause]] = frozenset({"not pushed", "expired"})
"""What a push of the committed days puts right, and nobody else has brought about."""


@dataclass(frozen=True)
class Difference:
    """One entity whose served value is not the committed one.

    Attributes:
        kind: `stale` is an older revision or version than is committed; `mismatch` other bytes.
        cause: The likely cause.
    """

    kind: Kind
    key: tuple[int | str, ...]
    cause: Cause = "not pushed"


@dataclass(frozen=True)
class Sides:
    """Both sides of one view at an instant.

    Attributes:
        expected: Entity key → packed row that is valid, its version blank.
        stored: Entity key → what is stored of it, also if it is expired or removed.
        head: What is committed.
        seals: Bucket → its seal.
        evicting: Whether the server may drop rows when it is full, and has done so.
    """

    expected: Mapping[bytes, bytes]
    stored: Mapping[bytes, bytes]
    head: Head
    seals: Mapping[int, Seal | None]
    ttl: timedelta | None
    at: datetime
    evicting: bool = False

    @cached_property
    def entities(self) -> int:
        """Entities with a valid row on either side."""
        return len(self.expected.keys() | {key for key in self.stored if self._served(key)})

    def differences(self) -> list[Difference]:
        """Return what differs, in order of the keys."""
        keys = sorted(self.expected.keys() | self.stored.keys())
        found = ((key, self._kind(key)) for key in keys)
        return [
            Difference(kind, _readable(key), self._cause(key, kind)) for key, kind in found if kind
        ]

    def _served(self, key: bytes) -> bool:
        """Whether a reader is answered by what is stored; unreadable bytes count."""
        if key not in self.stored:
            return False
        header = self._header(key)
        if header is None:
            return True
        return not header.removed and is_valid(header.event_timestamp, self.ttl, self.at)

    def _header(self, key: bytes) -> Header | None:
        try:
            return header_of(self.stored[key])
        except OnlineError:
            return None

    def _kind(self, key: bytes) -> Kind | None:
        expected = self.expected.get(key)
        if not self._served(key):
            return None if expected is None else "missing"
        if expected is None:
            return "extra"
        header = self._header(key)
        if header is None:
            return "mismatch"
        if without_version(self.stored[key]) == expected:
            return None
        return "stale" if self._older(header, header_of(expected)) else "mismatch"

    def _older(self, stored: Header, expected: Header) -> bool:
        if stored.version > self.head.version:
            return False
        record = self.head.days.get(stored.day)
        restated = record is not None and stored.revision < record.revision
        return restated or stored.day < expected.day

    def _cause(self, key: bytes, kind: Kind) -> Cause:
        header = self._header(key) if key in self.stored else None
        foreign = key in self.stored and (header is None or header.version > self.head.version)
        if foreign:
            return "another writer"
        if kind == "extra":
            if header is None or header.day not in self.head.days:
                return "another writer"
            return "another writer" if not self._behind(key) else self._unpushed(key, None)
        expected = header_of(self.expected[key])
        if self._sealed(key).get(expected.day) != expected.revision:
            expired = kind == "missing" and header is not None and not header.removed
            unpushed = self._unpushed(key, expected)
            return "expired" if expired and unpushed == "not pushed" else unpushed
        if kind == "stale":
            return "put back"
        if kind == "mismatch" or header is not None:
            return "another writer"
        return "evicted" if self.evicting else "deleted"

    def _unpushed(self, key: bytes, expected: Header | None) -> Cause:
        """Say whether a push has begun that has not reached the entity's bucket."""
        one = {expected.day: expected.revision} if expected else None
        wanted = self._behind(key) if one is None else one
        begun = any(pair in self._arrived for pair in wanted.items())
        return "partial push" if begun else "not pushed"

    def _behind(self, key: bytes) -> dict[date, int]:
        """Return the committed days that the entity's bucket has not sealed → their revision."""
        sealed = self._sealed(key)
        return {
            day: record.revision
            for day, record in self.head.days.items()
            if sealed.get(day) != record.revision
        }

    def _sealed(self, key: bytes) -> Mapping[date, int]:
        return self._days_sealed.get(bucket_of(key, len(self.seals)), {})

    @cached_property
    def _days_sealed(self) -> dict[int, dict[date, int]]:
        mine = self.head.table_id
        texts = {b: s.days for b, s in self.seals.items() if s and s.table_id == mine}
        known = {text: decode_revisions(text) for text in set(texts.values())}
        return {bucket: known[text] for bucket, text in texts.items()}

    @cached_property
    def _arrived(self) -> set[tuple[date, int]]:
        """Days and revisions of which something is online."""
        found = {pair for days in self._days_sealed.values() for pair in days.items()}
        headers = (self._header(key) for key in self.stored)
        return found | {(header.day, header.revision) for header in headers if header}


def _readable(key: bytes) -> tuple[int | str, ...]:
    try:
        return decode_key(key)
    except InputError:  # nothing that a push wrote
        return (repr(key),)


def unblamed(difference: Difference) -> Difference:
    """Return what is said of it if what was committed and sealed changed while it was read."""
    pending = difference.cause in PENDING
    return difference if pending else replace(difference, cause="moving")


def likely_cause(differences: Iterable[Difference]) -> str:
    """Return the causes in words, the most frequent first; empty if nothing differs."""
    counted = Counter(difference.cause for difference in differences)
    parts = [WORDS[cause] for cause, _ in counted.most_common()]
    return "; ".join(parts)


def examples_of(differences: Iterable[Difference], each: int) -> list[Difference]:
    """Return the first differences of every kind."""
    found: dict[Kind, list[Difference]] = {}
    for difference in differences:
        of_kind = found.setdefault(difference.kind, [])
        if len(of_kind) < each:
            of_kind.append(difference)
    return [difference for kind in KINDS for difference in found.get(kind, [])]
