"""Log of requests: an id and a trace for each, and one JSON line, in which no label and no key is."""

import json
import logging
import logging.config
import re
from collections import Counter
from datetime import UTC, datetime
from secrets import token_hex
from time import monotonic
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["JsonFormatter", "RequestLog", "costs", "log_config", "note"]

LONGEST_ID = 200
"""Most characters of a request id that is taken over."""

_QUIET = {"/healthz", "/health", "/readyz", "/metrics"}
"""Paths of probes, which would be most of the log."""

# version, trace, parent and flags; version ff is invalid
_TRACE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")

_log = logging.getLogger(__name__)


class RequestLog:
    """ASGI middleware that gives every answer an `X-Request-ID` and a `traceparent`, and writes a line for it.

    Both headers are taken from the request if they are well formed: the id as it is, the trace with a new span
    (W3C Trace Context). The line goes to this module's logger at level INFO, with its fields as `record.fields`; an
    endpoint adds some by `note`.

    Parameters
    ----------
    app : ASGI application
        Application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, headers = monotonic(), Headers(scope=scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        trace, flags = _trace(headers.get("traceparent", ""))
        fields: dict[str, Any] = {
            "request_id": _request_id(headers.get("x-request-id", "")),
            "trace_id": trace,
            "span_id": token_hex(8),
            "method": scope["method"],
            "path": path[:LONGEST_ID],
        }
        scope.setdefault("state", {})["log"] = fields

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields["status"] = message["status"]
                answer = MutableHeaders(scope=message)
                answer["X-Request-ID"] = fields["request_id"]
                answer["traceparent"] = f"00-{trace}-{fields['span_id']}-{flags}"
            await send(message)

        try:
            await self.app(scope, receive, send_named)
        finally:
            if path not in _QUIET:
                fields["seconds"] = round(monotonic() - began, 6)
                _log.info("request", extra={"fields": fields})


def note(scope: Scope, **fields: Any) -> None:
    """Add fields to the line of a request; without the middleware, do nothing."""
    scope.get("state", {}).get("log", {}).update(fields)


def costs(answer: Any) -> dict[str, Any]:
    """Fields of an answer: images, evaluations, and images by why their re-ranking stopped."""
    metas = [answer.meta] if hasattr(answer, "meta") else [result.meta for result in answer.results]
    stopped_by = dict(Counter(meta.stopped_by for meta in metas))
    return {"images": len(metas), "evaluations": answer.usage.evaluations, "stopped_by": stopped_by}


def _request_id(given: str) -> str:
    return given if given.isascii() and given.isprintable() and 0 < len(given) <= LONGEST_ID else uuid4().hex


def _trace(given: str) -> tuple[str, str]:
    """Trace id and flags of a `traceparent`, or new ones."""
    found = _TRACE.fullmatch(given.strip())
    return (found[1], found[2]) if found else (token_hex(16), "00")


# --- the log's form ---------------------------------------------------------------------------------------------------


class JsonFormatter(logging.Formatter):
    """Formatter of log records as JSON, a line each."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line of a record: time, level, logger, message, its `fields` and its exception."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_config(level: str) -> dict[str, Any]:
    """Configuration of logging in which every line of the process, other libraries' and warnings too, is JSON.

    Parameters
    ----------
    level : str
        Lowest level of uvicorn's lines, from "trace" to "critical". Requests are logged in any case.
    """
    logging.captureWarnings(True)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "hybridclf": {"level": "INFO"},
            # uvicorn sets its own level from its configuration
            "uvicorn": {"level": level.upper() if level != "trace" else 5},
        },
    }
