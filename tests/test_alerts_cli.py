"""`lockstep alerts`: what is open, what would be sent, and sending; and the state on S3."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from lockstep.alerts.state import States
from lockstep.cli import app
from lockstep.project import find_project
from lockstep.store import Store
from lockstep.stores.files import open_place
from tests.alert_looks import MINUTE, T0, Sent, seen, stale, ticked
from tests.receivers import WebReceiver, web_receiver
from tests.s3_server import BUCKET, S3, Faults, faulty, s3_server
from tests.source_tree import ROOT
from tests.tiny_project import NOW, TinyProject

RECEIVER = """\n[tool.lockstep.alerts.receivers.chat]
type = "slack"
url_env = "CHAT_URL"
owners = ["{owner}"]
"""
NOBODY = "3 problems are open, and nobody is told:"
PARTLY = "Of 3 open problems nobody is told of 2:"
NO_TAKER = "no receiver of [tool.lockstep.alerts] takes those of"
SECRET = "s3cr3t-t0k3n"  # noqa: S105 - what must not be seen


@pytest.fixture
def web() -> Iterator[WebReceiver]:
    with web_receiver() as running:
        yield running


@pytest.fixture
def old(
    built: TinyProject, web: WebReceiver, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TinyProject]:
    """The built project a week later, with a receiver whose address is a secret."""
    file = built.folder / "pyproject.toml"
    before = file.read_text("utf-8")
    file.write_text(
        f'{before}\n[tool.lockstep.alerts]\nrunbooks = "https://wiki.example.com"\n'
        '[tool.lockstep.alerts.receivers.chat]\ntype = "slack"\nurl_env = "CHAT_URL"\n'
    )
    monkeypatch.setenv("CHAT_URL", f"{web.url}/{SECRET}")
    at = NOW + timedelta(days=7)
    monkeypatch.setattr(
        "lockstep.store.open_store", lambda: Store(find_project(built.folder), now=lambda: at)
    )
    yield built
    file.write_text(before)
    built.store.lake.place.delete_all("alerts")


def lockstep(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    assert SECRET not in result.output
    return result


def as_json(*arguments: str, status: int = 0) -> Any:
    return json.loads(lockstep(*arguments, "--json", status=status).stdout)


def test_nothing_is_wrong(built: TinyProject) -> None:
    assert "Nothing is wrong." in lockstep("alerts").stdout
    assert {"alerts": [], "troubles": {}, "failed": {}} == as_json("alerts")


def test_what_is_open_is_shown_with_its_owner_and_command(
    old: TinyProject, web: WebReceiver
) -> None:
    shown = lockstep("alerts", status=1).stdout
    (row, *_) = [each for each in as_json("alerts", status=1)["alerts"] if each["kind"] == "stale"]

    assert "spend_2d" in shown
    assert "team:shop" in shown
    assert "Run: lockstep" in " ".join(shown.split())
    assert row["fix"].startswith("lockstep materialize ")
    assert "nobody" in shown
    assert {"key", "kind", "subject", "owner", "runbook", "since", "fix", "told"} <= row.keys()
    assert [] == web.requests


def test_a_dry_run_prints_the_messages_and_sends_and_keeps_nothing(
    old: TinyProject, web: WebReceiver
) -> None:
    printed = lockstep("alerts", "--dry-run").stdout
    schema = json.loads((ROOT / "docs" / "alert-message.schema.json").read_text("utf-8"))

    for each in as_json("alerts", "--dry-run"):
        assert "chat" == each["receiver"]
        jsonschema.validate(each["message"], schema)
    assert "To chat:\n[page] Data is not fresh: spend_2d" in printed
    assert "What to do: https://wiki.example.com/stale.md" in printed
    assert [] == web.requests
    assert 0 == States(old.store.lake.place).newest().number


def test_sending_tells_once_and_says_who_was_told(old: TinyProject, web: WebReceiver) -> None:
    first = lockstep("alerts", "--send", status=1)
    count = len(web.requests)
    again = lockstep("alerts", "--send", status=1)

    assert "chat was told: [page] Data is not fresh: spend_2d" in first.output
    assert count == len(web.requests) > 0
    assert "was told" not in again.output
    rows = as_json("alerts", status=1)["alerts"]
    assert {"chat"} == {name for row in rows for name in row["told"]}
    assert "There is nothing to tell." in lockstep("alerts", "--dry-run").stdout


@pytest.mark.parametrize(
    ("receivers", "why"),
    [
        ("", f"{NOBODY} [tool.lockstep.alerts] has no receivers"),
        (
            RECEIVER.format(owner="team:growth"),
            f"{PARTLY} {NO_TAKER} team:privacy (page), team:shop (page)",
        ),
        (
            RECEIVER.format(owner="team:nobody"),
            f"{NOBODY} {NO_TAKER} team:growth (page), team:privacy (page), team:shop (page)",
        ),
    ],
)
def test_what_no_receiver_takes_is_said_to_be_told_to_nobody(
    old: TinyProject, receivers: str, why: str
) -> None:
    file = old.folder / "pyproject.toml"
    file.write_text(file.read_text("utf-8").partition("\n[tool.lockstep.alerts]")[0] + receivers)

    dry = lockstep("alerts", "--dry-run")
    for shown in (dry.stdout, lockstep("alerts", status=1).stdout):
        assert f"{why} (docs/how-to-alerts.md)." in shown
    assert "There is nothing to tell." not in dry.stdout
    scripted = lockstep("alerts", "--dry-run", "--json")
    assert why in scripted.stderr
    assert why in lockstep("alerts", "--json", status=1).stderr
    assert ("growth" in receivers) == bool(json.loads(scripted.stdout))


def test_what_a_receiver_takes_is_not_said_to_be_told_to_nobody(old: TinyProject) -> None:
    assert "nobody is told" not in lockstep("alerts", status=1).output
    assert "nobody is told" not in lockstep("alerts", "--dry-run").output


def test_a_receiver_that_fails_is_named_without_its_address(
    old: TinyProject, web: WebReceiver
) -> None:
    web.statuses = [500] * 9

    failing = lockstep("alerts", "--send", status=1).output
    shown = lockstep("alerts", status=1).output

    assert "chat: it answered with status 500. The next tick tries again." in failing
    assert "chat could not be told since 2025-03-19 18:00 UTC, 1 times" in shown


def test_settings_that_are_wrong_end_the_command(old: TinyProject) -> None:
    file = old.folder / "pyproject.toml"
    file.write_text(file.read_text("utf-8") + 'url = "https://hooks.example.com/x"\n')

    result = lockstep("alerts", status=2)

    assert "is a secret: name a variable in url_env instead" in result.output
    lockstep("alerts", "--send", "--dry-run", status=2)


# On S3


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as running:
        yield running


def test_the_state_on_s3_is_changed_by_one_of_two(s3: S3) -> None:
    one, other = (States(open_place(f"s3://{BUCKET}/one", s3.options)) for _ in range(2))
    start = one.newest()

    assert one.succeed(start, start) is not None
    assert other.succeed(start, start) is None
    assert 1 == other.newest().number


def test_a_reply_that_is_lost_on_s3_sends_nothing_twice(s3: S3) -> None:
    faults = Faults(only=r"alerts/state", lose_replies=1)
    sent = Sent()
    with faulty(s3, faults) as flaky:
        states = States(open_place(f"s3://{BUCKET}/two", flaky.options))
        for minute in range(3):
            ticked(states, seen(stale("a")), T0 + minute * MINUTE, send=sent)

    assert [[("a", "new")]] == sent.news()
