"""Wrong declarations fail at import, all problems at once, in words that say the fix."""

from collections.abc import Callable
from datetime import date, timedelta

import polars as pl
import pytest

from lockstep import Entity, Feature, Features, FeatureSet, Snapshot, Source, feature_view
from lockstep.errors import DeclarationError
from lockstep.view import FeatureView

USER = Entity("user", {"user_id": pl.Int64})
EVENTS = Source(
    "events",
    {"user_id": pl.Int64, "at": pl.Datetime("us", "UTC")},
    event_time="at",
    unique_by=["user_id", "at"],
    start=date(2026, 1, 1),
)
PEOPLE = Snapshot("people", {"user_id": pl.Int64}, key="user_id", valid_from="always")


def contract(**features: Feature) -> type[Features]:
    """Return a sound contract with the given features."""
    body = {"__doc__": "What somebody did.", **(features or {"n": Feature(pl.Int64, "A number.")})}
    made = type(Features)("Did", (Features,), body, entity=USER, owner="team:tests")
    assert issubclass(made, Features)
    return made


def view_of(made: type[Features], name: str = "did") -> FeatureView:
    """Pair a contract with a function of that name."""

    def function(events: pl.LazyFrame) -> pl.LazyFrame:
        return events

    function.__name__ = name
    return feature_view(made, inputs=[EVENTS.trailing(days=1)])(function)


def problems(declare: Callable[[], object]) -> list[str]:
    with pytest.raises(DeclarationError) as raised:
        declare()
    return raised.value.problems


FEATURES: dict[str, tuple[Feature, str]] = {
    "unsigned": (
        Feature(pl.UInt32, "A count."),
        (
            "'Did.x' is UInt32. Delta Lake has no unsigned integers, so the column would come back "
            "as Int32. Declare pl.Int64 and cast in the function: pl.len().cast(pl.Int64)."
        ),
    ),
    "naive datetime": (
        Feature(pl.Datetime("us"), "When."),
        (
            "'Did.x' is Datetime(time_unit='us', time_zone=None): it has no time zone, so its "
            "instants are anybody's guess. Declare pl.Datetime('us', 'UTC') and convert."
        ),
    ),
    "nanoseconds": (
        Feature(pl.Datetime("ns", "UTC"), "When."),
        (
            "'Did.x' is Datetime(time_unit='ns', time_zone='UTC'): it counts ns, which Delta Lake "
            "changes to us. Declare pl.Datetime('us', 'UTC') and convert."
        ),
    ),
    "another zone": (
        Feature(pl.Datetime("us", "Asia/Tokyo"), "When."),
        (
            "'Did.x' is Datetime(time_unit='us', time_zone='Asia/Tokyo'): it has a zone other than "
            "UTC, which Delta Lake does not keep. Declare pl.Datetime('us', 'UTC') and convert."
        ),
    ),
    "categorical": (
        Feature(pl.Categorical, "A kind."),
        (
            "'Did.x' is Categorical. The type does not survive Delta Lake and Redis. Declare "
            "pl.String and cast in the function."
        ),
    ),
    "duration inside a list": (
        Feature(pl.List(pl.Duration("us")), "Pauses."),
        (
            "'Did.x[]' is Duration(time_unit='us'). The type does not survive Delta Lake and "
            "Redis. Declare pl.Int64 with unit='us' (or seconds, days) and convert."
        ),
    ),
    "no description": (
        Feature(pl.Int64, " "),
        "'Did.x' has no description. Say in one sentence what it is.",
    ),
    "fill rate in percent": (
        Feature(pl.Int64, "A number.", fill_rate=99),
        "'Did.x' declares fill_rate=99. It is a share of the rows: give a number from 0 to 1.",
    ),
    "range of a string": (
        Feature(pl.String, "A name.", at_least=0),
        (
            "'Did.x' is String and declares a range. Ranges are for numbers: remove at_least and "
            "at_most, or use one_of."
        ),
    ),
    "drift of a date": (
        Feature(pl.Date, "A day.", max_psi=0.2),
        (
            "'Did.x' is Date and declares max_psi. Drift is measured for numbers, strings and "
            "booleans: remove max_psi."
        ),
    ),
    "empty value that nothing uses": (
        Feature(pl.Int64, "A number.", empty=0),
        (
            "'Did.x' declares empty=0, which nothing would use: the contract says "
            "when_absent='last'. Remove it, or say when_absent='empty'."
        ),
    ),
}


