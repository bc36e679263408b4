"""The embedded pair for photographs as it is, on CIFAR-10's test images, clean and corrupted:

    python benchmarks/as_shipped.py DATA [--model cifar10] [--images 5000] [--alone 2000] [--shifted 500]
        [--rival WORK]

DATA holds cifar10-test.parquet. Nothing is fitted, and no image rejected: `HybridClassifier.decide` answers, and tier 1
at its fitted temperature beside it. Tier 2 alone is asked about the first `--alone` images, in 16 trials of every
class; the first `--shifted` ones also come under 40 corruptions. With `--rival`, a second network of tier 1's kind is
trained in WORK on DATA's cifar10-train.parquet, from another seed and for tier 1's steps. It is asked wherever
the hybrid asks tier 2, its weight fitted on the images of the hybrid's fusion. Writes
`benchmarks/results/cifar10/as-shipped.json`, prints a table.
"""

import argparse
import json
import time
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from cifar.training_images import training_images
from contenders.rival import Cascade, trained
from figures.common import machine
from tqdm.auto import tqdm

from hybridclf import FixedTrials, HybridClassifier
from hybridclf.data.datasets import load_labelled
from hybridclf.evaluating.corruptions import SEVERITIES, STRENGTHS, corrupted
from hybridclf.metrics import accuracy, accuracy_difference, expected_calibration_error
from hybridclf.pair_training.checkpoint import save_json
from hybridclf.pretrained.catalog import model_folder
from hybridclf.proposer import aligned_log_proba
from hybridclf.reranking.fusion import Fusion

RESULTS = Path(__file__).parent / "results" / "cifar10" / "as-shipped.json"
TRIALS = 16


class Rival:
    """A second network of tier 1's kind in place of a pair's tier 2.

    Parameters
    ----------
    clf : HybridClassifier
        The pair.
    folder, data, work : Path
        Its folder, and those of the images and of the rival.
    """

    def __init__(self, clf: HybridClassifier, folder: Path, data: Path, work: Path) -> None:
        self.clf, log = clf, json.loads((folder / "training" / "log.json").read_text(encoding="utf-8"))
        images, fusion = training_images(data / "cifar10-train.parquet", folder)
        settings = images.settings
        self.network = trained(images, work, 60 * settings.minutes, (settings.proposer,), log["n_steps"]["proposer"])
        fit_on, labels = images.some_held_out(fusion)
        (first, second), y = self._log_proba(fit_on), np.searchsorted(clf.classes_, labels)
        self.cascade, self.alone = Cascade(first, second, y), Fusion().tempered(second, y)

    def _log_proba(self, images: np.ndarray) -> list[np.ndarray]:
        """Log-probabilities `[n, C]` of tier 1 and of the rival."""
        return [aligned_log_proba(p, images, self.clf.classes_) for p in (self.clf.proposer_, self.network)]

    def posteriors(self, images: np.ndarray, asked: np.ndarray) -> dict[str, np.ndarray]:
        """Posteriors `[n, C]` of both networks where the rival is asked, of both everywhere, and of the rival alone.

        Each has temperatures that are fitted on the same images.
        """
        first, second = self._log_proba(images)
        prior, everywhere = self.clf.fusion_.prior(first), np.ones(len(images), dtype=bool)
        both = {"rival": asked, "rival, always": everywhere}
        found = {name: self.cascade(prior, first, second, where) for name, where in both.items()}
        return found | {"rival, alone": self.alone.prior(second)}


def answered(
    clf: HybridClassifier, images: np.ndarray, labels: np.ndarray, rival: Rival | None = None
) -> dict[str, Any]:
    """Answers by method, which are right and how sure, and what the hybrid cost."""
    begin = time.perf_counter()
    first = clf.fusion_.prior(aligned_log_proba(clf.proposer_, images, clf.classes_))
    middle = time.perf_counter()
    posterior, results = clf.decide(images)
    seconds = middle - begin, time.perf_counter() - middle
    posteriors = {"tier 1": first, "hybrid": posterior}
    if rival is not None:
        posteriors |= rival.posteriors(images, np.array([r.evaluations > 0 for r in results]))
    return {
        "right": {name: clf.classes_[p.argmax(axis=1)] == labels for name, p in posteriors.items()},
        "confidence": {name: p.max(axis=1) for name, p in posteriors.items()},
        "evaluations": np.array([r.evaluations for r in results]),
        "rows": np.array([r.rows for r in results]),
        "times": seconds[1] / seconds[0],
    }


