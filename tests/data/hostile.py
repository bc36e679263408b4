"""Images that are made to harm: small files that take minutes to decode."""

from functools import cache
from io import BytesIO

import numpy as np
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
def plain_pgm(n_bytes: int) -> bytes:
    """Pixels written as decimal text."""
    side = int((n_bytes / 2) ** 0.5)
    rng = np.random.default_rng(0)
    text = " ".join(map(str, rng.integers(0, 9, side * side).tolist()))
    return f"P2 {side} {side} 9\n{text}\n".encode()


@cache
def flat_png(side: int = 5000) -> bytes:
    """25 million pixels in some ten kilobytes."""
    file = BytesIO()
    Image.new("RGB", (side, side), (1, 2, 3)).save(file, "png")
    return file.getvalue()
