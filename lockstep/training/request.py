"""A request file, `training_requests/<name>.yaml`: the training set that an analyst asks for.

    spine: lake:spines/churn.parquet            below the lake; or a path in the project's folder
    feature_set: churn_v1                       or features: [txn_7d:sum_amt_7d, …]
    mode: event                                 or known
    timestamp: event_timestamp                  the spine's instant column
    time_zone: America/New_York                 of a timestamp without zone
    memory: 4 GB                                what the build may use
    parts: 16                                   into at least so many, for a cluster
    leakage: true                               compare both modes as well
    owner: team:growth
    description: Who stops buying, asked in November.

Drift writes such files too, into `training_requests/` below the lake, as a checkout may be read
only; one of the same name in the project's folder wins.

Only `spine` and one of `feature_set` and `features` are needed. A platform reads these files with
its own rights, so a spine may only be what belongs to the project: a file of its folder (nothing
hidden) or below its lake (nothing in quarantine). Python and `--spine` take any path.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml

from lockstep.errors import InputError, first_line
from lockstep.project import Project
from lockstep.schema import NAME
from lockstep.stores.files import Place
from lockstep.time import zone_named
from lockstep.training.manifest import MODES, Mode
from lockstep.training.memory import parse_bytes

FOLDER: Final = "training_requests"
SUFFIX: Final = ".yaml"
LAKE: Final = "lake:"
"""How a spine begins that is named from the lake's root, wherever that is."""

_LARGEST: Final = 100_000  # bytes: a request is a page, and its text goes into error messages
_MOST_PARTS: Final = 10_000
_OFF_LIMITS: Final = frozenset({"quarantine"})
_NOTHING: Final = "Nothing was joined."


@dataclass(frozen=True)
class TrainingRequest:
    """What one file asks for.

    Attributes:
        name: The file's name without its end: the set's name in the lake, and its partition.
        file: The file, relative to the project's folder.
        spine: Where the spine is: an absolute path, or an address below the lake.
        wanted: The name of a feature set, or a list of `view:feature`.
        memory: Bytes that the build may use; None leaves it to what is free.
        parts: Into how many parts the spine is split at least; None leaves it to the memory.
        leakage: Whether the two modes are to be compared.
        content_hash: Hash of what is asked for; a comment or the order of keys changes nothing.
    """

    name: str
    file: str
    spine: str
    wanted: str | list[str]
    mode: Mode
    timestamp: str
    time_zone: str | None
    memory: int | None
    parts: int | None
    leakage: bool
    owner: str | None
    description: str | None
    content_hash: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What `Store.training_set` and `Store.leakage` take besides spine and features."""
        return {"timestamp": self.timestamp, "time_zone": self.time_zone}


def request_files(project: Project) -> list[Path]:
    """Return every request file of the project, by name; hidden files are none.

    Also `.yml`: `read_request` says how to name it, and nobody waits for a file that nothing reads.
    """
    folder = project.folder / FOLDER
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [f for f in found if f.suffix in (SUFFIX, ".yml") and not f.name.startswith(".")]


def is_request(file: Path) -> bool:
    """Whether the file's name is the name of a request, whatever is in the file."""
    return file.suffix == SUFFIX and NAME.match(file.stem) is not None


def lake_requests(place: Place) -> list[str]:
    """Return the names of the requests below the lake, in order.

    Raises:
        StoreError: The lake does not answer.
    """
    files = (info.path.rpartition("/")[2] for info in place.list(FOLDER))
    names = (file.removesuffix(SUFFIX) for file in files if file.endswith(SUFFIX))
    return sorted(name for name in names if NAME.match(name))


def read_lake_request(project: Project, place: Place, name: str) -> TrainingRequest:
    """Read and check a request below the lake.

    Raises:
        InputError: It is not readable, or something in it is wrong; all problems at once.
        ConfigError: Its time zone is not known.
        StoreError: It is gone, or the lake does not answer.
    """
    shown = f"{LAKE}{FOLDER}/{name}{SUFFIX}"
    data = place.read(f"{FOLDER}/{name}{SUFFIX}")
    return _parsed(project, shown, name, _decoded(shown, data))


