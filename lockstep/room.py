"""Whether what a push would add fits into Redis, before the first row is sent."""

from collections.abc import Collection, Mapping
from datetime import date
from typing import Final

from lockstep.codec import HEADER_BYTES
from lockstep.errors import OnlineError
from lockstep.layout import ServerInfo
from lockstep.stores.day_index import Head
from lockstep.view import FeatureView

_CELL_BYTES: Final = 9
"""An item's widest form; text and lists are longer, most integers shorter."""
_KEY_BYTES: Final = 120
"""Name, hash and expiry of an entity's key, as measured with MEMORY USAGE."""


def projected_bytes(view: FeatureView, rows: int) -> int:
    """Return about how much memory so many new entities of the view take online."""
    return rows * (_KEY_BYTES + HEADER_BYTES + _CELL_BYTES * len(view.contract.features))


def require_room(
    view: FeatureView,
    head: Head,
    days: Collection[date],
    present: int,
    nodes: Mapping[str, ServerInfo],
) -> int:
    """Return about how many bytes the push adds, if the servers have room for them.

    A source whose ids exploded fills the memory of every view; this says so while all are intact.

    Args:
        days: The days to push.
        present: Entities that the view had online at its last push.
        nodes: What the servers say about themselves; one without maxmemory has room.

    Raises:
        OnlineError: They have not. Nothing was pushed.
    """
    rows = max((head.days[day].rows for day in days), default=0)
    wanted = projected_bytes(view, max(0, rows - present))
    if not all(info.maxmemory for info in nodes.values()):
        return wanted
    free = sum(info.maxmemory - info.used_memory for info in nodes.values())
    if wanted > free:
        raise OnlineError(
            f"{view.name} would not fit into the online store: {rows:,} entities, {present:,} "
            "before.",
            expected=f"about {wanted / 1e6:,.1f} MB of room",
            got=f"{max(0, free) / 1e6:,.1f} MB below maxmemory",
            fix="Look whether the source's keys exploded (lockstep status); if they are right, "
            "raise maxmemory.",
            effect="Nothing was pushed; what was served before is.",
        )
    return wanted
