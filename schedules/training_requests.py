"""The sensor that picks up request files, and the job that builds what they ask for.

Requests of the project's folder, and those that drift has put below the lake.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,
)

from feature_assets.training_sets.asset import KEY, PARTITION_SET, PARTITIONS
from lockstep.errors import LockstepError, StoreError
from lockstep.store import Store
from lockstep.training.request import (
    FOLDER,
    SUFFIX,
    TrainingRequest,
    is_request,
    lake_requests,
    read_lake_request,
    read_request,
    request_files,
)
from lockstep.training.requested_sets import spine_state
from resources.executor import chosen_executor
from resources.store import StoreResource

REQUEST: Final = "lockstep/training_request"
OWNER: Final = "lockstep/owner"

Seen = Mapping[str, tuple[str, int]]
"""Name → hash of what its file asks for, and how many times that has changed."""


@dataclass(frozen=True)
class Files:
    """The request files of a project as they are now.

    Attributes:
        asked: Name → hash of what is asked for and of which spine, for every file that can name a
            partition. Of a file that is wrong it is the hash of what is wrong: its run fails and
            says so in the UI.
        owners: Name → owner, of the requests that have one.
        wrong: What is wrong with which file, a message each.
        waiting: Name → what its request waits for: a spine that is not there yet.
    """

    asked: Mapping[str, str]
    owners: Mapping[str, str]
    wrong: Sequence[str]
    waiting: Mapping[str, str]


def training_job() -> UnresolvedAssetJobDefinition:
    """Return the job that builds one requested set; its configuration names the executor."""
    return dg.define_asset_job(
        "build_training_set",
        selection=dg.AssetSelection.assets(KEY),
        executor_def=chosen_executor,
        description="One requested training set; its parts where the configuration says.",
    )


def training_requests_sensor(job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """Return the sensor that adds a partition per request file and requests its run.

    What is asked for otherwise than before, or of a spine that was rewritten, is built again; a
    file that is gone changes nothing. A request waits for a spine that is not there yet.
    """

    @dg.sensor(
        name="training_requests",
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Builds what the files in {FOLDER}/ ask for, and what drift asks for.",
    )
    def sensor(context: dg.SensorEvaluationContext, lockstep: StoreResource) -> dg.SensorResult:
        files = look(lockstep.open())
        for message in files.wrong:
            context.log.warning(message)
        kept = json.loads(context.cursor or "{}")
        before: Seen = {name: (digest, times) for name, (digest, times) in kept.items()}
        now = counted(before, files.asked)
        changed = [name for name, seen in now.items() if seen != before.get(name)]
        requests = [_run_request(name, now[name], files) for name in changed]
        there = context.instance.get_dynamic_partitions(PARTITION_SET)
        new = sorted((files.asked.keys() | files.waiting.keys()) - {*there})
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[PARTITIONS.build_add_request(new)] if new else [],
            skip_reason=None if requests else _why_none(files),
            cursor=json.dumps(now),
        )

    return sensor


def look(store: Store) -> Files:
    """Read every request file; what is wrong with one keeps no other from being built.

    Raises:
        StoreError: The lake, where a spine is, does not answer; the next look makes up for it.
    """
    asked: dict[str, str] = {}
    owners: dict[str, str] = {}
    wrong: list[str] = []
    waiting: dict[str, str] = {}
    for name, read in _requests(store):
        try:
            request = read()
        except StoreError:
            raise
        except LockstepError as error:
            wrong.append(str(error))
            if name is not None:
                asked[name] = _digest(str(error))
        else:
            state = spine_state(store, request)
            if state is None:
                waiting[request.name] = f"{request.file} waits for its spine {request.spine}."
                continue
            asked[request.name] = _digest(f"{request.content_hash} {state}")
            if request.owner:
                owners[request.name] = request.owner
    return Files(asked, owners, wrong, waiting)


def _requests(store: Store) -> Iterator[tuple[str | None, Callable[[], TrainingRequest]]]:
    """Yield the name of every request, None if the file can't have one, and what reads it."""
    project, place = store.project, store.lake.place
    own = set()
    for file in request_files(project):
        own.add(file.stem)
        yield file.stem if is_request(file) else None, partial(read_request, project, file)
    for name in lake_requests(place):
        if name not in own:
            yield name, partial(read_lake_request, project, place, name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def counted(before: Seen, asked: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return what was seen until now: the files of before, those that are gone too, and the new."""
    now = dict(before)
    for name, digest in asked.items():
        last, times = before.get(name, ("", 0))
        now[name] = (digest, times if digest == last else times + 1)
    return now


def _run_request(name: str, seen: tuple[str, int], files: Files) -> dg.RunRequest:
    digest, times = seen
    owner = {OWNER: files.owners[name]} if name in files.owners else {}
    return dg.RunRequest(
        # Remembered for ever, so that a lost cursor asks for nothing twice; numbered, so that a
        # request which is changed and changed back is built again.
        run_key=f"{name}:{times}:{digest[:16]}",
        partition_key=name,
        tags={REQUEST: f"{FOLDER}/{name}{SUFFIX}", **owner},
    )


def _why_none(files: Files) -> str:
    if files.wrong or files.waiting:
        return " ".join([*files.wrong, *files.waiting.values()])
    if not files.asked:
        return f"There is no request in {FOLDER}/."
    return "Every request was seen; a request that is changed is built again."
