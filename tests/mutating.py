"""Guards taken away: a function gets the code of its changed source."""

import inspect
import textwrap
from types import FunctionType
from typing import Any

import pytest


def mutate(patch: pytest.MonkeyPatch, function: FunctionType, old: str, new: str) -> None:
    """Give a function, wherever it was imported to, the code of its changed source."""
    source = textwrap.dedent(inspect.getsource(function))
    old = old if old in source else textwrap.dedent(old)
    assert 1 == source.count(old), f"{function.__qualname__} has changed: correct the mutation"
    found: dict[str, Any] = {}
    changed = compile(source.replace(old, new), f"<mutated {function.__name__}>", "exec")
    exec(changed, dict(function.__globals__), found)  # noqa: S102 - the point of the test
    patch.setattr(function, "__code__", found[function.__name__].__code__)
