"""Worth of flattening tier 1's prior under drift, on the 40 conditions of `cifar10.py`:

    python benchmarks/drift.py DATA WORK [--images 200] [--json FILE]

DATA holds cifar10-test.parquet. Errors of all classes in the 8 most informative trials are recorded once into WORK,
part by part, and an interrupted run goes on (40 conditions of 200 images: 66,000 rows, 15 minutes on one processor).
The default hybrid is then replayed with what the pair knows of drift, and without it. Tier 2 alone has the 8 trials of
every class. Intervals are over images, each of which is in every condition. Conditions in which the hybrid is better or
worse than the better of its tiers are named by the exact McNemar test, corrected over all of them (Holm).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from significance import better_than, significant
from tqdm.auto import tqdm

from hybridclf import FixedTrials, Fusion, HybridClassifier
from hybridclf.data.datasets import load_labelled
from hybridclf.denoising.weighting import uniform_weights
from hybridclf.evaluating.corruptions import FAMILIES, SEVERITIES, corrupted
from hybridclf.fitting.replay import replay
from hybridclf.metrics import Interval, expected_calibration_error
from hybridclf.reranking.trials import TrialPlan

TRIALS, PART = 8, 50
FAMILY = {name: family for family, names in FAMILIES.items() for name in names}


class Conditions:
    """Recordings of test images under every condition.

    Parameters
    ----------
    data, work : Path
        Folders.
    n : int
        Images.
    """

    def __init__(self, data: Path, work: Path, n: int) -> None:
        self.clf = HybridClassifier.from_pretrained("cifar10")
        learned = self.clf.calibration_
        assert learned is not None and learned.drift is not None  # else there is nothing to compare
        self.drift = learned.drift
        test = load_labelled(data / "cifar10-test.parquet", 32)
        self.pixels, self.y, self.work = test.pixels[:n], test.y[:n], work
        self.stage = self.clf.reranker(FixedTrials(TRIALS), Fusion())
        self.stage.plan = TrialPlan(64, self.clf.denoiser_.shape, self.clf._seed, learned.order(64))
        self.weights = self.stage.weighting(*self.stage.levels())[:TRIALS]
        self.stage.weighting = uniform_weights
        work.mkdir(parents=True, exist_ok=True)

    def images(self, name: str, severity: int) -> np.ndarray:
        """The images under a condition; severity 0 leaves them as they are."""
        parts = [self.pixels[i : i + PART] for i in range(0, len(self.pixels), PART)]
        return np.concatenate([corrupted(x, name, severity, i) if severity else x for i, x in enumerate(parts)])

    def recorded(self, name: str, severity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, tier 1's log-probabilities `[n, C]` and weighted errors `[n, T, C]`."""
        images, tables = self.images(name, severity), []
        for i in range(0, len(images), PART):
            path = self.work / f"test-{name.replace(' ', '_')}-{severity}-{i // PART}.npz"
            if not path.exists():
                whole = path.with_suffix(".part.npz")
                np.savez(whole, errors=self.errors(images[i : i + PART]))
                whole.replace(path)
            tables.append(np.load(path)["errors"])
        log_prior = self.clf.proposer_.predict_log_proba(images)
        return images, log_prior, np.concatenate(tables) * self.weights[None, :, None]

    def errors(self, images: np.ndarray) -> np.ndarray:
        """Unweighted errors `[n, T, C]`."""
        results = self.stage.rerank(images, [self.clf.classes_.tolist()] * len(images))
        return np.stack([r.evidence for r in results])

    def measure(self, name: str, severity: int) -> dict[str, Any]:
        """Accuracy, calibration error and evaluations under a condition."""
        images, log_prior, errors = self.recorded(name, severity)
        clf, y, allocation = self.clf, self.y, self.clf.reranker().allocation
        alone = {"tier 1": log_prior.argmax(axis=1), "tier 2": errors.sum(axis=1).argmin(axis=1)}
        row: dict[str, Any] = {method: {"right": answers == y} for method, answers in alone.items()}
        for method, prior in (("as it was", log_prior), ("hybrid", self.drift(log_prior, images))):
            posterior, evaluations = replay(clf.fusion_, allocation, prior, errors, clf.top_k)
            right = posterior.argmax(axis=1) == y
            ece = expected_calibration_error(posterior.max(axis=1), right)
            row[method] = {"right": right, "ece": ece, "evaluations": float(evaluations.mean())}
            row[method]["confidence"] = posterior.max(axis=1)
        return row


