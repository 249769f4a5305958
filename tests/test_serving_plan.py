"""What a plan says, what contracts may declare about missing values, and what serving imports."""

import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from lockstep import Entity, Feature, Features, FeatureSet, FeatureView, feature_view
from lockstep.catalog import Catalog
from lockstep.errors import DeclarationError, InputError, UnknownNameError
from lockstep.serving.plan import compile_plan
from tests.served_views import ACTIVITY, CATALOG, EVENTS, FOOTFALL, PROFILE, SHOP, USER


def declare(feature: Feature, entity: Entity = USER, name: str = "did") -> FeatureView:
    body = {"__doc__": "What somebody did.", "x": feature}
    made = type("Did", (Features,), body, entity=entity, owner="team:tests")
    assert issubclass(made, Features)

    def function(events: pl.LazyFrame) -> pl.LazyFrame:
        return events

    function.__name__ = name
    return feature_view(made, inputs=[EVENTS.trailing(days=1)])(function)


def catalog_of(*views: FeatureView) -> Catalog:
    entities = {view.contract.entity.name: view.contract.entity for view in views}
    return Catalog(entities, {}, {}, {view.name: view for view in views}, {}, {})


def test_features_keep_the_asked_order_and_stand_once() -> None:
    wanted = ["profile:age", "activity:n", "profile:country", "activity:n", "footfall:visits"]

    plan = compile_plan(CATALOG, wanted)

    assert ("profile:age", "activity:n", "profile:country", "footfall:visits") == plan.features
    assert (pl.Int32(), pl.Int64(), pl.String(), pl.Int64()) == plan.types
    assert (PROFILE, ACTIVITY, FOOTFALL) == plan.views
    assert (USER, SHOP) == plan.entities
    assert (None, None) == (plan.feature_set, plan.version)


def test_typed_features_and_text_mean_the_same() -> None:
    typed = compile_plan(CATALOG, [PROFILE.contract.features["age"]])

    assert typed.features == compile_plan(CATALOG, "profile:age").features


def test_a_feature_set_is_known_by_itself_and_by_name() -> None:
    chosen = CATALOG.feature_sets["churn_v1"]

    plans = [compile_plan(CATALOG, chosen), compile_plan(CATALOG, "churn_v1")]

    assert [("churn_v1", chosen.version)] * 2 == [(p.feature_set, p.version) for p in plans]
    assert [tuple(chosen.names)] * 2 == [plan.features for plan in plans]


@pytest.mark.parametrize("wanted", ["nothing", "activity:nothing", ["nobody:n"], "activity:n:n"])
def test_what_does_not_exist_is_told(wanted: Any) -> None:
    with pytest.raises(UnknownNameError):
        compile_plan(CATALOG, wanted)


def test_no_feature_is_no_request() -> None:
    with pytest.raises(InputError, match="No feature is asked for"):
        compile_plan(CATALOG, [])


def test_one_column_cannot_be_the_key_of_two_kinds() -> None:
    by_number = declare(Feature(pl.Int64, "A number."), USER, "by_number")
    texts = Entity("account", {"user_id": pl.String})
    by_text = declare(Feature(pl.Int64, "A number."), texts, "by_text")

    with pytest.raises(InputError, match="looked up by two kinds of 'user_id'"):
        compile_plan(catalog_of(by_number, by_text), ["by_number:x", "by_text:x"])


def test_two_views_of_an_entity_are_read_by_one_command() -> None:
    plan = compile_plan(CATALOG, ["profile:age", "activity:n", "profile:country"])

    (part,) = plan.parts
    assert ["profile", "activity"] == [each.name for each in part.parts]
    assert ((0, 2), (1,)) == part.places


# Missing values, declared.


@pytest.mark.parametrize(
    ("dtype", "said", "given"),
    [
        (pl.Int64, {"default": 3}, 3),
        (pl.Int8, {"default": -128}, -128),
        (pl.Float64, {"default": 0}, 0.0),
        (pl.Float32, {"default": 0.1}, 0.10000000149011612),
        (pl.Boolean, {"default": False}, False),
        (pl.String, {"default": ""}, ""),
        (pl.Binary, {"default": b""}, b""),
        (pl.Date, {"default": date(2000, 1, 1)}, date(2000, 1, 1)),
        (
            pl.Datetime("us", "UTC"),
            {"default": datetime(2000, 1, 1, tzinfo=UTC)},
            datetime(2000, 1, 1, tzinfo=UTC),
        ),
        (pl.Decimal(10, 2), {"default": 3}, Decimal("3.00")),
        (pl.Decimal(38, 2), {"default": Decimal("9" * 36 + ".99")}, Decimal("9" * 36 + ".99")),
        (pl.List(pl.Int64), {"default": (1, None)}, [1, None]),
        (pl.Struct({"a": pl.Float64}), {"default": {"a": 1}}, {"a": 1.0}),
        (pl.Int64, {"default": None}, None),
        (pl.Int64, {}, None),
    ],
)
def test_a_default_is_a_value_of_its_type(dtype: Any, said: dict[str, Any], given: Any) -> None:
    feature = declare(Feature(dtype, "A value.", **said)).contract.features["x"]

    assert repr(given) == repr(feature.fallback)


