"""What every benchmark's results file must say, and the page that shows one."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.page import PAGE, Section

ON = {"cpu", "cpus", "memory_gb", "system", "python", "packages", "commit"}


def measured(main: Callable[[list[str]], int], file: Path, *arguments: str) -> dict[str, Any]:
    """What the file says after a quick run."""
    assert 0 == main(["--quick", "--out", str(file), *arguments])
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def assert_says_on_what(found: Mapping[str, Any], seed: int) -> None:
    """The file says what its numbers were measured on, how busy that was, and that they are few."""
    assert found["machine"].keys() >= ON
    assert found["load_average"]["most"] >= found["load_average"]["median"] >= 0
    assert seed == found["seed"]
    assert found["quick"]


def assert_shown_on_the_page(section: Section) -> None:
    """The page shows what the results file of a full run says."""
    found = json.loads(section.results.read_text(encoding="utf-8"))

    assert section.block(found) == section.split(PAGE.read_text(encoding="utf-8"))[1]
    assert not found["quick"]