@pytest.mark.parametrize("name", FEATURES)
def test_a_wrong_feature_says_what_to_declare_instead(name: str) -> None:
    feature, expected = FEATURES[name]

    assert [expected] == problems(lambda: view_of(contract(x=feature)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "Amount",
            (
                "Feature name 'Amount' is not usable. Names are lower-case letters, digits and "
                "underscores, start with a letter and have at most 63 characters."
            ),
        ),
        (
            "known_at",
            "Feature name 'known_at' is reserved for a column that Lockstep writes. Rename it.",
        ),
        (
            "user_id",
            "'Did.user_id' has the name of a key column of entity 'user'. Rename the feature.",
        ),
    ],
)
def test_a_feature_name_must_be_free_and_plain(name: str, expected: str) -> None:
    made = contract(**{name: Feature(pl.Int64, "A number.")})

    assert [expected] == problems(lambda: view_of(made))


def test_every_problem_of_a_view_is_told_at_once() -> None:
    class Did(Features, entity=USER, owner="me", ttl=timedelta(hours=24), when_absent="empty"):
        n = Feature(pl.UInt8, "A number.")

    def declare() -> None:
        @feature_view(Did, inputs=[EVENTS.trailing(days=0)])
        def did(txns: pl.LazyFrame) -> pl.LazyFrame:
            return txns

    expected = [
        "Contract 'Did' has no docstring. Say in one sentence what its rows are.",
        "Contract 'Did' has owner 'me'. Name one: 'team:growth' or an e-mail address.",
        (
            "Contract 'Did' has ttl=1 day, 0:00:00, shorter than a 25-hour day and its landing "
            "delay of 2:00:00. Values would expire before the next day's arrive: give at least 1 "
            "day, 3:00:00."
        ),
        (
            "'Did.n' is UInt8. Delta Lake has no unsigned integers, so the column would come back "
            "as Int8. Declare pl.Int64 and cast in the function: pl.len().cast(pl.Int64)."
        ),
        (
            "'Did.n' has no empty= value, but the contract says when_absent='empty'. Declare what "
            "an entity with no rows in its window has, e.g. empty=0 or empty=None."
        ),
        "Feature view 'did' reads 'events' over 0 days. Give at least 1.",
        (
            "Feature view 'did' takes ['txns'], but its inputs are ['events']. Rename the "
            "parameter, or declare the input it should receive. Nothing was registered."
        ),
    ]

    assert expected == problems(declare)


def test_a_contract_without_an_entity_fails_where_it_stands() -> None:
    def declare() -> None:
        class Did(Features, owner="team:tests"):
            """What somebody did."""

            n = Feature(pl.Int64, "A number.")

    expected = ["Contract 'Did' has no entity. Declare it: class Did(Features, entity=…)."]

    assert expected == problems(declare)


def test_a_bare_input_names_the_ways_to_read_it() -> None:
    read = view_of(contract(), "read")

    def declare() -> None:
        @feature_view(contract(), inputs=[read, EVENTS, PEOPLE, "events"])  # type: ignore[list-item]
        def did(read: pl.LazyFrame) -> pl.LazyFrame:
            return read

    assert [
        (
            "Feature view 'did' reads view 'read' without saying which rows. Say read.same_day(), "
            "read.trailing(days=7) or read.latest()."
        ),
        "Feature view 'did' reads source 'events': say .trailing(days=7).",
        "Feature view 'did' reads snapshot 'people' as a whole. Say .latest().",
        "Feature view 'did' has the input 'events', which is no source, snapshot or view.",
    ] == problems(declare)


