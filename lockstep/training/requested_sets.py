"""From a request to its set, in steps that other processes may do; and what its sets are called.

    planned = plan_request(store, request)
    for part in range(len(planned.plan.parts)):      # anywhere, with find_planned(store, folder)
        join_part(store, planned.plan, part)
    training = finish_request(store, planned)

A kept set is never replaced, as models refer to it: a request that was changed, or whose days were
corrected since, gives `churn__2` beside `churn`. What comes out as it was is not kept twice.
"""

import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lockstep.errors import InputError, LockstepError, LockstepWarning, StoreError
from lockstep.stores.delta_log import LOG
from lockstep.stores.files import FileInfo, open_place
from lockstep.training.keep import Plan, Progress, kept_set
from lockstep.training.kept_sets import KeptSets, question
from lockstep.training.leakage import Leakage
from lockstep.training.manifest import Manifest
from lockstep.training.plan import finish
from lockstep.training.request import TrainingRequest

if TYPE_CHECKING:
    from lockstep.store import Store
    from lockstep.training.training_set import TrainingSet

_PLANNED: Final = "planned.json"
_LONGEST: Final = 63


@dataclass(frozen=True)
class Planned:
    """A request whose spine is split and whose versions are pinned, in the lake."""

    request: TrainingRequest
    plan: Plan

    @property
    def folder(self) -> str:
        """The work folder, relative to the lake: what another process finds it by."""
        return self.plan.folder


def plan_request(store: "Store", request: TrainingRequest, workers: int = 1) -> Planned:
    """Plan the next set of a request, so that others join its parts.

    Args:
        workers: How many processes of this machine join parts at a time; they share the memory.

    Raises:
        LockstepError: As `Store.training_set`.
    """
    with _told_in_manifest():
        plan = store.plan_training_set(
            request.spine,
            request.wanted,
            **request.arguments,
            mode=request.mode,
            name=free_name(store, request.name),
            memory=request.memory,
            workers=workers,
            parts=max(workers, request.parts or 1),
        )
    planned = Planned(request, plan)
    content = {"request": asdict(request), "plan": plan.to_json()}
    store.lake.place.write(f"{plan.folder}/{_PLANNED}", json.dumps(content).encode())
    return planned


def find_planned(store: "Store", folder: str) -> Planned:
    """Return what was planned in a work folder of the lake.

    Raises:
        StoreError: It is gone.
    """
    content = store.lake.place.read_if_exists(f"{folder}/{_PLANNED}")
    if content is None:
        raise StoreError(
            f"The plan in {folder} is gone.",
            fix="Start the build again; `lockstep gc` removes what an older one left.",
            effect="No set was made.",
        )
    data = json.loads(content)
    return Planned(TrainingRequest(**data["request"]), Plan.from_json(data["plan"]))


def finish_request(store: "Store", planned: Planned) -> "TrainingSet":
    """Return the set of a request whose parts are joined.

    If another run took the planned name meanwhile, the set is kept under the next one.

    Raises:
        LockstepError: As `lockstep.training.plan.finish`.
    """
    request = planned.request.name
    while True:
        plan = replace(planned.plan, name=_name_for(store, planned))
        try:
            return settled(store, request, finish(store, plan))
        except InputError:
            if plan.name == _name_for(store, planned):
                raise


def _name_for(store: "Store", planned: Planned) -> str:
    """Return the name of the set that was made of this very plan, or else the next free one."""
    of = planned.plan.pinned
    made = (of.created_at, planned.plan.spine.hash, question(of))
    for kept in _kept(KeptSets(store.lake), planned.request.name):
        if kept.name is not None and (kept.created_at, kept.spine.hash, question(kept)) == made:
            return kept.name
    return free_name(store, planned.request.name)


def build_request(
    store: "Store", request: TrainingRequest, progress: Progress | None = None
) -> "TrainingSet":
    """Return the set of a request, built in this process.

    Raises:
        LockstepError: As `Store.training_set`.
    """
    while True:
        name = free_name(store, request.name)
        try:
            with _told_in_manifest():
                made = store.training_set(
                    request.spine,
                    request.wanted,
                    **request.arguments,
                    mode=request.mode,
                    name=name,
                    memory=request.memory,
                    progress=progress,
                )
        except InputError:
            if name == free_name(store, request.name):
                raise  # it is not that another run took the name
        else:
            return settled(store, request.name, made)


def compare_request(
    store: "Store", request: TrainingRequest, like: Manifest, progress: Progress | None = None
) -> Leakage | None:
    """Return the comparison of the modes, if the request wants it, within the memory that it names.

    Both modes read the versions that the request's set pins, `like`.

    Raises:
        LockstepError: As `Store.leakage`.
    """
    if not request.leakage:
        return None
    return store.leakage(
        request.spine,
        request.wanted,
        **request.arguments,
        like=like,
        memory=request.memory,
        progress=progress,
    )


def spine_state(store: "Store", request: TrainingRequest) -> str | None:
    """Return words that are others once the spine was rewritten; None if it is not there.

    A file's are its size and when it was written (on S3 its etag); a Delta table's those of its
    log.

    Raises:
        StoreError: The lake does not answer.
    """
    remote = "://" in request.spine
    if not remote and Path(request.spine).is_file():
        status = Path(request.spine).stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    if not remote:
        files = open_place(request.spine).list(LOG)
    else:
        below = request.spine.removeprefix(f"{store.project.root}/")
        folder, _, _ = below.rpartition("/")
        if store.lake.place.exists(below):
            files = [info for info in store.lake.place.list(folder) if info.path == below]
        else:
            files = store.lake.place.list(f"{below}/{LOG}")
    return " ".join(map(_state, files)) or None


def _state(info: FileInfo) -> str:
    return f"{info.path} {info.size} {info.etag or info.modified_ns}"


def free_name(store: "Store", request: str) -> str:
    """Return the name under which the lake can keep the next set of a request."""
    sets = KeptSets(store.lake)
    return next(name for name in _names(request) if not sets.exists(name))


def settled(store: "Store", request: str, made: "TrainingSet") -> "TrainingSet":
    """Return what was made for a request, or the older set that is equal to it.

    Sets are equal if spine, features, mode and values are; the one just made is removed then.
    """
    for before in _kept(KeptSets(store.lake), request):
        if before.name != made.name and _content(before) == _content(made.manifest):
            KeptSets(store.lake).remove(made.name or "")
            return kept_set(store, before)
    return made


def _kept(sets: KeptSets, request: str) -> Iterator[Manifest]:
    for name in _names(request):
        try:
            found = sets.find(name)
        except LockstepError:  # one that is damaged keeps no request from being built
            continue
        if found is None:
            return
        yield found


def _names(request: str) -> Iterator[str]:
    yield request
    for number in count(2):
        end = f"__{number}"
        yield f"{request[: _LONGEST - len(end)]}{end}"


def _content(of: Manifest) -> tuple[Any, ...]:
    return of.spine.hash, of.output.hash, *question(of)


def _told_in_manifest() -> Any:
    """Keep warnings to the manifest, where everybody who reads the set finds them."""
    return warnings.catch_warnings(action="ignore", category=LockstepWarning)
