"""Pictures of noise with a square of one of three colours, a folder per colour."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (60, 60, 220), "green": (60, 220, 60), "red": (220, 60, 60)}
SIDE = 64


def draw(folder: Path) -> Path:
    """Write thirty pictures a colour into a folder, and return it."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for i in range(30):
            picture = rng.integers(0, 120, (SIDE, SIDE, 3))
            x, y = rng.integers(0, SIDE // 2, 2)
            picture[y : y + SIDE // 2, x : x + SIDE // 2] = np.array(colour) - rng.integers(0, 60, 3)
            Image.fromarray(picture.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder
