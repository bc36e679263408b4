"""Pictures of coloured shapes in spatial relations with captions, a test bed for word order.

>>> scene = scenes(1, random_state=0)[0]
>>> draw([scene], size=64).shape
(1, 64, 64, 3)
"""

from .drawing import draw
from .scenes import Scene, Thing, scenes
from .vocabulary import COLOURS, HELD_OUT, RELATIONS, SHAPES, SIZES, TEXTURES
from .words import EXCHANGED, caption, phrase, swapped, wrong_caption

__all__ = [
    "COLOURS",
    "EXCHANGED",
    "HELD_OUT",
    "RELATIONS",
    "SHAPES",
    "SIZES",
    "TEXTURES",
    "Scene",
    "Thing",
    "caption",
    "draw",
    "phrase",
    "scenes",
    "swapped",
    "wrong_caption",
]
