"""Plans: what a list of features needs, worked out once from the contracts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import polars as pl

from lockstep.catalog import Catalog
from lockstep.errors import InputError, UnknownNameError
from lockstep.online import MissingPolicy
from lockstep.schema import POLICIES, Entity, Feature
from lockstep.serving.decoding import ViewPart
from lockstep.view import FeatureSet, FeatureView, split_feature

Features: TypeAlias = str | FeatureSet | Iterable[Any]
"""A feature set or its name, a `view:feature`, or a list of features or `view:feature`."""

_DECLARED: Final = "declared"


@dataclass(frozen=True)
class EntityPart:
    """The views of one entity type in a plan: one hash per entity holds all of them.

    Attributes:
        places: Per view the positions of its features among the plan's.
    """

    entity: Entity
    parts: tuple[ViewPart, ...]
    places: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Policies:
    """What becomes of cells without a value, resolved for one plan.

    Attributes:
        fallbacks: Per feature the value to put there.
        failing: Features for which there is none, and the request fails.
    """

    fallbacks: tuple[Any, ...]
    failing: frozenset[str]


@dataclass(frozen=True, eq=False)
class Plan:
    """What a list of features needs.

    Attributes:
        features: `view:feature` in asked order, each once.
        types: Polars type per feature.
        views: In order of their first feature.
        entities: Every entity type that is needed, in order of first feature.
        feature_set: Name of the feature set that was asked for, if it was one.
        version: Its version.
        parts: How to read and decode it, per entity type in the order of `entities`.
    """

    features: tuple[str, ...]
    types: tuple[pl.DataType, ...]
    views: tuple[FeatureView, ...]
    entities: tuple[Entity, ...]
    feature_set: str | None
    version: str | None
    parts: tuple[EntityPart, ...] = field(repr=False)
    _declared: tuple[Feature, ...] = field(repr=False)
    _words: dict[str, Policies] = field(default_factory=dict, repr=False)

    def policies(self, asked: MissingPolicy = None) -> Policies:
        """Resolve a request's missing policy over those that the contracts declare.

        Raises:
            InputError: A word that is no policy.
            UnknownNameError: A policy for a feature that is not asked for.
        """
        if asked is None or isinstance(asked, str):
            word = _DECLARED if asked is None else asked
            if word not in self._words:
                self._words[word] = self._resolved(dict.fromkeys(self.features, asked))
            return self._words[word]
        by_name = {str(name): word for name, word in asked.items()}
        if unknown := sorted(by_name.keys() - set(self.features)):
            raise UnknownNameError(
                f"on_missing names {unknown[0]!r}, which is not among the features asked for.",
                expected=f"some of {list(self.features)}",
                effect="Nothing was fetched.",
            )
        return self._resolved({name: by_name.get(name) for name in self.features})

    def _resolved(self, asked: Mapping[str, str | None]) -> Policies:
        words = [
            feature.on_missing if word is None else word
            for word, feature in zip(asked.values(), self._declared, strict=True)
        ]
        if wrong := [word for word in words if word not in POLICIES]:
            raise InputError(
                f"on_missing is {wrong[0]!r}.",
                expected="'null', 'default' or 'fail'",
                effect="Nothing was fetched.",
            )
        return Policies(
            tuple(
                feature.fallback if word == "default" else None
                for word, feature in zip(words, self._declared, strict=True)
            ),
            frozenset(
                name for name, word in zip(self.features, words, strict=True) if word == "fail"
            ),
        )


def compile_plan(catalog: Catalog, features: Features) -> Plan:
    """Compile what a list of features needs.

    Raises:
        UnknownNameError: A view, feature or feature set does not exist.
        InputError: No feature is asked for, or a key column means two things.
    """
    if isinstance(features, str):
        features = [features] if ":" in features else catalog.feature_set(features)
    named = features if isinstance(features, FeatureSet) else None
    listed = features.names if isinstance(features, FeatureSet) else map(str, features)
    names = tuple(dict.fromkeys(listed))
    if not names:
        raise InputError("No feature is asked for.", fix="Name at least one `view:feature`.")
    views = {catalog.view(view): found for view, found in catalog.features(names).items()}
    declared = tuple(_feature(catalog, name) for name in names)
    entities = tuple(dict.fromkeys(view.contract.entity for view in views))
    _require_one_meaning(entities)
    return Plan(
        features=names,
        types=tuple(feature.type for feature in declared),
        views=tuple(views),
        entities=entities,
        feature_set=named.name if named else None,
        version=named.version if named else None,
        parts=tuple(_entity_part(entity, views, names) for entity in entities),
        _declared=declared,
    )


def _feature(catalog: Catalog, name: str) -> Feature:
    view, feature = split_feature(name)
    return catalog.view(view).contract.features[feature]


def _entity_part(
    entity: Entity, views: Mapping[FeatureView, Sequence[str]], names: Sequence[str]
) -> EntityPart:
    place = {name: at for at, name in enumerate(names)}
    own = {view: asked for view, asked in views.items() if view.contract.entity == entity}
    return EntityPart(
        entity,
        tuple(ViewPart(view, asked) for view, asked in own.items()),
        tuple(tuple(place[f"{view.name}:{n}"] for n in asked) for view, asked in own.items()),
    )


def _require_one_meaning(entities: Sequence[Entity]) -> None:
    types: dict[str, tuple[Entity, pl.DataType]] = {}
    for entity in entities:
        for column, dtype in entity.key_types.items():
            first, expected = types.setdefault(column, (entity, dtype))
            if (expected == pl.String) != (dtype == pl.String):
                raise InputError(
                    f"The features asked for are looked up by two kinds of {column!r}.",
                    expected=f"{expected}, as for {first.name}",
                    got=f"{dtype} for {entity.name}",
                    fix="Ask for them in two requests.",
                )
