"""`new view`: a view file that works at once, and its test, to be changed into what is wanted."""

import ast
import keyword
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.cli.console import say
from lockstep.cli.opened import opened, readables
from lockstep.errors import ConfigError, InputError

if TYPE_CHECKING:
    from lockstep.catalog import Catalog
    from lockstep.schema import Entity
    from lockstep.sources import Source
    from lockstep.store import Store

app = typer.Typer(no_args_is_help=True, help="Write the first version of a file.")

_WIDTH = 100
_IMPORTED = frozenset({"pl", "timedelta"})


@dataclass(frozen=True)
class _Named:
    """A declaration and how another file imports it."""

    module: str
    variable: str


@app.callback()
def _new() -> None:
    """Keep `new` a group although it has one command."""


@app.command("view")
def view(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the view and of its file.")],
    *,
    source: Annotated[
        str | None,
        typer.Option(help="The source to read; the first that has the keys if not given."),
    ] = None,
    entity: Annotated[
        str | None, typer.Option(help="The entity to describe; the first that fits if not given.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(help="team:name or an e-mail address; who owns most views if not given."),
    ] = None,
) -> None:
    """Write <views>/NAME.py, which counts a source's rows per entity, and a test of it."""
    store = opened()
    _require_new(store, name)
    described, read = _pair(store.catalog, entity, source)
    who = owner or _usual_owner(store.catalog)
    folder = store.project.folder
    file = folder / store.project.views.replace(".", "/") / f"{name}.py"
    test = folder / "tests" / f"test_{name}.py"
    for path in (file, test):
        if path.exists():
            raise InputError(
                f"{path} exists.", fix="Choose another name.", effect="Nothing was written."
            )
    file.write_text(_view_text(store, name, described, read, who), encoding="utf-8")
    _require_working(store, name, file)
    say(f"Wrote {file}: it counts the rows of {read.name} per {described.name}, owner {who}.")
    if test.parent.is_dir():
        test.write_text(_test_text(store, name, described), encoding="utf-8")
        say(f"Wrote {test}.")
    say(f"See what it gives: lockstep preview {name}")
    say("A UI that is running shows it after Reload (Deployment, Code locations).")


def _require_new(store: "Store", name: str) -> None:
    from lockstep.schema import name_problem

    problem = name_problem("Feature view", name)
    if problem is None and (keyword.iskeyword(name) or name in _IMPORTED):
        problem = f"Feature view name {name!r} means something else in a view file. Choose another."
    if problem is None and name in readables(store):
        problem = f"{name!r} exists already. Choose another name."
    if problem is not None:
        raise InputError(problem, effect="Nothing was written.")


def _pair(catalog: "Catalog", entity: str | None, source: str | None) -> "tuple[Entity, Source]":
    """Return the first entity and source that go together, among those named if named.

    Raises:
        InputError: No source has the columns that identify an entity.
    """
    sources = [catalog.source(source)] if source else list(catalog.sources.values())
    for described in catalog.entities.values():
        for read in sources:
            fits = described.key_types.items() <= read.columns.items()
            if fits and entity in (None, described.name):
                return described, read
    raise InputError(
        f"No {'such ' if entity or source else ''}source has the key columns of an entity.",
        expected=f"one of the entities {sorted(catalog.entities)} and of the sources "
        f"{sorted(catalog.sources)} that share columns and types",
        fix="Declare the entity or the source first.",
        effect="Nothing was written.",
    )


def _usual_owner(catalog: "Catalog") -> str:
    owners = Counter(declared.contract.owner for declared in catalog.views.values())
    return owners.most_common(1)[0][0] if owners else "team:data"


def _imported_as(store: "Store", declared: object) -> _Named:
    """Return where a declaration can be imported from: the module that defines it.

    Raises:
        ConfigError: No module of the views package assigns it to a name.
    """
    package = f"{store.project.views}."
    for module, loaded in sorted(sys.modules.items()):
        if not module.startswith(package):
            continue
        for variable, value in vars(loaded).items():
            # A module that only imports it has it too.
            if value is declared and variable in _assigned(loaded):
                return _Named(module, variable)
    raise ConfigError("No module of the views package defines the entity or the source.")


def _assigned(module: ModuleType) -> set[str]:
    if module.__file__ is None:
        return set()
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    assignments = [node for node in tree.body if isinstance(node, ast.Assign)]
    return {
        target.id for node in assignments for target in node.targets if isinstance(target, ast.Name)
    }


def _view_text(store: "Store", name: str, entity: "Entity", source: "Source", owner: str) -> str:
    described, read = _imported_as(store, entity), _imported_as(store, source)
    keys = ", ".join(f'"{key}"' for key in entity.key)
    grouped = keys if len(entity.key) == 1 else f"[{keys}]"
    parameters = (f"{source.name}: pl.LazyFrame",)
    bases = (
        "Features",
        f"entity={described.variable}",
        f'owner="{owner}"',
        "ttl=timedelta(days=3)",
        'when_absent="empty"',
    )
    window = f"inputs=[{read.variable}.trailing(days=7)]"
    call = _fitting(
        "    ", f"return {source.name}.group_by({grouped}).agg(", ("rows_7d=counted",), ")"
    )
    return f'''"""What {_article(entity.name)} did lately."""

from datetime import timedelta

{_imports(store, described, read)}


{_fitting("", f"class {_class_name(name)}(", bases, "):")}
    """Rows of {source.name} in the trailing seven days, as of the end of the day."""

    rows_7d = Feature(pl.Int64, "Rows, last 7 days.", at_least=0, empty=0, max_psi=0.2)


{_fitting("", "@feature_view(", (_class_name(name), window), ")")}
{_fitting("", f"def {name}(", parameters, ") -> pl.LazyFrame:", comma=True)}
    counted = pl.len().cast(pl.Int64)
{call}
'''


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _imports(store: "Store", *named: _Named) -> str:
    """Return the import block, sorted as a linter would; `lockstep` may be part of the project."""
    variables: dict[str, set[str]] = {}
    for one in named:
        variables.setdefault(one.module, set()).add(one.variable)
    own = [
        f"from {module} import {', '.join(sorted(names))}" for module, names in variables.items()
    ]
    engine = "from lockstep import Feature, Features, feature_view"
    if (store.project.folder / "lockstep").is_dir():
        return "\n".join(["import polars as pl", "", *sorted([*own, engine])])
    return "\n".join(["import polars as pl", engine, "", *sorted(own)])


def _fitting(
    indent: str, head: str, arguments: tuple[str, ...], tail: str, *, comma: bool = False
) -> str:
    """Return a call on one line if it fits, else as the formatter breaks it.

    Args:
        comma: Whether a single argument on a line of its own is followed by a comma.
    """
    line = f"{indent}{head}{', '.join(arguments)}{tail}"
    if len(line) <= _WIDTH:
        return line
    inner = f"{indent}    {', '.join(arguments)}"
    if len(inner) <= _WIDTH and not comma:
        return f"{indent}{head}\n{inner}\n{indent}{tail}"
    broken = "\n".join(f"{indent}    {argument}," for argument in arguments)
    return f"{indent}{head}\n{broken}\n{indent}{tail}"


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _require_working(store: "Store", name: str, file: Path) -> None:
    """Import the new file as the project would.

    Raises:
        InputError: It does not work; the file is removed again.
    """
    from lockstep.catalog import discover

    catalog = discover(store.project)
    if name not in catalog.views:
        why = catalog.broken.get(file, "its module has another view's name")
        file.unlink()
        raise InputError(f"The view {name!r} would not work: {why}", effect="Nothing was written.")


def _test_text(store: "Store", name: str, entity: "Entity") -> str:
    import polars as pl

    one, other = {}, {}
    for key, dtype in entity.key_types.items():
        text = dtype == pl.String
        one[key], other[key] = ('"a"', '"b"') if text else ("1", "2")
    given = ", ".join(f'"{key}": [{one[key]}, {one[key]}, {other[key]}]' for key in entity.key)
    expected = "\n".join(f'        "{key}": [{one[key]}, {other[key]}],' for key in entity.key)
    types = ", ".join(f'"{key}": pl.{dtype}' for key, dtype in entity.key_types.items())
    keys = ", ".join(f'"{key}"' for key in entity.key)
    short = f"from {store.project.views}.{name} import {name}"
    imported = short if len(short) <= _WIDTH else short.replace(f" {name}", f" (\n    {name},\n)")
    rows = _fitting("    ", "rows = pl.LazyFrame(", (f"{{{given}}}", f"schema={{{types}}}"), ")")
    return f'''"""What `{name}` gives for rows that are easy to count."""

import polars as pl

{imported}


def test_rows_are_counted_per_{entity.name}() -> None:
{rows}

    counted = {name}(rows).collect()

    assert counted.sort({keys}).to_dict(as_series=False) == {{
{expected}
        "rows_7d": [2, 1],
    }}
'''
