"""The project's documents and the code in them, for the tests that hold both to the truth."""

import ast
import re
from pathlib import Path

from tests.source_tree import ROOT

README = ROOT / "README.md"
CONTEXT = ROOT / "CONTEXT.md"
ADRS = ROOT / "docs" / "adr"
MEASURED = ROOT / "docs" / "benchmarks.md"
"""Numbers only."""
FAULTS = ROOT / "docs" / "faults.md"
"""A table only; a test of its own holds it to the tests that it names."""
FOR_OPERATORS = {
    ROOT / "docs" / f"how-to-{page}.md"
    for page in (
        *("alerts", "dagster-ui", "forget", "gc", "reconcile", "redis", "slo", "why"),
        "world-checks",
    )
} | {ROOT / "docs" / "incidents.md"}
"""Shell and configuration only; a test of their own runs what is in them."""
SCRIPTS = [README, *sorted({*(ROOT / "docs").glob("*.md")} - {MEASURED, FAULTS} - FOR_OPERATORS)]
"""Pages whose Python runs."""
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(document: Path, language: str) -> list[tuple[int, str]]:
    """The code blocks of a document, each with the number of its first line."""
    text = document.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: match.start(1)].count("\n") + 1, match[1]) for match in found]


def as_script(document: Path) -> str:
    """The Python blocks of a document, each on the lines on which it stands there."""
    script = ""
    for line, code in blocks(document, "python"):
        script += "\n" * (line - 1 - script.count("\n")) + code
    return script


def view_file() -> tuple[str, str]:
    """Name and text of the view file that the README shows."""
    (text,) = [code for _, code in blocks(README, "python") if "@feature_view" in code]
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return functions[0].name, text
