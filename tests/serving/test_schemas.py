"""Requests: what is not asked for is not built."""

import json

import pytest
from pydantic import ValidationError

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


def test_bounds_are_those_of_json_schema() -> None:
    """A client that is generated from the description checks by them, and the page of documentation shows them."""
    classify, rerank = (schema.model_json_schema()["properties"] for schema in (ClassifyRequest, RerankRequest))
    assert classify["top_k"]["minimum"] == 1
    assert rerank["top_n"]["anyOf"][0] == {"type": "integer", "minimum": 1}
    assert rerank["max_evaluations"]["anyOf"][0] == {"type": "integer", "minimum": 0}
    assert rerank["deadline_ms"]["anyOf"][0] == {"type": "number", "exclusiveMinimum": 0}


@pytest.mark.parametrize("name", ["top_k", "top_n", "max_evaluations", "deadline_ms"])
@pytest.mark.parametrize("value", [-1, True, "many", 1e400])
def test_a_value_out_of_range_is_one_error_of_its_field(name: str, value: object) -> None:
    schema = ClassifyRequest if name == "top_k" else RerankRequest
    with pytest.raises(ValidationError) as caught:
        schema.model_validate_json(json.dumps(BODIES[schema] | {name: value}))
    assert [error["loc"] for error in caught.value.errors()] == [(name,)]
