"""The project's own source files as syntax trees, for tests that hold its shape."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("lockstep", "feature_assets", "checks", "resources", "schedules", "demo", "tools")


def product_files() -> list[Path]:
    """Every Python file but tests and benchmarks, sorted."""
    found = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    return sorted([*found, ROOT / "definitions.py"])


def name_of(file: Path) -> str:
    """The file's path from the root, with slashes."""
    return file.relative_to(ROOT).as_posix()


def module_of(file: Path) -> str:
    """The file's dotted module name."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(file: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


@cache
def imports_of(file: Path, *, anywhere: bool = True) -> frozenset[str]:
    """Dotted names of what the file imports; a name taken from a module counts as `module.name`.

    Without `anywhere`, only the imports that run when the module is imported: those in functions
    and under `if TYPE_CHECKING` are left out.
    """
    tree = tree_of(file)
    found: set[str] = set()
    for node in ast.walk(tree) if anywhere else _at_import(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return frozenset(found)


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not typing_only and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _at_import(child)


def roots_of(file: Path) -> set[str]:
    """First parts of what the file imports: `{"lockstep", "polars"}`."""
    return {name.partition(".")[0] for name in imports_of(file)}
