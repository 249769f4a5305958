"""What `lockstep views`, `status` and `metrics` say is what is true of the lake."""

import re
from dataclasses import replace

from lockstep.ingest import refresh_quarantine
from lockstep.landing import look
from lockstep.metrics import Metric, Sample, feature_metrics, render
from lockstep.status import (
    ViewFacts,
    gaps,
    online_facts,
    seal_facts,
    source_facts,
    view_facts,
)
from lockstep.store import Store
from lockstep.stores.redis import OnlineStore
from lockstep.view import FeatureView
from tests.tiny_project import DAYS, NOW, VIEW_DAYS, TinyProject, orders


def facts_of(project: TinyProject, of: str | FeatureView) -> ViewFacts:
    store = project.store
    view = store.catalog.view(of) if isinstance(of, str) else of
    return view_facts(store.lake, view, store.reader(), NOW)


def test_a_view_that_was_never_built_has_declared_facts_only(tiny: TinyProject) -> None:
    facts = facts_of(tiny, "spend_2d")

    assert (facts.owner, facts.entity, facts.keys) == ("team:shop", "customer", ["customer"])
    assert [(f.name, f.type, f.unit, f.pii) for f in facts.features] == [
        ("spend", "Float64", "USD", False),
        ("mean", "Float64", "USD", False),
    ]
    assert (facts.days, facts.gaps, facts.last, facts.stale) == ([], [], None, [])
    assert facts.freshness.lag is None


def test_a_built_view_has_days_one_code_version_and_the_last_verdicts(tiny: TinyProject) -> None:
    tiny.build()

    facts = facts_of(tiny, "spend_2d")

    assert facts.days == VIEW_DAYS
    assert facts.code_versions == {facts.code_version: VIEW_DAYS}
    assert (facts.gaps, facts.outdated, facts.stale, facts.quarantined) == ([], [], [], [])
    assert facts.last is not None
    assert (facts.last.day, facts.last.outcome, facts.last.failed) == (
        VIEW_DAYS[-1],
        "committed",
        [],
    )


def test_days_between_the_first_and_the_last_that_are_not_committed_are_gaps(
    tiny: TinyProject,
) -> None:
    tiny.ingest()
    tiny.materialize("spend_2d", [VIEW_DAYS[0], VIEW_DAYS[3]])

    assert facts_of(tiny, "spend_2d").gaps == [VIEW_DAYS[1], VIEW_DAYS[2]]
    assert gaps([]) == []


def test_a_corrected_source_day_makes_every_day_stale_that_read_it_until_it_is_built_again(
    tiny: TinyProject,
) -> None:
    tiny.build()
    tiny.land_orders("correction", orders(DAYS[2], [999], first_id=200))
    tiny.ingest([DAYS[2]])

    # Two days of window, and the day after it that closes those who left.
    assert facts_of(tiny, "spend_2d").stale == DAYS[2:5]
    assert facts_of(tiny, "orders_1d").stale == [DAYS[2]]

    tiny.materialize("spend_2d", DAYS[2:5])

    assert facts_of(tiny, "spend_2d").stale == []


def test_a_recomputation_that_changes_nothing_ends_staleness_and_old_code(
    tiny: TinyProject,
) -> None:
    tiny.build()
    before = facts_of(tiny, "orders_1d")
    changed = replace(tiny.store.catalog.view("orders_1d"), partial_windows=True)

    mixed = facts_of(tiny, changed)
    tiny.materialize(changed, VIEW_DAYS[:2])
    partly = facts_of(tiny, changed)

    assert mixed.code_version != before.code_version
    assert mixed.outdated == VIEW_DAYS
    assert partly.outdated == VIEW_DAYS[2:]
    assert partly.code_versions == {
        mixed.code_version: VIEW_DAYS[:2],
        before.code_version: VIEW_DAYS[2:],
    }


def test_a_quarantined_day_is_the_last_attempt_and_listed(tiny: TinyProject) -> None:
    tiny.build()
    tiny.land_orders("bad", orders(DAYS[-1], [-500], first_id=900))
    tiny.ingest([DAYS[-1]])
    tiny.materialize("spend_2d", [DAYS[-1]])

    facts = facts_of(tiny, "spend_2d")

    assert facts.last is not None
    assert (facts.last.outcome, facts.last.failed) == ("quarantined", ["contract"])
    assert len(facts.quarantined) == 1
    assert facts.quarantined[0].startswith(str(DAYS[-1]))
    assert facts.days == VIEW_DAYS  # what was certified before stays


def test_a_changed_contract_is_said_before_anything_is_computed(tiny: TinyProject) -> None:
    tiny.build()
    view = tiny.store.catalog.view("orders_1d")
    spend = tiny.store.catalog.view("spend_2d")
    changed = replace(view, contract=replace(view.contract, features=dict(spend.contract.features)))

    facts = facts_of(tiny, changed)

    assert facts.contract_changed is not None
    assert "--rebuild" in facts.contract_changed


def test_landed_days_wait_until_they_are_ingested_and_again_after_a_new_file(
    tiny: TinyProject,
) -> None:
    lake, source = tiny.store.lake, tiny.store.catalog.source("orders")
    assert source_facts(lake, source).waiting == DAYS

    tiny.ingest()
    ingested = source_facts(lake, source)
    tiny.land_orders("late", orders(DAYS[3], [1], first_id=5000))

    assert (ingested.waiting, ingested.waits, ingested.days) == ([], False, DAYS)
    assert source_facts(lake, source).waiting == [DAYS[3]]


