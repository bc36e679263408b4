"""Novelty of pictures that show none of the classes: `python benchmarks/novelty.py DATA [--images 200]`

DATA holds cifar10-test.parquet and the other sets' Parquet files. Each set is compared with CIFAR-10's test images, by
the area under the ROC curve and by the share that is found at p ≤ 0.05: `clf.novelty`, the lowest error of one trial,
looks alone, and tier 1's confidence. Rates of the last three are at the threshold that 5 % of the test images exceed.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score
from tqdm.auto import tqdm

from hybridclf import HybridClassifier
from hybridclf.data.datasets import load_labelled
from hybridclf.fitting.drift import distances
from hybridclf.fitting.outliers import NoveltyTest

OTHERS = ("gtsrb", "flowers5", "cueconflict", "colourmnist10", "intelscenes6")
RATE = 0.05


def sets(data: Path, n: int) -> dict[str, np.ndarray]:
    """Images uint8 `[n, 32, 32, 3]` by name, CIFAR-10's first."""
    rng, found = np.random.default_rng(0), {}
    for name in ("cifar10", *OTHERS):
        pixels = load_labelled(data / f"{name}-test.parquet", 32).pixels
        found[name] = pixels[rng.permutation(len(pixels))[:n]]
    found["noise"] = rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)
    found["black"] = rng.integers(0, 3, (n, 32, 32, 3)).astype(np.uint8)
    return found


def scores(clf: HybridClassifier, test: NoveltyTest, images: np.ndarray) -> dict[str, np.ndarray]:
    """Scores `[n]` by method, high for what is novel."""
    traits = clf._traits(clf._read(images), test.pixel_range)[0]
    looks, mean, covariance = slice(0, 5), np.array(test.mean), np.linalg.inv(np.array(test.precision))
    return {
        "novelty": -test.p_values(traits),
        "error": traits[:, 5],
        "looks": distances(traits[:, looks], mean[looks], np.linalg.inv(covariance[looks, looks])),
        "tier 1": -clf.proposer_.predict_log_proba(images).max(axis=1),
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--images", type=int, default=200, help="of each set")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    clf = HybridClassifier.from_pretrained("cifar10")
    assert clf.calibration_ is not None and clf.calibration_.novelty is not None  # the embedded pair has one
    test = clf.calibration_.novelty
    found = {
        name: scores(clf, test, x) for name, x in tqdm(sets(args.data, args.images).items(), desc="sets", unit="set")
    }
    usual = found.pop("cifar10")
    limits = {m: -RATE if m == "novelty" else np.quantile(s, 1 - RATE) for m, s in usual.items()}
    alarms = float((usual["novelty"] >= -RATE).mean())
    report: dict[str, dict[str, list[float]]] = {}
    print(f"{args.images} images of each set; at p ≤ {RATE} {100 * alarms:.1f} % of CIFAR-10's test images")
    print("\n| set | " + " | ".join(f"{m}: AUROC, found %" for m in limits) + " |\n|---|" + "---|" * len(limits))
    for name, own in found.items():
        y = np.repeat([0, 1], args.images)
        report[name] = {
            m: [float(roc_auc_score(y, np.concatenate([usual[m], own[m]]))), float((own[m] >= limits[m]).mean())]
            for m in own
        }
        print(f"| {name} | " + " | ".join(f"{auc:.2f}, {100 * rate:.0f}" for auc, rate in report[name].values()) + " |")
    if args.json:
        args.json.write_text(json.dumps({"false alarms": alarms, "sets": report}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
