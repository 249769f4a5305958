"""What ends a build: the set's file, its manifest, and the name under which the lake keeps it."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import polars as pl

from lockstep.crash import crash_point
from lockstep.errors import InputError, LockstepError
from lockstep.set_folder import SETS
from lockstep.training.column_hash import total_hash
from lockstep.training.join import Joined
from lockstep.training.kept_sets import KeptSets, name_for, require_same_answer
from lockstep.training.manifest import Contents, Manifest, beside
from lockstep.training.parts import SPINE
from lockstep.training.pins import Pinned
from lockstep.training.profile import FeatureProfile, Profiler, identifying, without_values
from lockstep.training.set_file import SetFile, describes, exporting
from lockstep.training.training_set import (
    SetInFile,
    TrainingSet,
    manifest_of,
    profile_from,
    profile_json,
    warnings_of,
)
from lockstep.training.workspace import Workspace

if TYPE_CHECKING:
    from lockstep.store import Store

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

DATA: Final = "data.parquet"


@dataclass(frozen=True)
class Plan:
    """A training set that was asked for: its spine is split, its versions are pinned.

    Attributes:
        pinned: What was asked for.
        spine: What the spine holds.
        parts: How many rows of the spine each part has.
        folder: The work folder, relative to the lake.
        name: The name under which the lake is to keep the set.
        to: The local file to which it is to be written.
    """

    pinned: Pinned
    spine: Contents
    parts: tuple[int, ...]
    folder: str
    name: str | None
    to: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "pinned": self.pinned.to_json(),
            "spine": asdict(self.spine),
            "parts": list(self.parts),
            "folder": self.folder,
            "name": self.name,
            "to": self.to,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Plan":
        """Read what `to_json` returned."""
        return cls(
            pinned=Pinned.from_json(data["pinned"]),
            spine=Contents(**data["spine"]),
            parts=tuple(data["parts"]),
            folder=data["folder"],
            name=data["name"],
            to=data["to"],
        )


def kept_set(store: "Store", manifest: Manifest) -> TrainingSet:
    """Return a set that the lake keeps, or whose file it knows.

    Raises:
        InputError: The lake only pins it, and its file is gone.
    """
    sets = KeptSets(store.lake)
    data, elsewhere = sets.path(manifest, "data"), manifest.files.get("to")
    profile = profile_from(sets.profile(manifest))
    if data is None and (elsewhere is None or not elsewhere.endswith(".parquet")):
        raise InputError(
            f"The data of the training set {manifest.name} is not kept in the lake.",
            fix=f"Rebuild it: lockstep rebuild {manifest.name} --out FILE.",
            effect="Nothing was read.",
        )
    return SetInFile(
        manifest,
        profile,
        data or str(elsewhere),
        path=elsewhere or data,
        options=store.lake.place.polars_options if data else None,
    )


def complete(
    store: "Store",
    plan: Plan,
    workspace: Workspace,
    blocks: Iterable[tuple[pl.DataFrame, Joined]],
    told: Progress,
) -> TrainingSet:
    """Write the data, then what says that it is a set."""
    output, profile = _write(plan, workspace, blocks, told)
    manifest = manifest_of(
        plan.pinned,
        plan.spine,
        output,
        warnings=warnings_of(plan.pinned, profile),
        name=plan.name,
    )
    if plan.name is None and plan.to is not None:
        manifest = replace(manifest, name=name_for(plan.to, manifest))
    crash_point("set_written")
    if manifest.name is None:
        return SetInFile(
            manifest,
            profile,
            str(workspace.folder / DATA),
            path=None,
            workspace=workspace,
            future=plan.pinned.future,
        )
    return _keep(store, plan, workspace, manifest, profile)


def _write(
    plan: Plan,
    workspace: Workspace,
    blocks: Iterable[tuple[pl.DataFrame, Joined]],
    told: Progress,
) -> tuple[Contents, dict[str, FeatureProfile]]:
    types, rows, done = plan.pinned.types, plan.spine.rows, 0
    profiler = Profiler(types, rows)
    with SetFile(workspace.writing(DATA), types) as file:
        for spine, joined in blocks:
            told("writing", done, rows)
            file.write(pl.DataFrame([*spine.iter_columns(), *joined.features.iter_columns()]))
            profiler.add(joined)
            done += spine.height
            del spine, joined  # before the next block is read
        if not rows:
            empty = pl.scan_parquet(workspace.reading(SPINE), glob=False).collect()
            file.write(empty.with_columns(pl.lit(None, t).alias(n) for n, t in types.items()))
    workspace.done(DATA)
    columns = {**plan.spine.columns, **file.hashes.columns}
    return Contents(rows, total_hash(rows, columns), columns), profiler.profile()


def _keep(
    store: "Store",
    plan: Plan,
    workspace: Workspace,
    manifest: Manifest,
    profile: Mapping[str, FeatureProfile],
) -> TrainingSet:
    """Keep the set in the lake, then put it into its file: a refused one touches no file."""
    sets = KeptSets(store.lake)
    profile = without_values(profile, identifying(store.views, manifest.features))
    names = sets.file_names(
        data=plan.name is not None, output=manifest.output.hash, spine=manifest.spine.hash
    )
    made = replace(manifest, files={**names, **({"to": plan.to} if plan.to else {})})
    there = sets.find(made.name or "")
    if there is not None:
        require_same_answer(there, made)
    with _staged(plan, workspace.folder / DATA) as put:
        taken = not sets.keep(workspace, made, profile_json(profile))
        if taken:
            there = sets.manifest(made.name or "")
            require_same_answer(there, made)
            made = replace(there, files=made.files)
        crash_point("set_kept")
        try:
            put(made)
        except LockstepError:
            if not taken:
                sets.remove(made.name or "")
            raise
    crash_point("set_beside")
    found = _opened(store, plan, workspace, made, profile)
    record_profile(store, found)
    return found


def _staged(plan: Plan, data: Path) -> AbstractContextManager[Callable[[Manifest], None]]:
    if plan.to is None:
        return nullcontext(lambda _: None)
    moving = plan.name is None and plan.to.endswith(".parquet")
    return exporting(data, Path(plan.to), moving=moving)


def put_kept(store: "Store", plan: Plan, kept: Manifest) -> None:
    """Put a set that the lake keeps into the file that its plan names, unless it is there.

    Raises:
        StoreError: The lake does not answer.
        InputError: The file can't be written.
    """
    if plan.to is None:
        return
    to, made = Path(plan.to), replace(kept, files={**kept.files, "to": plan.to})
    if to.exists() and describes(beside(to), made):
        return
    space = Workspace(store.lake.place, f"{SETS}/{kept.name}")
    with exporting(space.reading(kept.files["data"]), to) as put:
        put(made)


def record_profile(store: "Store", training: TrainingSet) -> None:
    """Record the profile of a kept set as the reference for drift, unless it was."""
    store.lake.record_training_profiles(
        training.name or "",
        training.manifest.created_at,
        {name: found.reference for name, found in training.profile.items()},
    )


def _opened(
    store: "Store",
    plan: Plan,
    workspace: Workspace,
    manifest: Manifest,
    profile: Mapping[str, FeatureProfile],
) -> TrainingSet:
    """Return the set from where it is now, and drop what is no longer needed."""
    kept, future = KeptSets(store.lake).path(manifest, "data"), plan.pinned.future
    if kept is not None:
        workspace.clear()
        path, options = plan.to or kept, store.lake.place.polars_options
        return SetInFile(manifest, profile, kept, path=path, options=options, future=future)
    if plan.to is not None and plan.to.endswith(".parquet"):
        workspace.clear()
        return SetInFile(manifest, profile, plan.to, path=plan.to, future=future)
    # A .csv holds no types: the set is read from the file that it was made of.
    temporary = Workspace(None)
    (workspace.folder / DATA).rename(temporary.folder / DATA)
    workspace.clear()
    data = str(temporary.folder / DATA)
    return SetInFile(
        manifest, profile, data, path=plan.to, workspace=temporary, future=plan.pinned.future
    )
