"""The embedded pair for photographs as it is, on CIFAR-10's test images, clean and corrupted:

    python benchmarks/as_shipped.py DATA [--model cifar10] [--images 5000] [--alone 2000] [--shifted 500]

DATA holds cifar10-test.parquet. Nothing is fitted: `HybridClassifier.decide` answers, as `hybridclf classify` does, and
tier 1 beside it. Tier 2 alone is asked about the first `--alone` images, in 16 trials of every class; the first
`--shifted` ones also come under 40 corruptions. Writes `benchmarks/results/cifar10/as-shipped.json`, prints a table.
"""

import argparse
import time
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
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


def answered(clf: HybridClassifier, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Answers of tier 1 and of the hybrid: which are right, how sure, at what cost."""
    begin = time.perf_counter()
    first = np.exp(aligned_log_proba(clf.proposer_, images, clf.classes_))
    middle = time.perf_counter()
    posterior, results = clf.decide(images)
    seconds = middle - begin, time.perf_counter() - middle
    return {
        "right": [clf.classes_[p.argmax(axis=1)] == labels for p in (first, posterior)],
        "confidence": [p.max(axis=1) for p in (first, posterior)],
        "evaluations": np.array([r.evaluations for r in results]),
        "rows": np.array([r.rows for r in results]),
        "times": seconds[1] / seconds[0],
    }


def row(found: dict[str, Any]) -> dict[str, Any]:
    """Figures of answers, with 95 % intervals."""
    tiers = zip(("tier 1", "hybrid"), found["right"], found["confidence"], strict=True)
    return {
        **{name: [*astuple(accuracy(right)), expected_calibration_error(p, right)] for name, right, p in tiers},
        "difference": astuple(accuracy_difference(*found["right"][::-1])),
        "fixed": int((found["right"][1] & ~found["right"][0]).sum()),
        "broken": int((found["right"][0] & ~found["right"][1]).sum()),
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


def under_corruptions(clf: HybridClassifier, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Figures under each corruption and severity, and the means of all."""
    kinds = [(name, severity) for name in STRENGTHS for severity in SEVERITIES]
    rows = {
        f"{name} {severity}": row(answered(clf, corrupted(images, name, severity), labels))
        for name, severity in tqdm(kinds, desc="corruptions")
    }
    means = {name: float(np.mean([r[name][0] for r in rows.values()])) for name in ("tier 1", "hybrid")}
    means |= {f"{name}, ECE": float(np.mean([r[name][3] for r in rows.values()])) for name in ("tier 1", "hybrid")}
    means["evaluations"] = float(np.mean([r["evaluations"] for r in rows.values()]))
    return {"n": len(images), "means": means, "rows": rows}


def main(arguments: list[str] | None = None) -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--model", default="cifar10", help="a saved pair for the same classes")
    parser.add_argument("--images", type=int, default=5000, help="clean test images")
    parser.add_argument("--alone", type=int, default=2000, help="those of them that tier 2 alone is asked about")
    parser.add_argument("--shifted", type=int, default=500, help="images under each corruption")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write")
    args = parser.parse_args(arguments)
    clf, test = HybridClassifier.load(model_folder(args.model)), load_labelled(args.data / "cifar10-test.parquet", 32)
    images, labels = test.pixels[: args.images], np.array(test.classes)[test.y[: args.images]]
    found = answered(clf, images, labels)
    report = {"model": args.model, "machine": machine(clf.denoiser_.device), "n": len(images), "clean": row(found)}
    report["alone"] = alone(clf, images[: args.alone], labels[: args.alone], found["right"][1])
    save_json(args.out, report)
    report["shifted"] = under_corruptions(clf, images[: args.shifted], labels[: args.shifted])
    save_json(args.out, report)
    clean, means = report["clean"], report["shifted"]["means"]
    print("\n| images | tier 1, % | hybrid, % | evaluations |\n|---|---|---|---|")
    print(f"| clean | {100 * clean['tier 1'][0]:.1f} | {100 * clean['hybrid'][0]:.1f} | {clean['evaluations']:.1f} |")
    print(f"| corrupted | {100 * means['tier 1']:.1f} | {100 * means['hybrid']:.1f} | {means['evaluations']:.1f} |")


if __name__ == "__main__":
    main()
