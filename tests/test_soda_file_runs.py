"""A Soda file in a project: what becomes of its view, its days and the catalog."""

from dataclasses import replace
from pathlib import Path

import pytest

from lockstep.errors import DeclarationError
from lockstep.quality import checks_of
from lockstep.soda_file import find_soda_file
from lockstep.status import view_facts
from tests.tiny_project import NOW, VIEW_DAYS, TinyProject


def spend_checks(project: TinyProject, text: str) -> Path:
    """Write a Soda file beside `spend_2d`; the views are not imported yet."""
    path = project.view_file("spend_2d").with_name("spend_2d.soda.yml")
    path.write_text(text, encoding="utf-8")
    return path


def test_a_failed_hand_written_check_keeps_the_day_out_and_says_why(
    tiny: TinyProject,
) -> None:
    spend_checks(tiny, "checks:\n  - row_count: {threshold: {must_be_less_than: 3}}\n")
    tiny.ingest()
    view = tiny.store.catalog.view("spend_2d")

    (outcome,) = tiny.materialize("spend_2d", VIEW_DAYS[:1])

    assert "soda" == checks_of(view)[-1]
    assert "quarantined" == outcome.status
    expected = "row_count is 3, but must be less than 3 (spend_2d.soda.yml)."
    assert expected in outcome.message
    assert not tiny.store.lake.table(view).head().days
    facts = view_facts(tiny.store.lake, view, tiny.store.reader(), NOW)
    assert "spend_2d.soda.yml: row_count" == facts.soda


def test_a_broken_file_breaks_its_view_and_leaves_the_others_alone(
    tiny: TinyProject,
) -> None:
    path = spend_checks(tiny, "checks: [")

    catalog = tiny.store.catalog

    assert "spend_2d" not in catalog.views
    assert "contact" in catalog.views
    (why,) = [why for file, why in catalog.broken.items() if file.stem == "spend_2d"]
    assert f"{path} is no YAML: " in why


def test_its_content_is_no_part_of_the_code_version(tiny: TinyProject) -> None:
    view = tiny.store.catalog.view("spend_2d")
    spend_checks(tiny, "checks:\n  - row_count: {threshold: {must_be_less_than: 9}}\n")

    file, _ = find_soda_file(tiny.view_file("spend_2d"), view.contract)

    assert file is not None
    assert view.code_version == replace(view, soda=file).code_version


def test_nothing_is_computed_or_quarantined_where_soda_refuses_the_file(
    tiny: TinyProject,
) -> None:
    spend_checks(tiny, "checks:\n  - failed_rows: {expression: nope > 1}\n")
    tiny.ingest()

    with pytest.raises(DeclarationError, match="nothing was computed"):
        tiny.materialize("spend_2d", VIEW_DAYS[:1])

    view = tiny.store.catalog.view("spend_2d")
    assert not tiny.store.lake.table(view).head().days
    assert [] == tiny.store.lake.quarantine.list("spend_2d")
