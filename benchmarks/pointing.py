"""Does the map of an explanation point at the right place? `python -m benchmarks.pointing` (minutes on one core).

Pictures of two things under two captions that differ in the colour, shape or texture of one of them; the map should be
positive on that thing. Pointing game: is the map's maximum in the thing's box? And the share of positive mass in it,
both against the box's share of the picture, which is chance. Its rival is Grad-CAM of tier 1, for the difference of the
two captions' logits, at the last three stages of CLIP's ResNet: the last one, which is usual, has 2 x 2 positions, and
the first of the three has 8 x 8, as many as tier 2's latents. The shapes pair, scenes that its training never saw.
Prints a table and writes `benchmarks/results/pointing.json`.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from benchmarks.grad_cam import map_of_clip
from benchmarks.shapes.intervals import in_percent, mean_interval
from hybridclf import HybridClassifier
from hybridclf.data.shapes import COLOURS, SHAPES, TEXTURES, Scene, Thing, caption, draw, scenes
from hybridclf.metrics import accuracy

SEED = 5 * 10**6
VALUES = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES}


def changed(scene: Scene, which: int, name: str, rng: np.random.Generator) -> Scene:
    """The scene with a colour, shape or texture of one thing that none in it has."""
    present = {getattr(thing, name) for thing in scene.things}
    value = str(rng.choice([v for v in VALUES[name] if v not in present]))
    things = list(scene.things)
    things[which] = replace(things[which], **{name: value})
    return replace(scene, things=tuple(things))


def box(thing: Thing, size: int) -> tuple[slice, slice]:
    """Rows and columns of a thing in a map `[size, size]`."""

    def along(middle: float) -> slice:
        low, high = ((middle + side * thing.diameter / 2) * size for side in (-1, 1))
        return slice(max(0, int(np.floor(low))), min(size, int(np.ceil(high))))

    return along(thing.y), along(thing.x)


Method = Callable[[HybridClassifier, np.ndarray, str, str], np.ndarray]
"""From a classifier of two captions, a picture and the captions, the right one first, to a map `[H, W]`."""


def methods(trials: int) -> dict[str, Method]:
    """Maps to compare, by name."""
    return {
        "error-difference map": lambda clf, picture, a, b: clf.explain(picture, a, b, trials=trials).map,
        "Grad-CAM, 2 x 2": partial(map_of_clip, stage="layer4"),
        "Grad-CAM, 4 x 4": partial(map_of_clip, stage="layer3"),
        "Grad-CAM, 8 x 8": partial(map_of_clip, stage="layer2"),
    }


def measure(clf: HybridClassifier, n: int, compared: dict[str, Method]) -> list[dict[str, Any]]:
    """A row per kind of change and method: pointing game and positive mass, with chance."""
    drawn, rng, rows = scenes(n, random_state=SEED, things=(2,)), np.random.default_rng(SEED), []
    pictures = draw(drawn)
    for name in VALUES:
        seen: dict[str, list[tuple[bool, float, float]]] = {method: [] for method in compared}
        for scene, picture in zip(tqdm(drawn, desc=name, unit="scene"), pictures, strict=True):
            which = int(rng.integers(2))
            textured = name == "texture"
            right, wrong = (caption(s, texture=textured) for s in (scene, changed(scene, which, name, rng)))
            own = clf.with_labels([right, wrong])
            for method, map_of in compared.items():
                seen[method].append(pointed(map_of(own, picture, right, wrong), scene.things[which]))
        for method, found in seen.items():
            hits, mass, chance = (np.array(column) for column in zip(*found, strict=True))
            rows.append(
                {
                    "changed": name,
                    "method": method,
                    "n": n,
                    "pointing": asdict(accuracy(hits)),
                    "positive mass": mean_interval(mass),
                    "chance": float(np.mean(chance)),
                }
            )
    return rows


def pointed(found: np.ndarray, thing: Thing) -> tuple[bool, float, float]:
    """Compare a map with a thing's box: maximum inside or not, share of positive mass inside, the box's own share.

    At the edges, an interpolated map has plateaus: the maximum is the middle of its own.
    """
    inside, positive = np.zeros(found.shape, dtype=bool), np.maximum(found, 0)
    inside[box(thing, len(found))] = True
    share = inside.mean()
    mass = positive[inside].sum() / positive.sum() if positive.any() else share
    row, column = (int(where.mean()) for where in np.nonzero(np.isclose(found, found.max(), rtol=1e-5, atol=0)))
    return bool(inside[row, column]), float(mass), float(share)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--trials", type=int, default=16)
    args = parser.parse_args()
    rows = measure(HybridClassifier.from_pretrained("shapes"), args.scenes, methods(args.trials))
    results = Path(__file__).parent / "results" / "pointing.json"
    results.write_text(json.dumps({"trials": args.trials, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"{'changed':8} {'method':24} {'n':>4} {'pointing game, %':>20} {'positive mass, %':>20} {'chance, %':>10}")
    for r in rows:
        print(
            f"{r['changed']:8} {r['method']:24} {r['n']:4} {in_percent(r['pointing']):>20} "
            f"{in_percent(r['positive mass']):>20} {100 * r['chance']:10.1f}"
        )


if __name__ == "__main__":
    main()
