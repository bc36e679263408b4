"""Decoding of image files in this thread: which are opened, within which bounds, and how they become 8-bit pixels.

The processes of `Decoders` start with this module, so it imports no more than Pillow and numpy.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..errors import InvalidInputError

__all__ = [
    "FORMATS",
    "HEAD",
    "MAX_ASPECT",
    "MAX_SCANS",
    "MODES",
    "claimed_pixels",
    "convert",
    "count_scans",
    "format_of",
    "read_image",
    "shrunk",
    "stretched",
    "upright",
]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", *(["AVIF"] if find_spec("PIL._avif") else []))
"""Formats that are opened: plain pictures. EPS starts another program, and other formats read further files.

AVIF is one where Pillow was built with it.
"""

MAX_ASPECT = 200
"""Largest ratio of an image's long edge to its short one.

Models resize the short edge to a fixed length, so a thin strip would grow to a huge image.
"""

HEAD = 16
"""Bytes that tell the format of a file."""

MAX_SCANS = 100
"""Most scans of a JPEG. Encoders write about ten; thousands fit into some hundred kilobytes and take minutes."""

_MAGIC = {
    "AVIF": re.compile(rb"....ftyp(avi[fs]|mif1)", re.DOTALL),
    "BMP": re.compile(rb"BM"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "PPM": re.compile(rb"P[1-6]\s"),
    "TIFF": re.compile(rb"II[*+]\x00|MM\x00[*+]"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
}
# a byte 0xff of pixels is followed by 0 or by a restart marker, d0 to d7; these have no length, nor have 01 to bf:
# libjpeg skips those alone where it waits for a restart marker
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LEADING_SEGMENTS = 1000

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode by the number of channels."""


