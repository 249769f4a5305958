"""Features for a request: the plan, what the caller may see of it, one round trip, the answer."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from lockstep.catalog import Catalog
from lockstep.online import MissingPolicy, Vectors
from lockstep.serving import feast
from lockstep.serving.auth import Caller
from lockstep.serving.cells import Column, looked_at, missing_cells
from lockstep.serving.exchange import RETRY_SOON, Answer, Refused
from lockstep.serving.plan import Features, Plan
from lockstep.serving.requests import (
    FeastRequest,
    FeatureRequest,
    Policy,
    SetQuery,
    key_columns,
)
from lockstep.serving.responses import (
    CONTENT_TYPES,
    Format,
    encode,
    negotiated,
    rendered,
)
from lockstep.serving.served_log import ServedLog
from lockstep.serving.settings import NonFinite
from lockstep.serving.shape import features_of, shape_of
from lockstep.serving.telemetry import Telemetry
from lockstep.serving.tracing import Trace
from lockstep.view import FeatureSet


class Fetches(Protocol):
    """What is asked of the client."""

    def plan(self, features: Features) -> Plan:
        """Return the compiled plan, from a cache if it is there."""

    async def fetch(
        self,
        features: Plan,
        entities: Mapping[str, Sequence[Any]],
        *,
        on_missing: MissingPolicy = None,
    ) -> Vectors:
        """Fetch vectors in one round trip, within the deadline."""


class Answering:
    """Answers the three requests for features.

    Args:
        catalog: What the project declares.
        client: Fetches.
        telemetry: Counts what is served.
        log: Keeps what is served.
        non_finite: The service's policy for NaN and infinities.
    """

    def __init__(
        self,
        catalog: Catalog,
        client: Fetches,
        telemetry: Telemetry,
        log: ServedLog,
        non_finite: NonFinite,
    ) -> None:
        self._catalog: Final = catalog
        self._client: Final = client
        self._telemetry: Final = telemetry
        self._log: Final = log
        self._non_finite: Final[NonFinite] = non_finite

    async def features(
        self, request: FeatureRequest, caller: Caller, accept: bytes | None, trace: Trace
    ) -> Answer:
        """Answer `POST /v1/features`."""
        kind = acceptable(accept)
        plan = self._allowed_plan(request.feature_set or request.features or [], caller)
        columns = key_columns(plan, request.entities, strict=True)
        return await self._answer(plan, columns, request, kind, trace)

    async def of_set(
        self,
        chosen: FeatureSet,
        query: SetQuery,
        keys: Mapping[str, Sequence[int | str]],
        caller: Caller,
        accept: bytes | None,
        trace: Trace,
    ) -> Answer:
        """Answer `GET /v1/feature-sets/{name}`: the set, or vectors for the keys in the query."""
        kind = acceptable(accept)
        if not keys:
            self._require_views(chosen, caller)
            document = described(self._client.plan(chosen), chosen) | {"trace_id": trace.trace_id}
            spoken: Format = "json" if kind == "arrow" else kind
            return Answer(200, encode(document, spoken), CONTENT_TYPES[spoken])
        plan = self._allowed_plan(chosen, caller)
        columns = key_columns(plan, keys, strict=True)
        return await self._answer(plan, columns, query, kind, trace)

    async def feast(self, request: FeastRequest, caller: Caller, trace: Trace) -> Answer:
        """Answer `POST /get-online-features`."""
        plan = self._allowed_plan(request.feature_service or request.features, caller)
        columns = key_columns(plan, request.entities, strict=False)
        vectors, cells = await self._fetched(plan, columns, None)
        body = feast.answer(
            plan,
            vectors,
            full_names=request.full_feature_names,
            with_versions=request.include_feature_view_version_metadata,
            non_finite=self._non_finite,
        )
        self._note(plan, vectors, cells, trace)
        return Answer(200, body)

    def feature_set(self, name: str) -> FeatureSet:
        """Return the feature set of a path.

        Raises:
            UnknownNameError: There is none.
        """
        return self._catalog.feature_set(name)

    async def _answer(
        self,
        plan: Plan,
        columns: Mapping[str, Sequence[int | str]],
        asked: FeatureRequest | SetQuery,
        kind: Format,
        trace: Trace,
    ) -> Answer:
        vectors, cells = await self._fetched(plan, columns, asked.on_missing)
        body = rendered(
            plan,
            vectors,
            cells,
            kind=kind,
            trace_id=trace.trace_id,
            int64=asked.int64,
            non_finite=asked.non_finite or self._non_finite,
        )
        self._note(plan, vectors, cells, trace)
        return Answer(200, body, CONTENT_TYPES[kind])

    async def _fetched(
        self,
        plan: Plan,
        columns: Mapping[str, Sequence[int | str]],
        on_missing: MissingPolicy,
    ) -> tuple[Vectors, list[Column]]:
        """Fetch, and refuse here what the policy "fail" refuses: with the list of all of it."""
        failing = plan.policies(on_missing).failing
        words = _words(plan, on_missing, failing) if failing else on_missing
        vectors = await self._client.fetch(plan, columns, on_missing=words)
        cells = looked_at(vectors.cells)
        if failing:
            _require(plan, vectors, cells, failing)
        return vectors, cells

    def _note(self, plan: Plan, vectors: Vectors, cells: list[Column], trace: Trace) -> None:
        self._telemetry.served(shape_of(plan), cells)
        if self._log.on:
            self._log.add(plan, vectors, trace.trace_id)

    def _allowed_plan(self, features: Features, caller: Caller) -> Plan:
        """Return the plan, if the caller has every scope it needs.

        Names are looked up first: a view that does not exist is nobody's.
        """
        plan = self._client.plan(features)
        if lacking := caller.refusal(plan.views, pii=any(shape_of(plan).pii)):
            raise _forbidden(lacking)
        return plan

    def _require_views(self, chosen: FeatureSet, caller: Caller) -> None:
        if lacking := caller.refusal(self._client.plan(chosen).views, pii=False):
            raise _forbidden(lacking)


def acceptable(accept: bytes | None) -> Format:
    """Return the format to answer in.

    Raises:
        Refused: None that is spoken here.
    """
    kind = negotiated(accept)
    if kind is None:
        spoken = ", ".join(content.decode() for content in CONTENT_TYPES.values())
        raise Refused(406, "NotAcceptable", f"Answers are {spoken}.")
    return kind


def described(plan: Plan, chosen: FeatureSet) -> dict[str, Any]:
    """Return what a feature set is: its features with types, and the keys it is looked up by."""
    features = features_of(plan)
    return {
        "name": chosen.name,
        "version": chosen.version,
        "description": chosen.description,
        "owner": chosen.owner,
        "entities": {
            entity.name: {name: str(dtype) for name, dtype in entity.key_types.items()}
            for entity in plan.entities
        },
        "features": [
            {
                "name": name,
                "type": str(dtype),
                "description": feature.description,
                "unit": feature.unit,
                "nullable": feature.nullable,
                "pii": feature.pii,
                "on_missing": feature.on_missing,
            }
            for name, dtype, feature in zip(plan.features, plan.types, features, strict=True)
        ],
        "views": {
            view.name: {
                "owner": view.contract.owner,
                "description": view.description,
                "ttl_seconds": view.contract.ttl and view.contract.ttl.total_seconds(),
            }
            for view in plan.views
        },
    }


def _words(plan: Plan, asked: MissingPolicy, failing: frozenset[str]) -> dict[str, Policy]:
    """Return a word per feature, with "null" in the place of "fail"."""
    declared: dict[str, Policy] = dict(shape_of(plan).policies)
    if isinstance(asked, str):
        declared = dict.fromkeys(plan.features, asked)
    elif asked is not None:
        declared |= asked
    return {name: "null" if name in failing else word for name, word in declared.items()}


def _require(
    plan: Plan, vectors: Vectors, cells: Sequence[Column], failing: frozenset[str]
) -> None:
    found = missing_cells(plan.features, cells)
    missing = [cell for cell in found if cell["feature"] in failing]
    if not missing:
        return
    if vectors.outage is not None:
        raise Refused(
            503, "OnlineError", vectors.outage.culprit, headers=RETRY_SOON, missing=missing
        )
    count = sum(len(cell["entities"]) for cell in missing)
    not_ready = [f" {view} is not ready: {why}" for view, why in vectors.not_ready.items()]
    message = f"{count} cells have no value, and the policy is to fail.{''.join(not_ready)}"
    raise Refused(424, "MissingFeatureError", message, missing=missing)


def _forbidden(lacking: str) -> Refused:
    return Refused(403, "Forbidden", f"The token lacks these scopes: {lacking}.")
