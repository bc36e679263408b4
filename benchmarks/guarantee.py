"""Rate at which the bound of `calibrate(X, y, max_loss=…)` is broken, by simulation:

    python benchmarks/guarantee.py MODEL DATA RECORDING [--images 1000] [--draws 1000] [--json FILE]

MODEL is an embedded pair or a folder, DATA labelled images that it was not trained on ("digits": the quarter of
scikit-learn's that the embedded pair was not trained on), RECORDING a folder for their errors in 64 trials; one that
`hybridclf evaluate DATA --model MODEL` left there is read.

A fusion is fitted on a third of the images. The others are the population: every setting is replayed on them once, so
that what it truly loses is known. A draw takes as many images as a user would have, with replacement: a third of them
order the settings, and the others test them. The oracle takes the cheapest setting that truly keeps the bound.
"""

import argparse
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm.auto import tqdm

from hybridclf import HybridClassifier
from hybridclf.denoising.weighting import resolve_weighting
from hybridclf.evaluating.recording import record
from hybridclf.evaluating.sample import read_sample
from hybridclf.fitting.calibration import fit_calibration
from hybridclf.fitting.guarantee import FIT_SHARE, Replays, Setting, find_guarantee, settings_of
from hybridclf.fitting.validation import class_numbers
from hybridclf.metrics import accuracy

TRIALS, CANDIDATES = 64, 10
MAX_LOSS, DELTA = (0.005, 0.01), (0.05, 0.2)

Table = dict[Setting, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Drawn:
    """Images drawn from a population whose answers under every setting are known."""

    population: Replays
    table: Table
    index: np.ndarray

    def replays(self) -> Replays:
        """Their replays, which look answers up."""
        own = Replays.__new__(_LookedUp)
        own.__dict__.update(vars(self.population) | {"asked": self.population.asked[self.index]})
        own.__dict__.update(table=self.table, index=self.index, n_images=len(self.index))
        return own


class _LookedUp(Replays):
    def right(self, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
        right, evaluations = self.__dict__["table"][setting]
        return right[self.__dict__["index"]], evaluations[self.__dict__["index"]]


def labelled(args: argparse.Namespace, clf: HybridClassifier) -> tuple[Any, np.ndarray]:
    """Images and their labels."""
    if args.data == "digits":
        digits = load_digits()
        _, out = train_test_split(np.arange(1797), test_size=0.25, stratify=digits.target, random_state=0)
        return digits.images[out[: args.images]], digits.target[out[: args.images]]
    found = read_sample(args.data, clf.classes_.tolist(), clf.image_shape_, n_images=args.images, progress=True)
    return found.images, found.y


def population(args: argparse.Namespace) -> tuple[Replays, HybridClassifier]:
    """Replays of the images that the fusion was not fitted on."""
    clf = HybridClassifier.from_pretrained(args.model)
    images, labels = labelled(args, clf)
    items, y = clf._read(images), class_numbers(labels, clf.classes_)
    made = record(clf, items, y, trials=TRIALS, top_k=CANDIDATES, folder=args.recording, progress=True)
    recording, weighting = made.for_fitting(clf.objective), resolve_weighting(clf.weighting)
    fit = np.random.default_rng(0).permutation(len(y)) < FIT_SHARE * len(y)
    fitted = fit_calibration(recording.select(fit), clf.reranker().allocation, clf.top_k, weighting)
    return Replays.of(recording.select(~fit), fitted, clf.classes_, weighting), clf


def simulate(images: Replays, table: Table, max_loss: float, delta: float, args: argparse.Namespace) -> dict[str, Any]:
    """Share of the draws whose setting loses more than the bound, and what the settings cost."""
    rng, n, size = np.random.default_rng(0), len(images.y), args.calibration
    reference = table[images.exhaustive][0]
    loss = {
        setting: float((reference.astype(float) - right).sum() / images.n_images)
        for setting, (right, _) in table.items()
    }
    cost = {setting: float(evaluations.mean()) for setting, (_, evaluations) in table.items()}
    chosen = []
    for _ in tqdm(range(args.draws), desc=f"draws, {max_loss:g} {delta:g}", unit="draw"):
        index = rng.integers(0, n, size)
        parts = np.split(index, [round(FIT_SHARE * size)])
        order_on, test_on = (Drawn(images, table, part).replays() for part in parts)
        found = find_guarantee(order_on, test_on, max_loss, delta, False)
        chosen.append(Setting(found.confidence, found.max_trials, found.top_k))
    broken = accuracy(np.array([loss[s] > max_loss for s in chosen]))
    return {
        "max_loss": max_loss,
        "delta": delta,
        "broken": [broken.value, broken.low, broken.high],
        "evaluations": float(np.mean([cost[s] for s in chosen])),
        "loss": float(np.mean([loss[s] for s in chosen])),
        "exhaustive only": float(np.mean([s.confidence == 1 for s in chosen])),
        "oracle": min(cost[s] for s in table if loss[s] <= max_loss),
    }


def main() -> None:
    """Replay, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("recording", type=Path)
    parser.add_argument("--images", type=int, default=1000, help="images of DATA")
    parser.add_argument("--calibration", type=int, default=2000, help="images that a user has")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    images, clf = population(args)
    default: Any = clf.reranker().allocation  # a race
    now = Setting(default.confidence, default.max_trials, min(clf.top_k or CANDIDATES, CANDIDATES))
    settings = [images.exhaustive, now, *settings_of(images)]
    table = {setting: images.right(setting) for setting in tqdm(settings, desc="replay", unit="setting")}
    rows = [simulate(images, table, *both, args) for both in product(MAX_LOSS, DELTA)]
    report = {"model": args.model, "population": images.n_images, "calibration images": args.calibration}
    report |= {
        "default": float(table[now][1].mean()),
        "exhaustive": float(np.prod(images.errors.shape[1:])),
        "rows": rows,
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{images.n_images} images; evaluations: default {report['default']:.1f}, all {report['exhaustive']:.0f}\n")
    print(
        "| bound, points | δ | broken, % (95 %) | evaluations | true loss, points | oracle |\n|---|---|---|---|---|---|"
    )
    for r in rows:
        share = "{:.1f} ({:.1f}-{:.1f})".format(*(100 * v for v in r["broken"]))
        print(
            f"| {100 * r['max_loss']:g} | {r['delta']:g} | {share} | {r['evaluations']:.1f} | {100 * r['loss']:.2f} | "
            f"{r['oracle']:.1f} |"
        )


if __name__ == "__main__":
    main()
