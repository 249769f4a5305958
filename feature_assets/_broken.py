"""A view file that can't be imported is shown as an asset that says so; the others work."""

from pathlib import Path

import dagster as dg

from lockstep.catalog import Catalog


def broken_assets(catalog: Catalog) -> list[dg.AssetSpec]:
    """Return an unexecutable asset per broken file, and log each."""
    log = dg.get_dagster_logger("lockstep")
    for path, why in catalog.broken.items():
        log.error("%s is broken and what it declares is left out: %s", path, why)
    return [
        dg.AssetSpec(
            key=_key(path, catalog),
            group_name="broken",
            description=f"`{path.name}` can't be imported, so what it declares is left out. {why}",
            kinds={"error"},
        )
        for path, why in catalog.broken.items()
    ]


def _key(path: Path, catalog: Catalog) -> dg.AssetKey:
    """Return the file's name as a key, unless a view of that name works in spite of it."""
    views = {f"{name}{end}" for name in catalog.views for end in ("", "_online")}
    taken = {*catalog.sources, *catalog.snapshots, *views}
    return dg.AssetKey([path.name] if path.stem in taken else [path.stem])
