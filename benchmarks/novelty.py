"""Novelty of pictures that show none of the classes: `python benchmarks/novelty.py DATA [--images 200] [--json FILE]`

DATA holds cifar10-test.parquet and the other sets' Parquet files; "digits" in its place compares scikit-learn's digits
(those that the embedded pair was not trained on, half of which calibrate it) with letters, and with digits, printed in
matplotlib's fonts and reduced as that set was: 32x32 pixels, ink counted in blocks of 4x4.

Each set is compared with the pair's own test images, by the area under the ROC curve and by the share that is found at
a rate of 5 %: `clf.novelty` at p ≤ 0.05, and at the threshold that 5 % of the test images exceed the lowest error of
one trial, looks alone, and what needs tier 1 alone: its highest probability, the energy of its logits (arXiv
2010.03759), and the distance to the tenth nearest of 1,000 other test images (digits: training images) in its
normalised features (arXiv 2204.06507).
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from tqdm.auto import tqdm

from hybridclf import HybridClassifier
from hybridclf.data.datasets import load_labelled
from hybridclf.fitting.drift import distances
from hybridclf.fitting.outliers import NoveltyTest

OTHERS = ("gtsrb", "flowers5", "cueconflict", "colourmnist10", "intelscenes6")
FONTS = ("DejaVu Sans", "DejaVu Sans:bold", "DejaVu Serif", "DejaVu Sans Mono")
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz"
"""Without I, O, i, l and o, which are drawn like digits."""

RATE, STRICT, NEIGHBOURS = 0.05, 0.01, 10


class Compared(NamedTuple):
    """A pair, images `[n, …]` by name of their set, its own test images first, and others `[m, …]` as neighbours."""

    clf: HybridClassifier
    sets: dict[str, np.ndarray]
    bank: np.ndarray


def photographs(data: Path, n: int) -> Compared:
    """The CIFAR-10 pair, and images of other sets."""
    rng, found = np.random.default_rng(0), {}
    for name in ("cifar10", *OTHERS):
        pixels = load_labelled(data / f"{name}-test.parquet", 32).pixels
        found[name] = pixels[rng.permutation(len(pixels))]
    bank = found["cifar10"][n : n + 1000]
    found = {name: pixels[:n] for name, pixels in found.items()}
    found["noise"] = rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)
    found["black"] = rng.integers(0, 3, (n, 32, 32, 3)).astype(np.uint8)
    return Compared(HybridClassifier.from_pretrained("cifar10"), found, bank)


def characters(n: int) -> Compared:
    """The digits pair, calibrated on half of the images that are new to it, and printed characters."""
    digits = load_digits()
    X, y = digits.images, digits.target
    X_train, X, _, y = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)
    X_fit, X, y_fit, _ = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
    clf = HybridClassifier.from_pretrained("digits").calibrate(X_fit, y_fit)
    sets = {"digits": X[:n], "letters": printed(LETTERS)[:n], "printed digits": printed("0123456789")[:n]}
    sets["noise"] = np.random.default_rng(0).integers(0, 17, (n, 8, 8)).astype(float)
    sets["black"] = np.zeros((n, 8, 8))
    return Compared(clf, sets, X_train)


def printed(text: str) -> np.ndarray:
    """Every character in every font, bright on dark, `[m, 8, 8]` from 0 to 16, in random order."""
    fonts = [ImageFont.truetype(font_manager.findfont(name), 28) for name in FONTS]
    drawn = []
    for font in fonts:
        for character in text:
            picture = Image.new("1", (32, 32))
            ImageDraw.Draw(picture).text((16, 16), character, fill=1, font=font, anchor="mm")
            box = picture.getbbox()
            assert box is not None
            picture = picture.crop(box).resize((max(8, min(32, 32 * (box[2] - box[0]) // (box[3] - box[1]))), 32))
            square = Image.new("1", (32, 32))
            square.paste(picture, ((32 - picture.width) // 2, 0))
            drawn.append(np.asarray(square, dtype=float).reshape(8, 4, 8, 4).sum(axis=(1, 3)))
    return np.random.default_rng(0).permutation(np.stack(drawn))


def logits_of(clf: HybridClassifier, images: np.ndarray) -> np.ndarray:
    """Tier 1's unnormalised log-probabilities `[n, C]`."""
    proposer: Any = getattr(clf.proposer_, "estimator", clf.proposer_)
    if hasattr(proposer, "decision_function"):
        return np.asarray(proposer.decision_function(images.reshape(len(images), -1)))
    found: list[np.ndarray] = []
    hook = proposer.model.register_forward_hook(lambda model, given, out: found.append(out.float().cpu().numpy()))
    proposer.predict_log_proba(images)
    hook.remove()
    return np.concatenate(found)


