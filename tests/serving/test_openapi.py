"""The OpenAPI description against the server: schemathesis sends what it allows and what it forbids."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving.processes import Server

N_REQUESTS = 40
"""Requests for each operation."""

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture
def api(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json", session=session())


def session() -> requests.Session:
    """A session that asks no proxy."""
    made = requests.Session()
    made.trust_env = False
    return made


schema = schemathesis.pytest.from_fixture("api")


@pytest.fixture
def http() -> Iterator[requests.Session]:
    with session() as made:
        yield made


@schema.parametrize()
@settings(
    max_examples=N_REQUESTS,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_server_does_what_its_description_says(case: schemathesis.Case, http: requests.Session) -> None:
    case.call_and_validate(checks=CHECKS, session=http)
