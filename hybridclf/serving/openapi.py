"""OpenAPI descriptions that FastAPI cannot make, as bodies are read within bounds and refusals are exceptions."""

from typing import Any

from pydantic import BaseModel

__all__ = ["FORM", "REFUSALS", "body_of"]


def body_of(model: type[BaseModel], **more: Any) -> dict[str, Any]:
    """OpenAPI description of a request's body; FastAPI has none, as `bodies` reads it within bounds."""
    schema = model.model_json_schema()
    example = schema.pop("example")
    content = {"application/json": {"schema": schema, "example": example}, **more}
    return {"requestBody": {"required": True, "content": content}}


FORM = {
    "type": "object",
    "properties": {
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "labels": {"type": "array", "items": {"type": "string"}},
        "top_k": {"type": "integer"},
        "deadline_ms": {"type": "number"},
        "max_evaluations": {"type": "integer"},
        "model": {"type": "string"},
    },
    "required": ["image"],
}
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
