"""A training set in three steps, each of which another process may do: plan, join parts, finish.

    plan = store.plan_training_set(spine, features, name="churn_2026_11")
    for part in range(len(plan.parts)):        # in any order, by any process
        join_part(store, plan, part)
    training = finish(store, plan)

What comes out does not depend on the number of parts, on who joined them, or in which order.
"""

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from lockstep.crash import crash_point
from lockstep.set_folder import SETS, WORK
from lockstep.training.column_hash import BLOCK, blocks_of, hashed, require_hashable
from lockstep.training.join import Joined, join
from lockstep.training.keep import Plan, Progress, complete, kept_set, put_kept, record_profile
from lockstep.training.kept_sets import KeptSets
from lockstep.training.manifest import Contents
from lockstep.training.order import Order, joined_in_memory, parts_for
from lockstep.training.parts import (
    AT,
    ROW,
    SPINE,
    joined_blocks,
    most_parts,
    read_part,
    write_joined,
    write_parts,
)
from lockstep.training.pins import narrowed
from lockstep.training.spine import Spine
from lockstep.training.training_set import SetInMemory, TrainingSet, local_path, part_of
from lockstep.training.workspace import Workspace

if TYPE_CHECKING:
    from lockstep.store import Store

__all__ = ["Order", "Plan", "Progress", "build", "finish", "join_part", "plan_set"]


def build(
    store: "Store", asked: Order, progress: Progress | None = None, *, in_file: bool = False
) -> TrainingSet:
    """Return the set, in memory if it fits and is to go nowhere, else from a file.

    Args:
        in_file: Write it to a temporary file also if it fits.

    Raises:
        StoreError: The lake does not answer, or something that is needed is gone.
        InputError: The name is taken by another set, or the file can't be written.
    """
    told = progress or _silent
    parts, kept = parts_for(asked), asked.name is not None or asked.to is not None
    if not (parts or kept or in_file):
        return _in_memory(store, asked, told)
    place = store.lake.place if kept and not store.lake.place.remote else None
    workspace = Workspace(place, _work())
    try:
        if not parts:
            return _from_memory(store, asked, workspace, told)
        plan = split(asked, workspace, parts)
        for part in range(len(plan.parts)):
            told("joining", part, len(plan.parts))
            join_part(store, plan, part, workspace=workspace)
        return finish(store, plan, workspace=workspace, progress=told)
    except BaseException:
        workspace.clear()
        raise


def plan_set(store: "Store", asked: Order, parts: int | None = None) -> Plan:
    """Write the spine and its parts into the lake, where other processes find them.

    Args:
        parts: At least so many parts, if the spine has as many rows; never more than
            `lockstep.training.parts.most_parts`.
    """
    workspace = Workspace(store.lake.place, _work())
    try:
        return split(asked, workspace, max(1, parts or 1, parts_for(asked)))
    except BaseException:
        workspace.clear()
        raise


def split(asked: Order, workspace: Workspace, parts: int) -> Plan:
    """Write the spine and its parts into a workspace."""
    require_hashable(asked.spine.schema)
    count = max(1, min(parts, asked.spine.rows, most_parts()))
    written = write_parts(asked.spine, asked.pinned, workspace, count)
    crash_point("set_planned")
    return Plan(
        pinned=narrowed(asked.pinned, written.reach),
        spine=written.contents,
        parts=written.parts,
        folder=workspace.name,
        name=asked.name,
        to=None if asked.to is None else local_path(asked.to),
    )


def join_part(store: "Store", plan: Plan, part: int, *, workspace: Workspace | None = None) -> None:
    """Join one part of a spine and write what came of it; done again, it writes the same.

    Raises:
        StoreError: The lake does not answer, or something that is needed is gone.
    """
    if not plan.spine.rows:
        return
    space = workspace or Workspace(store.lake.place, plan.folder)
    rows, sizes = read_part(space, part)
    joined = join(store.lake, plan.pinned, rows, rows[AT])
    write_joined(space, part, rows[ROW], sizes, joined)
    crash_point("set_joined")


def finish(
    store: "Store",
    plan: Plan,
    *,
    workspace: Workspace | None = None,
    progress: Progress | None = None,
) -> TrainingSet:
    """Put the joined parts into the spine's order, write the set and its manifest.

    Done again after it succeeded, it returns the same set.

    Raises:
        StoreError: A part was not joined, or the lake does not answer.
        InputError: The name is taken by another set, or the file can't be written.
    """
    space = workspace or Workspace(store.lake.place, plan.folder)
    if plan.name is not None:
        kept = KeptSets(store.lake).find(plan.name)
        made = (plan.pinned.created_at, plan.spine.hash)
        if kept is not None and (kept.created_at, kept.spine.hash) == made:
            put_kept(store, plan, kept)
            space.clear()
            found = kept_set(store, kept)
            record_profile(store, found)
            return found
    blocks = joined_blocks(space, plan.pinned, plan.spine.rows, len(plan.parts))
    return complete(store, plan, space, blocks, progress or _silent)


def _work() -> str:
    return f"{SETS}/{WORK}{uuid.uuid4().hex}"


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def _in_memory(store: "Store", asked: Order, told: Progress) -> TrainingSet:
    told("joining", 0, 1)
    return SetInMemory(*joined_in_memory(store, asked))


def _from_memory(store: "Store", asked: Order, workspace: Workspace, told: Progress) -> TrainingSet:
    require_hashable(asked.spine.schema)
    told("joining", 0, 1)
    pinned, spine, joined = joined_in_memory(store, asked)
    with_hashes = hashed(blocks_of(spine), spine.schema)
    contents = Contents(spine.height, with_hashes.total, with_hashes.columns)
    Spine(spine.schema, spine.height, spine, "frame").write(workspace.writing(SPINE), BLOCK)
    workspace.done(SPINE)
    plan = Plan(
        pinned,
        contents,
        (spine.height,),
        workspace.name,
        asked.name,
        None if asked.to is None else local_path(asked.to),
    )
    crash_point("set_planned")

    def blocks() -> Iterator[tuple[pl.DataFrame, Joined]]:
        for start, block in zip(range(0, spine.height, BLOCK), blocks_of(spine), strict=True):
            features = joined.features.slice(start, BLOCK)
            yield block, part_of(joined, features, start)

    return complete(store, plan, workspace, blocks(), told)
