"""`rebuild`: a training set anew from its manifest, or the reason why that is not possible."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.cli.console import emit_json, say
from lockstep.cli.opened import opened
from lockstep.cli.training import progress_bar

if TYPE_CHECKING:
    from lockstep.store import Store
    from lockstep.training.manifest import Manifest


def rebuild(
    manifest: Annotated[
        str, typer.Argument(metavar="MANIFEST", help="A manifest, a written set, or a kept name.")
    ],
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare only, which also happens without it.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the set: .parquet or .csv.")
    ] = None,
    spine: Annotated[
        str | None, typer.Option(metavar="FILE", help="The spine, if the lake does not keep it.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="4GB", help="What the work may take; 60 % of what is free."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary for scripts.")] = False,
) -> None:
    """Make a training set again from the versions that it pins, and compare every bit of it.

    It ends with status 2 and the reason if a version is gone, or a column's hash differs.
    """
    from lockstep.errors import InputError
    from lockstep.training.memory import parse_bytes
    from lockstep.training.reproduce import rebuild_set

    if verify and to is not None:
        raise InputError(
            "--verify writes nothing.", fix="Leave out --verify or --out: both compare."
        )
    limit = None if memory is None else parse_bytes(memory)
    store = opened()
    found = _manifest(store, manifest)
    with progress_bar() as told:
        done = rebuild_set(store, found, spine=spine, out=to, memory=limit, progress=told)
    if as_json:
        emit_json(
            {
                "name": found.name,
                "rows": found.rows,
                "hash": found.output.hash,
                "equal": True,
                "kept_data_checked": done.data_checked,
                "out": to,
            }
        )
        return
    also = " So is the data that the lake keeps." if done.data_checked else ""
    say(f"{found.rows} rows, bit for bit those of the manifest: {found.output.hash}.{also}")
    if to is not None:
        say(f"The set is in {to}, its manifest beside it.")


def _manifest(store: "Store", given: str) -> "Manifest":
    from lockstep.erasure.files import require_not_voided
    from lockstep.training.kept_sets import KeptSets
    from lockstep.training.manifest import read_manifest

    kept = KeptSets(store.lake).find(given)
    require_not_voided(store.lake, given, {} if kept is None else kept.to_json())
    return kept if kept is not None else read_manifest(Path(given))