def test_without_a_default_it_is_the_empty_value() -> None:
    assert 0.0 == Feature(pl.Float64, "Spend.", empty=0).fallback
    assert -1.0 == Feature(pl.Float64, "Spend.", empty=0, default=-1).fallback


WRONG: list[tuple[Feature, str]] = [
    (
        Feature(pl.Int64, "A number.", on_missing="drop"),  # type: ignore[arg-type]
        "'Did.x' has on_missing='drop'. It is 'null', 'default' or 'fail'.",
    ),
    (
        Feature(pl.Int64, "A number.", on_missing="default"),
        (
            "'Did.x' says on_missing='default' and has none. Declare default=…, or say "
            "on_missing='null'."
        ),
    ),
    (
        Feature(pl.Int64, "A number.", default=1.5),
        (
            "'Did.x' is Int64 and has default=1.5, which does not fit that type. Give a value of "
            "the type."
        ),
    ),
    (
        Feature(pl.Int64, "A number.", nullable=False, default=None),
        "'Did.x' is not nullable and has default=None. Give it a value.",
    ),
]


@pytest.mark.parametrize(("feature", "problem"), WRONG)
def test_wrong_declarations_are_told_at_import(feature: Feature, problem: str) -> None:
    with pytest.raises(DeclarationError) as raised:
        declare(feature)

    assert [problem] == raised.value.problems


@pytest.mark.parametrize(
    ("dtype", "default"),
    [
        (pl.Int8, 128),
        (pl.Int64, True),
        (pl.Int64, "1"),
        (pl.Float64, True),
        (pl.Float64, "1"),
        (pl.Float32, 1e300),
        (pl.Boolean, 1),
        (pl.String, 1),
        (pl.Binary, "x"),
        (pl.Date, datetime(2000, 1, 1, tzinfo=UTC)),
        (pl.Datetime("us", "UTC"), datetime(2000, 1, 1)),
        (pl.Decimal(10, 2), Decimal("0.001")),
        (pl.Decimal(3, 2), 10),
        (pl.Decimal(3, 2), Decimal("NaN")),
        (pl.Decimal(3, 2), 0.5),
        (pl.List(pl.Int64), 1),
        (pl.List(pl.Int64), ["a"]),
        (pl.Struct({"a": pl.Int64}), {"b": 1}),
        (pl.Struct({"a": pl.Int64}), {"a": 1.5}),
    ],
)
@pytest.mark.parametrize("word", ["default", "empty"])
def test_a_default_of_another_type_is_refused(dtype: Any, default: Any, word: str) -> None:
    said: dict[str, Any] = {word: default}

    assert [f"'V.x' is {dtype}" in each for each in problems_of(Feature(dtype, "A.", **said))] == [
        True
    ]


def problems_of(feature: Feature) -> list[str]:
    feature.name = "x"
    return list(feature.problems("V"))


def test_what_is_served_for_missing_values_is_not_what_is_stored() -> None:
    plain = declare(Feature(pl.Int64, "A number."))
    with_default = declare(Feature(pl.Int64, "A number.", default=3, on_missing="default"))

    assert plain.contract.fingerprint == with_default.contract.fingerprint


def test_a_feature_set_may_hold_features_of_several_policies() -> None:
    chosen = FeatureSet("s_v1", list(PROFILE.contract.features.values()))

    policies = compile_plan(CATALOG, chosen).policies()

    assert frozenset({"profile:country"}) == policies.failing


def test_the_clients_import_nothing_that_a_service_must_not_wait_for() -> None:
    heavy = {"dagster", "deltalake", "duckdb", "pandera", "pyarrow", "redis", "soda", "soda_core"}
    program = (
        "import sys, lockstep.serving.client, lockstep.serving.aclient\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert heavy & set(done.stdout.split()) == set()
