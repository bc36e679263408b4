"""Images that are made to harm: small files that take seconds or minutes to decode."""

import re
import struct
import zlib
from functools import cache
from io import BytesIO

from PIL import Image


@cache
def many_scans(n_scans: int, side: int = 5000) -> bytes:
    """A progressive JPEG whose last scan is repeated; 61 bytes for each."""
    file = BytesIO()
    Image.new("L", (side, side), 128).save(file, "jpeg", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    # a refinement of the lowest bit may come as often as one likes
    return data[:last] + data[last:-2] * n_scans + b"\xff\xd9"


@cache
def hidden_scans(n_scans: int, side: int = 256) -> bytes:
    """The same with up to 6,000 scans inside of what looks like a segment FF02, whose length libjpeg does not know.

    The first scan has a restart interval. Where its first restart marker is due stands FF02; libjpeg skips that marker
    alone and goes on with its content.
    """
    data = many_scans(1, side)
    first, last = data.index(b"\xff\xda"), data.rindex(b"\xff\xda")
    pixels = first + 2 + int.from_bytes(data[first + 2 : first + 4])
    after = re.compile(rb"\xff[^\x00]").search(data, pixels)
    assert after is not None
    # header and one byte of the last scan; libjpeg fills in the rest
    scan = data[last : last + 2 + int.from_bytes(data[last + 2 : last + 4])] + b"\x00"
    no_restarts, restarts = b"\xff\xdd\x00\x04\x00\x00", b"\xff\xdd\x00\x04\x00\x01"
    content = b"\xff\xd0\x00\x00" + no_restarts + data[after.start() : last] + scan * n_scans
    segment = b"\xff\x02" + (len(content) + 2).to_bytes(2) + content
    return data[:first] + restarts + data[first : pixels + 2] + segment + b"\xff\xd9"


def text_png(name: bytes, after_pixels: bool = False) -> bytes:
    """60 KB of compressed text, 59 MiB unpacked, around a picture of 64 pixels."""
    file = BytesIO()
    Image.new("L", (8, 8)).save(file, "png")
    data = file.getvalue()
    text = zlib.compress(bytes(2**20 - 10), 9)
    content = {b"zTXt": b"key\0\0" + text, b"iTXt": b"key\0\1\0\0\0" + text, b"iCCP": b"key\0\0" + text}[name]
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    at = data.index(b"IEND") - 4 if after_pixels else data.index(b"IDAT") - 4
    return data[:at] + chunk * 59 + data[at:]


@cache
def flat_png(side: int = 5000) -> bytes:
    """25 million pixels in some ten kilobytes."""
    file = BytesIO()
    Image.new("RGB", (side, side), (1, 2, 3)).save(file, "png")
    return file.getvalue()
