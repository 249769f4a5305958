"""Rows for people: the first ones, with every column that identifies a person masked."""

from typing import Final

import polars as pl

from lockstep.view import FeatureView

MASK: Final = "•••"


def shown(view: FeatureView, frame: pl.DataFrame, rows: int, *, show_pii: bool) -> pl.DataFrame:
    """Return the first rows, PII columns masked where they have a value unless asked for."""
    hidden = {name for name, feature in view.contract.features.items() if feature.pii}
    head = frame.head(rows)
    if show_pii:
        return head
    return head.with_columns(
        pl.when(pl.col(name).is_not_null()).then(pl.lit(MASK)).alias(name)
        for name in head.columns
        if name in hidden
    )
