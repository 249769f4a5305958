"""Reads in the words of the Redis protocol, packed by hand. Pure; no connection.

redis-py spends several times as long on packing a command and on parsing its answer
(docs/adr/0003-online-layout.md). Every word is sent with its length, so none can end a command.
"""

from binascii import crc_hqx
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias
from zlib import crc32

from lockstep.keys import MAX_KEY_BYTES
from lockstep.layout import Names, bulk

Reply: TypeAlias = Any
"""What hiredis makes of an answer: bytes, int, None, a list, or ReplyError."""

SLOTS: Final = 16384
_LONGEST_NAME: Final = MAX_KEY_BYTES + 200  # namespace and entity have at most 100 and 63 bytes
ASKING: Final = b"*1\r\n$6\r\nASKING\r\n"


@dataclass(frozen=True, slots=True)
class Batch:
    """Commands that only read, to be sent together.

    Attributes:
        commands: Packed commands; answers come back in this order.
        slots: The cluster slot of each, worked out only where there is a cluster.
    """

    commands: Sequence[bytes]
    slots: Callable[[], Sequence[int]]


def command(*words: bytes) -> bytes:
    """One packed command."""
    return b"*%d\r\n%b" % (len(words), b"".join(map(bulk, words)))


def slot_of(key: bytes) -> int:
    """The cluster slot of a Redis key: CRC-16 of its hash tag, if it has one, else of the key."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    tag = key[start + 1 : end] if start >= 0 and end > start + 1 else key
    return crc_hqx(tag, 0) % SLOTS


def batch_of(calls: Sequence[tuple[bytes, ...]]) -> Batch:
    """Commands whose second word is the key."""
    return Batch(
        [command(*words) for words in calls], lambda: [slot_of(words[1]) for words in calls]
    )


@cache
def _heads(words: int) -> list[bytes]:
    """Per length of a Redis key, what stands before it in an HMGET of so many words."""
    head = b"*%d\r\n$5\r\nHMGET\r\n" % words
    return [b"%b$%d\r\n" % (head, length) for length in range(_LONGEST_NAME + 1)]


class EntityReads:
    """Packs one HMGET per entity of one type, for a fixed list of views.

    Args:
        names: The namespace.
        entity: Entity type.
        buckets: Its number of buckets.
        views: Fields to read, in the order of the answer.
    """

    def __init__(self, names: Names, entity: str, buckets: int, views: Sequence[str]) -> None:
        self._prefixes: Final = [names.entity_key(entity, at, b"") for at in range(buckets)]
        self._slots: Final = [slot_of(prefix) for prefix in self._prefixes]
        self._heads: Final = _heads(2 + len(views))
        self._tail: Final = b"\r\n" + b"".join(bulk(view.encode()) for view in views)

    def commands(self, keys: Sequence[bytes]) -> list[bytes]:
        """The packed command of every encoded entity key, in order."""
        prefixes, heads, tail, buckets = (
            self._prefixes,
            self._heads,
            self._tail,
            len(self._prefixes),
        )
        names = [prefixes[crc32(key) % buckets] + key for key in keys]
        return [heads[len(name)] + name + tail for name in names]

    def slots(self, keys: Sequence[bytes]) -> list[int]:
        """The cluster slot of every encoded entity key, in order."""
        return [self._slots[crc32(key) % len(self._slots)] for key in keys]
