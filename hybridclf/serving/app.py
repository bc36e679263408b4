"""HTTP endpoints: rerank and classify."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from threading import Event, Lock
from time import monotonic
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from .. import __version__
from ..data.image_files import check_image_shape
from ..errors import InvalidInputError
from ..estimator import HybridClassifier
from ..fitting.outliers import novelty_test
from ..ports import Label
from . import monitoring, schemas
from .auth import ApiKeys, check_private, client_of
from .bodies import read_classify, read_rerank, unless_gone
from .byte_budget import Hold
from .errors import Refusal, as_refusal
from .limits import Limits
from .openapi import REFUSALS, body_of, form_of
from .questions import Answer, Question
from .quota import Quota
from .reloading import POLL
from .request_log import RequestLog, costs, note
from .schemas import ClassifyRequest, ClassifyResponse, RankedText, RankedTexts, RerankRequest, RerankResponse
from .service import Service, service_of

__all__ = ["create_app"]

ROUNDING = 1e-3
"""Highest logarithm of a probability: half precision may leave one above 0. The highest probability is far above."""


def create_app(
    clf: HybridClassifier,
    limits: Limits | None = None,
    *,
    name: str = "model",
    api_keys: Iterable[str] = (),
    private: bool = False,
) -> FastAPI:
    """Create the application that serves a fitted classifier, for any ASGI server.

    Its `state.service` exists from start-up to shut-down, and `state.services` has those with it that a reloaded model
    has replaced and that still answer. Shutting down answers accepted images first.

    Parameters
    ----------
    clf : HybridClassifier
        Fitted classifier of images.
    limits : Limits, optional
        Bounds of requests and queue.
    name : str
        Name of the model in requests and answers.
    api_keys : iterable of str
        Accepted keys, each "KEY" or "NAME KEY" with the client's name in the log. A request sends one as
        `Authorization: Bearer KEY`. Without keys every request is served, but for those of other sites' pages.
    private : bool
        `/metrics`, `/docs` and `/openapi.json` ask for a key, too.

    Returns
    -------
    FastAPI
        If another application mounts it, that one's lifespan must run this one's; the guide to serving shows how.

    Raises
    ------
    InvalidInputError
        If the classifier takes no images, or is to reject some and cannot; if it is private and has no keys.
    """
    limits = limits or Limits()
    check_image_shape(clf.image_shape_)  # at once: an error at start-up of the server would come too late
    if clf.reject is not None:
        novelty_test(clf)
    keys = ApiKeys(api_keys)
    check_private(private, keys)
    app = FastAPI(
        title="hybridclf",
        version=__version__,
        description="A second opinion on images that a fast classifier is not sure about.",
        lifespan=partial(_lifespan, clf, limits),
        exception_handlers={HTTPException: _refuse, Refusal: _refuse},
        # FastAPI's own pages load their scripts from another host, and its description asks for no key
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.name, app.state.keys = name, keys
    app.state.services, app.state.started = [], Event()
    app.state.quota = Quota(limits.images_per_minute)
    app.add_middleware(RequestLog)
    app.include_router(_asked)
    app.include_router(monitoring.probes)
    app.include_router(monitoring.descriptions, dependencies=[Depends(client_of)] if private else [])
    return app


@asynccontextmanager
async def _lifespan(clf: HybridClassifier, limits: Limits, app: FastAPI) -> AsyncIterator[None]:
    """Start the service before the block, and close it, and those that it has replaced, after it."""
    app.state.service = Service(clf, limits)
    app.state.services = [app.state.service]
    app.state.service.metrics.watch(app.state.services)
    app.state.loop, app.state.reloading = asyncio.get_running_loop(), Lock()
    await asyncio.to_thread(app.state.service.warm_up)
    app.state.started.set()
    yield
    # a model that is being loaded ends that first: a thread that is cut off within torch aborts the process
    await asyncio.to_thread(app.state.reloading.acquire)
    # in a thread: closing waits for the loop, which must not block the event loop
    await asyncio.to_thread(app.state.service.close)
    while len(app.state.services) > 1:  # the threads of `reload_model` close the others
        await asyncio.sleep(POLL)
    app.state.service.metrics.close()


_asked = APIRouter(dependencies=[Depends(HTTPBearer(auto_error=False))], responses=REFUSALS)


# --- rerank and classify ----------------------------------------------------------------------------------------------


@_asked.post("/v1/rerank", response_model=RerankResponse, openapi_extra=body_of(RerankRequest))
@_asked.post("/v2/rerank", include_in_schema=False)
@_asked.post("/rerank", include_in_schema=False)
async def rerank(request: Request) -> Response:
    """Rank labels for one image: the query is the image, the documents are the labels."""
    return await _respond(request, "rerank", _rerank)


@_asked.post(
    "/v1/classify",
    response_model=ClassifyResponse,
    openapi_extra=body_of(ClassifyRequest, **{"multipart/form-data": {"schema": form_of(ClassifyRequest)}}),
)
async def classify(request: Request) -> Response:
    """Classify images, sent as JSON or as files of a form."""
    return await _respond(request, "classify", _classify)


_Answerer = Callable[[Request, Service, Hold], Awaitable[tuple[BaseModel, bool]]]


async def _respond(request: Request, endpoint: str, answer: _Answerer) -> Response:
    """Answer one request, or refuse it, and count its outcome and time."""
    began = monotonic()
    service = service_of(request.app)
    try:
        client = client_of(request)  # before anything else, so that strangers cost nothing
        note(request.scope, client=client)
        service.gate.check(client)  # a full server need not read the body
        with service.in_use(), service.budget.hold(client) as hold:
            body, degraded = await answer(request, service, hold)
        response = Response(body.model_dump_json(exclude_none=True), media_type="application/json")
        outcome = "degraded" if degraded else "ok"
    # every exception becomes a counted response
    except Exception as error:
        refusal = as_refusal(error)
        response, outcome = _refusal_response(refusal), refusal.outcome
    service.metrics.requested(endpoint, outcome, monotonic() - began)
    note(request.scope, endpoint=endpoint, outcome=outcome)
    return response


async def _rerank(request: Request, service: Service, hold: Hold) -> tuple[BaseModel, bool]:
    arrived = monotonic()
    asked, image = await read_rerank(request, service.limits, hold)
    _check_model(asked.model, request.app.state.name)
    labels = _labels(service, asked.documents, "documents")
    log_prior = None if asked.log_prior is None else _log_prior(asked.log_prior, len(labels))
    deadline = _deadline(asked, service.limits, arrived)
    question = Question(image, labels, log_prior, deadline, asked.max_evaluations, hold.client, hold)
    # places are counted here, before decoding, so that undecoded images cannot pile up
    with service.gate.places(hold.client, 1):
        request.app.state.quota.spend(hold.client, 1)
        answer = await unless_gone(request, service.answer(question))
    best = np.argsort(-answer.posterior, kind="stable")[: asked.top_n]
    results = [
        schemas.Result(
            index=i,
            relevance_score=answer.posterior[i],
            document=schemas.Text(text=asked.documents[i]) if asked.return_documents else None,
        )
        for i in best.tolist()
    ]
    usage = schemas.Usage(evaluations=answer.evaluations)
    response = RerankResponse(
        id=uuid4().hex, model=request.app.state.name, results=results, meta=_meta(answer, asked), usage=usage
    )
    note(request.scope, **costs(response))
    return _as_texts(asked, response) if asked.texts else response, answer.degraded


def _as_texts(asked: RerankRequest, response: RerankResponse) -> RankedTexts:
    """Bring an answer to the form of text-embeddings-inference."""
    ranked = (
        RankedText(
            index=one.index,
            score=one.relevance_score,
            text=asked.documents[one.index] if asked.return_text else None,
        )
        for one in response.results
    )
    return RankedTexts(list(ranked))


async def _classify(request: Request, service: Service, hold: Hold) -> tuple[BaseModel, bool]:
    arrived = monotonic()
    asked, images = await read_classify(request, service.limits, hold)
    _check_model(asked.model, request.app.state.name)
    known = tuple(service.clf.classes_.tolist())
    labels = known if asked.labels is None else _labels(service, asked.labels, "labels")
    deadline = _deadline(asked, service.limits, arrived)
    bounds = (deadline, asked.max_evaluations, hold.client, hold)
    questions = [Question(image, labels, None, *bounds, may_reject=asked.labels is None) for image in images]
    with service.gate.places(hold.client, len(questions)):
        request.app.state.quota.spend(hold.client, len(questions))
        answers = await unless_gone(request, service.answer_all(questions))
    results = [_classification(service.clf, answer, labels, asked) for answer in answers]
    usage = schemas.Usage(evaluations=sum(answer.evaluations for answer in answers))
    response = ClassifyResponse(id=uuid4().hex, model=request.app.state.name, results=results, usage=usage)
    note(request.scope, **costs(response))
    return response, any(answer.degraded for answer in answers)


def _classification(
    clf: HybridClassifier, answer: Answer, labels: tuple[Label, ...], asked: ClassifyRequest
) -> schemas.Classification:
    best = np.argsort(-answer.posterior, kind="stable")[: asked.top_k]
    posterior = [schemas.Share(label=labels[i], probability=answer.posterior[i]) for i in best.tolist()]
    rejected = None if answer.novelty is None or clf.reject is None else answer.novelty <= clf.reject
    return schemas.Classification(
        label=clf.novel_label if rejected else posterior[0].label,
        posterior=posterior,
        novelty=answer.novelty,
        rejected=rejected,
        meta=_meta(answer, asked),
    )


def _meta(answer: Answer, asked: schemas.Request) -> schemas.Meta:
    return schemas.Meta(
        evaluations=answer.evaluations,
        stopped_by=answer.stopped_by,
        degraded=answer.degraded,
        ignored=asked.ignored or None,
    )


def _check_model(asked: str | None, name: str) -> None:
    if asked not in (None, name):
        raise Refusal(404, f"there is no model {asked[:100]!r} here; this server has {name!r}")


def _labels(service: Service, texts: list[str], where: str) -> tuple[Label, ...]:
    """Resolve texts to labels, and check their number and that none comes twice."""
    if len(texts) > service.limits.documents:
        raise InvalidInputError(f"got {len(texts)} {where}; at most {service.limits.documents} are taken")
    labels = service.labels.resolve(texts)
    if len(set(labels)) < len(labels):
        twice = next(text for i, text in enumerate(texts) if text in texts[:i])
        raise InvalidInputError(f"{where} has {twice[:100]!r} twice; send each label once")
    return labels


def _log_prior(values: list[float], n_labels: int) -> np.ndarray:
    """Check the prior of a request and convert it to an array `[L]`."""
    if len(values) != n_labels:
        raise InvalidInputError(f"got {n_labels} documents and {len(values)} numbers in log_prior; send one for each")
    for i, value in enumerate(values):
        if not value <= ROUNDING:  # nan is neither
            raise InvalidInputError(f"log_prior[{i}] is {value}; send logarithms of probabilities, from -Infinity to 0")
    return np.array(values)


def _deadline(asked: schemas.Request, limits: Limits, arrived: float) -> float | None:
    seconds = limits.deadline(None if asked.deadline_ms is None else asked.deadline_ms / 1000)
    return None if seconds is None else arrived + seconds


@_asked.get("/v1/models")
async def models(request: Request) -> schemas.Models:
    """List the served model."""
    client_of(request)
    return schemas.Models(data=[schemas.Model(id=request.app.state.name)])


# --- refusals ---------------------------------------------------------------------------------------------------------


def _refusal_response(refusal: Refusal) -> Response:
    return JSONResponse({"message": refusal.message}, refusal.status, refusal.headers)


async def _refuse(request: Request, error: Exception) -> Response:
    """Refuse what no endpoint has answered: an unknown path or method, or no key."""
    refusal = as_refusal(error)
    service_of(request.app).metrics.requests.labels("other", refusal.outcome).inc()
    return _refusal_response(refusal)
