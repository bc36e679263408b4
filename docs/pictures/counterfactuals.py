"""Draws the guide's pictures that are changed to another class: `python docs/pictures/counterfactuals.py` (minutes).

Three embedded pairs, from the repository's root. A judge that is no denoiser says how often the changed picture is of
the other class: of digits that no training saw, a support vector machine; of drawn scenes, the pair's own CLIP, between
two captions that differ in a colour. Shares are printed, and written into the picture's title.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from tqdm.auto import tqdm

from benchmarks.pointing import changed as other_scene
from hybridclf import Counterfactual, HybridClassifier
from hybridclf.data.shapes import caption, draw, scenes
from hybridclf.demo.style import new_figure, styled
from hybridclf.metrics import Interval, accuracy

IMAGES = Path(__file__).parents[1] / "images"
N_DIGITS, N_SCENES, SEED = 200, 40, 6 * 10**6


def of_digits() -> tuple[Interval, Counterfactual]:
    """Share of digits that become the class that is second likeliest, and a 3 that becomes an 8."""
    clf, digits = HybridClassifier.from_pretrained("digits"), load_digits()
    train, test = train_test_split(np.arange(1797), test_size=0.25, stratify=digits.target, random_state=0)
    judge = SVC(C=10).fit(digits.data[train], digits.target[train])
    made = [clf.counterfactual(digits.images[i]) for i in tqdm(test[:N_DIGITS], desc="digits", unit="image")]
    judged = judge.predict(np.stack([found.changed.ravel() for found in made]))
    three = test[digits.target[test] == 3][1]
    return accuracy(judged == [found.b for found in made]), clf.counterfactual(digits.images[three], 3, 8)


def of_scenes() -> tuple[Interval, Counterfactual]:
    """Share of scenes of two things of which one gets the other colour, and the first of them."""
    clf, rng = HybridClassifier.from_pretrained("shapes"), np.random.default_rng(SEED)
    drawn = scenes(N_SCENES, random_state=SEED, things=(2,))
    judged, made = [], []
    for scene, picture in zip(tqdm(drawn, desc="scenes", unit="scene"), draw(drawn), strict=True):
        a, b = caption(scene), caption(other_scene(scene, int(rng.integers(2)), "colour", rng))
        own = clf.with_labels([a, b])
        made.append(own.counterfactual(picture, a, b))
        judged.append(own.proposer_.predict_log_proba([Image.fromarray(made[-1].changed)])[0].argmax() == 1)
    return accuracy(np.array(judged)), made[0]


@styled
def draw_rows(rows: list[Counterfactual], digits: Interval, scenes_: Interval) -> None:
    """A row per picture: the image, its reconstructions, the change."""
    figure = new_figure(9, 7.4)
    for line, found in zip(figure.subplots(len(rows), 4), rows, strict=True):
        shown = {
            "image": found.image,
            f"regenerated as\n{found.a}": found.reconstruction_a,
            f"regenerated as\n{found.b}": found.reconstruction_b,
            f"changed to\n{found.b}": found.changed,
        }
        for axes, (title, picture) in zip(line, shown.items(), strict=True):
            high = found.image.max() if picture.ndim == 2 else 255
            axes.imshow(picture, cmap="gray", vmin=0, vmax=high)
            axes.set_title(title, fontsize=8)
            axes.set_axis_off()
    figure.suptitle(
        f"Digits take the other class in {100 * digits.value:.0f} % of {N_DIGITS}, drawn things in "
        f"{100 * scenes_.value:.0f} % of {N_SCENES}; this photograph hardly changes",
        x=0.01,
        ha="left",
        fontsize=9,
    )
    figure.savefig(IMAGES / "counterfactuals.png")


def main() -> None:
    """Count, and draw."""
    digits, three = of_digits()
    drawn, scene = of_scenes()
    for name, share, n in (("digits", digits, N_DIGITS), ("scenes", drawn, N_SCENES)):
        print(f"{name}: {100 * share.value:.1f} % of {n} ({100 * share.low:.1f} to {100 * share.high:.1f})")
    cat = HybridClassifier.from_pretrained("cifar10").counterfactual(Image.open(IMAGES / "cat.jpg"), "cat", "dog")
    draw_rows([three, scene, cat], digits, drawn)


if __name__ == "__main__":
    main()
