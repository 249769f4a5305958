"""The rules by themselves: every symptom alone names its cause, and any two or more the first."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain, combinations
from pathlib import Path
from typing import TypeAlias, get_args

import pytest

from lockstep.why.causes import ORDER, Cause, named
from lockstep.why.facts import (
    Cell,
    Facts,
    Held,
    Made,
    Online,
    Quarantined,
    Recomputed,
    Shifted,
    Since,
    Upstream,
)

D1, D2, D3 = date(2026, 11, 19), date(2026, 11, 20), date(2026, 11, 21)
AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
PAGE = Path(__file__).parents[1] / "docs" / "how-to-why.md"
Symptom: TypeAlias = Callable[[Facts], Facts]


def row(day: date = D3, revision: int = 1, value: float = 5.0) -> Cell:
    since = datetime(day.year, day.month, day.day, 5, tzinfo=UTC) + timedelta(days=1)
    return Cell("present", value, day, revision, since, 3)


def made(day: date = D3) -> Made:
    return Made(
        day=day,
        revision=1,
        version=3,
        known_at=AT - timedelta(hours=8),
        run_id="run",
        code_version="aaa",
        declared="aaa",
        content_hash="c",
        inputs={"sales": f"{D1}..{D3}=1"},
        restated={},
        verdicts=(),
    )


def healthy() -> Facts:
    committed = {D1: 1, D2: 1, D3: 1}
    return Facts(
        entity={"shopper": 1},
        view="spend",
        feature="total",
        pii=False,
        owner="team:tests",
        at=AT,
        past=False,
        ttl=timedelta(days=3),
        when_absent="last",
        offline=row(),
        online=Online(cell=row(), equal=True, buckets=4, sealed=committed, seal_version=3),
        made=[made()],
        days=3,
        newest=D3,
        expected=D3,
        committed=committed,
    )


def online(**changed: object) -> Symptom:
    def apply(facts: Facts) -> Facts:
        said = facts.online or Online()
        return replace(facts, online=replace(said, equal=False, **changed))  # type: ignore[arg-type]

    return apply


def upstream(**changed: object) -> Symptom:
    return lambda facts: replace(facts, upstream=replace(facts.upstream, **changed))  # type: ignore[arg-type]


def remade(**changed: object) -> Symptom:
    return lambda facts: replace(facts, made=[replace(facts.made[0], **changed)])  # type: ignore[arg-type]


def outlived(facts: Facts) -> Facts:
    old = replace(row(D1), status="expired")
    return replace(facts, offline=old, at=AT + timedelta(days=1))


def committed(revision: int) -> Symptom:
    return lambda facts: replace(facts, committed={**facts.committed, D3: revision})


def both(*symptoms: Symptom) -> Symptom:
    def apply(facts: Facts) -> Facts:
        for symptom in symptoms:
            facts = symptom(facts)
        return facts

    return apply


GONE = Cell("missing")
ITEM = Quarantined("spend", "2026-11-21-abc", D3, "spend: 3 rows are below 0.", AT)
LATE = {"sales": [D2]}

# What Redis can say; at most one of them holds at a time. In order of precedence.
ON_THE_WAY: Mapping[str, tuple[Cause, Symptom]] = {
    "other columns": ("schema change", online(other_schema=True)),
    "bucket without seal or claim": (
        "evicted",
        online(cell=GONE, claim="lost", sealed={}, seal_version=None, further=3),
    ),
    "being wiped": ("partial push", online(cell=GONE, claim="being wiped", sealed={})),
    "sealed in other buckets only": (
        "partial push",
        both(committed(2), online(cell=row(), further=2)),
    ),
    "rows without a seal": ("partial push", both(committed(2), online(begun=True))),
    "first push in part": (
        "partial push",
        online(cell=Cell("error"), sealed={}, seal_version=None, further=1),
    ),
    "an older revision": ("correction not pushed", both(committed(2), online(cell=row()))),
    "a filled gap": (
        "correction not pushed",
        both(
            lambda facts: replace(facts, offline=row(D2)),
            online(cell=row(D1), sealed={D1: 1, D3: 1}),
        ),
    ),
    "an older day": ("Redis behind", online(cell=row(D2), sealed={D1: 1, D2: 1})),
    "nothing at all": (
        "Redis behind",
        online(cell=Cell("error"), sealed={}, seal_version=None, claim="none"),
    ),
    "sealed without the row": ("evicted", online(cell=GONE, evicted_keys=12)),
    "sealed with another row": ("overwritten", online(cell=row(value=6.0))),
    "unreadable": ("overwritten", online(cell=Cell("error"), damaged=True)),
}

# Independent of each other and of the way to Redis; in order of precedence.
IN_THE_DATA: Sequence[tuple[Cause, Symptom]] = (
    ("zone shift", upstream(shifted=[Shifted("sales", "sales is -4 h off.", [D3])])),
    ("schema change", upstream(held=[Held("sales", "column 'x' is missing", [D3], columns=True)])),
    ("quarantined", lambda facts: replace(facts, quarantined=[ITEM])),
    ("late data", upstream(not_landed=LATE)),
    ("code changed", remade(code_version="bbb")),
    ("never computed", lambda facts: replace(facts, missing=[D3])),
)


def subsets(symptoms: Sequence[tuple[Cause, Symptom]]) -> list[Sequence[tuple[Cause, Symptom]]]:
    sizes = range(len(symptoms) + 1)
    return list(chain.from_iterable(combinations(symptoms, size) for size in sizes))


def test_a_healthy_value_is_as_it_should_be() -> None:
    found, also = named(healthy())

    assert found.cause == "as it should be"
    assert not found.fix
    assert also == []


def failed(check: str, message: str, **more: bool) -> Mapping[str, object]:
    return {"check": check, "passed": False, "message": message, "numbers": {}, **more}


def test_a_warning_of_the_audit_is_said_first_of_a_value_that_is_as_it_should_be() -> None:
    many = failed("cardinality", "Half of the entities are new.")
    verdicts = [failed("drift", "total drifted"), many, {**many, "passed": True}]

    found, _ = named(remade(verdicts=verdicts)(healthy()))

    assert found.cause == "as it should be"
    assert found.sentence == (
        "As it should be by its code and inputs, but the audit warned: total drifted. It is the "
        "value of 2026-11-21, revision 1."
    )
    assert found.evidence == ["Its audit warned: Half of the entities are new."]


def test_what_a_person_released_is_no_warning() -> None:
    verdicts = [failed("contract", "total is negative.", released=True)]

    found, _ = named(remade(verdicts=verdicts, outcome="released")(healthy()))

    assert found.sentence == "It is the value of 2026-11-21, revision 1."
    assert found.evidence == ["A person released it after a check had failed."]


@pytest.mark.parametrize("symptom", ON_THE_WAY)
def test_every_symptom_on_the_way_names_its_cause(symptom: str) -> None:
    cause, apply = ON_THE_WAY[symptom]

    found, also = named(apply(healthy()))

    assert found.cause == cause
    assert also == []
    assert found.fix.startswith("lockstep ")
    assert found.evidence


@pytest.mark.parametrize(("cause", "apply"), IN_THE_DATA, ids=[c for c, _ in IN_THE_DATA])
def test_every_symptom_in_the_data_names_its_cause(cause: Cause, apply: Symptom) -> None:
    found, also = named(apply(healthy()))

    assert found.cause == cause
    assert also == []
    assert found.fix.startswith("lockstep ")


def test_the_way_comes_before_the_data_and_each_symptom_before_those_after_it() -> None:
    """Every subset of the data's symptoms, with every symptom of the way and without one."""
    looked_at = 0
    for of_the_data in subsets(IN_THE_DATA):
        for on_the_way in (None, *ON_THE_WAY.values()):
            expected = [*([on_the_way] if on_the_way else []), *of_the_data]
            facts = both(*(apply for _, apply in expected))(healthy())
            found, also = named(facts)
            looked_at += 1
            assert found.cause == (expected[0][0] if expected else "as it should be"), expected
            others = {cause for cause, _ in expected[1:]} - {found.cause}
            assert {each.cause for each in also} == others

    assert looked_at == 2 ** len(IN_THE_DATA) * (len(ON_THE_WAY) + 1)


