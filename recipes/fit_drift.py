"""Fit what the embedded pairs know of drift and novelty, and write it into their model.json; nothing else changes:

    python -m recipes.fit_drift digits                       # trains the pair again, about two minutes
    python -m recipes.fit_drift cifar10 cifar10-train.parquet

A pair of images is fitted on the held-out images of its training file that its fusion was fitted on, digits on
out-of-fold answers, as its fusion was.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import hybridclf
from benchmarks.cifar.training_images import training_images
from hybridclf import HybridClassifier
from hybridclf.fitting.cross_fit import pixel_span
from hybridclf.fitting.drift import Drift, DriftSample
from hybridclf.fitting.outliers import NoveltyTest

PRETRAINED = Path(hybridclf.__file__).parent / "pretrained"

Fitted = tuple[Drift | None, NoveltyTest | None]


def fitted_digits() -> Fitted:
    """As `train_digits.py` fits it."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)
    train, _ = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)
    clf = HybridClassifier(random_state=0, verbose=True).fit(images[train], labels[train])
    assert clf.calibration_ is not None
    return clf.calibration_.drift, clf.calibration_.novelty


def fitted_pair(folder: Path, source: Path) -> Fitted:
    """On the held-out images that the pair's fusion was fitted on."""
    data, fusion = training_images(source, folder, "cpu")
    pixels, labels = data.some_held_out(fusion)
    clf, span = HybridClassifier.load(folder), pixel_span(pixels)
    assert span is not None  # they are images
    numbers = np.searchsorted(clf.classes_, labels)
    sample = DriftSample.record(
        lambda copies: clf.proposer_.predict_log_proba(copies.round().astype(np.uint8)), pixels, numbers, span, 0
    )
    traits = clf._traits(clf._read(pixels), span)[0]
    return Drift.fit(sample, clf.fusion_.prior_alone), NoveltyTest.fit(traits, span, 0)


def main() -> None:
    """Fit, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("source", type=Path, nargs="?", help="the images that the pair was trained on; not for digits")
    args = parser.parse_args()
    folder = PRETRAINED / args.name
    fitted = fitted_pair(folder, args.source) if args.source else fitted_digits()
    path = folder / "model.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    for name, found in zip(("drift", "novelty"), fitted, strict=True):
        saved["calibration"][name] = None if found is None else asdict(found)
    path.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    print(fitted)


if __name__ == "__main__":
    main()
