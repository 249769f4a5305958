"""`training-set`: features joined to an analyst's rows, each as it was at the row's time."""

import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lockstep.cli.asked import named_features
from lockstep.cli.console import emit_json, err, note, say
from lockstep.cli.opened import opened
from lockstep.errors import InputError, LockstepWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lockstep.store import Store
    from lockstep.training.leakage import Leakage
    from lockstep.training.manifest import Manifest, Mode
    from lockstep.training.plan import Progress
    from lockstep.training.profile import FeatureProfile
    from lockstep.training.training_set import TrainingSet

_SAID: Final = (
    "--spine",
    "--features",
    "--feature-set",
    "--out",
    "--name",
    "--mode",
    "--timestamp",
    "--time-zone",
    "--memory",
    "--leakage",
)
"""What a request file says itself."""


def training_set(
    *,
    spine: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Keys, a timestamp, labels: .parquet, .csv or Delta."),
    ] = None,
    features: Annotated[
        str | None, typer.Option(metavar="VIEW:FEATURE,…", help="Features, separated by commas.")
    ] = None,
    feature_set: Annotated[str | None, typer.Option(metavar="NAME", help="A feature set.")] = None,
    to: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where the set goes: .parquet or .csv."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep the set in the lake under this name.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(metavar="event|known", help="With corrections (default), or as then known."),
    ] = None,
    timestamp: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Its instants; event_timestamp.")
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Zone of a timestamp without one, or UTC.")
    ] = None,
    leakage: Annotated[
        bool, typer.Option("--leakage", help="Compare with what could be known, per feature.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a report with histograms.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="4GB", help="What the work may take; 60 % of what is free."),
    ] = None,
    request: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="A request file says everything else.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary for scripts.")] = False,
) -> None:
    """Join features to a spine, point in time; every spine row comes back once, in its order."""
    if request is not None:
        others = (spine, features, feature_set, to, name, mode, timestamp, time_zone, memory)
        _requested(request, report, *others, leakage, as_json=as_json)
        return
    wanted = named_features(features, feature_set)
    _require_purpose(spine, wanted, to, name, report, leakage=leakage)
    store, how = opened(), _how(timestamp or "event_timestamp", time_zone, memory)
    with warnings.catch_warnings(), progress_bar() as told:
        warnings.simplefilter("ignore", LockstepWarning)  # told below, among the others
        training = store.training_set(
            spine, wanted, mode=_mode(mode or "event"), name=name, to=to, progress=told, **how
        )
        like = training.manifest if leakage else None
        compared = store.leakage(spine, wanted, like=like, progress=told, **how) if like else None
    tell(store, training, compared, to, report, as_json=as_json)


def _how(timestamp: str, time_zone: str | None, memory: str | None) -> dict[str, Any]:
    from lockstep.training.memory import parse_bytes

    limit = None if memory is None else parse_bytes(memory)
    return {"timestamp": timestamp, "time_zone": time_zone, "memory": limit}


def _requested(file: Path, report: Path | None, *others: object, as_json: bool) -> None:
    from lockstep.cli.requested import build_requested

    build_requested(file, report, dict(zip(_SAID, others, strict=True)), as_json=as_json)


def require_place(report: Path) -> None:
    """Return if a report can be written there, as far as one can tell without writing it.

    Raises:
        InputError: Its folder does not exist, or it is a folder itself.
    """
    if report.is_dir() or not report.absolute().parent.is_dir():
        raise InputError(
            f"The report can't be written to {report}.",
            expected="a file in a folder that exists",
            fix="Create the folder, or choose another place.",
            effect="Nothing was joined.",
        )


def tell(
    store: "Store",
    training: "TrainingSet",
    compared: "Leakage | None",
    to: Path | None,
    report: Path | None,
    *,
    as_json: bool,
) -> None:
    """Tell of a set that was made, and write its report if one is wanted."""
    if report is not None:
        write_report(store, training.manifest, training.profile, report, compared)
    if as_json:
        emit_json({"out": to, **_as_data(training, compared)})
    else:
        _show(store, training, compared, to)
    for sentence in training.warnings:
        note(sentence, "yellow")
    if pii := identifying(store, training.features):
        note(f"The set holds columns that identify people: {', '.join(pii)}.", "yellow")


def _require_purpose(
    spine: str | None,
    wanted: object,
    to: Path | None,
    name: str | None,
    report: Path | None,
    *,
    leakage: bool,
) -> None:
    if spine is None:
        raise InputError("No spine is named.", fix="Say --spine FILE, or --request FILE.")
    if wanted is None:
        raise InputError("No features are named.", fix="Say --features or --feature-set.")
    if to is None and name is None and report is None and not leakage:
        raise InputError(
            "Nothing is to become of the training set.",
            fix="Say --out FILE or --name NAME; --report and --leakage do without.",
            effect="Nothing was joined.",
        )
    if report is not None:
        require_place(report)


def _mode(word: str) -> "Mode":
    if word == "event":
        return "event"
    if word == "known":
        return "known"
    raise InputError(
        f"--mode is {word!r}.", expected="event or known", effect="Nothing was joined."
    )


@contextmanager
def progress_bar() -> "Iterator[Progress]":
    """Yield what a build calls with its progress; a bar on a terminal, nothing elsewhere."""
    from rich.progress import Progress as Bars

    console = err()
    with Bars(console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield told


def write_report(
    store: "Store",
    manifest: "Manifest",
    profile: "Mapping[str, FeatureProfile]",
    path: Path,
    leakage: "Leakage | None" = None,
) -> None:
    """Write the HTML report of a set, columns that identify people without their values.

    Raises:
        InputError: The file can't be written.
    """
    from lockstep.training.report import html_report

    hidden = identifying(store, manifest.features)
    page = html_report(manifest, profile, hidden=hidden, leakage=leakage)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The report can't be written to {path}.",
            got=error.strerror,
            fix="Choose another place.",
            effect="The training set itself is there.",
        ) from error


def _show(
    store: "Store", training: "TrainingSet", leakage: "Leakage | None", to: Path | None
) -> None:
    from lockstep.cli.set_summary import show_leakage, show_profile

    show_profile(training.profile, hidden=identifying(store, training.features))
    if leakage is not None:
        show_leakage(leakage)
    where = to or (f"the lake as {training.name}" if training.name else "no file")
    say(f"{training.rows} rows, as many as the spine has, are in {where}.")
    if training.name is not None:
        say(f"To make it again, bit for bit: lockstep rebuild {training.name}")


def _as_data(training: "TrainingSet", leakage: "Leakage | None") -> dict[str, Any]:
    manifest = training.manifest
    return {
        "name": training.name,
        "path": training.path,
        "rows": training.rows,
        "mode": manifest.mode,
        "hash": manifest.output.hash,
        "null_share": {name: found.null_share for name, found in training.profile.items()},
        "unmatched_share": {
            name: found.unmatched_share for name, found in training.profile.items()
        },
        "expired_share": {name: found.expired_share for name, found in training.profile.items()},
        "code_versions": {view: pin.code_versions for view, pin in manifest.views.items()},
        "warnings": training.warnings,
        "leakage": None if leakage is None else leakage.to_json(),
    }


def identifying(store: "Store", features: tuple[str, ...]) -> list[str]:
    """Return those of the features that identify people; one that is no longer declared may."""
    from lockstep.training.profile import identifying as found

    return found(store.views, features)
