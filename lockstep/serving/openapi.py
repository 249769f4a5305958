"""The OpenAPI document, made from the contracts that the caller may see."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from lockstep.catalog import Catalog
from lockstep.online import NO_VALUE
from lockstep.schema import POLICIES, Entity
from lockstep.serving.auth import Caller
from lockstep.serving.cells import STATUSES
from lockstep.serving.requests import ARROW, JSON, MSGPACK
from lockstep.serving.settings import MAX_ENTITIES, MAX_FEATURES
from lockstep.view import FeatureSet, FeatureView

_JSON: Final = "application/json"
_INT64: Final = {"minimum": -(2**63), "maximum": 2**63 - 1}
_DECIMAL_TEXT: Final = r"^-?(0|[1-9][0-9]{0,17})$"
_STRING: Final = {"type": "string"}
_NON_FINITE: Final = {"enum": ["string", "null", "error"]}
_DIGITS: Final = {"enum": ["number", "string"]}


def document(catalog: Catalog, caller: Caller, version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the service for that caller."""
    views = [view for view in catalog.views.values() if caller.may_see(view.name)]
    sets = [
        chosen
        for chosen in catalog.feature_sets.values()
        if all(caller.may_see(name.partition(":")[0]) for name in chosen.names)
    ]
    asked = _by_keys(views, sets)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lockstep feature service",
            "version": version,
            "description": "Feature vectors with an honest status and an age per cell.",
        },
        "security": [{"token": []}],
        "paths": {
            "/v1/features": {"post": _fetch(asked)},
            "/v1/feature-sets/{name}": {"get": _feature_set(sets)},
            "/get-online-features": {"post": _feast(asked)},
            "/metrics": {"get": _text("metrics", "Metrics in Prometheus' text format.")},
            "/healthz": {"get": _open("healthz", "Whether the process answers.")},
            "/readyz": {"get": _open("readyz", "Whether requests should be sent here.")},
            "/openapi.json": {"get": _own()},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _error(), "Vectors": _vectors()},
        },
    }


def _fetch(asked: "Sequence[_Asked]") -> dict[str, Any]:
    options = {
        "on_missing": {
            "anyOf": [
                {"enum": list(POLICIES)},
                {"type": "object", "additionalProperties": {"enum": list(POLICIES)}},
                {"type": "null"},
            ]
        },
        "int64": _DIGITS,
        "non_finite": {"anyOf": [_NON_FINITE, {"type": "null"}]},
    }
    bodies = []
    for each in asked:
        entities = {"anyOf": [_columns(each.keys), _rows(each.keys)]}
        bodies += [
            {
                "type": "object",
                "properties": {"entities": entities, what: schema, **options},
                "required": ["entities", what],
                "additionalProperties": False,
            }
            for what, schema in each.named("feature_set")
        ]
    return {
        "operationId": "features",
        "summary": "Feature vectors of many entities, from several views, in one round trip.",
        "description": "Features of several kinds of entities need the key columns of all of them.",
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": _any_of(bodies)},
                MSGPACK: {"schema": _anything()},
            },
        },
        "responses": _responses(_vectors_in_every_format(), (400, 413, 415, 422, 424, 503)),
    }


def _feature_set(sets: Sequence[FeatureSet]) -> dict[str, Any]:
    parameters = [
        {
            "name": "name",
            "in": "path",
            "required": True,
            "schema": _names([chosen.name for chosen in sets]),
        },
        _query("on_missing", {"enum": list(POLICIES)}),
        _query("int64", _DIGITS),
        _query("non_finite", _NON_FINITE),
    ]
    described = {JSON: {"schema": {"type": "object"}}}
    return {
        "operationId": "feature_set",
        "summary": "A feature set; with its key columns in the query, the vectors.",
        "parameters": parameters,
        "responses": _responses(
            {**_vectors_in_every_format(), **described}, (400, 404, 422, 424, 503)
        ),
    }


def _feast(asked: "Sequence[_Asked]") -> dict[str, Any]:
    bodies = [
        {
            "type": "object",
            "properties": {
                "entities": _columns(each.keys),
                what: schema,
                "full_feature_names": {"type": "boolean"},
            },
            "required": ["entities", what],
        }
        for each in asked
        for what, schema in each.named("feature_service")
    ]
    answer = {
        "type": "object",
        "required": ["metadata", "results"],
        "properties": {
            "metadata": {"type": "object", "required": ["feature_names"]},
            "results": {"type": "array", "items": {"type": "object"}},
        },
    }
    return {
        "operationId": "get_online_features",
        "summary": "The same in Feast's words.",
        "requestBody": {"required": True, "content": {JSON: {"schema": _any_of(bodies)}}},
        "responses": _responses({JSON: {"schema": answer}}, (400, 413, 415, 422, 424, 503)),
    }


