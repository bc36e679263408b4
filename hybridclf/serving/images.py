"""Conversion of a request's images to the model's size and value range."""

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..data.decoders import Decoders
from ..data.decoding import FORMATS, HEAD, format_of
from ..data.image_files import as_item
from ..errors import InvalidInputError
from ..estimator import HybridClassifier

__all__ = ["bytes_of", "check_format", "data_of", "image_named", "read_item"]


_OF_URLS = bytes.maketrans(b"-_", b"+/")
"""Letters of base64 in addresses, which some clients send, and those of plain base64."""

_WHITESPACE = b" \t\r\n"


@contextmanager
def image_named(i: int, n: int) -> Iterator[None]:
    """Name the i-th of n images in the errors of a `with` block, unless it is the only one."""
    try:
        yield
    except InvalidInputError as error:
        if n == 1:
            raise
        raise InvalidInputError(f"images[{i}]: {error}") from error


def data_of(uri: str) -> bytes:
    """Decode the bytes of a data URI or of plain base64, and check that they may be an image.

    Raises
    ------
    InvalidInputError
        For anything else; a URL is not fetched.
    """
    # base64 is often wrapped; one call, as Python's lock is held and 10 MB may be every other letter a space
    text = uri.encode(errors="replace").translate(_OF_URLS, _WHITESPACE)
    head, comma, data = text.rpartition(b",")
    # fetching an address would let clients reach the server's own network
    if (comma or b":" in text[:10]) and not (head[:5].lower() == b"data:" and head[-7:].lower() == b";base64"):
        raise InvalidInputError(
            "the image must be a data URI, data:image/png;base64,…; an address is not fetched, send the image itself"
        )
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        what = "the data URI of the image" if comma else "the image is no data URI, and"
        raise InvalidInputError(f"{what} is not valid base64: {error}") from error
    check_format(decoded)
    return decoded


def check_format(data: bytes) -> None:
    """Check by its first bytes that this may be an image; it is told before any deadline is over.

    Raises
    ------
    InvalidInputError
        If it is none in one of the accepted formats.
    """
    if format_of(data[:HEAD]) is None:
        raise InvalidInputError(f"the image is unusable: not an image in one of the formats {', '.join(FORMATS)}")


def read_item(data: bytes, clf: HybridClassifier, decoders: Decoders) -> Any:
    """Decode an image, and convert it to the size, channels and range of `clf`.

    Raises
    ------
    InvalidInputError
        If it is no image, is damaged, too large, or takes too long.
    """
    try:
        image = decoders.decode(data, clf.image_shape_, clf._least_side)
        return as_item(image, clf.image_shape_, clf.pixel_range_)
    except InvalidInputError as error:
        raise InvalidInputError(f"the image is unusable: {error}") from error


def bytes_of(item: Any) -> int:
    """Tell the memory of an item: an array, or a PIL image, which has four bytes per pixel."""
    return int(item.nbytes) if isinstance(item, np.ndarray) else 4 * int(np.prod(item.size))
