"""What Dagster shows of the audit: numbers to plot, bins, failing rows, and where to go on."""

import base64
import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any
from xml.etree import ElementTree as ET

import dagster as dg
import polars as pl
import pytest

from feature_assets._checked import RUNBOOK, link, numbers
from feature_assets._metadata import MASK
from lockstep import Feature, Features, FeatureView, feature_view
from lockstep.alerts import runbook
from lockstep.quality import CHECKS, Verdict
from lockstep.quarantine import Quarantine
from lockstep.release import release_frame
from tests.dagster_world import DAYS, DagsterWorld, dagster_world
from tests.scenario import EVENTS, USER, event, instant
from tests.source_tree import ROOT

# Dagster calls what it deprecates, where a resource inside a resource has settings.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

GOOD, BAD, DRIFTED = DAYS[:8], DAYS[8], DAYS[9]
USERS = range(1, 31)
SHOWN_IN_PLACE = 1000
"""Characters of markdown that Dagster's UI shows in a row; longer ones need a click."""


def bought_view() -> FeatureView:
    class Bought(Features, entity=USER, owner="team:tests", ttl=timedelta(days=3)):
        """What somebody bought on one day."""

        amount = Feature(pl.Float64, "Spend.", at_least=0, max_psi=0.2)
        events = Feature(pl.Int64, "Events.")
        name = Feature(pl.String, "What somebody is called.", pii=True)

    @feature_view(Bought, inputs=[EVENTS.trailing(days=1)])
    def bought(events: pl.LazyFrame) -> pl.LazyFrame:
        key = pl.col("user_id")
        return events.group_by("user_id").agg(
            amount=pl.col("amount").sum(),
            events=pl.len().cast(pl.Int64),
            name=pl.lit("Zora ") + key.first().cast(pl.String),
        )

    return bought


def land(made: DagsterWorld, day: date, times: float = 1.0, bad: int = 0) -> None:
    amounts = {user: user * times for user in USERS} | dict.fromkeys(range(1, bad + 1), -5.0)
    made.land(day, *(event(f"{day}/{user}", user, day, amounts[user]) for user in USERS))


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> Iterator[tuple[DagsterWorld, dg.ExecuteInProcessResult]]:
    """Eight usual days, one that breaks its contract, and one that drifted, in one run."""
    folder = tmp_path_factory.mktemp("quality")
    with dagster_world(folder, redis_url, now=instant(DAYS[10], 3), more=[bought_view()]) as opened:
        for day in GOOD:
            land(opened, day)
        land(opened, BAD, bad=2)
        land(opened, DRIFTED, times=10)
        names = ("events", "bought", "bought_online")
        yield opened, opened.run(DAYS[0], DRIFTED, *names)


Made = tuple[DagsterWorld, dg.ExecuteInProcessResult]


def evaluations(made: Made, check: str) -> dict[str, dg.AssetCheckEvaluation]:
    """Return day → what the run told of the check on it."""
    history = made[0].instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("bought"), check), limit=1000
    )
    events = [record.event for record in history if record.run_id == made[1].run_id]
    found = [e.dagster_event.asset_check_evaluation_data for e in events if e and e.dagster_event]
    return {str(one.partition): one for one in found}


def shown(made: Made, check: str, day: date) -> dict[str, Any]:
    return dict(evaluations(made, check)[str(day)].metadata)


def test_every_day_has_a_verdict_with_its_severity(made: Made) -> None:
    days = {str(day) for day in (*GOOD, DRIFTED, BAD)}

    for check in ("keys", "contract", "completeness", "cardinality", "drift"):
        assert days == evaluations(made, check).keys(), check
    contract, drift = evaluations(made, "contract"), evaluations(made, "drift")
    assert [str(BAD)] == [day for day, found in contract.items() if not found.passed]
    assert [str(DRIFTED)] == [day for day, found in drift.items() if not found.passed]
    assert dg.AssetCheckSeverity.ERROR == contract[str(BAD)].severity
    assert dg.AssetCheckSeverity.WARN == drift[str(DRIFTED)].severity
    assert "block" == shown(made, "contract", BAD)["severity"].value
    assert "warn" == shown(made, "drift", DRIFTED)["severity"].value


def test_the_numbers_of_a_day_have_the_same_names_every_day(made: Made) -> None:
    days = made[0].materialized("bought")
    plotted = {
        day: {name for name, value in found.items() if type(value) in (int, float)}
        for day, found in days.items()
    }

    always = {"rows", "revision", "delta_version", "closing_rows"}
    always |= {f"fill_rate:{name}" for name in ("amount", "events", "name")}
    later = {"psi:amount", "psi:events", "psi:name", "new_entity_rate"}
    assert always == plotted[str(DAYS[0])]
    assert always | later == plotted[str(DAYS[7])] == plotted[str(DRIFTED)]
    assert days[str(DRIFTED)]["psi:amount"] > 0.2 > days[str(DAYS[7])]["psi:amount"]
    assert (30, 0.0) == (days[str(DRIFTED)]["rows"], days[str(DRIFTED)]["new_entity_rate"])


