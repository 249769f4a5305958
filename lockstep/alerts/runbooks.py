"""The index of the runbooks, made of the pages themselves."""

from pathlib import Path
from typing import Final

from lockstep.alerts.problem import KINDS, SEVERITIES
from lockstep.errors import ConfigError

INDEX: Final = "README.md"
_TOP: Final = """\
# Runbooks

One page per alert: what it means, what is still served, how to look, how to mend it, and how it
resolves. Every alert links to its page. Those without a severity here are alerts of Prometheus,
whose rules say it. Made by `lockstep.alerts.runbooks`; edit the pages.

| alert | severity | means |
|---|---|---|
"""


def index(folder: Path) -> str:
    """Return the index of the pages in a folder: the kinds of alerts first, then all others.

    Raises:
        ConfigError: A kind of alert has no page, or a page no title.
    """
    pages = {page.stem: page for page in sorted(folder.glob("*.md")) if page.name != INDEX}
    if missing := [kind for kind in KINDS if kind not in pages]:
        raise ConfigError(
            f"{folder} has no page for {', '.join(missing)}.",
            fix="Write it: every alert links to its page.",
            effect="Nothing was written.",
        )
    known = {str(kind): str(SEVERITIES[kind]) for kind in KINDS}
    order = [*known, *(name for name in pages if name not in known)]
    rows = [
        f"| [{name}]({name}.md) | {known.get(name, '')} | {_title(pages[name])} |" for name in order
    ]
    return _TOP + "\n".join(rows) + "\n"


def _title(page: Path) -> str:
    first = page.read_text(encoding="utf-8").partition("\n")[0]
    if not first.startswith("# "):
        raise ConfigError(f"{page} has no title.", fix="Begin it with a line `# Title`.")
    return first.removeprefix("# ")
