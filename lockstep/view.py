"""A feature view: the promise (contract class) and the pure function that keeps it."""

import ast
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any, TypeAlias

import polars as pl

from lockstep.errors import DeclarationError, UnknownNameError
from lockstep.schema import Contract, Feature, Features, name_problem
from lockstep.soda_file import SodaFile, find_soda_file
from lockstep.sources import Input, Snapshot, Source

ViewFunction: TypeAlias = Callable[..., pl.LazyFrame]


@dataclass(frozen=True, eq=False)
class FeatureView:
    """A contract and the function that keeps it; calling it calls the function.

    The function takes one LazyFrame per input, by name, and `as_of: datetime` if it asks. It
    returns one row per entity: the key columns and every feature, nothing else.
    """

    name: str
    contract: Contract
    inputs: tuple[Input, ...]
    function: ViewFunction = field(repr=False)
    partial_windows: bool = False
    soda: SodaFile | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> pl.LazyFrame:
        """Call the function, as a unit test does: `txn_7d(frame).collect()`."""
        return self.function(*args, **kwargs)

    @property
    def description(self) -> str:
        """The contract's docstring."""
        return self.contract.description

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """Column → type of its rows, without known_at and day."""
        return self.contract.columns

    @property
    def order(self) -> list[str]:
        """The total order of its rows within a day."""
        return self.contract.keys

    @property
    def start(self) -> date:
        """The first day whose windows do not reach before a source's declared start."""
        return max(item.first_day(partial=self.partial_windows) for item in self.inputs)

    @property
    def wants_as_of(self) -> bool:
        """Whether the function asks for the instant at which values hold."""
        return "as_of" in inspect.signature(self.function).parameters

    @property
    def file(self) -> Path:
        """The file that an engineer opens."""
        return Path(inspect.getsourcefile(self.function) or "")

    @property
    def line(self) -> int:
        """The line at which the function begins."""
        return inspect.getsourcelines(self.function)[1]

    @cached_property
    def code_version(self) -> str:
        """Hash of the function, what it uses in its file, its inputs, the contract's meaning."""
        described = {
            "code": _code_without_prose(self.file, self.function.__name__),
            "borrowed": list(_borrowed_code(self)),
            "contract": self.contract.fingerprint,
            "inputs": [(i.name, i.of.name, i.reach, i.days) for i in self.inputs],
            "partial_windows": self.partial_windows,
        }
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:12]

    def trailing(self, *, days: int, name: str | None = None) -> Input:
        """Read this view's rows of the `days` days that end with the computed day, with `day`."""
        return Input(self, "trailing", days=days, name=name or self.name)

    def same_day(self, *, name: str | None = None) -> Input:
        """Read this view's rows of the computed day."""
        return Input(self, "same_day", name=name or self.name)

    def latest(self, *, name: str | None = None) -> Input:
        """Read, per entity, the latest row valid at the day's end within its ttl."""
        return Input(self, "latest", name=name or self.name)


def feature_view(
    contract: type[Features],
    *,
    inputs: Sequence[Input],
    partial_windows: bool = False,
) -> Callable[[ViewFunction], FeatureView]:
    """Pair a contract with the function that keeps it; nothing is registered or run.

    Args:
        contract: The contract class.
        inputs: What the function reads, in the order of its parameters.
        partial_windows: Whether days near a source's start may be computed from short windows.

    Raises:
        DeclarationError: Contract, inputs or signature are wrong; lists every problem.
    """

    def pair(function: ViewFunction) -> FeatureView:
        promise = contract.contract
        soda, wrong = find_soda_file(Path(inspect.getsourcefile(function) or ""), promise)
        problems = [*promise.problems, *_view_problems(function, promise, inputs), *wrong]
        if problems:
            raise DeclarationError(problems)
        contract.contract = replace(promise, view_name=function.__name__)
        return FeatureView(
            function.__name__, contract.contract, tuple(inputs), function, partial_windows, soda
        )

    return pair


