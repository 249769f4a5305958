"""Limits of the checks and objectives: wrong ones say the fix, and none of them changes values."""

from dataclasses import fields
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from lockstep import Entity, Feature, Features
from lockstep.schema import Contract

USER = Entity("user", {"user_id": pl.Int64})


def contract(feature: Feature | None = None, **said: Any) -> Contract:
    """Return a sound contract with the given limits."""
    body = {"__doc__": "What somebody did.", "n": feature or Feature(pl.Int64, "A number.")}
    made = type(Features)("Did", (Features,), body, entity=USER, owner="team:tests", **said)
    assert issubclass(made, Features)
    return made.contract


FEATURES = {
    "a limit of drift for dates": (
        Feature(pl.Date, "A day.", max_psi=0.2, max_kl=0.1),
        (
            "'Did.n' is Date and declares max_psi and max_kl. Drift is measured for numbers, "
            "strings and booleans: remove max_psi and max_kl."
        ),
    ),
    "a limit of nothing": (
        Feature(pl.Int64, "A number.", max_kl=0.0),
        (
            "'Did.n' has max_kl=0.0. It is the largest distance from the reference that is "
            "tolerated: give a number above 0, e.g. max_kl=0.2."
        ),
    ),
    "a limit that is no number": (
        Feature(pl.Int64, "A number.", max_psi=float("nan")),
        (
            "'Did.n' has max_psi=nan. It is the largest distance from the reference that is "
            "tolerated: give a number above 0, e.g. max_psi=0.2."
        ),
    ),
    "an unknown severity": (
        Feature(pl.Int64, "A number.", max_psi=0.2, drift="page"),  # type: ignore[arg-type]
        "'Did.n' has drift='page'. It is 'warn' or 'block'.",
    ),
    "blocking without a limit": (
        Feature(pl.Int64, "A number.", drift="block"),
        (
            "'Did.n' says drift='block' and has no limit. Declare max_psi=0.25 or max_kl=…, or say "
            "drift='warn'."
        ),
    ),
}

CONTRACTS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown reference": (
        {"reference": "yesterday"},
        (
            "Contract 'Did' has reference='yesterday'. It is 'auto', 'training', 'trailing' or "
            "'weekday'."
        ),
    ),
    "fewer rows at most than at least": (
        {"min_rows": 10, "max_rows": 9},
        (
            "Contract 'Did' has max_rows=9, which no day with its min_rows=10 keeps. Give at "
            "least 10."
        ),
    ),
    "no rows at all": (
        {"min_rows": 0, "max_rows": 0},
        "Contract 'Did' has max_rows=0, which no day with its min_rows=0 keeps. Give at least 1.",
    ),
    "growth that is none": (
        {"max_growth": 1.0},
        (
            "Contract 'Did' has max_growth=1.0. It is a multiple of the usual number of rows: give "
            "a number above 1, e.g. max_growth=10.0, or None for no limit."
        ),
    ),
    "a shrinking that is none": (
        {"max_shrink": 1.0},
        (
            "Contract 'Did' has max_shrink=1.0. It says how many times fewer rows than usual pass: "
            "give a number above 1, e.g. max_shrink=3.0, or None for no limit."
        ),
    ),
    "percent for a share": (
        {"max_new_entities": 50},
        (
            "Contract 'Did' has max_new_entities=50. It is a share of the rows: give a number from "
            "0 to 1."
        ),
    ),
    "parity of some": (
        {"parity": "some"},
        (
            "Contract 'Did' has parity='some'. Say how many entities to compare at most, e.g. "
            "parity=100_000, or parity='all'."
        ),
    ),
    "parity of nobody": (
        {"parity": 0},
        (
            "Contract 'Did' has parity=0. Say how many entities to compare at most, e.g. "
            "parity=100_000, or parity='all'."
        ),
    ),
    "no time for a fetch": (
        {"latency": timedelta(0)},
        (
            "Contract 'Did' has latency=0:00:00. Give the largest tolerated time of a fetch, e.g. "
            "latency=timedelta(milliseconds=100)."
        ),
    ),
    "an objective of always": (
        {"objective": 1.0},
        (
            "Contract 'Did' has objective=1.0. It is a share of requests and of time, and no "
            "promise holds always: give a number between 0 and 1, e.g. objective=0.99."
        ),
    ),
}


@pytest.mark.parametrize("name", FEATURES)
def test_a_wrong_limit_of_a_feature_says_what_to_declare_instead(name: str) -> None:
    feature, expected = FEATURES[name]

    assert (expected,) == contract(feature).problems


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_wrong_limit_of_a_contract_says_what_to_declare_instead(name: str) -> None:
    said, expected = CONTRACTS[name]

    assert (expected,) == contract(**said).problems


def test_limits_at_their_bounds_are_sound() -> None:
    edge = contract(
        min_rows=1,
        max_rows=1,
        max_growth=1.001,
        max_shrink=1.001,
        max_new_entities=1.0,
        parity=1,
        latency=timedelta(microseconds=1),
        objective=0.001,
    )
    none = contract(
        max_growth=None,
        max_shrink=None,
        max_new_entities=0.0,
        parity="all",
        reference="weekday",
    )

    assert () == edge.problems == none.problems


def test_no_limit_changes_the_meaning_of_a_contract() -> None:
    plain = contract()
    limited = contract(
        Feature(pl.Int64, "A number.", max_psi=0.1, max_kl=0.1, drift="block"),
        max_rows=5,
        max_growth=2.0,
        max_shrink=2.0,
        max_new_entities=0.5,
        reference="trailing",
        parity="all",
        latency=timedelta(seconds=1),
        objective=0.9,
    )

    same = {"fingerprint", "schema_json", "columns"}
    assert all(getattr(plain, name) == getattr(limited, name) for name in same)
    different = {
        f.name for f in fields(Contract) if getattr(plain, f.name) != getattr(limited, f.name)
    }
    assert different == {
        *("features", "max_rows", "max_growth", "max_shrink", "max_new_entities", "reference"),
        *("parity", "latency", "objective"),
    }


def test_a_feature_knows_the_contract_that_claims_it_and_no_other_class() -> None:
    class Did(Features, entity=USER, owner="team:tests"):
        """What somebody did."""

        n = Feature(pl.Int64, "A number.")

    class Elsewhere:
        n = Feature(pl.Int64, "A number.")

    assert Did is Did.n.owner_class
    assert Elsewhere.n.owner_class is None