def features_of(clf: HybridClassifier, images: np.ndarray) -> np.ndarray:
    """Input of tier 1's last layer, `[n, d]`, scaled to length 1."""
    proposer: Any = getattr(clf.proposer_, "estimator", clf.proposer_)
    if hasattr(proposer, "decision_function"):
        features = proposer[:-1].transform(images.reshape(len(images), -1))
    else:
        features = proposer.features([Image.fromarray(image) for image in images])
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12))


def scores(
    clf: HybridClassifier, test: NoveltyTest, neighbours: NearestNeighbors, images: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores `[n]` by method, high for what is novel."""
    items = clf._read(images)
    traits = clf._traits(items, test.pixel_range)[0]
    looks, mean, covariance = slice(0, 5), np.array(test.mean), np.linalg.inv(np.array(test.precision))
    logits = logits_of(clf, images)
    return {
        "novelty": -test.p_values(traits),
        "error": traits[:, 5],
        "looks": distances(traits[:, looks], mean[looks], np.linalg.inv(covariance[looks, looks])),
        "tier 1": logsumexp(logits, axis=1) - logits.max(axis=1),
        "energy": -logsumexp(logits, axis=1),
        "k-NN": neighbours.kneighbors(features_of(clf, images))[0][:, -1],
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--images", type=int, default=200, help="of each set")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    made = characters(args.images) if args.data == "digits" else photographs(Path(args.data), args.images)
    clf = made.clf
    assert clf.calibration_ is not None and clf.calibration_.novelty is not None
    test = clf.calibration_.novelty
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(features_of(clf, made.bank))
    found = {
        name: scores(clf, test, neighbours, images) for name, images in tqdm(made.sets.items(), desc="sets", unit="set")
    }
    own = next(iter(found))
    usual = found.pop(own)
    limits = {m: -RATE if m == "novelty" else np.quantile(s, 1 - RATE) for m, s in usual.items()}
    alarms = float((usual["novelty"] >= -RATE).mean())
    report: dict[str, dict[str, list[float]]] = {}
    print(f"{len(usual['novelty'])} images of {own}; at p ≤ {RATE} {100 * alarms:.1f} % of them")
    print("\n| set | " + " | ".join(f"{m}: AUROC, found %" for m in limits) + " |\n|---|" + "---|" * len(limits))
    for name, other in found.items():
        y = np.repeat([0, 1], [len(usual["novelty"]), len(other["novelty"])])
        report[name] = {
            m: [float(roc_auc_score(y, np.concatenate([usual[m], other[m]]))), float((other[m] >= limits[m]).mean())]
            for m in other
        }
        print(f"| {name} | " + " | ".join(f"{auc:.2f}, {100 * rate:.0f}" for auc, rate in report[name].values()) + " |")
    strict = {name: float((other["novelty"] >= -STRICT).mean()) for name, other in (found | {own: usual}).items()}
    print(f"\nat p ≤ {STRICT}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in strict.items()))
    if args.json:
        figures = {"false alarms": alarms, "sets": report, f"at p ≤ {STRICT}": strict}
        args.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
