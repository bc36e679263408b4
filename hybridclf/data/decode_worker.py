"""Process that decodes one image after another for `Decoders`, and ends itself when one takes too long.

`python -m hybridclf.data.decode_worker` reads requests from its standard input and writes replies to its standard
output: a line of JSON each, and as many bytes as the line says. An image that takes over a decoder gains no more than
this user's rights: nothing is unpickled on either side.
"""

import faulthandler
import json
import os
import signal
import sys
import warnings
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from PIL import Image

from ..errors import InvalidInputError
from .decoding import read_image, shrunk, stretched

__all__ = ["main", "read_message", "write_message"]

NICENESS = 5
"""Priority below that of the process that asks, so that decoding does not delay the answers of others."""

LONGEST_LINE = 65_536
"""Most bytes of a message's line."""


def main() -> None:
    """Answer requests until the standard input ends, as it does when the asking process has gone."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get among the replies
    warnings.simplefilter("ignore")  # Pillow's remarks on damaged metadata
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # sent to the whole group; the asking process decides when to end
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    Image.init()  # all formats now, not in the time of the first image
    write_message(replies, {}, b"")  # ready
    with open(os.devnull, "w") as nowhere:
        while message := read_message(requests):
            # a watchdog in C that ends the process even while a decoder holds the interpreter
            faulthandler.dump_traceback_later(message[0]["seconds"], exit=True, file=nowhere)
            reply = _decoded(*message)
            faulthandler.cancel_dump_traceback_later()
            write_message(replies, *reply)


def _decoded(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Decode one image, and stretch it to the wanted shape while it is here: small replies are quick."""
    try:
        image = read_image(Path(request["path"]) if request["path"] else BytesIO(data), request["max_pixels"])
        image = shrunk(stretched(image, request["shape"]), request["side"])
    except InvalidInputError as error:
        return {"error": str(error)}, b""
    except Exception as error:  # Pillow raises many types of exceptions for modes that it cannot convert
        return {"error": f"cannot be converted: {error}"}, b""
    return {"mode": image.mode, "size": image.size}, image.tobytes()


def write_message(stream: IO[bytes], line: dict[str, Any], data: bytes) -> None:
    """Write a line of JSON and its bytes."""
    stream.write(json.dumps({**line, "bytes": len(data)}).encode() + b"\n")
    stream.write(data)
    stream.flush()


def read_message(stream: IO[bytes], most: int | None = None) -> tuple[dict[str, Any], bytes] | None:
    """Read a line of JSON and its bytes; None if there are more than `most` or the stream ends before they do."""
    line = stream.readline(LONGEST_LINE)
    if not line.endswith(b"\n"):
        return None
    fields = json.loads(line)
    if most is not None and fields["bytes"] > most:
        return None
    data = stream.read(fields["bytes"])
    return (fields, data) if len(data) == fields["bytes"] else None


if __name__ == "__main__":
    main()
