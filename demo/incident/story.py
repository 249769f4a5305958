"""The story as it is told in a terminal, or in a plain file."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.panel import Panel
from rich.table import Table

from demo.incident.incident import Entity, Incident
from demo.incident.play import Played, length
from lockstep.cli.console import out, say, table, text
from lockstep.cli.why import show
from lockstep.why.answer import Explanation

_INDENT: Final = "  "


class Story:
    """Tells every step when it happens."""

    def begins(self, incident: Incident) -> None:
        """Print the headline and what is broken."""
        console = out()
        console.print()
        console.rule(text(incident.title, "bold"), align="left", style="cyan")
        self.says("Broken", incident.broken)

    def says(self, label: str, sentence: str) -> None:
        """Print one step."""
        line = text(f"{label}: ", "bold cyan").append_text(text(sentence))
        out().print(line, soft_wrap=True)

    def explains(self, found: Explanation, entity: Entity) -> None:
        """Print the question and the answer as the command does."""
        keys = " ".join(f"{key}={value}" for key, value in entity.items())
        console = out()
        console.print(text(f"$ lockstep why {keys} {found.facts.name}", "bold"), soft_wrap=True)
        show(found, hidden=found.facts.pii)


class Silence:
    """Tells nothing, for those who want the results only."""

    def begins(self, incident: Incident) -> None:
        """Say nothing."""

    def says(self, label: str, sentence: str) -> None:
        """Say nothing."""

    def explains(self, found: Explanation, entity: Entity) -> None:
        """Say nothing."""


def summary(played: Sequence[Played]) -> Table:
    """Return the table of everything that was played."""
    columns = ("incident", "caught by", "time to detection", "served meanwhile", "cause named")
    return table(columns, [_row(each) for each in played], title="What came of them")


def _row(each: Played) -> tuple[object, ...]:
    return tuple(text(words, "" if each.holds else "bold red") for words in row_of(each))


def row_of(each: Played) -> tuple[str, str, str, str, str]:
    """Return what the table says of one incident."""
    quiet = each.incident.quiet and each.caught
    woken = "" if each.paged is None else f"; somebody woken after {length(each.paged)}"
    return (
        each.incident.title,
        each.caught_by or ("rightly nobody" if quiet else "NOBODY"),
        "–" if quiet else f"{each.how}{woken}",
        f"{each.meanwhile.words} (before: {each.before.words})",
        each.named if each.named_right else f"{each.named}, not {each.incident.cause}",
    )


def closing(played: Sequence[Played], seconds: float) -> None:
    """Print the table and the verdict."""
    out().print()
    out().print(summary(played))
    bad = [each for each in played if not each.holds]
    for each in bad:
        say(f"{each.incident.title}: {_complaint(each)}", "bold red")
    if not bad:
        said = f"All {len(played)} caught, explained and mended, in {seconds:.0f} s."
        out().print(Panel.fit(text(said, "bold green"), border_style="green"))


def _complaint(each: Played) -> str:
    parts = []
    if not each.caught:
        parts.append("it woke somebody" if each.incident.quiet else "nobody noticed")
    if not each.named_right:
        parts.append(f"`why` said {each.named} instead of {each.incident.cause}")
    return "; ".join([*parts, *each.well]) + "."


def as_json(each: Played) -> Mapping[str, Any]:
    """Return what is kept of one incident, for programs."""
    return {
        "incident": each.incident.name,
        "broken": each.incident.broken,
        "caught": each.caught,
        "row": row_of(each),
        "caught_by": each.caught_by,
        "seconds_to_detection": None if each.after is None else each.after.total_seconds(),
        "how": each.how,
        "seconds_to_page": None if each.paged is None else each.paged.total_seconds(),
        "seen": [
            {
                "by": sight.by,
                "subject": sight.subject,
                "at": sight.at.isoformat(),
                "page": sight.page,
                "blocks": sight.blocks,
                "sentence": sight.sentence,
            }
            for sight in each.sights
        ],
        "served": {
            "before": each.before.words,
            "meanwhile": each.meanwhile.words,
            "afterwards": each.afterwards.words,
        },
        "cause": each.named,
        "cause_expected": each.incident.cause,
        "sentence": each.explanation.sentence,
        "mended": each.mended,
        "not_well": list(each.well),
        "seconds_played": round(each.seconds, 2),
    }
