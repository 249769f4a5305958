"""`lockstep slo export`: what it writes, that it writes the same again, and what it refuses."""

import json
import re
import shlex
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lockstep.alerts.problem import KINDS, runbook
from lockstep.alerts.settings import parse_alerts
from lockstep.catalog import discover
from lockstep.cli import app
from lockstep.project import find_project
from lockstep.slo.alerting import MEANINGS, Alerting
from lockstep.slo.burn import BURNS, LEAST_PER_WINDOW
from lockstep.slo.export import DASHBOARD, FOLDER, INDEX, RULES, exported, way_up
from tests.documents import blocks
from tests.slo_world import SETTINGS, loaded, promtool, views
from tests.source_tree import ROOT
from tests.tiny_project import TinyProject

PAGE = ROOT / "docs" / "how-to-slo.md"
OWN_PAGES = {"failed_requests", "no_metrics", "slow_fetches"}
"""What only Prometheus can tell, so that no problem of `lockstep alerts` has these pages."""


def lockstep(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return result


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_exporting_twice_gives_the_same_bytes(tiny: TinyProject) -> None:
    first = lockstep("slo", "export").stdout
    written = contents(tiny.folder / FOLDER)
    again = lockstep("slo", "export").stdout
    lockstep("slo", "export", "--out", "other place")

    assert {RULES, DASHBOARD, INDEX} == written.keys()
    assert (3, 0) == (first.count("Wrote "), again.count("Wrote "))
    assert written == contents(tiny.folder / FOLDER)
    elsewhere = contents(tiny.folder / "other place")
    assert [INDEX] == [name for name in written if written[name] != elsewhere[name]]
    assert b"](../../docs/runbooks/stale.md)" in written[INDEX]
    assert b"](../docs/runbooks/stale.md)" in elsewhere[INDEX]


def test_the_order_of_declaration_changes_nothing() -> None:
    assert exported(views(), SETTINGS) == exported(reversed(views()), SETTINGS)


def test_a_check_fails_on_a_file_that_differs_or_is_missing_and_writes_nothing(
    tiny: TinyProject,
) -> None:
    folder = tiny.folder / FOLDER
    missing = lockstep("slo", "export", "--check", status=1).stdout
    assert not folder.exists()
    lockstep("slo", "export")
    holds = lockstep("slo", "export", "--check").stdout
    (folder / RULES).write_text("groups: []\n")
    (folder / DASHBOARD).unlink()
    before = contents(folder)

    said = lockstep("slo", "export", "--check", status=1).stdout

    assert 3 == missing.count("is missing")
    assert "3 files in" in holds
    assert f"{folder / RULES} differs." in said
    assert f"{folder / DASHBOARD} is missing." in said
    assert INDEX not in said
    assert "lockstep slo export" in said
    assert before == contents(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "team:somebody-else"},
        {"freshness": timedelta(hours=31)},
        {"latency": timedelta(milliseconds=250)},
        {"objective": 0.995},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_contract_that_changes_fails_the_check(change: dict[str, Any]) -> None:
    one, *others = views()
    changed = replace(one, contract=replace(one.contract, **change))

    before, after = (exported([each, *others], SETTINGS)[RULES] for each in (one, changed))
    assert before != after


def test_a_broken_view_file_is_refused_because_its_view_would_lose_its_alerts(
    tiny: TinyProject,
) -> None:
    tiny.view_file("orders_1d").write_text("import nothing_of_that_name\n")

    said = lockstep("slo", "export", status=2).stderr

    assert "orders_1d.py is broken" in " ".join(said.split())
    assert "Nothing was written." in said
    assert not (tiny.folder / FOLDER).exists()


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tiny: TinyProject) -> None:
    (tiny.folder / "a file").write_text("")

    said = lockstep("slo", "export", "--out", "a file", status=2).stderr

    assert "a file" in said
    assert "name another folder with --out" in " ".join(said.split())


def test_runbooks_and_the_services_owner_are_those_of_the_alerts() -> None:
    settings = parse_alerts({"owner": "team:night", "runbooks": "https://wiki.example.com/books/"})
    files = exported(views(), settings)

    assert 'runbook: "https://wiki.example.com/books/stale.md"' in files[RULES]
    assert "docs/runbooks" not in files[RULES]
    assert 'owner: "team:night"' in files[RULES]
    assert "[stale](https://wiki.example.com/books/stale.md)" in files[INDEX]


def test_every_alert_leads_to_a_page_that_is_there() -> None:
    alerting = Alerting()
    pages = {meaning.page for meaning in MEANINGS.values()}

    assert OWN_PAGES == pages - set(KINDS)
    for name, meaning in MEANINGS.items():
        assert (ROOT / alerting.runbook(name)).is_file(), name
        if meaning.page in KINDS:
            assert runbook(meaning.page) == alerting.runbook(name)  # type: ignore[arg-type]


