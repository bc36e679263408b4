"""HTTP endpoints about the server itself: health, metrics and documentation."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

from .docs_page import docs_page
from .service import service_of

__all__ = ["descriptions", "probes"]

probes = APIRouter()
"""Health, for anyone who asks."""

descriptions = APIRouter()
"""Metrics and documentation."""


@probes.get(
    "/healthz", responses={503: {"description": "Threads hang or have died, or all fails; restart the process."}}
)
@probes.head("/healthz", include_in_schema=False)
@probes.get("/health", include_in_schema=False)
@probes.head("/health", include_in_schema=False)
async def healthz(request: Request) -> Response:
    """Tell whether the process works; one must be restarted if threads have died or hang, or if all fails for long."""
    services = request.app.state.services
    alive = service_of(request.app).alive and not any(service.stuck for service in services)
    return JSONResponse({"status": "ok" if alive else "stuck"}, 200 if alive else 503)


@probes.get("/readyz", responses={503: {"description": "Send no requests here now."}})
@probes.head("/readyz", include_in_schema=False)
async def readyz(request: Request) -> Response:
    """Tell whether to send requests: the model is loaded and warm, batches succeed in time, and nothing is draining."""
    # load balancers stop sending at the first failing check, while /healthz keeps the process alive
    ready = service_of(request.app).ready
    return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)


@descriptions.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Metrics for Prometheus."""
    own = service_of(request.app).metrics
    return Response(own.text(), media_type=own.content_type)


@descriptions.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """Describe all of this for programs."""
    root = request.scope.get("root_path", "").rstrip("/")
    return JSONResponse(request.app.openapi() | ({"servers": [{"url": root}]} if root else {}))


@descriptions.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """Describe all of this on a page."""
    page = docs_page(request.app.openapi(), "openapi.json")
    return HTMLResponse(page, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})
