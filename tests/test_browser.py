"""What a person sees: Dagster's real UI on the reference project, driven in Chromium.

`SCREENSHOTS=folder` keeps a picture of every page that is looked at.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from lockstep.time import last_full_day
from tests.dagster_answers import answering

ROOT = Path(__file__).parents[1]
LAST = last_full_day(datetime.now(UTC), ZoneInfo("America/New_York"))
FIRST = LAST - timedelta(days=2)
LANDED_FROM = FIRST - timedelta(days=7)
SEEN_WITHIN_MS = 30_000
CHROMIUM = shutil.which("chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt install chromium)"
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> dict[str, str]:
    """An instance and a lake of their own, with three days of one view committed and pushed."""
    home = tmp_path_factory.mktemp("dagster home")
    settings = (ROOT / "dagster.yaml").read_text(encoding="utf-8")
    (home / "dagster.yaml").write_text(settings.replace(".lockstep/dagster", str(home / "kept")))
    found = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "LOCKSTEP_PROJECT": str(ROOT),
        "LOCKSTEP_ROOT": str(home / "lake"),
        "LOCKSTEP_REDIS_URL": redis_url,
        "LOCKSTEP_ENV": "browser",
    }
    python(found, "-m", "lockstep", "land", "--days", f"{LANDED_FROM}..{LAST}")
    wanted = ("--select", "transactions,txn_7d", "--days", f"{FIRST}..{LAST}")
    python(found, "-m", "schedules.run", *wanted)
    return found


def python(environment: dict[str, str], *arguments: str) -> None:
    """Run Python in the project's folder; its output is shown if it fails."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def address(environment: dict[str, str]) -> Iterator[str]:
    """Where `dagster dev` answers; it is stopped as a person would, with Ctrl-C."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = Path(environment["DAGSTER_HOME"]) / "dev.log"
    at = ("--host", "127.0.0.1", "--port", str(port))
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", *at],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Started in the background it would inherit an ignored SIGINT and never stop.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )
        try:
            yield answering(f"http://127.0.0.1:{port}", child, log)
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(60)


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Page]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        opened = browser.new_context(viewport={"width": 1800, "height": 1600}).new_page()
        opened.set_default_timeout(SEEN_WITHIN_MS)
        yield opened
        browser.close()


def look(page: Page, address: str, path: str, *texts: str) -> None:
    """Open a page and wait until it shows every text; keep a picture if one is wanted."""
    page.goto(f"{address}{path}", wait_until="domcontentloaded")
    for text in texts:
        expect(page.get_by_text(text, exact=True).first).to_be_visible(timeout=SEEN_WITHIN_MS)
    if folder := os.environ.get("SCREENSHOTS"):
        name = path.strip("/").replace("/", "-").replace("?", "-").partition("&")[0]
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_the_lineage_leads_from_the_source_over_the_view_to_its_push(
    page: Page, address: str
) -> None:
    path = "/assets/txn_7d_online?view=lineage&lineageScope=upstream&lineageDepth=5"

    look(page, address, path, "bronze", "household", "transactions", "txn_7d", "Polars", "Redis")


def test_the_group_of_an_entity_shows_its_views_and_what_they_read(
    page: Page, address: str
) -> None:
    path = "/locations/lockstep/asset-groups/household/lineage"

    look(page, address, path, "recency", "recency_online", "shopping_hours")


def test_training_sets_stand_below_the_views(page: Page, address: str) -> None:
    path = "/assets/training_sets?view=lineage&lineageScope=upstream&lineageDepth=1"

    look(page, address, path, "training", "txn_7d", "promotions")


def test_a_view_shows_its_promise_and_its_numbers(page: Page, address: str) -> None:
    texts = ("What a household spent in the trailing seven days, as of the end of the day.",)

    look(page, address, "/assets/txn_7d?view=overview", *texts, "sum_amt_7d", "Spend. [USD]")
    look(page, address, "/assets/txn_7d?view=overview", "growth", "fill_rate:sum_amt_7d", "preview")


def test_a_view_plots_its_numbers_over_time(page: Page, address: str) -> None:
    look(page, address, "/assets/txn_7d?view=overview", "Plots")

    page.get_by_text("Plots", exact=True).first.click()

    expect(page.locator("canvas").first).to_be_visible(timeout=SEEN_WITHIN_MS)


def test_a_view_shows_its_checks(page: Page, address: str) -> None:
    names = ("keys", "contract", "completeness", "cardinality", "drift", "freshness")

    look(page, address, "/assets/txn_7d?view=checks", *names, "Passed")


def test_a_view_shows_which_days_are_there(page: Page, address: str) -> None:
    look(page, address, "/assets/txn_7d?view=partitions", str(LAST), "Materialized (3)")


def test_the_log_has_no_warning_of_our_own(environment: dict[str, str], page: Page) -> None:
    log = (Path(environment["DAGSTER_HOME"]) / "dev.log").read_text(encoding="utf-8")

    ours = [line for line in log.splitlines() if "Warning" in line and str(ROOT) in line]

    assert [] == [line for line in ours if "site-packages" not in line]
