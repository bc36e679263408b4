"""Fine-tuning of a pretrained tier 1 against the linear classifier on its features (about an hour per set):

    python benchmarks/fine_tuning.py DATA WORK --proposer SPEC [--sets NAME …] [--minutes 45] [--images 2000]

DATA is as in `worth.py`. Every set has two trainings with one seed, kept in WORK: one of so many minutes, and one
without fine-tuning of as many as the features take and a few more. Both answer for the same images of the set's test
files, as they are and corrupted, and of shifted ones. Writes `benchmarks/results/fine-tuning.json`, prints a table.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from contenders.sets import Questions, Row, find_rows, questions
from figures.common import machine

from hybridclf import HybridClassifier, train_pair
from hybridclf.devices import as_device
from hybridclf.metrics import accuracy, accuracy_difference
from hybridclf.pair_training.checkpoint import save_json
from hybridclf.proposer import aligned_log_proba

RESULTS = Path(__file__).parent / "results" / "fine-tuning.json"

FEATURES_ALONE = 6.0
"""Minutes of the training without fine-tuning."""

NEVER = 1e9
"""Cost of a step for which no time is enough."""


def pair(row: Row, out: Path, minutes: float, proposer: str) -> tuple[HybridClassifier, dict[str, Any]]:
    """Train a pair on a set, or load the one that is there, with its log."""
    log = out / "training" / "log.json"
    if not (out / "model.json").exists():
        settings: dict[str, Any] = {"minutes": minutes, "proposer": proposer, "group": row.group}
        train_pair(row.train, out, resume=log.exists(), progress=True, **settings)
    return HybridClassifier.load(out), json.loads(log.read_text(encoding="utf-8"))


def tier_1_is_right(clf: HybridClassifier, asked: Questions) -> np.ndarray:
    """Tell of each image whether tier 1 is right, bool `[n]`."""
    return aligned_log_proba(clf.proposer_, asked.pixels, clf.classes_).argmax(axis=1) == asked.y


def compared(tuned: HybridClassifier, plain: HybridClassifier, asked: Questions) -> dict[str, Any]:
    """Accuracies of both tiers 1 and of the hybrid behind the fine-tuned one, and differences, with intervals."""
    right = {"features": tier_1_is_right(plain, asked), "fine-tuned": tier_1_is_right(tuned, asked)}
    right["hybrid"] = tuned.predict_proba(asked.pixels).argmax(axis=1) == asked.y
    gains = (("fine-tuned", "features"), ("hybrid", "fine-tuned"))
    differences = {f"{a} over {b}": asdict(accuracy_difference(right[a], right[b])) for a, b in gains}
    return {"n": len(asked.y)} | {name: asdict(accuracy(hits)) for name, hits in right.items()} | differences


def line(name: str, found: dict[str, Any]) -> str:
    """Line of the table, in percent and points."""
    gain = found["fine-tuned over features"]
    interval = f"{100 * gain['low']:.1f} to {100 * gain['high']:.1f}"
    shares = " ".join(f"{100 * found[method]['value']:6.1f}" for method in ("features", "fine-tuned", "hybrid"))
    return f"{name:40} {found['n']:5} {shares}  {100 * gain['value']:+5.1f} ({interval})"


def main(arguments: list[str] | None = None) -> None:
    """Train, ask, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--proposer", metavar="SPEC", required=True, help="such as timm:local-dir:FOLDER")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="default: all with labelled training images")
    parser.add_argument("--minutes", type=float, default=45.0, help="of the training with fine-tuning")
    parser.add_argument("--images", type=int, default=2000, help="test images of a row at most")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the results")
    args = parser.parse_args(arguments)
    saved = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {"rows": {}, "trainings": {}}
    print(f"{'':40} {'n':>5} features tuned hybrid  tuned over features")
    for row in find_rows(args.data, args.work, args.sets, [], {"corrupted"}):
        tuned, log = pair(row, args.work / f"{row.training}-fine-tuned", args.minutes, args.proposer)
        with patch("hybridclf.pair_training.pretrained_tier_1.STEP_COST", NEVER):
            plain, _ = pair(row, args.work / f"{row.training}-features", FEATURES_ALONE, args.proposer)
        asked = questions(row, tuned.image_shape_[0], args.images, tuned.classes_)
        saved["rows"][row.name] = compared(tuned, plain, asked)
        saved["trainings"][row.training] = {"minutes": args.minutes, "machine": machine(as_device("auto"))} | {
            name: log.get(name) for name in ("fine_tuning", "n_steps", "seconds", "worth")
        }
        save_json(args.out, saved)
        print(line(row.name, saved["rows"][row.name]))


if __name__ == "__main__":
    main()
