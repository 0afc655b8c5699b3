"""What the server's own description allows, and what it does not, asked by Schemathesis."""

from __future__ import annotations

import os

import httpx
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from protalign.serve.app import make_app
from protalign.serve.library import Library
from protalign.serve.settings import Limits, Settings
from tests.serve.helpers import SMALL, over_http

#: Requests for each route.
EXAMPLES = 25 if "CI" in os.environ else 6
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def test_answers_are_as_described(library: Library) -> None:
    """No 5xx; errors have their one form; answers have the described type and schema."""
    asked = Settings(Limits(**SMALL))
    with over_http(make_app(lambda: library, asked, threads=2), asked) as address:
        description = httpx.get(f"{address}/openapi.json").json()
        schema = schemathesis.openapi.from_dict(description)
        schema.config.update(base_url=address)
        routes = 0
        for result in schema.get_all_operations():
            operation = result.ok()
            routes += 1

            @given(case=operation.as_strategy())
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
                derandomize=True,
            )
            def check(case: Case) -> None:
                answer = case.call()
                case.validate_response(answer, checks=CHECKS)
                if answer.status_code >= 400:
                    document = answer.json()
                    assert set(document["error"]) == {"message", "type", "code", "param"}
                    assert "\n" not in document["error"]["message"]

            check()
        assert routes >= 14


def test_the_description_says_what_each_route_does(served: TestClient) -> None:
    """A sentence for each, which the docs page lists."""
    for path, methods in served.get("/openapi.json").json()["paths"].items():
        for name, operation in methods.items():
            assert operation["summary"].endswith("."), (path, name)
            assert "\n" not in operation["summary"], (path, name)
