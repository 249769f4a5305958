"""What a project declares: its view files imported, one broken file never hiding the others."""

import importlib
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from lockstep.errors import ConfigError, DeclarationError, UnknownNameError
from lockstep.project import Project
from lockstep.schema import Entity, Features
from lockstep.sources import Snapshot, Source
from lockstep.view import FeatureSet, FeatureView, split_feature

T = TypeVar("T")


@dataclass(frozen=True)
class Catalog:
    """Everything declared, by name; views stand after the views they read.

    Attributes:
        broken: File → why it could not be imported.
    """

    entities: Mapping[str, Entity]
    sources: Mapping[str, Source]
    snapshots: Mapping[str, Snapshot]
    views: Mapping[str, FeatureView]
    feature_sets: Mapping[str, FeatureSet]
    broken: Mapping[Path, str]

    def view(self, name: str) -> FeatureView:
        """Return the view, or raise UnknownNameError with the nearest names."""
        return self._one(self.views, "feature view", name)

    def feature_set(self, name: str) -> FeatureSet:
        """Return the feature set, or raise UnknownNameError with the nearest names."""
        return self._one(self.feature_sets, "feature set", name)

    def source(self, name: str) -> Source:
        """Return the source, or raise UnknownNameError with the nearest names."""
        return self._one(self.sources, "source", name)

    def features(self, wanted: str | FeatureSet | Iterable[Any]) -> dict[str, list[str]]:
        """Resolve a feature set, its name, or a list of features to view → feature names.

        Order is the order asked for, views by their first feature.

        Raises:
            UnknownNameError: A view or feature does not exist.
        """
        if isinstance(wanted, str):
            wanted = [wanted] if ":" in wanted else self.feature_set(wanted)
        names = wanted.names if isinstance(wanted, FeatureSet) else [str(item) for item in wanted]
        resolved: dict[str, list[str]] = {}
        for name in names:
            view_name, feature = split_feature(name)
            view = self.view(view_name)
            self._one(view.contract.features, f"feature of {view_name}", feature)
            resolved.setdefault(view_name, [])
            if feature not in resolved[view_name]:
                resolved[view_name].append(feature)
        return resolved

    def _one(self, named: Mapping[str, T], kind: str, name: str) -> T:
        if name in named:
            return named[name]
        near = get_close_matches(name, named, n=1)
        broken = [str(path) for path in self.broken if path.stem == name]
        raise UnknownNameError(
            f"There is no {kind} named {name!r}.",
            expected=f"one of {sorted(named)}",
            fix=f"Its file {broken[0]} is broken: {self.broken[Path(broken[0])]}"
            if broken
            else f"Did you mean {near[0]!r}?"
            if near
            else None,
        )


def discover(project: Project) -> Catalog:
    """Import every module of the views package whose name has no leading underscore.

    A file that fails to import is listed in `broken`; the others work.

    Raises:
        ConfigError: The package does not exist.
        DeclarationError: Two declarations share a name.
    """
    modules: list[ModuleType] = []
    broken: dict[Path, str] = {}
    for name, path in _module_files(project):
        try:
            modules.append(importlib.import_module(name))
        except Exception as error:  # noqa: BLE001 - somebody's file: whatever it raises is its own
            broken[path] = _why(error, path)
    for module in modules:
        _require_paired(module, broken)
    found = [value for module in modules for value in vars(module).values()]
    views = _by_name(value for value in found if isinstance(value, FeatureView))
    return Catalog(
        entities=_by_name(value for value in found if isinstance(value, Entity)),
        sources=_by_name(value for value in found if isinstance(value, Source)),
        snapshots=_by_name(value for value in found if isinstance(value, Snapshot)),
        views=dict(_in_reading_order(views)),
        feature_sets=_by_name(value for value in found if isinstance(value, FeatureSet)),
        broken=broken,
    )


def _module_files(project: Project) -> Iterator[tuple[str, Path]]:
    if str(project.folder) not in sys.path:
        sys.path.insert(0, str(project.folder))
    folder = project.folder / project.views.replace(".", "/")
    if not folder.is_dir():
        raise ConfigError(
            f"The views package {project.views!r} is not in {project.folder}.",
            expected=f"the folder {folder}",
            fix="Correct views in [tool.lockstep] of pyproject.toml.",
        )
    importlib.invalidate_caches()
    for info in sorted(pkgutil.iter_modules([str(folder)]), key=lambda module: module.name):
        if not info.name.startswith("_"):
            yield f"{project.views}.{info.name}", folder / f"{info.name}.py"


def _why(error: Exception, path: Path) -> str:
    if isinstance(error, SyntaxError):
        elsewhere = error.filename is not None and Path(error.filename) != path
        where = f"it imports {Path(error.filename or '').name}, " if elsewhere else ""
        return f"{where}line {error.lineno}: {error.msg}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    where = f"line {frames[-1].lineno}: " if frames else ""
    return f"{where}{error}"


def _require_paired(module: ModuleType, broken: dict[Path, str]) -> None:
    """List contracts that no function keeps: their problems would surface nowhere else."""
    for value in vars(module).values():
        if not (isinstance(value, type) and issubclass(value, Features)) or value is Features:
            continue
        if value.__module__ == module.__name__ and value.contract.view_name is None:
            broken[Path(module.__file__ or module.__name__)] = (
                f"contract {value.__name__!r} is kept by no view; write its function with "
                f"@feature_view({value.__name__}, inputs=[…])"
            )


def _by_name(values: Iterable[Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for value in values:
        if named.setdefault(value.name, value) is not value:
            raise DeclarationError(
                [f"Two declarations are named {value.name!r}. Rename one: names are tables."]
            )
    return named


def _in_reading_order(views: Mapping[str, FeatureView]) -> Iterator[tuple[str, FeatureView]]:
    done: set[str] = set()

    def visit(view: FeatureView) -> Iterator[tuple[str, FeatureView]]:
        if view.name in done:
            return
        done.add(view.name)
        for item in view.inputs:
            if isinstance(item.of, FeatureView):
                yield from visit(item.of)
        yield view.name, view

    for name in sorted(views):
        yield from visit(views[name])
