"""A training set's report for people: one HTML page, with nothing from elsewhere in it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from typing import Final

from lockstep.picture import bars_svg
from lockstep.training.leakage import Leakage
from lockstep.training.manifest import Manifest
from lockstep.training.profile import FeatureProfile

_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid #ddd;vertical-align:top}
th{font-weight:600}td.n{text-align:right;font-variant-numeric:tabular-nums}
code{font-size:.85em;overflow-wrap:anywhere}
.warn{background:#fff6dd;border-left:4px solid #e0a800;padding:.4rem .8rem;margin:.4rem 0}
.dim{color:#777}
@media (prefers-color-scheme:dark){body{background:#181818;color:#ddd}td,th{border-color:#444}
.warn{background:#3a3210}}
"""
_HOUR: Final = 3600.0
_MASK: Final = "•••"


def html_report(
    manifest: Manifest,
    profile: Mapping[str, FeatureProfile],
    *,
    hidden: Collection[str] = (),
    leakage: Leakage | None = None,
) -> str:
    """Return the page: what the set was made of, its features with histograms, its warnings.

    Args:
        hidden: Features whose values are not shown, because they identify people.
    """
    title = f"Training set {manifest.name or ''}".strip()
    body = [
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="warn">{escape(sentence)}</p>' for sentence in manifest.warnings),
        "<h2>What it was made of</h2>",
        _table((), _facts(manifest)),
        "<h2>Features</h2>",
        _features(profile, hidden),
        *_leakage(leakage),
        "<h2>What it pins</h2>",
        _table(("view", "version", "table", "code", "days"), _pins(manifest)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(body)
        + "</body></html>\n"
    )


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    asked = manifest.feature_set
    return [
        ("rows", f"{manifest.rows:,}"),
        ("made at", f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("feature set", f"{asked['name']} ({asked['version']})" if asked else "none"),
        ("mode", manifest.mode),
        ("bounds", "event_timestamp ≤ t ≤ event_timestamp + ttl"),
        ("hash of the spine", manifest.spine.hash),
        ("hash of the set", manifest.output.hash),
        ("libraries", ", ".join(f"{n} {v}" for n, v in manifest.libraries.items())),
    ]


def _pins(manifest: Manifest) -> list[tuple[str, ...]]:
    return [
        (
            view,
            "never materialized" if pin.version is None else str(pin.version),
            pin.table_id or "",
            ", ".join(pin.code_versions),
            f"{min(pin.days)} to {max(pin.days)}" if pin.days else "none",
        )
        for view, pin in manifest.views.items()
    ]


def _features(profile: Mapping[str, FeatureProfile], hidden: Collection[str]) -> str:
    head = ("feature", "null", "no row", "expired", "age, median and 99 %", "values", "")
    rows = "".join(_feature(name, found, hidden=name in hidden) for name, found in profile.items())
    return f"<table>{_header(head)}{rows}</table>"


def _feature(name: str, found: FeatureProfile, *, hidden: bool) -> str:
    shares = (found.null_share, found.unmatched_share, found.expired_share)
    ages = [found.age_seconds.get(share) for share in ("0.5", "0.99")]
    age = " · ".join(f"{age / _HOUR:,.1f} h" for age in ages if age is not None)
    # What is drawn is made of escaped text and numbers only.
    drawn = "" if hidden else _picture(found)
    return (
        f"<tr><td><code>{escape(name)}</code></td>"
        + "".join(f'<td class="n">{share:.1%}</td>' for share in shares)
        + f"<td>{escape(age)}</td><td>{escape(_MASK if hidden else _values(found))}</td>"
        + f"<td>{drawn}</td></tr>"
    )


def _picture(found: FeatureProfile) -> str:
    if not any(found.counts):
        return '<span class="dim">nothing to draw</span>'
    if found.top:
        return bars_svg(found.counts, found.top[0], found.top[-1] if len(found.top) > 1 else "")
    return bars_svg(found.counts, f"{found.edges[0]:.4g}", f"{found.edges[-1]:.4g}")


def _values(found: FeatureProfile) -> str:
    if found.top:
        return ", ".join(found.top)
    values = found.values
    said = {
        "min": values.minimum,
        # Of the sample, which meets none of values that are rare enough.
        "median": values.sketch[len(values.sketch) // 2] if values.sketch else None,
        "mean": values.mean,
        "max": values.maximum,
    }
    return ", ".join(f"{word} {value:.4g}" for word, value in said.items() if value is not None)


def _leakage(leakage: Leakage | None) -> Iterable[str]:
    if leakage is None:
        return
    yield "<h2>By event time against what could be known</h2>"
    if not leakage.suspects:
        yield "<p>No cell holds what was not known at its time.</p>"
    else:
        yield (
            "<ol>"
            + "".join(f"<li>{escape(leak.sentence)}</li>" for leak in leakage.suspects)
            + "</ol>"
        )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{_header(head) if head else ''}{lines}</table>"


def _header(head: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>"
