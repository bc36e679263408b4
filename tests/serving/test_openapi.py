"""The OpenAPI description against the server: schemathesis sends what it allows, and what it forbids."""

from itertools import chain

import httpx
import pytest
import requests

from hybridclf.serving.openapi import form_of
from hybridclf.serving.schemas import ClassifyRequest
from tests.serving.processes import Server

N_REQUESTS = 30
"""Requests for each operation, of either kind."""

CONFIG = {"checks": {"negative_data_rejection": {"expected-statuses": [400, 413]}}}
"""413 is for bodies that are too large, and for those of too many values."""


@pytest.mark.parametrize("mode", [pytest.param("positive", marks=pytest.mark.slow), "negative"])
def test_the_server_does_what_its_description_says(server: Server, client: httpx.Client, mode: str) -> None:
    import schemathesis  # with hypothesis: slow to import, and no other file needs them
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    expected = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.negative_data_rejection,
    ]
    description = client.get("/openapi.json").json()
    for method in chain.from_iterable(methods.values() for methods in description["paths"].values()):
        method.pop("security", None)  # this server has no keys, so it asks for none
    schema = schemathesis.openapi.from_dict(description, config=schemathesis.Config.from_dict(CONFIG))
    operations = [result.ok() for result in schema.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/v1/rerank", "/v1/classify", "/v1/models", "/healthz"}
    if mode == "negative":  # the others take nothing that could be wrong
        operations = [operation for operation in operations if operation.body]
    n_asked = 0
    with requests.Session() as session:
        session.trust_env = False  # no proxy
        for operation in operations:

            @settings(
                max_examples=N_REQUESTS,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
            def check(case: schemathesis.Case) -> None:
                nonlocal n_asked
                n_asked += 1
                case.call_and_validate(base_url=server.url, checks=expected, session=session)

            check()
    assert n_asked >= N_REQUESTS


def test_a_form_has_the_bounds_and_words_of_json() -> None:
    form, fields = form_of(ClassifyRequest)["properties"], ClassifyRequest.model_json_schema()["properties"]
    assert form.keys() == {"image"} | fields.keys() - {"images"}
    assert (form["top_k"]["minimum"], form["deadline_ms"]["exclusiveMinimum"]) == (1, 0)
    for name in form.keys() - {"image"}:
        assert form[name]["description"] == fields[name]["description"]