def row(found: dict[str, Any]) -> dict[str, Any]:
    """Figures of answers, with 95 % intervals."""
    right, confidence = found["right"], found["confidence"]
    first, hybrid = right["tier 1"], right["hybrid"]
    return {
        **{name: [*astuple(accuracy(r)), expected_calibration_error(confidence[name], r)] for name, r in right.items()},
        "difference": astuple(accuracy_difference(hybrid, first)),
        "hybrid minus": {n: astuple(accuracy_difference(hybrid, r)) for n, r in right.items() if n.startswith("rival")},
        "fixed": int((hybrid & ~first).sum()),
        "broken": int((first & ~hybrid).sum()),
        "evaluations": float(found["evaluations"].mean()),
        "rows": float(found["rows"].mean()),
        "asked": float((found["evaluations"] > 0).mean()),
        "times of tier 1": found["times"],
    }


def alone(clf: HybridClassifier, images: np.ndarray, labels: np.ndarray, hybrid: np.ndarray) -> dict[str, Any]:
    """Accuracy of tier 2 alone, and how far the hybrid is above it on the same images."""
    stage = clf.reranker(FixedTrials(TRIALS), Fusion())
    results = stage.rerank(images, [clf.classes_.tolist()] * len(images), progress=True)
    right = np.array([result.ranking[0] for result in results]) == labels
    return {
        "n": len(images),
        "trials": TRIALS,
        "tier 2": astuple(accuracy(right)),
        "hybrid": astuple(accuracy(hybrid[: len(right)])),
        "difference": astuple(accuracy_difference(hybrid[: len(right)], right)),
    }


def under_corruptions(
    clf: HybridClassifier, images: np.ndarray, labels: np.ndarray, rival: Rival | None = None
) -> dict[str, Any]:
    """Figures under each corruption and severity, and the means of all; each image is in every one."""
    kinds = [(name, severity) for name in STRENGTHS for severity in SEVERITIES]
    answers = {
        f"{name} {severity}": answered(clf, corrupted(images, name, severity), labels, rival)
        for name, severity in tqdm(kinds, desc="corruptions")
    }
    rows = {name: row(found) for name, found in answers.items()}
    right = {
        name: np.concatenate([found["right"][name] for found in answers.values()])
        for name in next(iter(answers.values()))["right"]
    }
    hybrid, image = right.pop("hybrid"), np.tile(np.arange(len(images)), len(kinds))
    means = {name: float(np.mean([r[name][0] for r in rows.values()])) for name in ("hybrid", *right)}
    means |= {f"{name}, ECE": float(np.mean([r[name][3] for r in rows.values()])) for name in ("hybrid", *right)}
    means["evaluations"] = float(np.mean([r["evaluations"] for r in rows.values()]))
    minus = {name: astuple(accuracy_difference(hybrid, r, groups=image)) for name, r in right.items()}
    return {"n": len(images), "means": means, "hybrid minus": minus, "rows": rows}


def main(arguments: list[str] | None = None) -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--model", default="cifar10", help="a saved pair for the same classes")
    parser.add_argument("--images", type=int, default=5000, help="clean test images")
    parser.add_argument("--alone", type=int, default=2000, help="those of them that tier 2 alone is asked about")
    parser.add_argument("--shifted", type=int, default=500, help="images under each corruption")
    parser.add_argument("--rival", type=Path, metavar="WORK", help="folder of a rival, which is trained there")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write")
    args = parser.parse_args(arguments)
    folder = model_folder(args.model)
    clf, test = HybridClassifier.load(folder), load_labelled(args.data / "cifar10-test.parquet", 32)
    rival = None if args.rival is None else Rival(clf, folder, args.data, args.rival)
    images, labels = test.pixels[: args.images], np.array(test.classes)[test.y[: args.images]]
    found = answered(clf, images, labels, rival)
    report = {"model": args.model, "machine": machine(clf.denoiser_.device), "n": len(images), "clean": row(found)}
    report["alone"] = alone(clf, images[: args.alone], labels[: args.alone], found["right"]["hybrid"])
    save_json(args.out, report)
    report["shifted"] = under_corruptions(clf, images[: args.shifted], labels[: args.shifted], rival)
    save_json(args.out, report)
    means = report["shifted"]["means"]
    print("\n| method | clean, % | corrupted, % |\n|---|---|---|")
    for name in found["right"]:
        print(f"| {name} | {100 * report['clean'][name][0]:.1f} | {100 * means[name]:.1f} |")


if __name__ == "__main__":
    main()