def _view_problems(function: ViewFunction, promise: Contract, inputs: Sequence[Any]) -> list[str]:
    name = function.__name__
    found = [name_problem("Feature view", name)]
    if promise.view_name is not None:
        found.append(
            f"Contract {promise.name!r} is already kept by view {promise.view_name!r}. "
            f"Give '{name}' a contract of its own."
        )
    if not inputs:
        found.append(f"Feature view {name!r} has no inputs. Declare what it reads: inputs=[…].")
    for item in inputs:
        found += _input_problems(name, item)
    declared = [item.name for item in inputs if isinstance(item, Input)]
    takes = [taken for taken in inspect.signature(function).parameters if taken != "as_of"]
    if len(declared) == len(inputs) and takes != declared:
        found.append(
            f"Feature view {name!r} takes {takes}, but its inputs are {declared}. Rename the "
            "parameter, or declare the input it should receive. Nothing was registered."
        )
    return [problem for problem in found if problem]


def _input_problems(view: str, item: Any) -> list[str]:
    if isinstance(item, Input):
        return item.problems(f"Feature view {view!r}")
    if isinstance(item, FeatureView):
        ways = f"{item.name}.same_day(), {item.name}.trailing(days=7) or {item.name}.latest()"
        return [
            f"Feature view {view!r} reads view {item.name!r} without saying which rows. Say {ways}."
        ]
    if isinstance(item, Source):
        return [f"Feature view {view!r} reads source {item.name!r}: say .trailing(days=7)."]
    if isinstance(item, Snapshot):
        return [f"Feature view {view!r} reads snapshot {item.name!r} as a whole. Say .latest()."]
    return [f"Feature view {view!r} has the input {item!r}, which is no source, snapshot or view."]


def _code_without_prose(file: Path, function: str) -> str:
    """Unparse the function and the definitions beside it, without docstrings, comments, layout."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kept: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.ClassDef)):
            continue  # the contract's meaning is hashed by its own fingerprint
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [] if node.name == function else node.decorator_list
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        kept.append(node)
    module = ast.Module(body=kept, type_ignores=[])
    for inner in ast.walk(module):
        if isinstance(inner, ast.FunctionDef) and ast.get_docstring(inner) is not None:
            inner.body = inner.body[1:] or [ast.Pass()]
    return ast.unparse(module)


def _borrowed_code(view: FeatureView) -> Iterator[str]:
    """Yield the code of the files from which the view file imports functions of the project."""
    for value in view.function.__globals__.values():
        if not isinstance(value, FunctionType) or value.__module__.startswith("lockstep"):
            continue
        file = Path(value.__code__.co_filename)
        if file != view.file and "site-packages" not in file.parts and file.is_file():
            yield _code_without_prose(file, value.__name__)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features that one model uses; training and serving resolve the same object.

    Args:
        name: Name with its version, e.g. `churn_v1`; a changed list gets a new name.
        features: Typed features, e.g. `[Txn7d.sum_amt_7d]`.
        description: One sentence for the catalog.
        owner: Who answers for it.
    """

    name: str
    features: Sequence[Feature]
    description: str = ""
    owner: str = ""

    def __post_init__(self) -> None:
        found = [name_problem("Feature set", self.name)]
        found += [
            f"Feature set {self.name!r} lists {feature!r}, which is no feature of a view."
            for feature in self.features
            if getattr(feature, "owner_class", None) is None
        ]
        names = [str(feature) for feature in self.features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            found.append(f"Feature set {self.name!r} lists {twice} more than once.")
        if not names:
            found.append(f"Feature set {self.name!r} lists no feature.")
        if problems := [problem for problem in found if problem]:
            raise DeclarationError(problems)

    @property
    def names(self) -> list[str]:
        """`view:feature`, in declared order."""
        return [str(feature) for feature in self.features]

    @property
    def version(self) -> str:
        """Hash of the listed names and types."""
        listed = [(str(feature), str(feature.type)) for feature in self.features]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:12]


def split_feature(text: str) -> tuple[str, str]:
    """Split `view:feature`.

    Raises:
        UnknownNameError: The text has another form.
    """
    view, separator, feature = text.partition(":")
    if not (view and separator and feature):
        raise UnknownNameError(
            f"{text!r} names no feature.", expected="view:feature, e.g. txn_7d:sum_amt_7d"
        )
    return view, feature
