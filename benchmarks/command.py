"""What the programs have in common: options, the folder they work in, and what their file says."""

import argparse
import json
import statistics
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.feast_environment import install_feast
from benchmarks.machine import machine
from benchmarks.page import Section
from benchmarks.table import Row, as_json


def parser_of(section: Section, about: str | None) -> argparse.ArgumentParser:
    """The options that every program takes."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{section.name}", description=about)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"JSON file; benchmarks/results/{section.results.name} of a full run",
    )
    parser.add_argument(
        "--document", action="store_true", help="measure nothing; write the tables into the page"
    )
    parser.set_defaults(parts=[], work=None)
    return parser


def add_parts(parser: argparse.ArgumentParser, parts: Collection[str]) -> None:
    """The options of a program that measures in parts, beside Feast."""
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all")
    parser.add_argument("--work", type=Path, help="folder for data, servers and Feast; kept")
    parser.add_argument("--feast-python", help="Python of an environment with Feast 0.67")
    parser.add_argument("--no-feast", action="store_true", help="leave Feast out")
    parser.add_argument("--rounds", type=int, help="repetitions")


def chosen_parts(
    parser: argparse.ArgumentParser, asked: argparse.Namespace, parts: Collection[str]
) -> list[str]:
    """The parts that were asked for, in their own order; all if none was.

    Raises:
        SystemExit: There is no such part.
    """
    if unknown := set(asked.parts) - set(parts):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    return [part for part in parts if part in asked.parts or not asked.parts]


@contextmanager
def work_folder(asked: argparse.Namespace) -> Iterator[Path]:
    """The folder to work in: the one that was named, or one that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
        work = (asked.work or Path(folder)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        yield work


def feast_python(asked: argparse.Namespace, work: Path) -> str | None:
    """The Python of Feast's environment, installed if need be; None leaves Feast out."""
    return None if asked.no_feast else asked.feast_python or install_feast(work)


def results_file(asked: argparse.Namespace, section: Section) -> Path | None:
    """Where the results go; those that are not of a full run go nowhere unless told."""
    whole = not (asked.quick or asked.parts)
    named: Path | None = asked.out
    return named or (section.results if whole else None)


@dataclass(frozen=True)
class Head:
    """What the file says of a run besides what was measured.

    Attributes:
        packages: Whose versions it says.
        sizes: How much was measured, a dataclass.
    """

    packages: Sequence[str]
    sizes: Any
    seed: int
    quick: bool
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def above(
        self, results: Any, rows: Sequence[Row], loads: Sequence[float], **more: Any
    ) -> dict[str, Any]:
        """What the file says.

        Args:
            loads: How busy the machine was, as often as it was looked at.
            more: What only this program has to say.
        """
        return {
            "machine": machine(self.packages),
            "at": self.began.isoformat(timespec="seconds"),
            "minutes": round((datetime.now(UTC) - self.began).total_seconds() / 60, 1),
            "load_average": {"median": round(statistics.median(loads), 2), "most": max(loads)},
            "sizes": asdict(self.sizes),
            "seed": self.seed,
            "quick": self.quick,
            **more,
            "rows": as_json(rows),
            "results": results,
        }


def write(found: dict[str, Any], out: Path | None) -> None:
    """Write the file, if there is to be one."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
