"""Every key of a server or cluster that a pattern matches, each once."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from lockstep.stores.link import UNKNOWN, Link

_COUNT: Final = 1000


def scan_keys(link: Link, pattern: bytes, most_calls: int | None = None) -> Iterator[list[bytes]]:
    """Yield the keys in groups; those that appear or vanish meanwhile may be missing.

    It walks all keys of every master, or stops after so many calls of about 1,000 keys.
    """
    seen: set[bytes] = set()
    calls = 0
    for node in link.masters().values():
        cursor: Any = 0
        while most_calls is None or calls < most_calls:
            calls += 1
            with link.answering(UNKNOWN):
                run: Callable[..., Any] = node.execute_command
                cursor, found = run("SCAN", cursor, "MATCH", pattern, "COUNT", _COUNT)
            names = [name for name in dict.fromkeys(found) if name not in seen]
            seen.update(names)
            if names:
                yield names
            if int(cursor) == 0:
                break
