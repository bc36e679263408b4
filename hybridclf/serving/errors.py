"""Conversion of exceptions to HTTP refusals, with a sentence for the client and an outcome for the metrics."""

import logging
from dataclasses import dataclass, field

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..errors import ClosedError, HybridClfError, QueueFullError

__all__ = ["Refusal", "as_refusal"]

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Refusal(Exception):
    """Refusal of a request.

    Attributes
    ----------
    status : int
        HTTP status.
    message : str
        Sentence for the client.
    outcome : str
        Outcome in the metrics.
    headers : dict
        HTTP headers.
    """

    status: int
    message: str
    outcome: str = "refused"
    headers: dict[str, str] = field(default_factory=dict)


def as_refusal(error: Exception) -> Refusal:
    """Convert an exception to a refusal; an unexpected one is logged and becomes status 500."""
    match error:
        case Refusal():
            return error
        case ValidationError():
            return Refusal(400, _sentence(error))
        case HTTPException():
            return Refusal(error.status_code, str(error.detail), headers=dict(error.headers or {}))
        # 499 as in nginx; nobody reads it, but the metrics count it
        case ClientDisconnect():
            return Refusal(499, "the client has gone", "gone")
        case QueueFullError():
            return Refusal(429, str(error), "busy", {"Retry-After": "1"})
        case ClosedError():
            return Refusal(503, str(error), "draining")
        case HybridClfError():
            return Refusal(400, str(error))
    _log.error("a request failed", exc_info=error)
    return Refusal(500, "the server failed on this request; its log says why", "failed")


def _sentence(error: ValidationError) -> str:
    """Say the first error of a validation and its place: "documents[3]: …"."""
    # without the input, which may be a whole image
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else f"the body is not as documented: {message}"
