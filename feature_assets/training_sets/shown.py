"""What the UI shows of a training set: what it is, what it read, what its features look like."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from feature_assets._metadata import MASK, length
from lockstep.catalog import Catalog
from lockstep.picture import bars_svg, data_uri
from lockstep.schema import Feature
from lockstep.time import span
from lockstep.training.leakage import Leakage
from lockstep.training.manifest import Manifest, ViewPin
from lockstep.training.profile import FeatureProfile
from lockstep.training.request import TrainingRequest
from lockstep.training.training_set import TrainingSet
from lockstep.view import split_feature

_PROFILE: Final = ("feature", "null", "no row", "expired", "age", "values")
_TIGHT: Final = "\u00a0"  # no line ends here, where a column is narrow


def set_metadata(
    made: TrainingSet, request: TrainingRequest, catalog: Catalog, leakage: Leakage | None
) -> dict[str, Any]:
    """Return the metadata of one built set: the request, what was read, and how it came out.

    Args:
        leakage: The comparison of the modes, if one was asked for.
    """
    manifest = made.manifest
    asked = manifest.feature_set
    return {
        "rows": manifest.rows,
        "features": len(manifest.features),
        "feature_set": f"{asked['name']}, version {asked['version']}" if asked else "none",
        "mode": manifest.mode,
        "path": dg.MetadataValue.path(str(made.path)),
        "request": dg.MetadataValue.path(request.file),
        **({"description": request.description} if request.description else {}),
        **({"owner": request.owner} if request.owner else {}),
        "warnings": dg.MetadataValue.md(_list(made.warnings) or "None."),
        **({"leakage": shown_leakage(leakage)} if leakage else {}),
        "profile": profile_table(made.profile, catalog),
        "views": _views_table(manifest.views),
        **{f"read:{name}": dg.MetadataValue.asset(dg.AssetKey(name)) for name in manifest.views},
        "manifest": dg.MetadataValue.json(short_manifest(manifest)),
        **_histograms(made.profile, catalog),
    }


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def profile_table(profile: Mapping[str, FeatureProfile], catalog: Catalog) -> dg.TableMetadataValue:
    """Return a row per feature: shares without a value, median age, and what the values are."""
    records = [
        dg.TableRecord(_profile_row(name, found, _feature(name, catalog)))
        for name, found in profile.items()
    ]
    return dg.MetadataValue.table(records, _texts(_PROFILE))


def _profile_row(name: str, found: FeatureProfile, feature: Feature) -> dict[str, str]:
    shares = (found.null_share, found.unmatched_share, found.expired_share)
    age, values = _age(found.age_seconds.get("0.5")), MASK if feature.pii else _values(found)
    shown = [name, *map(_share, shares), age, values]
    return dict(zip(_PROFILE, shown, strict=True))


def _values(found: FeatureProfile) -> str:
    """Return least, mean and largest number, or the most frequent values."""
    ranged = (found.values.minimum, found.values.mean, found.values.maximum)
    known = [_number(value) for value in ranged if value is not None]
    return f"{_TIGHT}… ".join(known) or ", ".join(found.top[:3])


def _texts(names: Sequence[str]) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(name, "string") for name in names])


def _share(share: float) -> str:
    return f"{share:.1%}"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return length(timedelta(minutes=round(seconds / 60))).replace(" ", _TIGHT)


def shown_leakage(leakage: Leakage) -> dg.MetadataValue:
    """Return a row per feature of which cells hold what nobody could know, or that there is none.

    The first columns are what a person looks for: the page cuts wide tables off.
    """
    if not leakage.suspects:
        return dg.MetadataValue.text(f"No cell of {leakage.rows:,} rows: both modes give the same.")
    records = [
        dg.TableRecord(
            {
                "feature": leak.feature,
                "cells": _share(leak.share),
                "mean diff.": _number(leak.mean_difference),
                "max diff.": _number(leak.largest_difference),
                "had none": f"{leak.from_null:,}",
                "changed": f"{leak.changed:,}",
            }
        )
        for leak in leakage.suspects
    ]
    return dg.MetadataValue.table(records, _texts(list(records[0].data)))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _views_table(views: Mapping[str, ViewPin]) -> dg.TableMetadataValue:
    """Return a row per view that was read: its pinned version and the days that were needed."""
    records = [
        dg.TableRecord(
            {
                "view": name,
                "delta_version": "never built" if pin.version is None else pin.version,
                "ttl": "for ever" if pin.ttl is None else length(pin.ttl),
                "days": span(pin.days) or "none",
            }
        )
        for name, pin in views.items()
    ]
    return dg.MetadataValue.table(records)


def short_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest without its lists of days: it says them as spans.

    The whole one, which rebuilds the set, is a file beside the set.
    """
    whole = manifest.to_json()
    for name, pin in manifest.views.items():
        whole["views"][name]["days"] = span(pin.days)
    return whole


def _histograms(
    profile: Mapping[str, FeatureProfile], catalog: Catalog
) -> dict[str, dg.MetadataValue]:
    """Return `view:feature` → a picture, if it has one; none of what identifies people."""
    drawn = {
        name: bars_svg(found.counts, *_ends(found))
        for name, found in profile.items()
        if found.counts and not _feature(name, catalog).pii
    }
    return {
        name: dg.MetadataValue.md(f"![histogram]({data_uri(svg)})") for name, svg in drawn.items()
    }


def _ends(found: FeatureProfile) -> tuple[str, str]:
    """Return what stands below the first and the last bar."""
    if found.edges:
        return f"{found.edges[0]:.4g}", f"{found.edges[-1]:.4g}"
    return found.top[0], found.top[-1] if len(found.top) > 1 else ""


def _feature(name: str, catalog: Catalog) -> Feature:
    view, feature = split_feature(name)
    return catalog.view(view).contract.features[feature]