def test_a_refused_contract_comes_before_everything() -> None:
    refused: Symptom = lambda facts: replace(facts, contract_changed="Other columns.")  # noqa: E731
    everything = [apply for _, apply in IN_THE_DATA]

    for _, apply in ON_THE_WAY.values():
        found, _ = named(both(apply, *everything, refused)(healthy()))
        assert found.cause == "schema change"
        assert "--rebuild" in found.fix


def test_what_keeps_newer_days_away_comes_before_the_age_that_follows_from_it() -> None:
    assert named(outlived(healthy()))[0].cause == "expired"

    for cause, apply in IN_THE_DATA:
        assert named(both(apply, outlived)(healthy()))[0].cause == cause


def test_a_silent_redis_is_named_where_the_data_is_right_and_said_where_it_is_not() -> None:
    down = online(problem="No answer.", cell=Cell("error"))

    assert named(down(healthy()))[0].cause == "Redis down"
    assert named(down(healthy()))[0].fix == "lockstep doctor"
    assert named(both(down, online(stopped=True))(healthy()))[0].fix == "lockstep up"
    for cause, apply in IN_THE_DATA:
        found, also = named(both(apply, down)(healthy()))
        assert found.cause == cause
        assert "Redis down" in {each.cause for each in also}


@pytest.mark.parametrize(
    ("recomputed", "other_code", "restated", "cause"),
    [
        (Recomputed(), False, False, "as it should be"),
        (Recomputed(True, True), True, False, "as it should be"),
        (Recomputed(False, False), True, False, "code changed"),
        (Recomputed(problem="too many rows"), True, False, "code changed"),
        (Recomputed(None, True), False, True, "as it should be"),
        (Recomputed(None, False), False, True, "late data"),
        (Recomputed(problem="too many rows"), False, True, "late data"),
        (Recomputed(True, False), True, True, "late data"),
        (Recomputed(False, False), True, True, "code changed"),
        (Recomputed(True, True), True, True, "as it should be"),
        (Recomputed(problem="too many rows"), True, True, "late data"),
    ],
)
def test_code_and_inputs_are_told_apart_by_computing_anew(
    recomputed: Recomputed, other_code: bool, restated: bool, cause: Cause
) -> None:
    apply = remade(
        recomputed=recomputed,
        code_version="bbb" if other_code else "aaa",
        restated=LATE if restated else {},
    )

    assert named(apply(healthy()))[0].cause == cause


