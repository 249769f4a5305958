"""`materialize` and `ui` start the project's own process, follow it, and never leave it behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lockstep.catalog import discover
from lockstep.cli import app
from lockstep.cli.told import Told
from tests.tiny_project import DAYS, VIEW_DAYS, TinyProject, orders

ROOT = Path(__file__).parent.parent
RULES = ("--config", str(ROOT / "pyproject.toml"))
RANGE = f"{VIEW_DAYS[0]}..{VIEW_DAYS[-1]}"


@pytest.fixture(autouse=True)
def engine_for_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def lockstep(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return result


def test_a_run_over_everything_names_every_asset_and_keeps_its_log(tiny: TinyProject) -> None:
    lockstep("materialize", "orders", "--days", str(DAYS[0]))

    result = lockstep("materialize", "--days", RANGE, "--json")

    told = json.loads(result.stdout)
    assert list(told["assets"]) == [
        *("contacts", "orders", "contact", "orders_1d", "spend_2d"),
    ]
    assert told["assets"]["spend_2d"]["committed"] == len(VIEW_DAYS)
    assert told["assets"]["spend_2d"]["rows_pushed"] == 3
    assert (told["exit_status"], told["run_ids"]) == (0, ["r1"])
    assert f"hello in {tiny.folder}" in Path(told["log"]).read_text()
    assert Path(told["log"]).parent == tiny.folder / ".lockstep" / "logs"


def test_the_default_is_the_last_full_day_and_named_assets_only(tiny: TinyProject) -> None:
    tiny.ingest()

    result = lockstep("materialize", "orders_1d", "--json")

    assert list(json.loads(result.stdout)["assets"]) == ["orders_1d"]
    assert list(tiny.store.committed(tiny.store.catalog.view("orders_1d"))) == [DAYS[-1]]


def test_every_bad_day_is_named_with_its_reason_and_the_status_is_1(tiny: TinyProject) -> None:
    tiny.land_orders("bad", orders(DAYS[2], [-500], first_id=900))
    tiny.ingest()

    result = lockstep("materialize", "spend_2d", "--days", RANGE, status=1)

    bad = [line for line in result.stdout.splitlines() if "quarantined" in line]
    assert [line.split()[1] for line in bad] == [str(DAYS[2]), str(DAYS[3])]
    assert "Look: lockstep quarantine show spend_2d" in bad[0]
    assert "Log of the run" in result.stderr


def test_a_child_that_dies_shows_the_end_of_its_log(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHILD_FAILS", "1")

    result = lockstep("materialize", "orders", status=1)

    assert "ZeroDivisionError: the child has a bug" in result.stderr
    assert str(tiny.folder / ".lockstep" / "logs") in result.stderr.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--days", "2025-03-12"], "has not ended"),
        (["--days", "yesterday"], "names no days"),
        (["nope"], "no view, source or snapshot named 'nope'"),
        (["--rebuild"], "names of views"),
        (["orders_1d", "--rebuild", "--days", "2025-03-11"], "names of views"),
        (["orders_1d", "--rebuild"], "nothing to rebuild"),
    ],
)
def test_what_can_not_run_is_refused_before_anything_starts(
    tiny: TinyProject, arguments: list[str], words: str
) -> None:
    assert words in lockstep("materialize", *arguments, status=2).stderr
    assert not (tiny.folder / ".lockstep" / "logs").exists()


def test_a_project_that_has_no_run_module_says_so(tiny: TinyProject) -> None:
    (tiny.folder / "schedules" / "run.py").unlink()

    assert "schedules/run.py" in lockstep("materialize", status=2).stderr


@pytest.mark.parametrize(
    ("number", "ignored"), [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False)]
)
def test_a_signal_reaches_the_child_which_is_waited_for(
    tiny: TinyProject, number: signal.Signals, ignored: bool
) -> None:
    marker = tiny.folder / "child.pid"
    os.mkfifo(marker)
    command = [sys.executable, "-m", "lockstep", "materialize", "orders", "--days", str(DAYS[0])]
    if ignored:  # as a shell does for what it starts in the background
        command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command]
    with subprocess.Popen(
        command,
        env={**os.environ, "CHILD_WAITS": str(marker)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        child = int(marker.read_text())  # blocks until the child runs
        parent.send_signal(number)
        _, told = parent.communicate()

    assert parent.returncode == 128 + number
    assert "run again to complete it" in told
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_rebuild_puts_a_changed_contract_in_place_and_leaves_nothing_stale(
    tiny: TinyProject,
) -> None:
    tiny.build()
    before = tiny.store.committed(tiny.store.catalog.view("orders_1d"))
    file = tiny.view_file("orders_1d")
    changed = file.read_text().replace(
        "at_least=1)\n", 'at_least=1)\n    total = Feature(pl.Float64, "Spend.", unit="USD")\n'
    )
    file.write_text(
        changed.replace("cast(pl.Int64))", 'cast(pl.Int64), total=pl.col("amount").sum())')
    )
    forget(tiny)

    assert "contract changed" in lockstep("views").stdout
    result = lockstep("materialize", "orders_1d", "--rebuild")
    lockstep("push", "orders_1d")

    assert f"{len(VIEW_DAYS)} days are rebuilt" in result.stderr
    (facts,) = json.loads(lockstep("views", "orders_1d", "--json").stdout)
    assert facts["days"] == [str(day) for day in VIEW_DAYS]
    assert (facts["contract_changed"], facts["stale"], facts["outdated"]) == (None, [], [])
    found = json.loads(lockstep("get", "customer=ada", "--json").stdout)["cells"]
    assert {c["feature"]: c["value"] for c in found}["orders_1d:total"] == 50.0
    after = tiny.store.view("orders_1d").scan().collect()
    assert after.height == sum(record.rows for record in before.values())
    lockstep("parity")


def test_a_rebuild_that_fails_an_audit_changes_nothing(tiny: TinyProject) -> None:
    tiny.build()
    before = tiny.store.view("orders_1d").scan().collect()
    file = tiny.view_file("orders_1d")
    file.write_text(file.read_text().replace("at_least=1", "at_least=2, nullable=False"))
    forget(tiny)

    result = lockstep("materialize", "orders_1d", "--rebuild", status=2)

    assert "can't be rebuilt: 8 of 8 days fail" in result.stderr
    assert tiny.store.view("orders_1d").scan().collect().equals(before)


def forget(tiny: TinyProject) -> None:
    """Let the next command import the view files anew, as a new process would."""
    for name in [name for name in sys.modules if name.startswith(f"{tiny.views}.")]:
        del sys.modules[name]


def test_a_new_view_passes_discovery_lint_its_own_test_and_an_audit(tiny: TinyProject) -> None:
    tiny.ingest()

    said = lockstep("new", "view", "visits").stdout

    file, test = tiny.view_file("visits"), tiny.folder / "tests" / "test_visits.py"
    assert str(file) in said
    assert "visits" in discover(tiny.store.project).views
    for command in (
        ["ruff", "check", *RULES, "--extend-ignore", "D103,INP001,S101"],
        ["ruff", "format", "--check", *RULES],
        ["pytest", "-q", "-p", "no:cacheprovider"],
    ):
        paths = [str(test)] if command[0] == "pytest" else [str(file), str(test)]
        done = subprocess.run(
            [sys.executable, "-m", *command, *paths],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": f"{tiny.folder}:{ROOT}"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in lockstep("preview", "visits", "--day", str(DAYS[-1])).stdout


def test_a_new_view_with_a_long_name_is_formatted_all_the_same(tiny: TinyProject) -> None:
    name = "a_name_" + "of_sixty_three_letters_" * 2 + "in_all_abc"

    lockstep("new", "view", name)

    done = subprocess.run(
        [
            *(sys.executable, "-m", "ruff", "format", "--check", *RULES),
            *(str(tiny.view_file(name)), str(tiny.folder / "tests" / f"test_{name}.py")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["spend_2d"], "exists already"),
        (["orders"], "exists already"),
        (["sets"], "exists."),
        (["Visits"], "lower-case"),
        (["pl"], "means something else"),
        (["lambda"], "means something else"),
        (["day"], "reserved"),
        (["visits", "--source", "nope"], "no source named 'nope'"),
        (["visits", "--entity", "shop"], "No such source"),
        (["visits", "--owner", "nobody"], "has owner 'nobody'"),
    ],
)
def test_a_new_view_that_can_not_be_is_refused_and_nothing_is_written(
    tiny: TinyProject, arguments: list[str], words: str
) -> None:
    before = sorted(tiny.folder.rglob("*.py"))

    assert words in lockstep("new", "view", *arguments, status=2).stderr
    assert sorted(tiny.folder.rglob("*.py")) == before


def test_the_ui_needs_a_workspace(tiny: TinyProject) -> None:
    assert "workspace.yaml" in lockstep("ui", status=2).stderr


def test_the_ui_refuses_a_port_that_is_taken(tiny: TinyProject) -> None:
    (tiny.folder / "workspace.yaml").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert f"Port {port}" in lockstep("ui", "--port", str(port), status=2).stderr


def test_events_of_a_newer_run_module_are_ignored() -> None:
    told = Told()

    heard = [
        told.hear(event)
        for event in (
            {"event": "plan", "name": "a", "days": 2},
            {"event": "day", "name": "a", "day": "2025-03-06", "status": "committed"},
            {"event": "day", "name": "a", "day": "2025-03-07", "status": "skipped", "message": "m"},
            {"event": "push", "name": "a", "days": 1, "rows": 3},
            {"event": "error", "message": "alone"},
            {"event": "unheard of"},
            {"event": "day"},
            ["no", "object"],
            None,
        )
    ]

    assert heard == ["a", "a", "a", "a", None, None, None, None, None]
    assert (told.assets["a"].built, told.assets["a"].finished) == (2, 3)
    assert told.messages() == ["a 2025-03-07 skipped: m", "alone"]


def test_days_of_which_the_same_is_to_be_said_are_one_message() -> None:
    told = Told()
    for day, message in [
        ("2025-03-06", "No row has landed for 2025-03-06."),
        ("2025-03-07", "Something else."),
        ("2025-03-08", "No row has landed for 2025-03-08."),
        ("2025-03-09", "No row has landed for 2025-03-09."),
        ("some day", "of another release"),
    ]:
        told.hear(
            {"event": "day", "name": "a", "day": day, "status": "refused", "message": message}
        )

    days = "2025-03-06, 2025-03-08..2025-03-09"
    assert told.messages() == [
        f"a {days} refused: No row has landed for {days}.",
        "a 2025-03-07 refused: Something else.",
        "a some day refused: of another release",
    ]


def test_a_view_that_never_began_is_named_and_why(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHILD_STOPS_AFTER", "orders")
    tiny.land_orders("bad", orders(DAYS[2], [1], first_id=900).drop("amount"))

    asked = ("materialize", "orders", "spend_2d", "--days", RANGE)
    result = lockstep(*asked, status=1)
    data = json.loads(lockstep(*asked, "--json", status=1).stdout)

    assert "spend_2d was not started: something that it reads was not built." in result.stdout
    (row,) = (line for line in result.stdout.splitlines() if line.strip().startswith("spend_2d  "))
    assert str(len(VIEW_DAYS)) in row
    assert data["not_started"] == ["spend_2d"]


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    from lockstep.cli.child import _hear

    heard: list[Any] = []
    told = tmp_path / "progress.jsonl"
    told.write_bytes(b'{"event": "plan"}\n{"ev\n{"event": "done"}\n{"event": "hal')
    with told.open("rb") as events:
        _hear(events, heard.append)
        with told.open("ab") as more:
            more.write(b'f"}\n')
        _hear(events, heard.append)

    assert [event["event"] for event in heard] == ["plan", "done", "half"]
