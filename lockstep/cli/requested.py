"""`training-set --request`: what a request file asks for, built here as Dagster would build it."""

from pathlib import Path
from typing import Any

from lockstep.cli.opened import opened
from lockstep.cli.training import progress_bar, require_place, tell
from lockstep.errors import InputError


def build_requested(
    file: Path, report: Path | None, others: dict[str, Any], *, as_json: bool
) -> None:
    """Build the set of a request file and tell of it; the lake keeps it.

    Args:
        report: Where the HTML report goes, if one is wanted.
        others: Options that say what the file says → their values.

    Raises:
        LockstepError: As `lockstep.training.request.read_request` and `Store.training_set`.
    """
    from lockstep.training.request import read_request
    from lockstep.training.requested_sets import build_request, compare_request

    if given := [option for option, value in others.items() if value not in (None, False)]:
        raise InputError(
            f"Both --request and {given[0]} are given.",
            fix="Leave one out: the file says everything.",
            effect="Nothing was joined.",
        )
    if report is not None:
        require_place(report)
    store = opened()
    request = read_request(store.project, file.absolute())
    with progress_bar() as told:
        training = build_request(store, request, told)
        compared = compare_request(store, request, training.manifest, told)
    tell(store, training, compared, None, report, as_json=as_json)