@pytest.mark.parametrize(
    ("symptom", "cause"),
    [
        (upstream(arrived=LATE), "late data"),
        (upstream(restated={"between": [D3]}), "late data"),
        (upstream(held=[Held("sales", "can't be read", [D3], columns=False)]), "quarantined"),
        (
            lambda facts: replace(facts, days=0, newest=None, offline=GONE, missing=[D3], made=[]),
            "never computed",
        ),
        (lambda facts: replace(facts, offline=GONE, made=[made()]), "as it should be"),
        (
            both(
                lambda facts: replace(facts, offline=GONE),
                online(cell=Cell("error"), unready="It was marked."),
            ),
            "Redis behind",
        ),
        (
            both(lambda facts: replace(facts, offline=GONE), online(cell=Cell("error"))),
            "partial push",
        ),
        (
            both(lambda facts: replace(facts, offline=GONE), online(cell=Cell("error"), lost=2)),
            "evicted",
        ),
        (online(cell=Cell("error"), evicted_keys=3, lost=2), "evicted"),
    ],
)
def test_every_other_form_of_a_cause_is_named_too(symptom: Symptom, cause: Cause) -> None:
    assert named(symptom(healthy()))[0].cause == cause


@pytest.mark.parametrize("other_code", [False, True])
def test_a_past_answer_that_a_later_revision_replaced_names_what_the_revision_changed(
    other_code: bool,
) -> None:
    since = Since(row(revision=2, value=7), True, True, known_at=AT, other_code=other_code)
    facts = replace(healthy(), past=True, online=None, since=since)

    assert named(facts)[0].cause == ("code changed" if other_code else "late data")
    for changed in ({"differs": False}, {"corrected": False}):
        apart = replace(facts, since=replace(since, **changed))
        assert named(apart)[0].cause == "as it should be"


def test_the_page_lists_every_cause_in_the_order_of_the_rules() -> None:
    listed = re.findall(r"^\| \*\*(.+?)\*\* \|", PAGE.read_text("utf-8"), re.MULTILINE)
    facts = [apply(healthy()) for _, apply in ON_THE_WAY.values()]
    facts += [apply(healthy()) for _, apply in IN_THE_DATA]
    facts += [
        online(problem="No answer.", cell=Cell("error"))(healthy()),
        outlived(healthy()),
        replace(healthy(), contract_changed="Other columns."),
    ]
    order: list[str] = []
    for rule in ORDER:
        named_by_rule = {found.cause for each in facts if (found := rule(each)) is not None}
        order += [cause for cause in named_by_rule if len(named_by_rule) == 1]

    assert [*dict.fromkeys(order), "as it should be"] == listed
    assert set(listed) == set(get_args(Cause))
    assert Upstream() == healthy().upstream