def read_image(file: str | Path | BinaryIO, max_pixels: int | None = None) -> Image.Image:
    """Read the first frame of an image file, decode it in full and turn it by its EXIF orientation.

    Python's warning filters stay as they are, so threads may call it. Nothing bounds its time; `Decoders` does.

    Parameters
    ----------
    file : path or binary file
        Path of a regular file, or an open file that can seek.
    max_pixels : int, optional
        Most pixels. The size is checked before decoding.

    Returns
    -------
    PIL image
        Of 8 bits.

    Raises
    ------
    InvalidInputError
        If it is missing, no image in one of the `FORMATS`, damaged, or has too many pixels or scans.
    """
    try:
        with _opened(file) as stream, Image.open(stream, formats=[_checked_format(stream)]) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise InvalidInputError(f"more than {max_pixels} pixels; make it smaller")
            image.load()
            return upright(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InvalidInputError(f"more than {max_pixels or Image.MAX_IMAGE_PIXELS} pixels; make it smaller") from error
    except Image.UnidentifiedImageError as error:
        raise InvalidInputError(f"not an image in one of the formats {', '.join(FORMATS)}") from error
    except InvalidInputError:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidInputError(f"cannot be read: {reason or type(error).__name__}") from error


@contextmanager
def _opened(file: str | Path | BinaryIO) -> Iterator[BinaryIO]:
    """Open a path, which must be a regular file: a pipe or a device would block, or never end."""
    if not isinstance(file, str | Path):
        yield file
        return
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise InvalidInputError("not a regular file; give an image file")
    with open(file, "rb") as stream:
        yield stream


def _checked_format(stream: BinaryIO) -> str:
    """Tell the format of a file by its first bytes, before Pillow sees it, and rewind it."""
    stream.seek(0)
    found = format_of(stream.read(HEAD))
    if found is None:
        raise InvalidInputError(f"not an image in one of the formats {', '.join(FORMATS)}")
    if found == "JPEG":
        stream.seek(0)
        if count_scans(stream.read(), MAX_SCANS) > MAX_SCANS:
            raise InvalidInputError(f"a JPEG of more than {MAX_SCANS} scans; save it anew")
    stream.seek(0)
    return found


def format_of(head: bytes) -> str | None:
    """Tell the format of an image file by its first `HEAD` bytes; None for no format that is opened."""
    return next((name for name in FORMATS if _MAGIC[name].match(head)), None)


def count_scans(jpeg: bytes, most: int) -> int:
    """Count the scans of a JPEG file, without decoding; stop beyond `most`.

    Every scan of a progressive JPEG costs a pass over all of its pixels, however few bytes it has. Markers inside of
    segments, as those of an embedded thumbnail, do not count, nor does what follows the end of the image.
    """
    scans = (marker for marker, _ in _segments(jpeg) if marker == _START_OF_SCAN)
    return sum(1 for _ in islice(scans, most + 1))


def claimed_pixels(data: bytes) -> int | None:
    """Tell the number of pixels that the header of a PNG or JPEG claims; None for anything else.

    None as well for a JPEG of a thousand segments before the size; encoders write some ten. A file may contradict
    itself, so `read_image` still needs its bound.
    """
    form = format_of(data[:HEAD])
    if form == "PNG" and data[12:16] == b"IHDR":
        return int.from_bytes(data[16:20]) * int.from_bytes(data[20:24])
    if form == "JPEG":  # after the frame's length and bits: height, width
        leading = islice(_segments(data), _LEADING_SEGMENTS)
        frames = (at for marker, at in leading if marker in _START_OF_FRAME)
        return next(
            (int.from_bytes(data[at + 3 : at + 5]) * int.from_bytes(data[at + 5 : at + 7]) for at in frames), None
        )
    return None


def _segments(jpeg: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker of each segment of a JPEG, and where its length begins, up to the end of the image."""
    at = 2
    while (found := _MARKER.search(jpeg, at)) and found[1][0] != _END_OF_IMAGE:
        at = found.end()
        yield found[1][0], at
        at += int.from_bytes(jpeg[at : at + 2])  # the length counts its own two bytes


def stretched(image: Image.Image, shape: Sequence[int] | None) -> Image.Image:
    """Stretch an 8-bit image to a shape (H, W, C); for None, convert it to RGB of its own size."""
    if shape is None:
        return convert(image, "RGB")
    height, width, channels = shape
    # a box filter averages all pixels when shrinking; enlarging by it would make blocks
    shrinks = image.width >= width and image.height >= height
    resample = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return convert(image, MODES[channels]).resize((width, height), resample)


def shrunk(image: Image.Image, side: int | None) -> Image.Image:
    """Average an RGB image down by a whole factor, while its shorter edge stays at least `side`; None: not at all."""
    factor = 1 if side is None else min(image.size) // side
    return image.reduce(factor) if factor > 1 else image


def upright(image: Image.Image) -> Image.Image:
    """Convert a PIL image to 8 bits, turned by its EXIF orientation; of an animation, take the current frame.

    16-bit grey is scaled to 0 to 255.

    Raises
    ------
    InvalidInputError
        For 32-bit pixels, whose range is unknown, or an image that is much longer than wide.
    """
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise InvalidInputError(f"an image of {image.width}x{image.height} pixels is too narrow; crop it")
    # of a PGM with more than 8 bits Pillow makes 16, in 32
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    image = ImageOps.exif_transpose(image)
    if has_16_bits:
        # Pillow's own conversion clips at 255 instead of scaling; 65535 / 257 = 255
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InvalidInputError(
            f"pixels are 32-bit numbers of unknown range (mode {image.mode}); convert the image to 8 bits"
        )
    return image


def convert(image: Image.Image, mode: str) -> Image.Image:
    """Convert an 8-bit image to another mode, by Pillow's rules for palettes and CMYK; only RGBA keeps alpha."""
    # Pillow warns if a palette's transparency is dropped in one step
    if "transparency" in image.info:
        image = image.convert("RGBA")
    # Pillow converts LAB to RGB alone
    if image.mode == "LAB":
        image = image.convert("RGB")
    if image.mode == mode:  # Pillow would copy it
        return image
    try:
        return image.convert(mode)
    except ValueError as error:
        raise InvalidInputError(f"an image of mode {image.mode} cannot become {mode}; save it as RGB") from error
