"""The command line says what the Python API says, for people and scripts, and exits as promised."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from typer.testing import CliRunner, Result

from lockstep.cli import app
from lockstep.cli.console import jsonable
from tests.tiny_project import CUSTOMERS, DAYS, HOSTILE, NOW, VIEW_DAYS, TinyProject, orders

COMMANDS = (
    *(["up"], ["down"], ["land"], ["materialize"], ["push"], ["get"], ["training-set"], ["views"]),
    *(["parity"], ["quarantine"], ["quarantine", "list"], ["quarantine", "show"], ["ui"]),
    *(["quarantine", "release"], ["status"], ["preview"], ["new"], ["new", "view"], ["metrics"]),
    *(["reconcile"], ["doctor"], ["profile"]),
)


def lockstep(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return result


def as_json(*arguments: str, status: int = 0) -> Any:
    return json.loads(lockstep(*arguments, "--json", status=status).stdout)


def really(
    *arguments: str, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run the command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lockstep", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **(env or {})},
    )


def quarantined(tiny: TinyProject) -> str:
    """Build everything, then a last day that breaks its contract; return the item."""
    tiny.build()
    tiny.land_orders("bad", orders(DAYS[-1], [-500], first_id=900))
    tiny.ingest([DAYS[-1]])
    tiny.materialize("spend_2d", [DAYS[-1]])
    (item,) = as_json("quarantine", "list")
    return str(item["item"])


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: Sequence[str]) -> None:
    assert "Usage: " in lockstep(*command, "--help").stdout


def test_the_list_of_commands_needs_none_of_the_stores() -> None:
    code = (
        "import sys; from lockstep.cli import app; heavy = {'dagster', 'deltalake', 'redis', "
        "'soda_core', 'pandera', 'lockstep.store'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_outside_a_project_one_sentence_says_so_and_no_traceback(tmp_path: Path) -> None:
    done = really("views", env={"LOCKSTEP_PROJECT": str(tmp_path)})

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: No Lockstep project at or above")
    assert "[tool.lockstep]" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_in_a_view_keeps_its_traceback(tiny: TinyProject) -> None:
    file = tiny.view_file("orders_1d")
    file.write_text(file.read_text().replace("return orders", "1 / 0\n    return orders"))
    tiny.ingest()

    done = really("preview", "orders_1d", "--day", str(DAYS[-1]))

    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "orders_1d.py" in done.stderr


def test_a_broken_view_file_is_named_and_the_others_work(tiny: TinyProject) -> None:
    tiny.view_file("broken").write_text("def broken(:\n")

    result = lockstep("views")

    assert "broken.py is broken" in result.stderr
    assert "line 1" in result.stderr
    assert "spend_2d" in result.stdout


def test_a_wrong_name_is_met_with_the_nearest_one(built: TinyProject) -> None:
    assert "Did you mean 'spend_2d'?" in lockstep("views", "spend2d", status=2).stderr
    assert "Did you mean 'orders'?" in lockstep("materialize", "order", status=2).stderr


def test_the_catalog_says_who_what_and_how_fresh(built: TinyProject) -> None:
    views = {view["name"]: view for view in as_json("views")}
    table = lockstep("views").stdout
    page = lockstep("views", "contact").stdout

    assert list(views) == ["contact", "orders_1d", "spend_2d"]
    assert views["spend_2d"]["owner"] == "team:shop"
    assert views["spend_2d"]["days"] == [str(day) for day in VIEW_DAYS]
    assert views["spend_2d"]["freshness"]["holds"] is True
    assert f"{len(VIEW_DAYS)} to {VIEW_DAYS[-1]}" in table
    assert f"{VIEW_DAYS[0]}..{VIEW_DAYS[-1]}" in page
    assert "passed" in table
    assert "E-mail address." in page
    assert "team:privacy" in page


def test_status_counts_files_days_seals_and_quarantine(tiny: TinyProject) -> None:
    quarantined(tiny)

    found = as_json("status")
    shown = lockstep("status").stdout

    assert [(s["name"], s["files"], len(s["days"])) for s in found["sources"]] == [
        ("orders", 10, 9),
        ("contacts", 1, 1),
    ]
    assert all(seal["unsealed"] == [] for seal in found["seals"])
    assert len(found["quarantine"]) == 1
    assert "1 open" in shown
    assert "valkey" in shown


def test_status_goes_on_where_the_online_store_does_not_answer(
    built: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKSTEP_REDIS_URL", "redis://:secret@127.0.0.1:1/0")

    result = lockstep("status")

    assert "127.0.0.1:1/0" in result.stdout
    assert "unknown" in result.stdout
    assert "secret" not in result.output


def test_a_vector_has_a_value_a_status_and_an_age_per_feature(built: TinyProject) -> None:
    found = as_json("get", "customer=ada", "--feature-set", "buying_v1")
    shown = lockstep("get", "customer=ada").stdout

    assert found["entity"] == {"customer": "ada"}
    assert [(c["feature"], c["value"], c["status"]) for c in found["cells"]] == [
        ("spend_2d:spend", 100.0, "present"),
        ("orders_1d:orders", 2, "present"),
    ]
    assert 14 * 3600 <= found["cells"][0]["age_seconds"] < 14 * 3600 + 1
    assert "0@example.com" in shown  # who asks for an entity sees it
    assert "14.0 h" in shown


def test_a_hostile_key_is_found_and_moves_no_cursor(built: TinyProject) -> None:
    result = lockstep("get", f"customer={HOSTILE}", "--features", "orders_1d:orders")

    assert "present" in result.stdout
    assert "\x1b" not in result.stdout
    assert "\\x1b[31m" in result.stdout


def test_missing_cells_get_null_the_default_or_an_error(built: TinyProject) -> None:
    asked = ("get", "customer=nobody", "--features", "spend_2d:spend")

    assert as_json(*asked)["cells"][0]["value"] is None
    assert as_json(*asked, "--on-missing", "default")["cells"][0]["value"] == 0.0
    assert "is missing" in lockstep(*asked, "--on-missing", "fail", status=2).stderr
    lockstep(*asked, "--on-missing", "guess", status=2)


def test_raw_shows_header_and_columns_as_stored(built: TinyProject) -> None:
    (stored,) = as_json("get", "customer=ada", "--features", "orders_1d:orders", "--raw")
    nothing = lockstep("get", "customer=nobody", "--features", "orders_1d:orders", "--raw").stdout

    assert stored["key"].endswith("}:s3:ada")
    assert stored["header"]["day"] == str(DAYS[-1])
    assert stored["header"]["revision"] == 1
    assert stored["columns"] == {"orders": 2}
    assert "no value was ever pushed" in nothing


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["customer"], "KEY=VALUE"),
        (["customer=a", "customer=b"], "named before"),
        (["shop=1"], "the keys of an entity: customer"),
        (["customer=a", "shop=1", "--features", "orders_1d:orders"], "identify none"),
        (["customer=a", "--features", "orders_1d:nope"], "no feature of orders_1d named 'nope'"),
        (["customer=a", "--features", "x:y", "--feature-set", "z"], "Leave one out"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    built: TinyProject, arguments: list[str], words: str
) -> None:
    assert words in lockstep("get", *arguments, status=2).stderr


def test_non_finite_numbers_stay_apart_from_null_in_json() -> None:
    values = [float("nan"), float("inf"), float("-inf"), None, 2**63 - 1, NOW, b"\x00", DAYS[0]]

    assert jsonable(values) == [
        *("NaN", "Infinity", "-Infinity", None, 2**63 - 1),
        *("2025-03-12T18:00:00+00:00", "AA==", "2025-03-03"),
    ]


def test_parity_holds_after_a_push_and_is_exit_1_once_a_row_is_lost(
    tiny: TinyProject, tiny_server: Any
) -> None:
    tiny.build()
    lockstep("parity")
    with redis.Redis.from_url(tiny_server.url) as client:
        (key,) = client.keys(f"*:{tiny.views}:*s3:bob")
        client.hdel(key, "orders_1d")

    found = {each["view"]: each for each in as_json("parity", status=1)}
    repaired = lockstep("parity", "orders_1d", status=1)

    assert found["orders_1d"]["missing"] == 1
    assert found["contact"]["holds"] is True
    assert "Repair: lockstep push orders_1d" in repaired.stdout


def test_a_push_seals_what_is_committed_and_refuses_what_is_not(tiny: TinyProject) -> None:
    tiny.ingest()
    tiny.materialize("orders_1d", VIEW_DAYS[:2])

    refused = lockstep("push", "orders_1d", "--days", str(VIEW_DAYS[3]), status=2)
    (pushed,) = as_json("push")
    again = lockstep("push", "orders_1d")

    assert "is not certified" in refused.stderr
    assert pushed["days"] == [str(day) for day in VIEW_DAYS[:2]]
    assert pushed["receipt"]["written"] == len(CUSTOMERS)
    assert "all were before" in again.stdout


def test_a_preview_shows_verdicts_masks_people_and_writes_nothing(built: TinyProject) -> None:
    before = files_of(built.folder / "lake")

    masked = lockstep("preview", "contact", "--day", str(DAYS[-1])).stdout
    shown = lockstep("preview", "contact", "--day", str(DAYS[-1]), "--show-pii").stdout

    assert "•••" in masked
    assert "@example.com" not in masked
    assert "0@example.com" in shown
    assert "completeness" in shown
    assert "The content is that of revision 1" in shown
    assert files_of(built.folder / "lake") == before


def test_a_preview_that_would_be_quarantined_is_exit_1(tiny: TinyProject) -> None:
    tiny.land_orders("bad", orders(DAYS[-1], [-500], first_id=900))
    tiny.ingest()

    found = as_json("preview", "spend_2d", "--day", str(DAYS[-1]), status=1)
    shown = lockstep("preview", "spend_2d", "--day", str(DAYS[-1]), status=1).stdout

    assert found["passed"] is False
    assert [v["check"] for v in found["verdicts"] if not v["passed"]] == ["contract"]
    assert "The day would be quarantined." in shown
    assert "Rows that fail the check contract" in shown


def test_a_preview_of_a_day_of_which_nothing_landed_says_so(tiny: TinyProject) -> None:
    landed = Path(tiny.store.project.landing) / "orders"
    (file,) = landed.glob(f"{DAYS[-1]}*")
    file.unlink()

    gone = lockstep("preview", "spend_2d", "--day", str(DAYS[-1]), status=2).stderr
    there = lockstep("preview", "spend_2d", "--day", str(DAYS[-2]), status=2).stderr

    assert f"No row of orders has landed for {DAYS[-1]}." in " ".join(gone.split())
    assert "Materialize" not in gone
    assert "Materialize orders first" in " ".join(there.split())
    assert "has landed" not in there


@pytest.mark.parametrize("day", ["2025-03-12", "soon", "2025-03-10..2025-03-11"])
def test_a_preview_needs_one_day_that_has_ended(built: TinyProject, day: str) -> None:
    lockstep("preview", "orders_1d", "--day", day, status=2)


def test_the_quarantine_is_listed_shown_and_released_with_a_reason(tiny: TinyProject) -> None:
    item = quarantined(tiny)

    listed = lockstep("quarantine", "list").stdout
    shown = lockstep("quarantine", "show", "spend_2d", str(DAYS[-1])).stdout
    refused = lockstep("quarantine", "release", "spend_2d", item, "--reason", " ", status=2)
    lockstep("quarantine", "release", "spend_2d", item, status=2)
    released = lockstep("quarantine", "release", "spend_2d", item, "--reason", "a refund")

    assert item in listed
    assert "-400" in shown
    assert "without a reason" in refused.stderr
    assert "revision 2" in released.stdout
    assert as_json("quarantine", "list") == []
    assert as_json("quarantine", "list", "--all")[0]["released"]["reason"] == "a refund"
    assert {v["name"]: v["last"] for v in as_json("views")}["spend_2d"]["outcome"] == "released"


def test_a_refused_file_is_released_by_name(tiny: TinyProject) -> None:
    tiny.land_orders("wrong", orders(DAYS[1], [1]).rename({"amount": "price"}))
    tiny.ingest()

    shown = lockstep("quarantine", "show", "orders", "file-wrong").stdout
    released = lockstep("quarantine", "release", "orders", "file-wrong", "--reason", "known")

    assert "column 'amount' is missing" in shown
    assert "goes on without orders/wrong.parquet" in released.stdout


def test_metrics_are_in_the_text_format(built: TinyProject) -> None:
    lines = lockstep("metrics").stdout.splitlines()

    assert 'feature_fill_rate{feature="spend_2d:spend"} 1.0' in lines
    assert "# TYPE feature_freshness_seconds gauge" in lines


def test_landing_is_left_to_the_projects_function(built: TinyProject) -> None:
    shown = lockstep("land", "--days", f"{DAYS[0]}..{DAYS[1]}").stdout
    found = as_json("land")

    assert "orders 3" in shown
    assert found["first"] == found["last"] == str(DAYS[-1])
    assert "has not ended" in lockstep("land", "--days", "2025-03-12", status=2).stderr


@pytest.mark.parametrize("land", ["", 'land = "nowhere:land"', 'land = "json:nothing"'])
def test_a_project_without_a_landing_function_says_how_to_name_one(
    tiny: TinyProject, land: str
) -> None:
    settings = tiny.folder / "pyproject.toml"
    kept = [line for line in settings.read_text().splitlines() if not line.startswith("land")]
    settings.write_text("\n".join([*kept, land]))

    assert "land" in lockstep("land", status=2).stderr


def test_the_projects_own_server_starts_once_and_stops(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "did not start" in lockstep("down", status=2).stderr
    assert "nothing had to be started" in lockstep("up").stdout
    monkeypatch.delenv("LOCKSTEP_REDIS_URL")

    try:
        first, second = lockstep("up").stdout, lockstep("up").stdout
    finally:
        stopped = lockstep("down").stdout

    assert "redis://127.0.0.1:" in first
    assert first == second
    assert "has stopped" in stopped
    assert "No online server was running" in lockstep("down").stdout


def test_output_that_is_cut_off_is_no_error_of_ours(built: TinyProject) -> None:
    quoted = f"'{sys.executable}' -m lockstep metrics | head -1"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        ["bash", "-c", quoted], capture_output=True, text=True, check=False, env=env
    )

    assert done.stdout.startswith("# HELP")
    assert "Traceback" not in done.stderr


def test_a_spine_gets_its_features_in_its_order(own: TinyProject) -> None:
    spine = pl.DataFrame(
        {"customer": ["bob", "nobody", "ada"], "label": [1, 0, 1], "at": [NOW] * 3}
    ).with_columns(pl.col("at").dt.convert_time_zone("UTC"))
    spine.write_parquet("labels.parquet")

    found = as_json(
        *("training-set", "--spine", "labels.parquet", "--feature-set", "buying_v1"),
        *("--timestamp", "at", "--out", "set.parquet"),
    )

    joined = pl.read_parquet("set.parquet")
    assert joined.drop("spend_2d:spend", "orders_1d:orders").equals(spine)
    assert joined["orders_1d:orders"].to_list() == [1, None, 2]
    assert found["rows"] == 3
    assert found["null_share"]["orders_1d:orders"] == pytest.approx(1 / 3)
    assert len(found["code_versions"]["orders_1d"]) == 1


def test_a_naive_timestamp_needs_its_zone(own: TinyProject) -> None:
    Path("labels.csv").write_text("customer,at\nada,2025-03-12T08:00:00\n")
    asked = ("training-set", "--spine", "labels.csv", "--features", "contact:email")
    asked = (*asked, "--timestamp", "at", "--out", "set.csv")

    refused = lockstep(*asked, status=2)
    joined = lockstep(*asked, "--time-zone", "America/New_York")

    assert "--time-zone" in refused.stderr
    assert "identify people: contact:email" in joined.stderr
    assert Path("set.csv").read_text().splitlines()[1].endswith("0@example.com")


@pytest.mark.parametrize(
    ("spine", "to", "words"),
    [
        ("absent.parquet", "set.parquet", "does not exist"),
        ("labels.xlsx", "set.parquet", "does not exist"),
        ("labels.csv", "set.txt", "no known kind"),
        ("labels.csv", "nowhere/set.csv", "can't be written"),
    ],
)
def test_a_file_that_is_no_spine_or_no_place_is_refused(
    own: TinyProject, spine: str, to: str, words: str
) -> None:
    Path("labels.csv").write_text("customer,event_timestamp\nada,2025-03-12T08:00:00Z\n")
    before = sorted(Path().iterdir())
    asked = ("training-set", "--spine", spine, "--out", to, "--features", "contact:email")

    assert words in lockstep(*asked, status=2).stderr
    assert sorted(Path().iterdir()) == before
