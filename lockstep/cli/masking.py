"""Rows for people: the first ones, with every column that may identify a person masked."""

from typing import Final

import polars as pl

from lockstep.view import FeatureView

MASK: Final = "•••"


def shown(view: FeatureView, frame: pl.DataFrame, rows: int, *, show_pii: bool) -> pl.DataFrame:
    """Return the first rows, values that may identify people masked unless they are asked for.

    Those of a column that the contract no longer names are masked, too (it was renamed or removed
    since the frame was written): nobody says any more whether it identifies people.
    """
    contract = view.contract
    plain = {name for name in contract.columns if name not in contract.features}
    plain |= {name for name, feature in contract.features.items() if not feature.pii}
    head = frame.head(rows)
    if show_pii:
        return head
    return head.with_columns(
        pl.when(pl.col(name).is_not_null()).then(pl.lit(MASK)).alias(name)
        for name in head.columns
        if name not in plain
    )
