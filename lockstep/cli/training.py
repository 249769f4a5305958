"""`training-set`: features joined to an analyst's rows, each as it was at the row's time."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep.cli.asked import named_features
from lockstep.cli.console import emit_json, note, out, say, table
from lockstep.cli.opened import opened
from lockstep.errors import InputError, LockstepWarning

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from lockstep.store import Store


def training_set(
    *,
    spine: Annotated[
        Path, typer.Option(metavar="FILE", help="Keys, a timestamp, labels: .parquet or .csv.")
    ],
    to: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where the set goes: .parquet or .csv.")
    ],
    features: Annotated[
        str | None, typer.Option(metavar="VIEW:FEATURE,…", help="Features, separated by commas.")
    ] = None,
    feature_set: Annotated[str | None, typer.Option(metavar="NAME", help="A feature set.")] = None,
    timestamp: Annotated[
        str, typer.Option(metavar="COLUMN", help="The spine's instant column.")
    ] = "event_timestamp",
    time_zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Zone of a timestamp without one, or UTC.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary for scripts.")] = False,
) -> None:
    """Join features to a spine, point in time; every spine row comes back once, in its order."""
    wanted = named_features(features, feature_set)
    if wanted is None:
        raise InputError("No features are named.", fix="Say --features or --feature-set.")
    _require_kind(to)
    store = opened()
    rows = _read(spine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LockstepWarning)  # told below, in the summary
        joined = store.training_set(rows, wanted, timestamp=timestamp, time_zone=time_zone)
    _write(joined, to)
    shares = {
        f"{view}:{name}": joined[f"{view}:{name}"].null_count() / joined.height
        if joined.height
        else 0.0
        for view, names in store.catalog.features(wanted).items()
        for name in names
    }
    versions = _versions(store, wanted)
    if as_json:
        emit_json(
            {"out": to, "rows": joined.height, "null_share": shares, "code_versions": versions}
        )
    else:
        out().print(
            table(("feature", "null"), [(n, f"{share:.1%}") for n, share in shares.items()])
        )
        say(f"{joined.height} rows, as many as the spine has, are in {to}.")
    _warn(store, wanted, versions)


def _versions(store: "Store", wanted: Any) -> dict[str, dict[str, str]]:
    """Return view → version of its code → the days it produced, as text."""
    from lockstep.status import code_versions
    from lockstep.time import span

    found = {}
    for name in store.catalog.features(wanted):
        records = store.committed(store.catalog.view(name))
        days = code_versions(records, store.lake.latest_entries(name))
        found[name] = {version: span(produced) for version, produced in days.items()}
    return found


def _warn(store: "Store", wanted: Any, versions: "Mapping[str, Mapping[str, str]]") -> None:
    for view, days in versions.items():
        if not days:
            note(f"{view} was never materialized: its features are null everywhere.", "yellow")
        if len(days) > 1:
            mixed = "; ".join(f"{version}: {produced}" for version, produced in days.items())
            note(
                f"The days of {view} mix versions of its code ({mixed}). To make them one: "
                f"lockstep materialize {view} --days …",
                "yellow",
            )
    pii = [
        f"{view}:{name}"
        for view, names in store.catalog.features(wanted).items()
        for name in names
        if store.catalog.view(view).contract.features[name].pii
    ]
    if pii:
        note(f"The set holds columns that identify people: {', '.join(pii)}.", "yellow")


def _read(path: Path) -> "pl.DataFrame":
    """Read a spine.

    Raises:
        InputError: The file is not there, not readable, or of another kind.
    """
    import polars as pl

    _require_kind(path)
    try:
        if path.suffix == ".csv":
            return pl.read_csv(path, try_parse_dates=True)
        return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"The spine {path} can't be read.",
            got=(str(error).splitlines() or [type(error).__name__])[0],
            effect="Nothing was joined.",
        ) from error


def _write(frame: "pl.DataFrame", path: Path) -> None:
    """Write the set whole or not at all.

    Raises:
        InputError: The folder does not exist, or CSV can't hold a column.
    """
    import polars as pl

    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.suffix == ".csv":
            frame.write_csv(partial)
        else:
            frame.write_parquet(partial)
        partial.replace(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"The training set can't be written to {path}.",
            got=(str(error).splitlines() or [type(error).__name__])[0],
            fix="Choose another place; lists and structs need .parquet.",
            effect="Nothing was written.",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _require_kind(path: Path) -> None:
    if path.suffix not in (".parquet", ".csv"):
        raise InputError(f"{path} is of no known kind.", expected="a .parquet or .csv file")