@dataclass(frozen=True)
class _Asked:
    """What the same key columns are enough for."""

    keys: Mapping[str, pl.DataType]
    features: Sequence[str]
    sets: Sequence[str]

    def named(self, set_word: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each way to name features, with its schema."""
        if self.features:
            yield (
                "features",
                {
                    "type": "array",
                    "items": {"type": "string", "enum": list(self.features)},
                    "minItems": 1,
                    "maxItems": MAX_FEATURES,
                    "uniqueItems": True,
                },
            )
        if self.sets:
            yield set_word, {"type": "string", "enum": list(self.sets)}


def _by_keys(views: Sequence[FeatureView], sets: Sequence[FeatureSet]) -> list[_Asked]:
    """Return what may be asked for, by the kinds of entities it describes."""
    entity_of = {view.name: view.contract.entity for view in views}
    kinds: dict[tuple[Entity, ...], tuple[list[str], list[str]]] = {}
    for view in views:
        features, _ = kinds.setdefault((view.contract.entity,), ([], []))
        features += [f"{view.name}:{name}" for name in view.contract.features]
    for chosen in sets:
        needed = dict.fromkeys(entity_of[name.partition(":")[0]] for name in chosen.names)
        kinds.setdefault(tuple(needed), ([], []))[1].append(chosen.name)
    return [
        _Asked(
            {name: dtype for entity in needed for name, dtype in entity.key_types.items()},
            features,
            names,
        )
        for needed, (features, names) in kinds.items()
    ]


def _columns(keys: Mapping[str, pl.DataType]) -> dict[str, Any]:
    def column(dtype: pl.DataType) -> dict[str, Any]:
        return {"type": "array", "items": _key(dtype), "maxItems": MAX_ENTITIES}

    return {
        "type": "object",
        "properties": {name: column(dtype) for name, dtype in keys.items()},
        "required": list(keys),
        "additionalProperties": False,
        "description": "A list per key column, all of one length.",
    }


def _rows(keys: Mapping[str, pl.DataType]) -> dict[str, Any]:
    row = {
        "type": "object",
        "properties": {name: _key(dtype) for name, dtype in keys.items()},
        "required": list(keys),
        "additionalProperties": False,
    }
    return {"type": "array", "items": row, "maxItems": MAX_ENTITIES}


def _any_of(schemas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"anyOf": list(schemas)} if schemas else {"type": "object"}


def _key(dtype: pl.DataType) -> dict[str, Any]:
    if dtype == pl.String:
        return {"type": "string", "maxLength": 1000}
    return {"anyOf": [{"type": "integer", **_INT64}, {"type": "string", "pattern": _DECIMAL_TEXT}]}


def _names(names: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(names)} if names else {"type": "string"}


def _query(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _anything() -> dict[str, Any]:
    return {"type": "string", "format": "binary"}


def _vectors_in_every_format() -> dict[str, Any]:
    return {
        JSON: {"schema": {"$ref": "#/components/schemas/Vectors"}},
        MSGPACK: {"schema": _anything()},
        ARROW: {"schema": _anything()},
    }


def _responses(content: Mapping[str, Any], errors: Sequence[int]) -> dict[str, Any]:
    refused = {str(status): _refused(status) for status in sorted({401, 403, 406, *errors})}
    return {"200": {"description": "The answer.", "content": dict(content)}, **refused}


_MEANINGS: Final[Mapping[int, str]] = {
    400: "The request is wrong.",
    401: "No token, or one that is not valid.",
    403: "The token lacks a scope.",
    404: "There is no feature set of that name.",
    406: "None of the accepted formats is spoken.",
    413: "The body is too long.",
    415: "The body's format is not read.",
    422: "A value is not finite, and the policy is to say so.",
    424: "Cells have no value, and the policy is to fail.",
    503: "The service is overloaded, or the online store does not answer.",
}


def _refused(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": _MEANINGS[status], "content": {_JSON: {"schema": schema}}}


def _text(name: str, summary: str) -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    refused = {str(status): _refused(status) for status in (401, 403)}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}, **refused},
    }


def _open(name: str, summary: str) -> dict[str, Any]:
    content = {_JSON: {"schema": {"type": "object"}}}
    answers: dict[str, Any] = {"200": {"description": "Yes.", "content": content}}
    if name == "readyz":
        answers["503"] = {"description": "No.", "content": content}
    return {"operationId": name, "summary": summary, "security": [], "responses": answers}


def _own() -> dict[str, Any]:
    content = {_JSON: {"schema": {"type": "object"}}}
    return {
        "operationId": "openapi",
        "summary": "This document.",
        "responses": {
            "200": {"description": "This document.", "content": content},
            "401": _refused(401),
        },
    }


def _error() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["error", "trace_id"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": _STRING, "message": _STRING},
            },
            "missing": {"type": "array", "items": _missing()},
            "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        },
    }


def _missing() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["feature", "entities", "statuses"],
        "properties": {
            "feature": _STRING,
            "entities": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "statuses": {"type": "array", "items": {"enum": sorted(NO_VALUE)}},
        },
    }


def _vectors() -> dict[str, Any]:
    per_feature = {"type": "array", "items": {"type": "array"}}
    statuses = {"type": "array", "items": {"enum": list(STATUSES)}}
    properties = {
        "feature_set": {"type": ["object", "null"], "required": ["name", "version"]},
        "entities": {"type": "object", "additionalProperties": {"type": "array"}},
        "features": {"type": "array", "items": _STRING},
        "types": {"type": "array", "items": _STRING},
        "values": per_feature,
        "statuses": {"type": "array", "items": statuses},
        "views": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["event_timestamp", "age_seconds"],
            },
        },
        "not_ready": {"type": "object", "additionalProperties": _STRING},
        "problem": {"type": ["string", "null"], "description": "Why every cell is an error."},
        "missing": {"type": "array", "items": _missing()},
        "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    }
    return {"type": "object", "required": list(properties), "properties": properties}
