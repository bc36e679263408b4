"""Conversion of a request's images to the model's size and value range."""

import base64
import binascii
from io import BytesIO
from typing import Any

from ..data.image_files import as_item, read_image
from ..errors import InvalidInputError
from ..estimator import HybridClassifier

__all__ = ["data_of", "read_item"]


def data_of(uri: str) -> bytes:
    """Decode the bytes of a base64 data URI.

    Raises
    ------
    InvalidInputError
        For anything else; a URL is not fetched.
    """
    head, _, data = uri.partition(",")
    # fetching an address would let clients reach the server's own network
    if not head[:5].lower() == "data:" or not head[-7:].lower() == ";base64":
        raise InvalidInputError(
            "the image must be a data URI, data:image/png;base64,…; an address is not fetched, send the image itself"
        )
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("the data URI of the image is not valid base64") from error


def read_item(image: str | bytes, clf: HybridClassifier, max_pixels: int) -> Any:
    """Read an image from a data URI or a file's bytes, and convert it to the size, channels and range of `clf`.

    Raises
    ------
    InvalidInputError
        If it is no image, is damaged or has more than `max_pixels` pixels.
    """
    data = data_of(image) if isinstance(image, str) else image
    try:
        return as_item(read_image(BytesIO(data), max_pixels), clf.image_shape_, clf.pixel_range_)
    except InvalidInputError as error:
        raise InvalidInputError(f"the image is unusable: {error}") from error
    except Exception as error:  # Pillow raises many types of exceptions for modes that it cannot convert
        raise InvalidInputError(f"the image cannot be converted: {error}") from error