def requested(project: Project, name: str, place: Place | None = None) -> TrainingRequest:
    """Read the request of that name.

    Args:
        place: The lake, if what drift asked for counts too.

    Raises:
        InputError: There is no such file, or it is wrong.
        ConfigError: Its time zone is not known.
        StoreError: The lake does not answer.
    """
    files = {file.stem: file for file in request_files(project) if file.suffix == SUFFIX}
    if name not in files and place is not None and name in lake_requests(place):
        return read_lake_request(project, place, name)
    if name not in files:
        near = get_close_matches(name, files, n=1)
        raise InputError(
            f"There is no training request named {name!r}.",
            expected=f"a file {FOLDER}/{name}{SUFFIX} in the project's folder",
            fix=f"Did you mean {near[0]!r}?" if near else "Write the file.",
            effect=_NOTHING,
        )
    return read_request(project, files[name])


def read_request(project: Project, file: Path) -> TrainingRequest:
    """Read and check a request file.

    Raises:
        InputError: It is not readable, or something in it is wrong; all problems at once.
        ConfigError: Its time zone is not known.
    """
    shown = _shown(project, file)
    if not is_request(file):
        raise InputError(
            f"{file.name!r} can't name a training request.",
            expected=f"lower-case letters, digits and underscores, a letter first, then {SUFFIX}",
            fix="Rename the file: its name is the name of the training set.",
            effect=_NOTHING,
        )
    return _parsed(project, shown, file.stem, _text(shown, file))


def _parsed(project: Project, shown: str, name: str, text: str) -> TrainingRequest:
    given = _mapping(shown, text)
    problems = [*_unknown(given), *_missing(given), *_wrong(given)]
    if problems:
        raise InputError(
            f"{shown} is wrong: {' '.join(problems)}", fix="Correct the file.", effect=_NOTHING
        )
    zone = given.get("time_zone")
    if zone is not None:
        zone_named(zone)
    return TrainingRequest(
        name=name,
        file=shown,
        spine=_spine(project, shown, given["spine"]),
        wanted=given.get("feature_set") or given["features"],
        mode=given.get("mode", "event"),
        timestamp=given.get("timestamp", "event_timestamp"),
        time_zone=zone,
        memory=memory_of(given["memory"]) if given.get("memory") is not None else None,
        parts=given.get("parts"),
        leakage=given.get("leakage", False),
        owner=given.get("owner"),
        description=given.get("description"),
        content_hash=_hash(json.dumps(given, sort_keys=True)),
    )


def memory_of(value: Any) -> int | None:
    """Return bytes: a number of them, or text like `4GB`; None for anything else."""
    try:
        found = parse_bytes(value) if isinstance(value, str) else value
    except InputError:
        return None
    positive = isinstance(found, int) and not isinstance(found, bool) and found > 0
    return found if positive else None


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST_PARTS


def _shown(project: Project, file: Path) -> str:
    """Return the file as people know it: without the folder of whoever's machine it is."""
    inside = file.is_relative_to(project.folder)
    return (file.relative_to(project.folder) if inside else file).as_posix()


