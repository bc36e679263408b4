"""Reading of request bodies, JSON or multipart, within bounds of size and time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from time import monotonic
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser

from ..errors import InvalidInputError
from .byte_budget import Hold
from .errors import Refusal
from .images import check_format, data_of, image_named
from .limits import Limits
from .request_log import note
from .schemas import ClassifyRequest, RerankRequest

__all__ = ["read_classify", "read_rerank", "unless_gone"]

T = TypeVar("T")

SMALL_BODY = 2**16
"""Bytes of a body that is parsed on the event loop."""

MOST_VALUES, VALUES_PER_LABEL = 5000, 50
"""Most commas and brackets of a JSON body: so many, and so many more for each label that may be sent."""


async def read_body(request: Request, limits: Limits, hold: Hold) -> bytes:
    """Read the whole body, unless it grows too large, takes too long, or the server's memory is taken.

    The bytes are reserved before the first is read: those of the header, or the most there may be if it has no length.

    Raises
    ------
    Refusal
        413 for a body larger than `limits.body_bytes`, 408 for one slower than `limits.upload_seconds`, 429 if there is
        no memory for it now.
    """
    too_large = Refusal(413, f"the body is larger than {limits.body_bytes} bytes; send a smaller image")
    # refused by the header if it has a length; a chunked body has none and is counted below
    length = request.headers.get("content-length", "")
    reserved = int(length) if length.isdecimal() else limits.body_bytes
    if reserved > limits.body_bytes:
        raise too_large
    hold.reserve(reserved)
    began, body = monotonic(), bytearray()
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise too_large
    except TimeoutError as error:
        message = f"the body did not arrive within {limits.upload_seconds:g} seconds"
        raise Refusal(408, message, headers={"Connection": "close"}) from error
    hold.release(reserved - len(body))
    note(request.scope, bytes=len(body), read_seconds=round(monotonic() - began, 6))
    return bytes(body)


async def read_rerank(request: Request, limits: Limits, hold: Hold) -> tuple[RerankRequest, bytes]:
    """Read a rerank request and its image; errors as in `read_classify`."""
    return await _off_the_loop(_parse_rerank, await read_body(request, limits, hold), limits)


def _parse_rerank(body: bytes, limits: Limits) -> tuple[RerankRequest, bytes]:
    check_json(body, limits)
    asked = RerankRequest.model_validate_json(body)
    image, asked.query = data_of(asked.query), ""  # one copy of it is enough
    return asked, image


async def _off_the_loop(parse: Callable[[bytes, Limits], T], body: bytes, limits: Limits) -> T:
    """Parse a large body on a thread, and a small one here, which takes less time than the way there."""
    if len(body) <= SMALL_BODY:
        return parse(body, limits)
    return await asyncio.to_thread(parse, body, limits)


def check_json(body: bytes, limits: Limits) -> None:
    """Check, without parsing, that a JSON body holds few values, each of which may take a microsecond and a half.

    A parser holds Python's lock, so a thread alone would not keep it from delaying all others. An image is one value,
    however long. Commas and brackets within labels count, too, which is what the bound per label is for.

    Raises
    ------
    Refusal
        413 if there are too many.
    """
    most = MOST_VALUES + VALUES_PER_LABEL * limits.documents
    if len(body) > most and sum(map(body.count, (b",", b"[", b"{"))) > most:
        raise Refusal(413, f"the body has more than {most} commas and brackets; send fewer values")


async def read_classify(request: Request, limits: Limits, hold: Hold) -> tuple[ClassifyRequest, list[bytes]]:
    """Read a classify request and its images, which come as data URIs or as uploaded files.

    Raises
    ------
    Refusal, InvalidInputError, pydantic.ValidationError
        If the body is too large, too slow or not as documented, or what should be an image cannot be one.
    """
    body = await read_body(request, limits, hold)
    # JSON is the default, as clients often send no content type
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await _off_the_loop(_parse_classify, body, limits)
    if len(body) <= SMALL_BODY:
        return await _parse_form(request.headers, body)
    return await asyncio.to_thread(lambda: asyncio.run(_parse_form(request.headers, body)))


def _parse_classify(body: bytes, limits: Limits) -> tuple[ClassifyRequest, list[bytes]]:
    check_json(body, limits)
    asked = ClassifyRequest.model_validate_json(body)
    given, asked.images = asked.images, []
    images = []
    for i, image in enumerate(given):
        with image_named(i, len(given)):
            images.append(data_of(image))
    return asked, images


async def _parse_form(headers: Headers, body: bytes) -> tuple[ClassifyRequest, list[bytes]]:
    fields, files = await _read_form(headers, body)
    if not files:
        raise InvalidInputError("the form has no file; send the image as a file, curl -F image=@photo.png")
    for i, file in enumerate(files):
        with image_named(i, len(files)):
            check_format(file)
    # the schema wants texts for images; placeholders keep its other checks in force, those of misspelt names among them
    options = {name: values if name == "labels" else values[-1] for name, values in fields.items() if name != "images"}
    return ClassifyRequest.model_validate({"images": ["(file)"] * len(files), **options}), files


async def _read_form(headers: Headers, body: bytes) -> tuple[dict[str, list[str]], list[bytes]]:
    """Parse a multipart body into text fields, by name, and files; it never waits, but the parser is a coroutine."""

    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        parser = MultiPartParser(headers, stream())  # type: ignore[arg-type]
        # all in memory, where the body is already: a read-only root has no place for files; the second name is older
        parser.spool_max_size = parser.max_file_size = len(body) + 1  # type: ignore[attr-defined]
        form = await parser.parse()
    except Exception as error:  # the parser raises many types of exceptions
        raise InvalidInputError(f"the multipart form cannot be read: {error}") from error
    fields: dict[str, list[str]] = {}
    files = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.append(await value.read())
        else:
            fields.setdefault(name, []).append(value)
    await form.close()
    return fields, files


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine, and cancel it if the client disconnects.

    Raises
    ------
    Refusal
        499 if the client has disconnected.
    """
    # whichever comes first: the answer, or the client's disconnect
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Refusal(499, "the client has gone", "gone")
    finally:
        task.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
