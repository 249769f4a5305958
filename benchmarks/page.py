"""Tables in docs/benchmarks.md, written from JSON files so that the two never differ."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Section:
    """What stands between two marks of the page.

    Attributes:
        results: The JSON file.
        block: What the file says → the text between the marks.
    """

    name: str
    results: Path
    block: Callable[[Mapping[str, Any]], str]

    @property
    def _marks(self) -> tuple[str, str]:
        command = f"python -m benchmarks.{self.name} --document"
        begin = f"<!-- the {self.name} table begins; {command} writes it -->\n"
        return begin, f"<!-- the {self.name} table ends -->\n"

    def split(self, page: str) -> tuple[str, str, str]:
        """What stands before, between and after the marks."""
        begin, end = self._marks
        before, _, rest = page.partition(begin)
        between, _, after = rest.partition(end)
        return before, between, after

    def write(self) -> None:
        """Put what the results file says into the page."""
        found = json.loads(self.results.read_text(encoding="utf-8"))
        before, _, after = self.split(PAGE.read_text(encoding="utf-8"))
        begin, end = self._marks
        PAGE.write_text(before + begin + self.block(found) + end + after, encoding="utf-8")


def on_what(found: Mapping[str, Any]) -> list[str]:
    """The machine, the day and how busy it was, as text."""
    on, busy = found["machine"], found["load_average"]
    cpu = f"{on['cpus']} × {on['cpu']}, {on['memory_gb']} GB, Python {on['python']}"
    load = f"load average {busy['median']} in the middle and {busy['most']} at most"
    return [f"{cpu}, {found['at'][:10]}; {load};"]
