"""Decoding of images in processes that end when one takes too long; small images are decoded at once."""

import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from math import prod
from pathlib import Path
from queue import LifoQueue
from stat import S_ISREG
from threading import Lock
from typing import Any
from weakref import finalize

from PIL import Image

from ..errors import InvalidInputError
from .decode_worker import read_message, write_message
from .decoding import HEAD, claimed_pixels, format_of, read_image, shrunk, stretched

__all__ = ["DECODE_SECONDS", "MAX_PIXELS", "Decoders", "is_quick"]

DECODE_SECONDS = 5.0
"""Longest time of one image by default."""

MAX_PIXELS = 25_000_000
"""Most pixels of an image by default."""

SMALL_BYTES, SMALL_PIXELS = 2**16, 2**16
"""Size up to which a PNG or JPEG takes so little time that no process is worth its round trip."""

# chunks of a PNG that Pillow unpacks to a thousand times their size, before and after the pixels; a file that has these
# letters elsewhere loses but some milliseconds
_UNPACKED = re.compile(rb"zTXt|iTXt|iCCP")


class Decoders:
    """Pool of decoding processes, for use from any thread.

    An image beyond the time limit, or one that crashes its decoder, costs its own process, and a new one is started.

    Parameters
    ----------
    n_processes : int
        Processes, at least 1; each starts when it is first needed, or with `start`.
    seconds : float
        Longest time of one image.
    max_pixels : int
        Most pixels of an image.

    Attributes
    ----------
    lost : int
        Processes that an image has cost.

    Examples
    --------
    >>> with Decoders(2, seconds=5.0) as decoders:  # doctest: +SKIP
    ...     image = decoders.decode(Path("photo.jpg"), shape=(32, 32, 3))
    """

    def __init__(self, n_processes: int = 1, seconds: float = DECODE_SECONDS, max_pixels: int = MAX_PIXELS) -> None:
        self.seconds, self.max_pixels, self.lost = seconds, max_pixels, 0
        # the last one used first: without `start`, those beyond the need never begin
        self._idle: LifoQueue[_Decoder] = LifoQueue()
        self._all = [_Decoder() for _ in range(n_processes)]
        for decoder in reversed(self._all):
            self._idle.put(decoder)
        self._counting = Lock()
        finalize(self, _end, self._all)

    def start(self) -> None:
        """Start all processes now, not when an image needs them.

        Raises
        ------
        OSError
            If no process can be started.
        """
        for decoder in self._all:
            decoder.start()

    def decode(self, source: bytes | Path, shape: Sequence[int] | None = None, side: int | None = None) -> Image.Image:
        """Decode the first frame of an image and stretch it to a shape (H, W, C); waits for an idle process.

        Parameters
        ----------
        source : bytes or Path
            Content of a file, or its path.
        shape : (H, W, C) or None
            Size in pixels and 1, 3 or 4 channels. None: RGB of the image's own size.
        side : int or None
            Shorter edge that an image of its own size may be averaged down to, by a whole factor. None: none.

        Returns
        -------
        PIL image

        Raises
        ------
        InvalidInputError
            If it is missing, no image, damaged, too large, takes too long, or crashes its decoder.
        OSError
            If no process can be started.
        """
        if isinstance(source, Path):
            source = _content_if_small(source)
        if isinstance(source, bytes) and is_quick(source):
            return shrunk(stretched(read_image(BytesIO(source), min(self.max_pixels, SMALL_PIXELS)), shape), side)
        path, data = (None, source) if isinstance(source, bytes) else (str(source), b"")
        request = {
            "path": path,
            "shape": shape,
            "side": side,
            "max_pixels": self.max_pixels,
            "seconds": self.seconds,
        }
        decoder = self._idle.get()
        try:
            reply = decoder.ask(request, data, most=max(4 * self.max_pixels, prod(shape or ())))
        finally:
            self._idle.put(decoder)
        if reply is None:
            with self._counting:
                self.lost += 1
            raise InvalidInputError(
                f"it takes more than {self.seconds:g} seconds to decode, or crashes the decoder; save it anew"
            )
        fields, pixels = reply
        if "error" in fields:
            raise InvalidInputError(fields["error"])
        return Image.frombytes(fields["mode"], tuple(fields["size"]), pixels)

    def close(self) -> None:
        """End all processes at once; images under way get an error."""
        _end(self._all)

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(decoders: "Sequence[_Decoder]") -> None:
    for decoder in decoders:
        decoder.kill()


class _Decoder:
    """One decoding process, started when it is needed or before; one thread at a time asks it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, unless it runs."""
        self._process = self._process or self._started()

    def ask(self, request: dict[str, Any], data: bytes, most: int) -> tuple[dict[str, Any], bytes] | None:
        """Send a request and wait for its reply of at most so many bytes; None if the process ends before."""
        process = self._process or self._started()
        assert process.stdin is not None and process.stdout is not None
        reply = None
        try:
            with suppress(OSError, ValueError):  # the pipes break when the process ends
                write_message(process.stdin, request, data)
                reply = read_message(process.stdout, most)
        finally:
            if reply is None:
                self.kill()
        return reply

    def _started(self) -> "subprocess.Popen[bytes]":
        """Start the process with the module paths of this one, and wait until it takes requests."""
        program = f"import sys; sys.path[:] = {sys.path!r}; from hybridclf.data.decode_worker import main; main()"
        process = self._process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        if read_message(process.stdout, 0) is None:
            self.kill()
            raise OSError("the decoding process ends at its start; see why: python -m hybridclf.data.decode_worker")
        return process

    def kill(self) -> None:
        """End the process, whatever it does; the next request starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):  # what was not sent is lost
                    pipe.close()  # type: ignore[union-attr]


def _content_if_small(path: Path) -> bytes | Path:
    """Read a file that may be small enough to be decoded here; else, or if it cannot be read, return its path."""
    with suppress(OSError):
        found = path.stat()
        if S_ISREG(found.st_mode) and found.st_size <= SMALL_BYTES:
            return path.read_bytes()
    return path


def is_quick(data: bytes) -> bool:
    """Tell, without decoding, whether a file takes little time: a small PNG or JPEG, or what is refused unread."""
    if format_of(data[:HEAD]) is None:
        return True
    if len(data) > SMALL_BYTES or _UNPACKED.search(data):
        return False
    pixels = claimed_pixels(data)
    return pixels is not None and pixels <= SMALL_PIXELS
