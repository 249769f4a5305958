"""What the documents name is there: commands, options, settings, files, tests, decisions, words."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import typer
from typer.testing import CliRunner

from lockstep import project
from lockstep.cli import app
from tests.documents import ADRS, CONTEXT, DOCUMENTS, README, blocks, view_file
from tests.source_tree import ROOT, name_of, product_files, tree_of

FOR_TESTS_ONLY: Final = {"LOCKSTEP_TESTING", "LOCKSTEP_CRASH"}
SHOWN: Final = re.compile(r"(?:^|`)(lockstep [a-z][^`\n]*)", re.MULTILINE)


def shell_commands() -> list[list[str]]:
    """The commands of the README's shell blocks, as words."""
    lines = [line for _, code in blocks(README, "sh") for line in code.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def commands_of(group: typer.core.TyperGroup, before: str = "lockstep") -> dict[str, set[str]]:
    """Every command as it is typed, with its options."""
    found: dict[str, set[str]] = {}
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            found |= commands_of(command, f"{before} {name}")
        else:
            options = {word for parameter in command.params for word in parameter.opts}
            found[f"{before} {name}"] = {word for word in options if word.startswith("-")}
    return found


@pytest.fixture(scope="module")
def commands() -> dict[str, set[str]]:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return commands_of(group)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def test_every_shell_command_of_the_readme_exists(commands: dict[str, set[str]]) -> None:
    unknown = []
    for words in shell_commands():
        match [word for word in words if not re.match(r"[A-Z_]+=", word)]:
            case ["make", target, *_]:
                known = target in make_targets()
            case ["lockstep", *_]:
                known = any(" ".join(words).startswith(command) for command in commands)
            case ["dagster", "dev", "-w", workspace]:
                known = (ROOT / workspace).is_file()
            case [".", ".venv/bin/activate"] | ["export", *_]:
                known = True
            case _:
                known = False
        if not known:
            unknown.append(" ".join(words))

    assert [] == unknown


def shown_lockstep_commands() -> list[str]:
    """What the documents show of the command line, in blocks and in the running text."""
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    return [shown for text in texts for shown in re.findall(SHOWN, text)]


def test_every_lockstep_command_and_option_that_is_shown_exists(
    commands: dict[str, set[str]],
) -> None:
    wrong = []
    for shown in shown_lockstep_commands():
        command = max((c for c in commands if f"{shown} ".startswith(f"{c} ")), key=len, default="")
        group = any(c.startswith(f"{shown} ") for c in commands)
        options = set(re.findall(r"(?<!\S)--[a-z-]+", shown))
        if not (command or group) or not options <= commands.get(command, set()) | {"--help"}:
            wrong.append(shown)

    assert [] == wrong


def test_every_command_explains_itself_and_is_in_the_readme(commands: dict[str, set[str]]) -> None:
    text = README.read_text(encoding="utf-8")

    for command in commands:
        result = CliRunner().invoke(app, [*command.split()[1:], "--help"])
        assert 0 == result.exit_code, command
    # A sub-command may stand without the first word: `quarantine show`.
    assert [] == [
        command
        for command in commands
        if f"`{command}" not in text and f"`{command.removeprefix('lockstep ')}" not in text
    ]


def test_every_setting_is_in_the_readme() -> None:
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", README.read_text("utf-8"), re.MULTILINE))

    assert project._SETTINGS == documented


def test_every_environment_variable_is_in_the_readme() -> None:
    files = [*product_files(), ROOT / "dagster.yaml", ROOT / "Makefile"]
    used = {
        name
        for file in files
        for name in re.findall(r"\bLOCKSTEP_[A-Z_]*[A-Z]\b", file.read_text(encoding="utf-8"))
    }
    documented = set(re.findall(r"`(LOCKSTEP_[A-Z_]+)`", README.read_text(encoding="utf-8")))

    assert used >= FOR_TESTS_ONLY
    assert used == documented


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_to_files(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [
        t for t in targets if t[0] != "#" and not (document.parent / t.split("#")[0]).exists()
    ]

    assert [] == missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_files_named_in_the_text_exist(document: Path) -> None:
    """A path in backticks that begins with a folder of the project is there."""
    own = r"(?:lockstep|feature_assets|checks|resources|schedules|demo|tests|docs|benchmarks|tools)"
    named = re.findall(rf"`({own}/[\w./-]+\.\w+)`", document.read_text(encoding="utf-8"))
    example = f"feature_assets/{view_file()[0]}.py"

    assert [] == [path for path in named if path != example and not (ROOT / path).exists()]


def test_tests_named_in_the_text_exist() -> None:
    there = {
        name
        for file in (ROOT / "tests").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = {
        name
        for document in DOCUMENTS
        for name in re.findall(r"`(test_\w+)`", document.read_text(encoding="utf-8"))
    }

    assert set() == named - there


def test_every_promise_names_a_test() -> None:
    rows = re.findall(r"^\| (G\d+) \|.*\|(.*)\|$", README.read_text("utf-8"), re.MULTILINE)

    assert [] == [promise for promise, tests in rows if "](tests/" not in tests]
    assert {f"G{number}" for number in range(1, 14)} == {name for name, _ in rows}


def test_the_index_of_decisions_is_complete_in_order_and_says_their_titles() -> None:
    pages = sorted(ADRS.glob("[0-9]*.md"))
    index = re.findall(
        r"^\| \[(\d+)\]\((\S+)\) \| (.+) \|$", (ADRS / "README.md").read_text(), re.MULTILINE
    )

    assert [page.name for page in pages] == [file for _, file, _ in index]
    for (number, file, title), page in zip(index, pages, strict=True):
        assert f"{int(file[:4])}" == number
        first = page.read_text(encoding="utf-8").splitlines()[0]
        assert f"# {number}. {title}" == first


def avoided() -> dict[str, str]:
    """Word to avoid → the word to use; without those that are fine in another sense."""
    text = CONTEXT.read_text(encoding="utf-8")
    entries = re.findall(r"^(\*\*.+?):\n(?:.+\n)*?_Avoid_: (.+(?:\n.+)*)", text, re.MULTILINE)
    words: dict[str, str] = {}
    for term, listed in entries:
        always, *_ = re.split(r";\s+in\s+this\s+sense:", listed)
        words |= {word.strip(): term.strip("*") for word in " ".join(always.split()).split(",")}
    return words


def test_the_glossary_avoids_no_word_that_it_defines() -> None:
    text = CONTEXT.read_text(encoding="utf-8")
    defined = {
        word
        for line in re.findall(r"^\*\*.+:$", text, re.MULTILINE)
        for word in re.findall(r"\*\*(.+?)\*\*", line)
    }

    assert len(defined) > 50
    assert set() == {word.lower() for word in defined} & avoided().keys()


def test_docstrings_of_the_engine_use_the_words_of_the_glossary() -> None:
    words = avoided()
    found = [
        f"{name_of(file)}: {docstring.group()!r}, say {words[docstring.group(1).lower()]!r}"
        for file in product_files()
        if name_of(file).startswith("lockstep/")
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for docstring in re.finditer(
            rf"\b({'|'.join(map(re.escape, words))})s?\b",
            " ".join((ast.get_docstring(node) or "").split()),
            re.IGNORECASE,
        )
    ]

    assert len(words) > 100
    assert [] == found


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_prose_keeps_to_a_hundred_columns(document: Path) -> None:
    lines = document.read_text(encoding="utf-8").splitlines()

    assert [] == [line for line in lines if len(line) > 100 and not line.startswith("|")]


def texts_for_people() -> Iterator[tuple[str, str]]:
    """Every text in the product's code, with its file; what is put into one is an ellipsis."""
    for file in product_files():
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.JoinedStr):
                parts = [n.value if isinstance(n, ast.Constant) else "…" for n in node.values]
                yield name_of(file), "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield name_of(file), node.value


def test_every_command_that_a_message_or_a_docstring_names_exists(
    commands: dict[str, set[str]],
) -> None:
    groups = {command.rpartition(" ")[0] for command in commands}
    named = {
        (file, match.group())
        for file, text in texts_for_people()
        for match in re.finditer(r"(?<!from )(?<!import )\blockstep [a-z]+(?:-[a-z]+)*", text)
    }

    unknown = {(file, name) for file, name in named if name not in commands.keys() | groups}

    assert len(named) > 20
    assert set() == unknown