def test_the_own_pages_name_the_alerts_that_lead_to_them() -> None:
    for page in OWN_PAGES:
        text = (ROOT / "docs" / "runbooks" / f"{page}.md").read_text("utf-8")
        named = [name for name, meaning in MEANINGS.items() if meaning.page == page]
        assert [] == [name for name in named if f"`{name}`" not in text]


def test_the_exported_files_of_this_project_are_up_to_date() -> None:
    """If this fails: `lockstep slo export`."""
    project = find_project(ROOT)
    catalog = discover(project)
    expected = exported(
        catalog.views.values(),
        parse_alerts(project.alerts),
        way_up(ROOT / FOLDER, ROOT),
    )

    assert {} == catalog.broken
    found = {name: (ROOT / FOLDER / name).read_text("utf-8") for name in expected}
    assert expected == found


def test_promtool_accepts_the_exported_rules_of_this_project() -> None:
    done = promtool("check", "rules", ROOT / FOLDER / RULES)

    assert 0 == done.returncode, done.stdout + done.stderr


def test_the_links_of_the_index_lead_to_files() -> None:
    text = (ROOT / FOLDER / INDEX).read_text("utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text)

    assert len(targets) == len(set(targets)) >= 6
    assert [] == [target for target in targets if not (ROOT / FOLDER / target).is_file()]


def test_the_index_says_who_is_told_of_what() -> None:
    text = exported(views(), SETTINGS)[INDEX]

    assert "| paid | page, ticket | team:pay |" in text
    assert "| the feature service | page | team:serving |" in text


# The page about it.


def test_the_page_names_every_alert_with_its_severity_and_every_burn() -> None:
    text = PAGE.read_text("utf-8")
    found = dict(re.findall(r"^\| `([A-Z]\w+)` \| (\w+) \|", text, re.MULTILINE))
    told: dict[str, set[str]] = {}
    for rule in loaded(exported(views(), SETTINGS)[RULES]):
        if "alert" in rule:
            told.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])

    assert MEANINGS.keys() == told.keys()
    assert found == {
        name: "both" if len(severities) == 2 else next(iter(severities))
        for name, severities in told.items()
    }
    for burn in BURNS:
        long, short = burn.long[:-1], burn.short[:-1]
        row = rf"^\| {burn.severity} \| {long} .+\| {short} .+\| {burn.factor:g} \|"
        assert re.search(row, text, re.MULTILINE), burn
    assert f"fewer than {LEAST_PER_WINDOW} requests" in text


def test_the_commands_of_the_page_run(tiny: TinyProject) -> None:
    shown = [line for _, code in blocks(PAGE, "sh") for line in code.splitlines()]

    assert 2 == len(shown)
    for line in shown:
        _, *arguments = shlex.split(line, comments=True)
        lockstep(*arguments)


def test_prometheus_takes_the_configuration_that_the_page_shows(tmp_path: Path) -> None:
    ((_, shown),) = blocks(PAGE, "yaml")
    (tmp_path / "prometheus.yml").write_text(shown, "utf-8")
    (tmp_path / RULES).write_text(exported(views(), SETTINGS)[RULES], "utf-8")

    done = promtool("check", "config", tmp_path / "prometheus.yml")

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "rules found" in done.stdout


# The dashboard.


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(exported(views(), SETTINGS)[DASHBOARD])
    return found


def test_the_dashboard_has_a_row_for_everything_that_is_promised(dashboard: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]

    assert [
        "Error budgets",
        "Freshness",
        "Fill rate",
        "PSI",
        "Fetch latency (all views)",
        "Hit rate",
        "Seal lag",
        "Breaker (all views)",
        "Shed (all views)",
    ] == titles


def test_panels_have_numbers_of_their_own_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells

    assert len(panels) == len({panel["id"] for panel in panels})


def test_every_query_asks_the_chosen_datasource_and_those_by_view_the_chosen_views(
    dashboard: dict[str, Any],
) -> None:
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    targets = [t for panel in dashboard["panels"] for t in panel.get("targets", [])]

    assert ["datasource", "view"] == list(variables)
    assert variables["view"]["multi"]
    assert {"${datasource}"} == {target["datasource"]["uid"] for target in targets}
    about_views = [t for t in targets if re.search(r"\{\{(view|feature)\}\}", t["legendFormat"])]
    assert len(about_views) > 10
    assert all("$view" in target["expr"] for target in about_views)
    for panel in dashboard["panels"]:
        refs = [target["refId"] for target in panel.get("targets", [])]
        assert len(refs) == len(set(refs))
