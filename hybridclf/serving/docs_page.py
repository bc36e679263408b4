"""Page /docs: the OpenAPI description as one HTML page that runs no script and asks no other host."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

__all__ = ["docs_page"]

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
h2 {{ border-top: 1px solid #ccc; padding-top: 1rem }} code, pre {{ background: #f4f4f4; padding: .1rem .3rem }}
pre {{ padding: .7rem; overflow-x: auto }}
td, th {{ text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0 }}
</style>
<h1>{title} {version}</h1><p>{description} For programs: <a href="{openapi_url}">OpenAPI</a>.</p>
{operations}
</html>
"""


def docs_page(openapi: Mapping[str, Any], openapi_url: str) -> str:
    """Make the page of an OpenAPI description.

    Parameters
    ----------
    openapi : mapping
        The description, as FastAPI makes it.
    openapi_url : str
        Address of the description, for a link.
    """
    operations = [
        part
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
        for part in _operation(f"{method.upper()} {path}", operation, openapi)
    ]
    about = {name: escape(openapi["info"][name]) for name in ("title", "version", "description")}
    return _PAGE.format(operations="\n".join(operations), openapi_url=escape(openapi_url), **about)


def _operation(name: str, operation: Mapping[str, Any], openapi: Mapping[str, Any]) -> Iterator[str]:
    """Title, text, fields and example of the body, and answers of one operation."""
    yield f"<h2><code>{escape(name)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<h3>Body: {escape(kind)}</h3>" + _fields(content["schema"])
        if "example" in content:
            yield f"<pre>{escape(json.dumps(content['example'], indent=1))}</pre>"
    yield "<h3>Answers</h3><table>"
    for status, answer in operation["responses"].items():
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        named = _resolved(schema, openapi)
        yield _row(status, escape(answer["description"]) + (_fields(named) if "properties" in named else ""))
    yield "</table>"


def _fields(schema: Mapping[str, Any]) -> str:
    """Table of an object's fields: name, type, and what it is."""
    required = schema.get("required", ())
    rows = [
        _row(
            f"<code>{escape(name)}</code>{' *' if name in required else ''}",
            f"{escape(_type(field))}. {escape(field.get('description', ''))}",
        )
        for name, field in schema.get("properties", {}).items()
    ]
    return f"<table>{''.join(rows)}</table><p>* required</p>"


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _type(schema: Mapping[str, Any]) -> str:
    """Type of a value in words, with its bounds.

    >>> _type({"type": "array", "items": {"type": "string"}, "maxItems": 9})
    'array of string, maxItems 9'
    """
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    kind = schema["$ref"].rpartition("/")[2] if "$ref" in schema else schema.get("type", "anything")
    if kind == "array":
        kind = f"array of {_type(schema['items'])}"
    bounds = ("minimum", "exclusiveMinimum", "maximum", "minItems", "maxItems", "maxLength", "default")
    return ", ".join([kind, *(f"{name} {schema[name]}" for name in bounds if schema.get(name) is not None)])


def _resolved(schema: Mapping[str, Any], openapi: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference into the description's components."""
    if "$ref" not in schema:
        return schema
    return openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