def pooled(rows: list[dict[str, Any]], method: str) -> dict[str, float]:
    """Means over conditions; the calibration error is that of all their answers together."""
    right = np.concatenate([row[method]["right"] for row in rows])
    summary = {"accuracy": float(right.mean())}
    if "confidence" in rows[0][method]:
        confidence = np.concatenate([row[method]["confidence"] for row in rows])
        summary["ece, pooled"] = expected_calibration_error(confidence, right)
        summary |= {k: float(np.mean([row[method][k] for row in rows])) for k in ("ece", "evaluations")}
    return summary


def by_image(rows: list[dict[str, Any]], method: str, reference: str) -> Interval:
    """Difference in accuracy with its 95 % interval over images, each of which is in every condition."""
    gain = np.mean([row[method]["right"].astype(float) - row[reference]["right"] for row in rows], axis=0)
    error = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
    return Interval(float(gain.mean()), float(gain.mean() - error), float(gain.mean() + error))


def against_better_tier(rows: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Conditions in which the hybrid is significantly better than the better of its tiers, and worse."""
    gain, harm = {}, {}
    for name, row in rows.items():
        better = max((row[tier]["right"] for tier in ("tier 1", "tier 2")), key=np.mean)
        gain[name] = better_than(row["hybrid"]["right"], better)
        harm[name] = better_than(better, row["hybrid"]["right"])
    return {"above the better tier": significant(gain), "below the better tier": significant(harm)}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    conditions = Conditions(args.data, args.work, args.images)
    clean = conditions.measure("clean", 0)
    names = [(name, severity) for name in FAMILY for severity in SEVERITIES]
    rows = {key: conditions.measure(*key) for key in tqdm(names, desc="conditions", unit="condition")}
    better = {key: max(row["tier 1"]["right"].mean(), row["tier 2"]["right"].mean()) for key, row in rows.items()}
    gain = by_image(list(rows.values()), "hybrid", "as it was")
    report = {
        "images": args.images,
        "clean": {method: pooled([clean], method) for method in clean},
        "shifted": {method: pooled(list(rows.values()), method) for method in clean},
        "better of the two": float(np.mean(list(better.values()))),
        "gain": [gain.value, gain.low, gain.high],
        **against_better_tier({"clean": clean} | {f"{n} {s}": row for (n, s), row in rows.items()}),
        "conditions": {f"{n} {s}": {m: pooled([row], m) for m in row} for (n, s), row in rows.items()},
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for kind in ("clean", "shifted"):
        print(f"\n| {kind} | accuracy, % | ECE by condition | ECE together | evaluations |\n|---|---|---|---|---|")
        for method, s in report[kind].items():
            cells = [f"{s[k]:.3f}" if k in s else "" for k in ("ece", "ece, pooled", "evaluations")]
            print(f"| {method} | {100 * s['accuracy']:.1f} | {' | '.join(cells)} |")
    print(f"\nbetter of the two tiers, mean of conditions: {100 * report['better of the two']:.1f} %")
    print("hybrid minus as it was: {:.2f} points ({:.2f} to {:.2f})".format(*(100 * v for v in report["gain"])))
    for method in ("as it was", "hybrid"):
        lost = {key: better[key] - row[method]["right"].mean() for key, row in rows.items()}
        worst = max(lost, key=lambda key: lost[key])
        n = sum(v <= 0.01 + 1e-9 for v in lost.values())
        print(
            f"{method}: within a point of the better tier in {n} of {len(lost)}; worst {worst}, {100 * lost[worst]:.1f}"
        )
    for key in ("above the better tier", "below the better tier"):
        print(f"hybrid significantly {key} (Holm, 5 %): {len(report[key])}: {', '.join(report[key])}")


if __name__ == "__main__":
    main()
