"""Does the map of an explanation point at the right place? `python -m benchmarks.pointing` (minutes on one core).

Pictures of two things under two captions that differ in the colour, shape or texture of one of them; the map should be
positive on that thing. Pointing game: is the map's maximum in the thing's box? And the share of positive mass in it,
both against the box's share of the picture, which is chance. The shapes pair, scenes that its training never saw.
Prints a table and writes `benchmarks/results/pointing.json`.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

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


def measure(clf: HybridClassifier, n: int, trials: int) -> list[dict[str, Any]]:
    """A row per kind of change: pointing game and positive mass, with chance."""
    drawn, rng, rows = scenes(n, random_state=SEED, things=(2,)), np.random.default_rng(SEED), []
    pictures = draw(drawn)
    for name in VALUES:
        hits, mass, chance = [], [], []
        for scene, picture in zip(tqdm(drawn, desc=name, unit="scene"), pictures, strict=True):
            which = int(rng.integers(2))
            textured = name == "texture"
            right, wrong = (caption(s, texture=textured) for s in (scene, changed(scene, which, name, rng)))
            found = clf.with_labels([right, wrong]).explain(picture, right, wrong, trials=trials).map
            inside = np.zeros(found.shape, dtype=bool)
            inside[box(scene.things[which], len(found))] = True
            positive = np.maximum(found, 0)
            hits.append(inside.flat[found.argmax()])
            mass.append(positive[inside].sum() / positive.sum() if positive.any() else inside.mean())
            chance.append(inside.mean())
        rows.append(
            {
                "changed": name,
                "n": n,
                "pointing": asdict(accuracy(np.array(hits))),
                "positive mass": mean_interval(np.array(mass)),
                "chance": float(np.mean(chance)),
            }
        )
    return rows


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--trials", type=int, default=16)
    args = parser.parse_args()
    rows = measure(HybridClassifier.from_pretrained("shapes"), args.scenes, args.trials)
    results = Path(__file__).parent / "results" / "pointing.json"
    results.write_text(json.dumps({"trials": args.trials, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"{'changed':8} {'n':>4} {'pointing game, %':>20} {'positive mass, %':>20} {'chance, %':>10}")
    for r in rows:
        print(
            f"{r['changed']:8} {r['n']:4} {in_percent(r['pointing']):>20} {in_percent(r['positive mass']):>20} "
            f"{100 * r['chance']:10.1f}"
        )


if __name__ == "__main__":
    main()
