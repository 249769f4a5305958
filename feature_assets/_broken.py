"""A view file that can't be imported is shown as an asset that says so; the others work."""

import dagster as dg

from lockstep.catalog import Catalog


def broken_assets(catalog: Catalog) -> list[dg.AssetSpec]:
    """Return an unexecutable asset per broken file, and log each."""
    log = dg.get_dagster_logger("lockstep")
    for path, why in catalog.broken.items():
        log.error("%s is broken and its view is left out: %s", path, why)
    return [
        dg.AssetSpec(
            key=path.stem,
            group_name="broken",
            description=f"{path.name} can't be imported, so this view is left out. {why}",
            kinds={"error"},
        )
        for path, why in catalog.broken.items()
    ]
