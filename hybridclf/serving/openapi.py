"""OpenAPI descriptions that FastAPI cannot make, as bodies are read within bounds and refusals are exceptions."""

from typing import Any

from pydantic import BaseModel

__all__ = ["REFUSALS", "body_of", "form_of"]


def body_of(model: type[BaseModel], **more: Any) -> dict[str, Any]:
    """OpenAPI description of a request's body; FastAPI has none, as `bodies` reads it within bounds."""
    schema = model.model_json_schema()
    example = schema.pop("example")
    content = {"application/json": {"schema": schema, "example": example}, **more}
    return {"requestBody": {"required": True, "content": content}}


def form_of(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI description of a request to classify as a form: files, and the fields of its JSON schema as they are."""
    fields = model.model_json_schema()["properties"]
    values = {}
    for name in ("top_k", "deadline_ms", "max_evaluations", "model"):
        kind, *_ = fields[name].get("anyOf", [fields[name]])  # a form has no null
        values[name] = kind | {"description": fields[name]["description"]}
    labels = {"type": "array", "items": {"type": "string"}, "description": fields["labels"]["description"]}
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "One file or several."}
    return {"type": "object", "properties": {"image": files, "labels": labels, **values}, "required": ["image"]}


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "Bad input; `message` says what is wrong."},
    401: {"description": "No API key, or a wrong one."},
    403: {"description": "A page of another site asks a server without keys."},
    404: {"description": "Another model than the one that is served was asked for."},
    408: {"description": "The body came too slowly."},
    413: {"description": "The body is too large."},
    429: {"description": "The queue is full or the quota spent; `Retry-After` says when to come back."},
    503: {"description": "The server is shutting down."},
}
