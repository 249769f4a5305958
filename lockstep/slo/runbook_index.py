"""The runbook index: which page says what to do about which alert."""

from collections.abc import Sequence
from typing import Final

from lockstep.slo.alerting import MEANINGS
from lockstep.slo.rule_file import Alert, Group

_HEADER: Final = """\
# Runbooks

Written by `lockstep slo export` from the contracts of the feature views: edit those, not this page.
A page wakes somebody; a ticket waits for the morning.
"""


def runbook_index(groups: Sequence[Group], up: str = "") -> str:
    """Return the index as Markdown, a section per runbook page, by name.

    Args:
        up: What stands before a runbook's path so that it leads there from where the index is; not
            used for addresses.
    """
    alerts = [rule for group in groups for rule in group.rules if isinstance(rule, Alert)]
    pages = sorted({alert.labels["runbook"] for alert in alerts})
    return _HEADER + "".join(
        _section(page, [a for a in alerts if a.labels["runbook"] == page], up) for page in pages
    )


def _section(page: str, alerts: Sequence[Alert], up: str) -> str:
    name = page.rpartition("/")[2].removesuffix(".md")
    link = page if "://" in page else f"{up}{page}"
    lines = [f"\n## [{name}]({link})\n"]
    for alert in dict.fromkeys(each.alert for each in alerts):
        lines += [f"\n**{alert}**. {MEANINGS[alert].sentence}\n", "\n"]
        lines += ["| about | who is told | owner |\n", "|---|---|---|\n"]
        told: dict[tuple[str, str], list[str]] = {}
        for each in alerts:
            if each.alert == alert:
                about = each.labels.get("view", "the feature service")
                told.setdefault((about, each.labels["owner"]), []).append(each.labels["severity"])
        lines += [
            f"| {about} | {', '.join(dict.fromkeys(severities))} | {owner} |\n"
            for (about, owner), severities in told.items()
        ]
    return "".join(lines)
