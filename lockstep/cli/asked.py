"""What the words of a request mean: features, the keys of an entity, their types."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lockstep.errors import InputError

if TYPE_CHECKING:
    from lockstep.store import Store


def named_features(features: str | None, feature_set: str | None) -> Any:
    """Return what `--features` or `--feature-set` names; None if neither is given.

    Raises:
        InputError: Both are given.
    """
    if features is not None and feature_set is not None:
        raise InputError("Both --features and --feature-set are given.", fix="Leave one out.")
    if features is not None:
        return [name.strip() for name in features.split(",") if name.strip()]
    return feature_set


def given_keys(pairs: Sequence[str]) -> dict[str, str]:
    """Return key column → value of `KEY=VALUE` words.

    Raises:
        InputError: A word has another form, or names a column again.
    """
    given: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name or name in given:
            raise InputError(
                f"{pair!r} names no key column and its value, or one that is named before.",
                expected="KEY=VALUE, e.g. household_id=900",
            )
        given[name] = value
    return given


def describing(store: "Store", given: Mapping[str, str]) -> list[str]:
    """Return every feature of the views whose keys are all given.

    Raises:
        InputError: There is no such view.
    """
    found = [
        f"{view.name}:{feature}"
        for view in store.views.values()
        if set(view.contract.keys) <= given.keys()
        for feature in view.contract.features
    ]
    if not found:
        keys = sorted({", ".join(view.contract.keys) for view in store.views.values()})
        raise InputError(
            f"No view describes an entity with {sorted(given)}.",
            expected=f"the keys of an entity: {' or '.join(keys)}",
        )
    return found


def typed(store: "Store", wanted: Any, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the given keys as the entities of the wanted features declare them.

    Raises:
        InputError: A key identifies none of them, or a value is no number where one is needed.
    """
    import polars as pl

    types = {
        column: dtype
        for name in store.catalog.features(wanted)
        for column, dtype in store.catalog.view(name).contract.entity.key_types.items()
    }
    if unknown := sorted(given.keys() - types.keys()):
        raise InputError(f"{unknown} identify none of these features.", expected=f"{sorted(types)}")
    entity: dict[str, Any] = {}
    for name, value in given.items():
        try:
            entity[name] = value if types[name] == pl.String else int(value)
        except ValueError:
            raise InputError(
                f"{name}={value} is not usable.", expected=f"{types[name]}", got=repr(value)
            ) from None
    return entity
