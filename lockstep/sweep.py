"""Frees memory online that no key expiry frees: dead rows beside living ones, and removed views."""

from lockstep.catalog import Catalog
from lockstep.errors import ConfigError
from lockstep.layout import Swept
from lockstep.push_rows import keep_ms
from lockstep.stores.redis import OnlineStore


def sweep(online: OnlineStore, catalog: Catalog) -> Swept:
    """Remove rows past their ttl and grace, and fields of views that are not declared any more.

    Raises:
        ConfigError: A view file is broken: its view would look as if it had been removed.
        OnlineError: The online store does not answer.
    """
    if catalog.broken:
        files = ", ".join(str(path) for path in catalog.broken)
        raise ConfigError(
            f"What is declared is not known: {files} cannot be imported.",
            fix="Repair the file first.",
            effect="Nothing was removed.",
        )
    declared: dict[str, dict[str, int]] = {name: {} for name in catalog.entities}
    for view in catalog.views.values():
        declared.setdefault(view.contract.entity.name, {})[view.name] = keep_ms(view)
    swept = online.sweep(declared)
    for kind in ("facts", "unready"):
        for view_name in online.notes(kind).keys() - catalog.views.keys():
            online.note(kind, view_name, None)
    return swept
