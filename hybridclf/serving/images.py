"""From what a request holds to an image as the model takes it."""

import base64
import binascii
from io import BytesIO
from typing import Any

from ..data.image_files import as_item, read_image
from ..errors import InvalidInputError
from ..estimator import HybridClassifier

__all__ = ["data_of", "read_item"]


def data_of(uri: str) -> bytes:
    """The bytes in a base64 data URI.

    Raises
    ------
    InvalidInputError
        For anything else; a URL is not fetched.
    """
    head, _, data = uri.partition(",")
    if not head[:5].lower() == "data:" or not head[-7:].lower() == ";base64":
        raise InvalidInputError(
            "the image must be a data URI, data:image/png;base64,…; an address is not fetched, send the image itself"
        )
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("the data URI of the image is not valid base64") from error


def read_item(image: str | bytes, clf: HybridClassifier, max_pixels: int) -> Any:
    """An image, as a data URI or as the bytes of a file, of the size, the channels and the range that `clf` takes.

    Raises
    ------
    InvalidInputError
        For what is no image, is damaged or has too many pixels.
    """
    data = data_of(image) if isinstance(image, str) else image
    try:
        return as_item(read_image(BytesIO(data), max_pixels), clf.image_shape_, clf.pixel_range_)
    except InvalidInputError as error:
        raise InvalidInputError(f"the image is unusable: {error}") from error
    except Exception as error:  # from pixels of a kind that Pillow cannot convert
        raise InvalidInputError(f"the image cannot be converted: {error}") from error
