"""A Delta table that somebody else wrote, as one frame."""

from typing import Final

import polars as pl

from lockstep.errors import StoreError
from lockstep.stores.files import Place
from lockstep.stores.scan import scan_files
from lockstep.stores.tables import open_table

_PLAIN_FEATURES: Final = frozenset({"timestampNtz"})
_FIRST_WITH_FEATURES: Final = 3


def scan_table(place: Place) -> pl.LazyFrame | None:
    """Return the newest rows of a Delta table, files by path; None if there is no table.

    Raises:
        StoreError: It is damaged, or uses what only its writer's engine reads (deletion vectors,
            renamed columns).
    """
    handle = open_table(place)
    if handle is None:
        return None
    protocol = handle.protocol()
    features = set(protocol.reader_features or ())
    plain = protocol.min_reader_version in {1, _FIRST_WITH_FEATURES}
    if not plain or features - _PLAIN_FEATURES:
        raise StoreError(
            f"The Delta table {place.uri} can't be read as plain files.",
            expected="no reader features",
            got=f"reader version {protocol.min_reader_version}, {sorted(features)}",
            fix="Write its rows to a Parquet file and name that.",
        )
    schema = pl.Schema(handle.schema())
    partition = {name: schema[name] for name in handle.metadata().partition_columns}
    paths = sorted(pl.DataFrame(handle.get_add_actions(flatten=True))["path"].to_list())
    return scan_files(place, paths, schema, partition)
