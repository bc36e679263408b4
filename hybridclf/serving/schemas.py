"""Schemas of requests and answers, after the common form of Jina's, Cohere's and vLLM's rerank endpoints.

Requests in the form of text-embeddings-inference are taken, too.
"""

from difflib import get_close_matches
from itertools import islice
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    RootModel,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

__all__ = [
    "Classification",
    "ClassifyRequest",
    "ClassifyResponse",
    "Meta",
    "Model",
    "Models",
    "RankedText",
    "RankedTexts",
    "Request",
    "RerankRequest",
    "RerankResponse",
    "Result",
    "Share",
    "Text",
    "Usage",
]

LONGEST_LABEL = 1000
"""Most characters of a label. Text encoders read fewer, and labels are cached."""

MOST_IGNORED = 20
"""Most fields without a meaning that are looked at and named."""

MISSPELT = 0.85
"""Similarity from which a field's name counts as misspelt: "logprior", "topn", "Documents"."""

OTHERS_FIELDS = {"texts", "return_text"}
"""Fields of text-embeddings-inference, which no other field's name is compared with."""

LONGEST_LIST = 10_000
"""Most entries of any list in a request; a server's own limits are lower."""

_URI = {"type": "string", "description": "data:image/png;base64,…"}
_PIXELS = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADElEQVR4nGNgoA4AAABIAAEuuDx+AAAAAElFTkSuQmCC"
)


def _image(value: Any) -> Any:
    """Unwrap {"image": uri}, and vLLM's {"content": [{"type": "image_url", "image_url": {"url": uri}}, …]}."""
    match value:
        case {"image": uri}:
            return uri
        case {"content": [*parts]}:
            urls = [part["image_url"] for part in parts if isinstance(part, dict) and "image_url" in part]
            if len(urls) == 1:
                return urls[0].get("url") if isinstance(urls[0], dict) else urls[0]
    return value


def _text(value: Any) -> Any:
    """Unwrap {"text": text}, and vLLM's {"content": [{"type": "text", "text": text}]}."""
    match value:
        case {"text": text} | {"content": [{"text": text}]}:
            return text
    return value


def _texts(value: Any) -> Any:
    """Unwrap vLLM's documents {"content": [{"type": "text", "text": text}, …]}."""
    return value["content"] if isinstance(value, dict) and "content" in value else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _no_truth_value(value: Any) -> Any:
    """Refuse true and false, which pydantic takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _wrapped_or_plain(key: str, value: dict[str, Any]) -> dict[str, Any]:
    # clients of Jina and Cohere send {"text": …}, others plain strings: document both
    wrapped = {"type": "object", "properties": {key: value}, "required": [key]}
    return {"anyOf": [wrapped, value]}


_IMAGE = _wrapped_or_plain("image", _URI)
_TEXT = _wrapped_or_plain("text", {"type": "string", "maxLength": LONGEST_LABEL})
_LIST_OF_IMAGES = {"type": "array", "items": _IMAGE, "minItems": 1, "maxItems": LONGEST_LIST}


# bounds come first: behind the validator they would be no part of the JSON schema
Natural = Annotated[int, Field(ge=0), BeforeValidator(_no_truth_value)]
Positive = Annotated[int, Field(ge=1), BeforeValidator(_no_truth_value)]
Number = Annotated[float, BeforeValidator(_no_truth_value)]
Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_no_truth_value)]
Query = Annotated[str, BeforeValidator(_image), WithJsonSchema(_IMAGE)]
Document = Annotated[str, Field(max_length=LONGEST_LABEL), BeforeValidator(_text), WithJsonSchema(_TEXT)]
Texts = Annotated[list[Document], Field(min_length=1, max_length=LONGEST_LIST, fail_fast=True), BeforeValidator(_texts)]
Images = Annotated[
    list[Query],
    Field(min_length=1, max_length=LONGEST_LIST, fail_fast=True),
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [_LIST_OF_IMAGES, _URI]}),
]
Numbers = Annotated[list[Number], Field(max_length=LONGEST_LIST, fail_fast=True)]


class _Unread:
    """Value of a field without a meaning: None, whatever was sent, as building it would cost many times its bytes."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        # what core_schema.with_default_schema makes, whose package is pydantic's own
        return {"type": "default", "schema": {"type": "none"}, "default": None, "on_error": "default"}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {}  # anything


class Request(BaseModel):
    """Fields that all requests have; others are taken, as clients of other services send theirs, and named."""

    __pydantic_extra__: dict[str, _Unread]

    model: Annotated[str | None, Field(description="Name of the served model; may be left out.")] = None
    deadline_ms: Annotated[
        Milliseconds | None, Field(description="After so long the best answer so far comes back, as degraded.")
    ] = None
    max_evaluations: Annotated[Natural | None, Field(description="Denoiser evaluations that an image may cost.")] = None

    @model_validator(mode="after")
    def _refuse_misspelt(self) -> Self:
        """Refuse a field whose name is nearly ours: ignored, a misspelt `log_prior` would give a plausible answer."""
        ours = type(self).model_fields.keys() - OTHERS_FIELDS
        for name in self.ignored:
            if meant := get_close_matches(name, ours, 1, MISSPELT):
                raise ValueError(f"there is no field {name!r}; did you mean {meant[0]!r}?")
        return self

    @property
    def ignored(self) -> list[str]:
        """Names of the fields that have no meaning here."""
        return [name[:100] for name in islice(self.model_extra or (), MOST_IGNORED)]


