"""`make incident`: replay 2 a.m. on the real data, one incident after the other.

    python -m demo.incident [NAME …] [--keep] [--json FILE] [--clean [DAYS]]

Exit status 0 only if every incident was caught, and its cause named and mended.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from demo.incident.base import base, chosen_catalog, the_project
from demo.incident.clean import clean_days
from demo.incident.incident import Incident
from demo.incident.night import nights, online_server
from demo.incident.planted import BY_NAME, INCIDENTS, clean_night
from demo.incident.play import Hashes, Played, play
from demo.incident.story import Story, as_json, closing
from lockstep.cli.console import BROKEN, USAGE, note, say, show_error
from lockstep.errors import LockstepError

CLEAN_DAYS = 100
INTERRUPTED = 130


def main(words: Sequence[str] | None = None, home: Path | None = None) -> int:
    """Play what is asked for and return the exit status.

    Args:
        home: Where lakes are kept; below the project's `.lockstep` if not given.
    """
    asked = _parser().parse_args(words)
    home = home or the_project().state / "incident"
    unknown = [name for name in asked.names if name not in BY_NAME]
    if unknown:
        note(f"There is no incident {unknown[0]!r}. There are: {', '.join(BY_NAME)}.", "red")
        return USAGE
    try:
        if asked.clean:
            return 0 if clean_days(asked.clean, home, asked.json) else BROKEN
        wanted = [BY_NAME[name] for name in asked.names] or INCIDENTS
        played = _play_all(wanted, home, keep=asked.keep)
    except LockstepError as error:
        show_error(error)
        return BROKEN
    except KeyboardInterrupt:
        return INTERRUPTED
    if asked.json:
        told = json.dumps([as_json(each) for each in played], indent=2)
        asked.json.write_text(f"{told}\n", encoding="utf-8")
    return 0 if all(each.holds for each in played) else BROKEN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo.incident", description="Replay 2 a.m. on the real data."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"out of {', '.join(BY_NAME)}")
    parser.add_argument("--keep", action="store_true", help="do not remove the lakes at the end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument(
        "--clean",
        type=int,
        nargs="?",
        const=CLEAN_DAYS,
        metavar="DAYS",
        help=f"instead, replay so many days ({CLEAN_DAYS}) on which nothing breaks",
    )
    return parser


def _play_all(wanted: Sequence[Incident], home: Path, *, keep: bool) -> list[Played]:
    began, story = time.perf_counter(), Story()
    say(
        "2 a.m., replayed on the real data. Each incident has a copy of the lake, a Redis and a "
        "clock of its own; all else is as in production."
    )
    made, chosen = base(say, home), chosen_catalog(the_project())
    with (
        online_server(home, "run") as (work, url),
        nights(made, work, url, chosen, keep=keep) as night,
    ):
        clean: Hashes = {}
        if any(incident.as_if_nothing for incident in wanted):
            clean = clean_night(night("clean"))
            story.says("A night on which nothing breaks", "nobody sees anything, nobody is woken.")
        played = [play(incident, night(incident.name), clean, story) for incident in wanted]
        if keep:
            say(f"The lakes are in {work}. To look: LOCKSTEP_ROOT={work}/NAME/lake lockstep status")
    closing(played, time.perf_counter() - began)
    return played


if __name__ == "__main__":
    sys.exit(main())