def _text(shown: str, file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(_LARGEST + 1)
    except OSError as error:
        raise _unreadable(shown, error.strerror or type(error).__name__) from error
    return _decoded(shown, data)


def _decoded(shown: str, data: bytes) -> str:
    if len(data) > _LARGEST:
        raise _unreadable(shown, f"more than {_LARGEST:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _unreadable(shown, "a file that is not UTF-8") from error


def _unreadable(shown: str, why: str) -> InputError:
    return InputError(
        f"{shown} can't be read.", expected="a YAML file of a page", got=why, effect=_NOTHING
    )


def _mapping(shown: str, text: str) -> dict[str, Any]:
    """Parse the file; a key that stands twice is refused, as the first would be lost silently."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        given = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        why = f"{error.problem}{line}"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = first_line(error)
    else:
        if isinstance(given, dict) and all(isinstance(key, str) for key in given):
            keys = [key.value for key, _ in root.value]
            twice = sorted({key for key in keys if keys.count(key) > 1})
            if not twice:
                return given
            why = f"{', '.join(twice)} twice"
        else:
            why = "nothing" if given is None else f"no keys but {type(given).__name__}"
    raise InputError(
        f"{shown} is no request.",
        expected="YAML of the form `key: value`",
        got=why,
        effect=_NOTHING,
    )


def _text_check(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "text"


def _feature_list(value: Any) -> str | None:
    listed = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
    return None if listed else "a list like [txn_7d:sum_amt_7d, txn_30d:sum_amt_30d]"


_KEYS: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "spine": _text_check,
    "features": _feature_list,
    "feature_set": _text_check,
    "mode": lambda value: None if value in MODES else " or ".join(MODES),
    "timestamp": _text_check,
    "time_zone": _text_check,
    "memory": lambda value: None if memory_of(value) else "bytes, or text like 4 GB",
    "parts": lambda value: None if _count(value) else f"a number from 1 to {_MOST_PARTS}",
    "leakage": lambda value: None if isinstance(value, bool) else "true or false",
    "owner": _text_check,
    "description": _text_check,
}
"""Key → what is wrong with its value: what was expected instead, or None."""


def _unknown(given: Mapping[str, Any]) -> list[str]:
    found = []
    for key in sorted(given.keys() - _KEYS.keys()):
        near = get_close_matches(key, _KEYS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_KEYS)}."
        found.append(f"There is no key {key!r}; {hint}")
    return found


def _missing(given: Mapping[str, Any]) -> list[str]:
    found = [] if "spine" in given else ["'spine' is missing."]
    if ("features" in given) == ("feature_set" in given):
        found.append("Exactly one of 'features' and 'feature_set' is needed.")
    return found


def _wrong(given: Mapping[str, Any]) -> list[str]:
    return [
        f"{key!r} is {given[key]!r}, expected {expected}."
        for key, check in _KEYS.items()
        if key in given and (expected := check(given[key]))
    ]


def _spine(project: Project, shown: str, asked: str) -> str:
    """Return where the spine is; links are followed before it is judged.

    Raises:
        InputError: It is outside of the project's folder and of the lake, hidden or in quarantine.
    """
    remote = "://" in project.root
    if asked.startswith(LAKE):
        asked = f"{project.root}/{asked.removeprefix(LAKE)}"
    if "://" in asked:
        below = _below(asked, project.root) if remote else None
        if below is not None and not _OFF_LIMITS & {*below} and ".." not in below:
            return asked
        raise _outside(shown, asked)
    path = (project.folder / asked).resolve()
    lake = None if remote else Path(project.root).resolve()
    folder = project.folder.resolve()
    if lake is not None and path.is_relative_to(lake):
        allowed = not _OFF_LIMITS & {*path.relative_to(lake).parts}
    else:
        allowed = path.is_relative_to(folder) and not any(
            part.startswith(".") for part in path.relative_to(folder).parts
        )
    if not allowed:
        raise _outside(shown, asked)
    return str(path)


def _below(asked: str, root: str) -> list[str] | None:
    """Return the parts of an address below the lake's root; None if it is not below it."""
    start = f"{root}/"
    return asked.removeprefix(start).split("/") if asked.startswith(start) else None


def _outside(shown: str, asked: str) -> InputError:
    return InputError(
        f"The spine {asked!r} of {shown} does not belong to the project.",
        expected="a path in the project's folder that is not hidden, or one below the lake, not in "
        "its quarantine",
        fix="Copy it there, or build the set yourself: lockstep training-set --spine FILE.",
        effect=_NOTHING,
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