def test_a_contract_is_kept_by_one_view() -> None:
    made = contract()
    view_of(made, "first")

    expected = (
        "Contract 'Did' is already kept by view 'first'. Give 'second' a contract of its own."
    )

    assert [expected] == problems(lambda: view_of(made, "second"))


SOURCES: dict[str, tuple[dict[str, object], str]] = {
    "naive without a zone": (
        {"schema": {"user_id": pl.Int64, "at": pl.Datetime("us")}},
        (
            "'events.at' is naive, so its instants are anybody's guess. Declare the zone of its "
            "wall clock: time_zone='America/New_York' (or 'UTC')."
        ),
    ),
    "aware with a zone": (
        {"time_zone": "Asia/Tokyo"},
        (
            "'events.at' is Datetime(time_unit='us', time_zone='UTC'), time_zone='Asia/Tokyo'. An "
            "aware event time is pl.Datetime('us', 'UTC') and has no time_zone of its own."
        ),
    ),
    "no such event time": (
        {"event_time": "when"},
        (
            "'events' names 'when' as event_time, but its schema has ['at', 'user_id']. Correct "
            "the name, or add the column to the schema."
        ),
    ),
    "no key": (
        {"unique_by": []},
        (
            "'events' has no unique_by. Name the columns that identify a row, so that a file "
            "delivered twice counts once."
        ),
    ),
    "a date": (
        {"schema": {"user_id": pl.Int64, "at": pl.Date}},
        "'events.at' is Date. Event times are pl.Datetime('us') with or without 'UTC'.",
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_wrong_source_says_what_to_declare_instead(name: str) -> None:
    changes, expected = SOURCES[name]
    sound: dict[str, object] = {
        "schema": {"user_id": pl.Int64, "at": pl.Datetime("us", "UTC")},
        "event_time": "at",
        "unique_by": ["user_id"],
        "start": date(2026, 1, 1),
    }

    def declare() -> None:
        Source("events", **{**sound, **changes})  # type: ignore[arg-type]

    assert [expected] == problems(declare)


def test_a_snapshot_names_columns_that_it_has() -> None:
    def declare() -> None:
        Snapshot("people", {"user_id": pl.Int64}, key="id", valid_from="since")

    assert [
        (
            "'people' names 'id' as key, but its schema has ['user_id']. Correct the name, or add "
            "the column to the schema."
        ),
        (
            "'people' names 'since' as valid_from, but its schema has ['user_id']. Correct the "
            "name, or add the column to the schema."
        ),
    ] == problems(declare)


def test_an_entity_has_keys_that_can_be_looked_up() -> None:
    assert [
        (
            "Key column 'amount' of entity 'user' is Float64. Keys are pl.Int64, pl.Int32 or "
            "pl.String: cast it in the source."
        ),
        "Entity 'user' has 0 buckets. Give it at least 1.",
    ] == problems(lambda: Entity("user", {"amount": pl.Float64}, buckets=0))


def test_a_feature_set_lists_features_of_views_once() -> None:
    made = contract()
    view_of(made)
    feature = made.contract.features["n"]

    def declare() -> None:
        FeatureSet("Churn", [feature, feature, Feature(pl.Int64, "Loose.")])

    found = problems(declare)

    assert found[0].startswith("Feature set name 'Churn' is not usable.")
    assert found[1].endswith("which is no feature of a view.")
    assert "Feature set 'Churn' lists ['did:n'] more than once." == found[2]


def test_a_feature_is_written_view_colon_feature() -> None:
    made = contract()
    view_of(made)

    assert "did:n" == str(made.contract.features["n"])


def test_a_view_is_still_a_function() -> None:
    frame = pl.LazyFrame({"user_id": [1]})

    assert frame.collect().rows() == view_of(contract())(frame).collect().rows()
