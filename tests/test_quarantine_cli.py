"""What the commands say of files that are held, and of names and items that are not there."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from lockstep.alerts.look import look
from lockstep.cli import app
from lockstep.ingest import ingest_snapshot
from lockstep.quarantine import Quarantine
from lockstep.why.data_rules import file_refused
from lockstep.why.facts import Held, Upstream
from tests.test_why_causes import healthy
from tests.tiny_project import DAYS, NOW, TinyProject, orders


def lockstep(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return result


def hold(tiny: TinyProject, name: str, *days: date) -> None:
    """Land a file with orders of these days, without amounts, and ingest."""
    tiny.land_orders(name, pl.concat(orders(day, [1.0]) for day in days).drop("amount"))
    tiny.ingest()


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "is empty (0 bytes)."), (b"no parquet at all", "can't be read as parquet: ")],
)
def test_a_file_that_cannot_be_read_is_not_usable_and_its_sentences_end(
    tiny: TinyProject, content: bytes, why: str
) -> None:
    path = Path(tiny.store.project.landing) / "orders" / f"{DAYS[2]}.parquet"
    path.write_bytes(content)
    (outcome,) = [each for each in tiny.ingest() if each.status == "refused"]
    (held,) = [each for each in look(tiny.store).problems if each.kind == "held_file"]

    assert f"A landed file of orders is not usable: orders/{DAYS[2]}.parquet {why}" in held.sentence
    assert f". {DAYS[2]} waits for it; what was certified before stays." in held.sentence
    assert ". The file is quarantined whole and" in outcome.message
    assert "Deliver it again as declared, or go on without it: lockstep" in outcome.message


@pytest.mark.parametrize(
    ("days", "option"),
    [
        ([DAYS[2]], f"--days {DAYS[2]}"),
        ([DAYS[2], DAYS[4]], f"--days {DAYS[2]}..{DAYS[4]}"),
        ([DAYS[-1], DAYS[-1] + timedelta(days=1)], f"--days {DAYS[-1]}"),
    ],
)
def test_a_held_file_is_gone_on_without_and_the_days_to_build_are_named(
    tiny: TinyProject, days: list[date], option: str
) -> None:
    hold(tiny, "wrong", *days)

    shown = lockstep("quarantine", "show", "orders", "file-wrong").stdout
    released = lockstep("quarantine", "release", "orders", "file-wrong", "--reason", "a test")

    assert "To go on without it (its rows stay out): lockstep quarantine release" in shown
    assert "certify" not in shown
    assert "goes on without orders/wrong.parquet; its rows stay out. Next: " in released.stdout
    assert released.stdout.endswith(f"lockstep materialize orders {option}\n")


def test_of_a_file_whose_days_cannot_be_told_the_days_are_left_to_the_reader(
    tiny: TinyProject,
) -> None:
    (Path(tiny.store.project.landing) / "orders" / "wrong.parquet").write_bytes(b"")
    tiny.ingest()

    released = lockstep("quarantine", "release", "orders", "file-wrong", "--reason", "a test")

    assert "lockstep materialize orders --days FROM..TO" in released.stdout


def test_a_held_file_of_a_snapshot_is_gone_on_without_too(tiny: TinyProject) -> None:
    (Path(tiny.store.project.landing) / "contacts" / "wrong.parquet").write_bytes(b"")
    store = tiny.store
    refused = ingest_snapshot(store.lake, store.catalog.snapshots["contacts"], now=store.now)
    (item,) = Quarantine(store.lake.quarantine).open_items()

    released = lockstep("quarantine", "release", "contacts", "file", "--reason", "a test")

    assert "contacts/wrong.parquet is empty (0 bytes). The file is" in refused.message
    assert "or go on without it: " in refused.message
    assert f"lockstep quarantine release contacts {item.item} --reason" in refused.message
    assert released.stdout.endswith("lockstep materialize contacts\n")


@pytest.mark.parametrize("command", [("show",), ("release", "--reason", "a test")])
def test_a_name_that_nobody_declared_is_told_with_the_nearest_one(
    tiny: TinyProject, command: tuple[str, ...]
) -> None:
    hold(tiny, "wrong", DAYS[2])
    do, *options = command

    wrong = lockstep("quarantine", do, "order", "file", *options, status=2).stderr
    none = lockstep("quarantine", do, "spend_2d", "2025", *options, status=2).stderr
    other = lockstep("quarantine", do, "orders", "2025", *options, status=2).stderr

    assert "There is no view, source or snapshot named 'order'." in wrong
    assert "Did you mean 'orders'?" in wrong
    assert "Nothing of spend_2d has ever been quarantined." in none
    assert "0 quarantined items of orders begin with '2025'. Expected one of ['file-wrong" in other


def test_an_item_of_what_is_no_longer_declared_is_found(tiny: TinyProject) -> None:
    hold(tiny, "wrong", DAYS[2])
    tiny.store.__dict__["catalog"] = replace(tiny.store.catalog, sources={})

    assert "file-wrong" in lockstep("quarantine", "show", "orders", "file").stdout


def test_a_release_that_was_begun_and_not_completed_is_shown_while_it_counts(
    tiny: TinyProject,
) -> None:
    tiny.ingest()
    tiny.land_orders("bad", orders(DAYS[-1], [-500], first_id=900))
    tiny.ingest([DAYS[-1]])
    tiny.materialize("spend_2d", [DAYS[-1]])
    quarantine = Quarantine(tiny.store.lake.quarantine)
    (item,) = quarantine.open_items()
    before = lockstep("quarantine", "show", "spend_2d", item.item).stdout
    quarantine.intend(item, "a refund", NOW)

    begun = lockstep("quarantine", "show", "spend_2d", item.item).stdout
    quarantine.close(item, "computed anew", NOW)
    closed = lockstep("quarantine", "show", "spend_2d", item.item).stdout

    assert ["releasing" in shown for shown in (before, begun, closed)] == [False, True, False]
    assert "a refund" in begun
    assert "Its release was begun and not completed: release it again, or compute" in begun
    assert "To certify it: lockstep quarantine release" in begun


def test_nobody_is_told_to_release_a_file_whose_rows_are_right() -> None:
    told = lockstep("quarantine", "release", "--help").stdout.replace("│", "").split()
    held = Held("orders", "Why.", [DAYS[2]], columns=True)
    facts = replace(healthy(), upstream=Upstream(held=[held]))
    why = file_refused(facts)

    assert why is not None
    assert (
        "Have the file delivered again as declared, or release it: its rows stay out." == why.first
    )
    assert "go on without a file" in " ".join(told)
