"""Rules of Prometheus as values, and the YAML file that they make: the same bytes each time."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from textwrap import wrap
from typing import TypeAlias

_COMMENT_WIDTH = 94


@dataclass(frozen=True)
class Recording:
    """A series that is kept under a name of its own.

    Attributes:
        comment: What a reader of the file should know; may be empty, as everywhere here.
    """

    record: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)
    comment: str = ""


@dataclass(frozen=True)
class Alert:
    """What somebody is told while an expression gives something.

    Attributes:
        lasting: How long it must give something before anybody is told.
    """

    alert: str
    expr: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    lasting: timedelta = timedelta(0)
    comment: str = ""


Rule: TypeAlias = Recording | Alert


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated one after another: each sees those before it."""

    name: str
    rules: Sequence[Rule]
    comment: str = ""


def seconds(length: timedelta) -> str:
    """Return a length as a number of seconds in PromQL, without a needless fraction."""
    return f"{length.total_seconds():.15g}"


def duration(length: timedelta) -> str:
    """Return a length of whole seconds as Prometheus writes it: `1h30m`."""
    left = int(length.total_seconds())
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def rule_file(groups: Iterable[Group], header: str) -> str:
    """Return the rules as a YAML file; the header, paragraph by paragraph, as its comment."""
    lines = [*_comment(header, ""), "groups:"]
    for group in groups:
        lines += [*_comment(group.comment, "  "), f"  - name: {_text(group.name)}", "    rules:"]
        for rule in group.rules:
            lines += [*_comment(rule.comment, "      "), *_rule(rule)]
    return "".join(f"{line}\n" for line in lines)


def _rule(rule: Rule) -> Iterator[str]:
    named = f"record: {rule.record}" if isinstance(rule, Recording) else f"alert: {rule.alert}"
    yield f"      - {named}"
    yield from _expression(rule.expr)
    if isinstance(rule, Alert) and rule.lasting:
        yield f"        for: {duration(rule.lasting)}"
    yield from _mapping("labels", rule.labels)
    if isinstance(rule, Alert):
        yield from _mapping("annotations", rule.annotations)


def _expression(expr: str) -> Iterator[str]:
    yield "        expr: |-"
    yield from (f"          {line}" for line in expr.splitlines())


def _mapping(name: str, pairs: Mapping[str, str]) -> Iterator[str]:
    if pairs:
        yield f"        {name}:"
        yield from (f"          {key}: {_text(value)}" for key, value in pairs.items())


def _text(value: str) -> str:
    """Return a scalar in double quotes: JSON's text is YAML's too."""
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str, indent: str) -> Iterator[str]:
    for paragraph in text.splitlines():
        for line in wrap(paragraph, _COMMENT_WIDTH - len(indent)) or [""]:
            yield f"{indent}# {line}".rstrip()
