"""The shape of the source: what may import what, how long a file may be, what is never called."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.source_tree import (
    FOLDERS,
    ROOT,
    imports_of,
    module_of,
    name_of,
    product_files,
    roots_of,
    tree_of,
)

LONGEST_FILE = 400
LONGEST_FUNCTION = 60

FILES = product_files()
MODULES = {module_of(file): file for file in FILES}
PROJECT = {"definitions", *FOLDERS}
NOT_VIEWS = {"entities", "sources", "feature_sets"}
VIEW_FILES = [
    file
    for file in FILES
    if file.parent.name == "feature_assets"
    and not file.stem.startswith("_")
    and file.stem not in NOT_VIEWS
]

# Folder -> which others of the project it may import. Only `definitions` brings them together.
MAY_IMPORT = {
    "lockstep": set(),
    "resources": {"lockstep"},
    "checks": {"lockstep", "resources"},
    "feature_assets": {"lockstep", "resources"},
    "schedules": {"lockstep", "resources", "checks", "feature_assets"},
    "demo": {"lockstep"},
    "tools": set(),
}
ONLY_IMPORTERS = {
    "deltalake": {"lockstep/stores/delta.py", "lockstep/stores/tables.py"},
    "redis": {
        "lockstep/stores/link.py",
        "lockstep/stores/pushing.py",
        "lockstep/stores/redis.py",
    },
}
# They know frames and declarations, not where anything is stored.
PURE = (
    *("schema", "view", "time", "profile", "drift", "quality", "codec", "errors"),
    *("training.timeline", "training.pit", "training.pit_keys", "training.pit_gather"),
)

NEVER_IMPORTED = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
NEVER_CALLED = {
    *("print", "eval", "exec", "compile", "__import__", "breakpoint"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"),
}
ZONE_CALLS = {"convert_time_zone", "replace_time_zone", "ZoneInfo"}


def part_of(file: Path) -> str:
    """The top-level folder of a file, or its name."""
    return file.relative_to(ROOT).with_suffix("").parts[0]


@cache
def own_imports(file: Path, *, anywhere: bool = True) -> frozenset[str]:
    """Modules of this project that the file imports."""
    found = set()
    for name in imports_of(file, anywhere=anywhere):
        module = name if name in MODULES else name.rpartition(".")[0]
        if module in MODULES:
            found.add(module)
    return frozenset(found)


def reached_from(module: str) -> set[str]:
    """Modules of this project that importing this one imports, packages' `__init__` aside."""
    seen: set[str] = set()
    open_ones = [module]
    while open_ones:
        new = own_imports(MODULES[open_ones.pop()], anywhere=False) - seen
        seen |= new
        open_ones.extend(new)
    return seen


def test_the_files_are_found() -> None:
    assert {"lockstep/view.py", "definitions.py"} <= {name_of(file) for file in FILES}
    assert len(VIEW_FILES) >= 6


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder: str) -> None:
    allowed = MAY_IMPORT[folder] | {folder}
    wrong = {
        name_of(file): bad
        for file in FILES
        if part_of(file) == folder
        and (bad := (roots_of(file) & PROJECT) - allowed - _root_of_a_program(file))
    }

    assert wrong == {}


def _root_of_a_program(file: Path) -> set[str]:
    """A program may start from the composition root, if no other module imports the program."""
    is_program = any(
        isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
        for node in tree_of(file).body
    )
    imported = any(module_of(file) in own_imports(other) for other in FILES)
    return {"definitions"} if is_program and not imported else set()


def test_checks_and_feature_assets_meet_only_in_the_definitions() -> None:
    meeting = {name_of(file) for file in FILES if {"checks", "feature_assets"} <= roots_of(file)}

    assert meeting == {"definitions.py"}


@pytest.mark.parametrize("package", ONLY_IMPORTERS)
def test_only_its_store_imports_it(package: str) -> None:
    assert ONLY_IMPORTERS[package] == {name_of(file) for file in FILES if package in roots_of(file)}


def test_the_engine_never_imports_dagster() -> None:
    importers = {
        name_of(file)
        for file in FILES
        if part_of(file) == "lockstep"
        and any(root.startswith("dagster") for root in roots_of(file))
    }

    assert importers == set()


def test_importing_the_whole_engine_loads_no_dagster() -> None:
    modules = sorted(
        name for name in MODULES if name.startswith("lockstep") and "__main__" not in name
    )
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    program += "print(sorted(n for n in sys.modules if n.partition('.')[0].startswith('dagster')))"

    done = subprocess.run(
        [sys.executable, "-c", program, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_reach_no_store(module: str) -> None:
    stores = {name for name in reached_from(f"lockstep.{module}") if ".stores." in name}

    assert stores == set()


def test_no_module_imports_itself_through_others() -> None:
    circles = {name for name in MODULES if name in reached_from(name)}

    assert circles == set()


@pytest.mark.parametrize("file", VIEW_FILES, ids=lambda file: file.stem)
def test_view_files_import_only_what_declares_features(file: Path) -> None:
    views = {f"feature_assets.{view.stem}" for view in VIEW_FILES}
    declared = views | {"feature_assets.entities", "feature_assets.sources"}
    outside = roots_of(file) - sys.stdlib_module_names - {"lockstep", "polars", "feature_assets"}
    from_lockstep = {name for name in imports_of(file) if name.startswith("lockstep.")}

    assert outside == set()
    assert {name for name in own_imports(file) if name.startswith("feature_assets")} <= declared
    assert {name for name in from_lockstep if name.count(".") > 1} == set()


@pytest.mark.parametrize("file", VIEW_FILES, ids=lambda file: file.stem)
def test_view_files_name_no_time_zone_and_ask_no_clock(file: Path) -> None:
    called = {_called(node).rpartition(".")[2] for node in _calls(tree_of(file))}

    assert called & (ZONE_CALLS | {"now", "today", "utcnow"}) == set()


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_unsafe_is_called(file: Path) -> None:
    allowed = {"print"} if part_of(file) == "tools" else set()
    called = {_called(node) for node in _calls(tree_of(file))}
    asserts = [node.lineno for node in ast.walk(tree_of(file)) if isinstance(node, ast.Assert)]

    assert called & NEVER_CALLED - allowed == set()
    assert roots_of(file) & NEVER_IMPORTED == set()
    assert asserts == []


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_and_functions_stay_short(file: Path) -> None:
    lines = len(file.read_text(encoding="utf-8").splitlines())
    functions = [
        (node.name, node.end_lineno - node.lineno + 1)
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]

    assert lines <= LONGEST_FILE
    assert [found for found in functions if found[1] > LONGEST_FUNCTION] == []


def test_every_module_is_named_after_what_it_holds() -> None:
    nameless = {"util", "utils", "helper", "helpers", "common", "misc", "shared"}
    parts = {part.strip("_") for file in FILES for part in module_of(file).split(".")}

    assert parts & nameless == set()


def _calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _called(call: ast.Call) -> str:
    """The dotted name that is called; for a method of some expression the method's name."""
    if isinstance(call.func, ast.Name):
        return call.func.id
    if isinstance(call.func, ast.Attribute):
        before = call.func.value
        return f"{before.id if isinstance(before, ast.Name) else ''}.{call.func.attr}"
    return ""
