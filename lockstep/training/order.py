"""What was asked for as a training set, checked and pinned, before its spine is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from lockstep.errors import InputError
from lockstep.training.column_hash import BLOCK
from lockstep.training.join import Joined, join
from lockstep.training.kept_sets import KeptSets, require_name, require_same_question
from lockstep.training.memory import budget, row_bytes
from lockstep.training.parts import ReachCounter, most_parts
from lockstep.training.pins import Pinned, Reach, narrowed, pin
from lockstep.training.set_file import require_kind
from lockstep.training.spine import AnySpine, Spine, instants, open_spine, require_spine

if TYPE_CHECKING:
    from lockstep.serving.plan import Features
    from lockstep.store import Store

_BASE: Final = 300_000_000
"""What a process with the libraries loaded takes before it joins anything."""
_LEAST: Final = 32_000_000
"""What a part may take however small the budget is: smaller ones only cost time."""
_UNIT_FORGOTTEN: Final = 10_000
"""Who states fewer bytes than this forgot the unit."""
_BLOCKS: Final = 6
"""Blocks of wide columns that are in memory while one is hashed, one written, one put together."""
_PER_VIEW: Final = 48
_PER_ROW: Final = 64


@dataclass(frozen=True)
class Order:
    """What was asked for, checked, before anything is read but the spine's columns.

    Attributes:
        name: The name under which the lake is to keep it.
        to: The file it is to be written to.
        memory: Bytes that the build may take.
        stated: Whether somebody said so; a default that is too small is exceeded instead.
    """

    spine: Spine
    pinned: Pinned
    name: str | None
    to: Path | None
    memory: int
    stated: bool = False


def order(
    store: "Store",
    spine: AnySpine,
    features: "Features",
    *,
    mode: str = "event",
    timestamp: str,
    time_zone: str | None,
    name: str | None = None,
    to: str | Path | None = None,
    memory: int | None,
    workers: int = 1,
    like: Pinned | None = None,
) -> Order:
    """Check what was asked for and pin what is committed now.

    Args:
        memory: Bytes that the work may take; None is the default.
        workers: How many processes share them.
        like: What was pinned already.

    Raises:
        UnknownNameError: A view, feature or feature set does not exist.
        InputError: The spine does not fit, or the name or file can't be used.
    """
    limit = budget(memory) // workers
    target = None if to is None else Path(to)
    if target is not None:
        require_kind(target)
        _require_other_file(spine, target)
    pinned = like or pin(
        store.catalog,
        store.lake,
        features,
        mode=mode,
        timestamp=timestamp,
        time_zone=time_zone,
        now=store.now(),
    )
    if name is not None:
        require_name(name)
        there = KeptSets(store.lake).find(name)
        require_same_question(there, name, pinned)
    keys = {key: dtype for view in pinned.keys.values() for key, dtype in view.items()}
    found = open_spine(spine, store.lake.place, keys, timestamp)
    require_spine(found.schema, timestamp, time_zone, pinned.keys, pinned.features, found.index)
    return Order(found, pinned, name, target, limit, stated=memory is not None)


def _require_other_file(spine: AnySpine, target: Path) -> None:
    local = isinstance(spine, str | Path) and "://" not in str(spine)
    if local and Path(spine).resolve() == target.resolve():
        raise InputError(
            f"The training set would replace its own spine {spine}.",
            fix="Choose another file.",
            effect="Nothing was written.",
        )


def parts_for(asked: Order) -> int:
    """Return into how many parts the spine must be split to stay within the budget; 0: none.

    Raises:
        InputError: A budget was stated that no split can keep.
    """
    require_memory(asked)
    each, room = _each(asked), asked.memory - _fixed(asked)
    if asked.spine.rows * (each + row_bytes(asked.spine.schema, asked.spine.widths)) <= room:
        return 0
    parts = -(-asked.spine.rows * each // max(room // 2, _LEAST))
    return min(max(1, parts), most_parts())


def require_memory(asked: Order) -> None:
    """Return if the stated budget suffices for the libraries, the widest day and a least part.

    Raises:
        InputError: It does not; the message says what would.
    """
    smallest = max(2 * _LEAST, 2 * -(-asked.spine.rows * _each(asked) // most_parts()))
    least = _fixed(asked) + (smallest if asked.spine.rows else 0)
    if not asked.stated or asked.memory >= least:
        return
    amount = f"{-(-least // 10**6):,} MB".replace(",", "")
    got = asked.memory
    raise InputError(
        f"A memory budget of {got:,} bytes is too small for this training set.",
        expected=f"at least {amount}: the libraries, the largest day that is read, and a part of "
        "the spine",
        fix=f"Say {got}GB if gigabytes were meant."
        if got < _UNIT_FORGOTTEN
        else f"Say {amount} or more, or nothing: then it is 60 % of what is free.",
        effect="Nothing was joined.",
    )


def _each(asked: Order) -> int:
    """Return the bytes that joining a row of the spine takes."""
    pins = asked.pinned.views
    features = sum(row_bytes(pin.features, pin.widths) for pin in pins)
    # What is read, put together and put in order of a wide column is there at the same time.
    wide = sum(sum(pin.widths.values()) for pin in pins)
    return 2 * features + wide + len(pins) * _PER_VIEW + _PER_ROW


def _fixed(asked: Order) -> int:
    """Return the bytes that are taken however few rows a part has."""
    pins = asked.pinned.views
    day = max(
        ((row_bytes(pin.keys) + row_bytes(pin.features, pin.widths)) * pin.largest for pin in pins),
        default=0,
    )
    wide = sum(asked.spine.widths.values()) + sum(sum(pin.widths.values()) for pin in pins)
    # Two days of a view are read at a time, and decoded.
    return _BASE + 4 * day + _BLOCKS * min(BLOCK, asked.spine.rows) * wide


def joined_in_memory(store: "Store", asked: Order) -> tuple[Pinned, pl.DataFrame, Joined]:
    """Return what was pinned, the spine, and what was joined to it, all in memory."""
    spine = asked.spine.collect()
    at = instants(spine[asked.pinned.timestamp], asked.pinned.time_zone, asked.pinned.zone)
    pinned = narrowed(asked.pinned, reach_of(asked.pinned, at))
    return pinned, spine, join(store.lake, pinned, spine.select(pinned.key_columns), at)


def reach_of(pinned: Pinned, at: pl.Series) -> Reach:
    """Return which instants (microseconds UTC) a spine asks about."""
    counter = ReachCounter(pinned)
    counter.add(at)
    return counter.reach