def test_a_snapshot_waits_without_naming_days(tiny: TinyProject) -> None:
    lake, snapshot = tiny.store.lake, tiny.store.catalog.snapshots["contacts"]

    before = source_facts(lake, snapshot)
    tiny.ingest()
    after = source_facts(lake, snapshot)

    assert (before.kind, before.files, before.waits, before.days) == ("snapshot", 1, True, [])
    assert (after.waits, len(after.days)) == (False, 1)


def test_a_file_that_breaks_the_schema_is_held_and_looking_writes_no_quarantine(
    tiny: TinyProject,
) -> None:
    lake, source = tiny.store.lake, tiny.store.catalog.source("orders")
    tiny.land_orders("wrong", orders(DAYS[1], [1]).rename({"amount": "price"}))

    held = source_facts(lake, source).held

    assert [file.path for file in held] == ["orders/wrong.parquet"]
    assert held[0].days == [str(DAYS[1])]
    assert "column 'amount' is missing" in held[0].reason
    assert lake.quarantine.list() == []


def test_a_released_file_is_held_no_longer(tiny: TinyProject) -> None:
    from lockstep.release import release_file

    lake, source = tiny.store.lake, tiny.store.catalog.source("orders")
    tiny.land_orders("wrong", orders(DAYS[1], [1]).rename({"amount": "price"}))
    landed = look(lake.landing, lake.landing_cache, source, tiny.store.project.zone)
    (item,) = refresh_quarantine(lake, source, landed, NOW)
    release_file(lake, item, "known", now=lambda: NOW)

    assert source_facts(lake, source).held == []


def test_seals_name_the_days_that_were_committed_and_not_pushed(tiny: TinyProject) -> None:
    tiny.ingest()
    store, view = tiny.store, tiny.store.catalog.view("orders_1d")
    assert seal_facts(store.lake, store.online_store, view).committed == 0

    tiny.materialize("orders_1d", VIEW_DAYS[:3])
    tiny.push("orders_1d")
    tiny.materialize("orders_1d", VIEW_DAYS)

    seals = seal_facts(store.lake, store.online_store, view)
    assert (seals.committed, seals.unsealed) == (len(VIEW_DAYS), VIEW_DAYS[3:])
    assert seal_facts(store.lake, None, view).unsealed is None


def test_an_online_store_that_does_not_answer_is_a_fact_and_no_error(tiny: TinyProject) -> None:
    silent = OnlineStore("redis://:secret@127.0.0.1:1/0", namespace="test", socket_timeout=0.2)

    facts = online_facts(silent)

    assert facts.server is None
    assert facts.problem is not None
    assert "secret" not in f"{facts}"
    assert online_facts(tiny.store.online_store).problem is None


SAMPLE = re.compile(r'^(\w+)\{feature="([^"]+)"\} (\S+)$')


def samples(text: str) -> dict[tuple[str, str], float]:
    found = [SAMPLE.match(line) for line in text.splitlines() if not line.startswith("#")]
    return {(match[1], match[2]): float(match[3]) for match in found if match}


def exposed(store: Store) -> dict[tuple[str, str], float]:
    return samples(render(feature_metrics(store.lake, store.views.values(), NOW)))


def test_metrics_cover_every_feature_of_every_view_that_has_a_committed_day(
    tiny: TinyProject,
) -> None:
    assert exposed(tiny.store) == {}
    tiny.build()

    found = exposed(tiny.store)

    assert {feature for _, feature in found} == {
        "spend_2d:spend",
        "spend_2d:mean",
        "orders_1d:orders",
        "contact:email",
    }
    assert found["feature_fill_rate", "spend_2d:spend"] == 1.0
    # Orders are placed at 17:00 UTC, the last of them on the 11th: 25 hours before NOW.
    assert found["feature_freshness_seconds", "spend_2d:spend"] == 25 * 3600
    assert found["feature_freshness_seconds", "contact:email"] == 14 * 3600


def test_a_frame_in_quarantine_moves_no_metric(tiny: TinyProject) -> None:
    tiny.build()
    before = exposed(tiny.store)
    tiny.land_orders("bad", orders(DAYS[-1], [-500], first_id=900))
    tiny.ingest([DAYS[-1]])
    tiny.materialize("spend_2d", [DAYS[-1]])

    assert exposed(tiny.store) == before


def test_drift_is_exposed_as_soon_as_a_week_of_earlier_days_is_there(tiny: TinyProject) -> None:
    tiny.ingest()

    tiny.materialize("orders_1d", VIEW_DAYS[:-1])
    without = {name for name, _ in exposed(tiny.store)}
    tiny.materialize("orders_1d", VIEW_DAYS[-1:])

    assert "feature_psi" not in without
    assert exposed(tiny.store)["feature_psi", "orders_1d:orders"] < 0.01


def test_the_text_format_escapes_help_and_labels_and_names_the_infinities() -> None:
    metric = Metric(
        "x_seconds",
        'a "help"\nwith \\',
        [
            Sample({"feature": 'a"b\\c\nd'}, float("inf")),
            Sample({"feature": "e", "more": "f"}, float("nan")),
            Sample({"feature": "g"}, 3),
        ],
    )

    assert render([metric]) == (
        '# HELP x_seconds a "help"\\nwith \\\\\n'
        "# TYPE x_seconds gauge\n"
        'x_seconds{feature="a\\"b\\\\c\\nd"} +Inf\n'
        'x_seconds{feature="e",more="f"} NaN\n'
        'x_seconds{feature="g"} 3.0\n'
    )