def test_a_drifted_feature_shows_its_bins_as_a_picture_and_a_table(made: Made) -> None:
    found = shown(made, "drift", DRIFTED)

    assert len(found["bins:amount"].md_str) < SHOWN_IN_PLACE
    encoded = re.search(r"base64,([^)]+)", found["bins:amount"].md_str)
    assert encoded is not None
    drawn = ET.fromstring(base64.b64decode(encoded[1]))  # noqa: S314 (our own picture)
    assert 2 == len([part for part in drawn if part.tag.endswith("path")])
    records = [record.data for record in found["table:bins"].records]
    assert {"amount"} == {record["feature"] for record in records}
    assert "missing" == records[-1]["bin"]
    total = sum(record["psi"] for record in records)
    assert pytest.approx(found["psi:amount"].value, abs=0.001) == total


def test_a_stable_day_of_the_newest_shows_bins_too_and_an_older_one_only_numbers(
    made: Made,
) -> None:
    newest, older = (made[0].materialized("bought")[str(day)] for day in (DAYS[7], DAYS[2]))

    assert {"bins:amount", "bins:events"} <= newest.keys()
    assert max(len(newest[name]) for name in newest if name.startswith("bins:")) < SHOWN_IN_PLACE
    assert [] == [name for name in older if name.startswith("bins:")]
    assert {"table:bins", "psi:amount", "psi:events", "psi:name"} == {
        *shown(made, "drift", DAYS[7])
    }
    assert {} == shown(made, "drift", DAYS[0])


def test_what_identifies_people_is_in_no_event(made: Made) -> None:
    storage = made[0].instance.event_log_storage

    records = storage.get_records_for_run(made[1].run_id, limit=5000).records

    assert 100 < len(records)
    assert [] == [record for record in records if "Zora" in str(record)]


def test_a_broken_contract_shows_the_first_bad_rows_masked(made: Made) -> None:
    table = shown(made, "contract", BAD)["failing_rows"]

    assert ["user_id", "amount", "events", "name"] == [c.name for c in table.schema.columns]
    row = {"user_id": MASK, "amount": -5.0, "events": 1, "name": MASK}
    assert [row, row] == [record.data for record in table.records]


def test_a_blocking_check_leads_to_the_quarantine_and_to_its_page(made: Made) -> None:
    world = made[0].world
    (item,) = Quarantine(world.store.lake.quarantine).items("bought")

    found = shown(made, "contract", BAD)

    assert f"lockstep quarantine show bought {item.item}" == found["look"].value
    assert f"{world.store.project.root}/quarantine/bought/{item.item}" == found["quarantine"].value
    assert "docs/runbooks/quarantined.md" == found["runbook"].value
    drift = shown(made, "drift", DRIFTED)
    assert "docs/runbooks/drift.md" == drift["runbook"].value
    assert "quarantine" not in drift


def test_what_a_person_certified_says_who_and_why(made: Made) -> None:
    opened = made[0]
    store = opened.world.store
    (item,) = Quarantine(store.lake.quarantine).items("bought")
    view, reader = store.views["bought"], store.reader()
    release_frame(store.lake, view, item, "a refund", reader, now=opened.world.clock)

    run = opened.run(BAD, None, "bought", "bought_online")

    assert run.success
    day = opened.materialized("bought", run)[str(BAD)]
    note = store.committed(view)[BAD].note
    assert "a refund" == day["released_reason"] == note["released"]
    assert day["released_by"] == note["released_by"] != ""
    told = evaluations((opened, run), "contract")[str(BAD)]
    assert told.passed
    assert f"Released by {day['released_by']}: a refund" in str(told.description)


def test_only_finite_numbers_are_plotted_and_kl_where_it_has_a_limit() -> None:
    measured = {
        "psi:a": 0.1234567,
        "kl:a": 0.5,
        "kl:b": 0.5,
        "limit:psi:a": 0.2,
        "limit:kl:b": 0.1,
        "soda:odd": float("nan"),
    }

    found = numbers(Verdict("drift", passed=True, message="", numbers=measured))

    assert {"psi:a": 0.123457, "kl:b": 0.5} == found


def test_a_page_is_a_link_if_the_project_has_its_pages_at_an_address() -> None:
    assert "https://w.example/drift.md" == link("https://w.example/drift.md").value
    assert isinstance(link("https://w.example/drift.md"), dg.UrlMetadataValue)
    assert isinstance(link("docs/runbooks/drift.md"), dg.PathMetadataValue)


def test_every_check_has_a_page() -> None:
    assert set(CHECKS) == RUNBOOK.keys()
    for kind in RUNBOOK.values():
        assert (ROOT / runbook(kind)).is_file()
