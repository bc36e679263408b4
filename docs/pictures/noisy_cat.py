"""A noisy photograph of a cat, its race (the README's picture) and why: `python docs/pictures/noisy_cat.py`, a minute.

The noise is severity 5 of `benchmarks/cifar10.py`. The picture shows the first draw (seed 0); how often either tier is
right over 200 draws is printed, and written into the picture's title.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from hybridclf import HybridClassifier
from hybridclf.demo import plots
from hybridclf.demo.explanations import draw_explanation
from hybridclf.demo.races import watch
from hybridclf.metrics import accuracy

IMAGES = Path(__file__).parents[1] / "images"
DRAWS, NOISE = 200, 0.15


def noisy(photo: Image.Image, seed: int) -> Image.Image:
    """The photograph at the model's size, 32x32 pixels, with Gaussian noise; pixels count from 0 to 1."""
    pixels = np.asarray(photo.convert("RGB").resize((32, 32), Image.Resampling.BOX)) / 255
    pixels = pixels + np.random.default_rng(seed).normal(0, NOISE, pixels.shape)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def main() -> None:
    """Draw it, and count over all draws."""
    clf = HybridClassifier.from_pretrained("cifar10")
    photos = [noisy(Image.open(IMAGES / "cat.jpg"), seed) for seed in range(DRAWS)]
    first = accuracy(clf.proposer_.predict(photos) == "cat")
    both = accuracy(clf.predict(photos) == "cat")
    for name, share in {"tier 1": first, "hybrid": both}.items():
        print(f"{name}: {100 * share.value:.1f} % of {DRAWS} draws ({100 * share.low:.1f} to {100 * share.high:.1f})")
    figure = plots.race(watch(clf, photos[:1], "with noise, 32x32", "cat"))
    figure.suptitle(
        f"A noisy photograph of a cat: over {DRAWS} draws of the noise tier 1 is right in {100 * first.value:.0f} %, "
        f"the hybrid in {100 * both.value:.0f} %",
        x=0.01,
        ha="left",
    )
    figure.savefig(IMAGES / "race.png")
    draw_explanation(clf.explain(photos[0]), photos[0]).savefig(IMAGES / "explanation.png")


if __name__ == "__main__":
    main()