class RerankRequest(Request):
    """Request to rank labels for one image."""

    query: Annotated[Query, Field(description="The image, as a data URI; an address is not fetched.")]
    documents: Annotated[Texts, Field(default_factory=list, description="The candidate labels, all different.")]
    top_n: Annotated[
        Positive | None,
        Field(description="How many of the documents to answer with, best first; default all. (/v1/classify: top_k.)"),
    ] = None
    return_documents: Annotated[bool, Field(strict=True, description="Whether results repeat the label.")] = False
    log_prior: Annotated[
        Numbers | None,
        Field(description="Tier 1's log-probability of each document; without it the model's own proposer is asked."),
    ] = None
    texts: SkipJsonSchema[Texts | None] = None
    return_text: SkipJsonSchema[Annotated[bool, Field(strict=True)]] = False
    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "required": ["query", "documents"],
            "example": {
                "model": "digits",
                "query": {"image": _PIXELS},
                "documents": ["3", {"text": "8"}, "9"],
                "log_prior": [-0.6, -0.9, -2.9],
                "top_n": 2,
                "return_documents": True,
                "deadline_ms": 200,
            },
        },
    )

    @model_validator(mode="after")
    def _take_texts(self) -> Self:
        """Take the labels from `texts`, where text-embeddings-inference's clients send them."""
        if bool(self.documents) == bool(self.texts):
            which = "documents or texts, not both" if self.documents else "documents"
            raise ValueError(f"send the candidate labels as {which}")
        self.documents = self.documents or self.texts or []
        return self


class ClassifyRequest(Request):
    """Request to classify images."""

    images: Annotated[Images, Field(description="One image or a list of them, as data URIs.")]
    labels: Annotated[
        Texts | None, Field(description="Labels to choose from; default the model's. Any for a model that reads text.")
    ] = None
    top_k: Annotated[
        Positive, Field(description="How many labels to answer with for each image, best first. (/v1/rerank: top_n.)")
    ] = 5
    model_config = ConfigDict(extra="allow", json_schema_extra={"example": {"images": [_PIXELS], "top_k": 3}})


class Meta(BaseModel):
    """Cost of an answer, and the reason why re-ranking stopped."""

    evaluations: Annotated[int, Field(description="Denoiser evaluations that were spent.")]
    stopped_by: Annotated[
        str,
        Field(description='"confident", "budget" or "deadline"; with tier 1\'s answer "off", "novel" or "fallback".'),
    ]
    degraded: Annotated[bool, Field(description="Whether this is less than the answer without deadline and failure.")]
    ignored: Annotated[list[str] | None, Field(description="Fields of the request that have no meaning here.")] = None


class Usage(BaseModel):
    """Usage as clients of text rerankers read it; there are no tokens here."""

    evaluations: int
    total_tokens: int = 0


class Text(BaseModel):
    """Label in the form of a reranker's document."""

    text: str


class Result(BaseModel):
    """Rank of one label."""

    index: Annotated[int, Field(description="Its place among the documents of the request.")]
    relevance_score: Annotated[float, Field(description="Its posterior; those of all documents sum to one.")]
    document: Text | None = None


class RankedText(BaseModel):
    """Rank of one label, as text-embeddings-inference answers."""

    index: int
    score: float
    text: str | None = None


class RankedTexts(RootModel[list[RankedText]]):
    """Labels of one image, best first, as text-embeddings-inference answers."""


class RerankResponse(BaseModel):
    """Labels of one image, best first."""

    id: str
    model: str
    results: list[Result]
    meta: Meta
    usage: Usage


class Share(BaseModel):
    """Label and its posterior."""

    label: Any
    probability: float


class Classification(BaseModel):
    """Best labels of one image."""

    label: Annotated[Any, Field(description="The likeliest label; the model's `novel_label` if the image is rejected.")]
    posterior: list[Share]
    novelty: Annotated[
        float | None, Field(description="P-value that the image is one of the classes, if the model rejects any.")
    ] = None
    rejected: Annotated[bool | None, Field(description="Whether that is so low that it is none of them.")] = None
    meta: Meta


class Model(BaseModel):
    """Served model, as OpenAI's API lists it."""

    id: str
    object: str = "model"
    owned_by: str = "hybridclf"


class Models(BaseModel):
    """List of the one model that is served."""

    object: str = "list"
    data: list[Model]


class ClassifyResponse(BaseModel):
    """Classifications of all images, in the order of the request."""

    id: str
    model: str
    results: list[Classification]
    usage: Usage
