"""The code in the documents runs, on the reference project's own views and a little data."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest

from feature_assets import sources
from lockstep.catalog import discover
from lockstep.ingest import ingest, ingest_snapshot
from lockstep.materialize import materialize
from lockstep.project import Project, find_project
from lockstep.push import push
from lockstep.store import Store
from lockstep.time import days_between
from tests.documents import README, SCRIPTS, as_script, view_file
from tests.source_tree import ROOT, name_of

NOW = datetime(2026, 11, 21, 15, tzinfo=UTC)
LAST = date(2026, 11, 20)
DAYS = days_between(LAST - timedelta(days=91), LAST)
VIEW_DAYS = DAYS[-3:]
HOUSEHOLDS = range(900, 906)


def land(store: Store) -> None:
    """Deliver a few households' shopping: somebody every day, one household always."""
    lines = [
        (household, 1, (day - DAYS[0]).days * 1000 + household, product, 1, 2.5 * product, 0.5, day)
        for day in DAYS
        for household in HOUSEHOLDS
        if household == HOUSEHOLDS[0] or day.day % (household - 898) == 0
        for product in (1, 2)
    ]
    columns = ["household_id", "store_id", "basket_id", "product_id", "quantity", "sales_value"]
    transactions = pl.DataFrame(lines, schema=[*columns, "retail_disc", "day"], orient="row")
    noon = pl.col("day").cast(pl.Datetime("us")) + pl.duration(hours=17)
    none = pl.lit(0.0)
    frames = {
        "transactions": transactions.with_columns(
            coupon_disc=none, coupon_match_disc=none, transaction_timestamp=noon
        ).select(*sources.TRANSACTIONS.file_types),
        "campaign_mailings": pl.DataFrame(
            {
                "campaign_id": [26],
                "household_id": [900],
                "campaign_type": ["Type A"],
                "start_date": [datetime(2026, 11, 2)],
                "end_date": [date(2026, 12, 1)],
            },
            schema=sources.CAMPAIGN_MAILINGS.file_types,
        ),
        "demographics": pl.DataFrame(
            {
                name: [900, 901] if name == "household_id" else ["1", "2"]
                for name in sources.DEMOGRAPHICS.columns
            }
        ),
        "products": pl.DataFrame(
            {
                "product_id": [1, 2],
                "manufacturer_id": [7, 8],
                "department": ["GROCERY", "DRUG GM"],
                "brand": ["Private", "National"],
                "product_category": ["a", "b"],
                "product_type": ["a", "b"],
                "package_size": ["1", "2"],
            }
        ),
    }
    for name, frame in frames.items():
        target = Path(store.project.landing) / name / f"{name}.parquet"
        target.parent.mkdir(parents=True)
        frame.write_parquet(target)


def build(store: Store) -> None:
    """Ingest everything, then materialize and push three days of every view."""
    for snapshot in store.catalog.snapshots.values():
        ingest_snapshot(store.lake, snapshot, now=store.now)
    for source in store.catalog.sources.values():
        for day in ingest(store.lake, source, DAYS, now=store.now):
            assert day.certified, day.message
    for view in store.views.values():
        for day in materialize(store.lake, view, VIEW_DAYS, store.reader(), now=store.now):
            assert day.certified, day.message
        push(store.lake, store.online_store, view, now=store.now)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Store]:
    """The reference project on a lake and a namespace of its own, with a little data."""
    folder = tmp_path_factory.mktemp("the docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCKSTEP_PROJECT", str(ROOT))
        patch.setenv("LOCKSTEP_ROOT", str(folder / "lake"))
        patch.setenv("LOCKSTEP_REDIS_URL", redis_url)
        patch.setenv("LOCKSTEP_ENV", f"docs_{uuid4().hex[:10]}")
        patch.chdir(folder)
        ticks = count()

        def now() -> datetime:
            return NOW + timedelta(microseconds=next(ticks))

        patch.setattr("lockstep.store.open_store", lambda _=None: Store(find_project(), now=now))
        store = Store(find_project(), now=now)
        land(store)
        build(store)
        yield store


@pytest.mark.parametrize("document", SCRIPTS, ids=name_of)
def test_the_python_blocks_of_a_document_run_as_one_script(document: Path, built: Store) -> None:
    script = as_script(document)
    assert script, "a page without code belongs in docs/adr or needs none of this test"

    exec(compile(script, str(document), "exec"), {"__name__": f"document_{document.stem}"})  # noqa: S102

    assert [] == [found.sentence for found in built.parity() if not found.holds]


def test_the_view_of_the_readme_has_under_thirty_lines_and_is_named_like_its_file() -> None:
    name, text = view_file()

    assert text.count("\n") < 30
    assert f"`feature_assets/{name}.py`" in README.read_text(encoding="utf-8")


def test_the_view_of_the_readme_is_found_computes_and_is_committed(
    built: Store, tmp_path: Path
) -> None:
    name, text = view_file()
    package = f"readme_{uuid4().hex[:10]}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    (tmp_path / package / f"{name}.py").write_text(text, encoding="utf-8")
    theirs = {**vars(built.project), "folder": tmp_path, "views": package}

    catalog = discover(Project(**theirs))
    (day,) = materialize(
        built.lake, catalog.views[name], [LAST], built.reader(), now=built.now, run_id="docs"
    )

    assert {} == catalog.broken
    assert ("committed", []) == (day.status, [v.message for v in day.verdicts if not v.passed])
    assert day.frame is not None
    assert 14 == day.frame.filter(household_id=900)["saved_14d"].item()
