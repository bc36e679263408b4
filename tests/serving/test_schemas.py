"""Requests: what is not asked for is not built."""

import json

import pytest

from hybridclf.serving.schemas import ClassifyRequest, Request, RerankRequest

BODIES = {RerankRequest: {"query": "x", "documents": ["3"]}, ClassifyRequest: {"images": ["x"]}}


@pytest.mark.parametrize("schema", BODIES)
def test_values_of_unknown_fields_are_not_built(schema: type[Request]) -> None:
    more = {"deep": [[{"a": [1, 2]}]], "text": "x" * 1000, "number": 1, "nothing": None}
    asked = schema.model_validate_json(json.dumps(BODIES[schema] | more))
    assert asked.model_extra == dict.fromkeys(more)
    assert asked.ignored == list(more)


@pytest.mark.parametrize("schema", BODIES)
def test_any_unknown_field_is_documented_as_taken(schema: type[Request]) -> None:
    assert schema.model_json_schema()["additionalProperties"] in (True, {})
