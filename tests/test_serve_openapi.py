"""The OpenAPI document says what the service does; schemathesis holds it to that."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving_world import Running, make_catalog, new_namespace, push_all, running


@pytest.fixture(scope="module", autouse=True)
def served(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    namespace = new_namespace()
    push_all(redis_url, namespace, make_catalog())
    with running(redis_url, namespace, tmp_path_factory.mktemp("openapi")) as it:
        yield it


def test_the_document_is_openapi(served: Running) -> None:
    validate(served.get("/openapi.json").json)


def test_every_route_is_in_the_document(served: Running) -> None:
    document = served.get("/openapi.json").json

    described = {
        (method.upper(), path.replace("{name}", ""))
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert set(served.service.app.routes) == described


def test_every_feature_and_set_is_in_the_document(served: Running) -> None:
    body = served.get("/openapi.json").body.decode()

    catalog = make_catalog()
    names = [f"{v.name}:{n}" for v in catalog.views.values() for n in v.contract.features]
    assert [] == [name for name in [*names, *catalog.feature_sets] if f'"{name}"' not in body]


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
OPERATIONS = [
    *(("POST", "/v1/features"), ("POST", "/get-online-features")),
    *(("GET", path) for path in ("/v1/feature-sets/{name}", "/metrics", "/openapi.json")),
    *(("GET", path) for path in ("/healthz", "/readyz")),
]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_whatever_is_asked_the_answer_is_one_of_those_described(
    served: Running, method: str, path: str, mode: GenerationMode
) -> None:
    address = f"http://127.0.0.1:{served.port}/openapi.json"
    operation = schemathesis.openapi.from_url(address)[path][method]
    asked: list[int] = []

    @seed(20261122)
    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        answer = case.call(timeout=10)
        case.validate_response(answer, checks=CHECKS)
        asked.append(answer.status_code)

    try:
        ask()
    except Unsatisfiable:
        asked.append(0)  # an operation without parameters cannot be asked wrongly

    if mode is GenerationMode.POSITIVE and path != "/v1/feature-sets/{name}":
        assert 200 in asked
    if mode is GenerationMode.NEGATIVE and method == "POST":
        assert 400 in asked


def test_every_operation_was_asked(served: Running) -> None:
    document = served.get("/openapi.json").json

    assert {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    } == set(OPERATIONS)
