"""Flat digits, as scikit-learn loads them: the hybrid with its defaults beside an RBF-SVC (ten minutes on one core).

    python -m benchmarks.vectors

Five random halves of `load_digits(return_X_y=True)` are trained on, the others asked. Each hybrid and each SVC have the
same images. Writes `benchmarks/results/vectors.json`, prints a table.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from tqdm import tqdm

from hybridclf import HybridClassifier
from hybridclf.metrics import accuracy, accuracy_difference

RESULTS = Path(__file__).parent / "results" / "vectors.json"
SEEDS = range(5)


def measured(seed: int) -> dict[str, Any]:
    """Answers for one half, and evaluations per image."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=seed)
    clf = HybridClassifier(random_state=seed).fit(X_train, y_train)
    posterior, results = clf.decide(X_test)
    return {
        "hybrid": clf.classes_[posterior.argmax(axis=1)] == y_test,
        "tier 1": clf.proposer_.predict(X_test) == y_test,
        "SVC": SVC().fit(X_train, y_train).predict(X_test) == y_test,
        "evaluations": np.array([result.evaluations for result in results]),
    }


def main() -> None:
    halves = [measured(seed) for seed in tqdm(SEEDS, unit="half")]
    right = {name: np.concatenate([half[name] for half in halves]) for name in ("tier 1", "SVC", "hybrid")}
    report = {
        "by half": [{name: float(values.mean()) for name, values in half.items()} for half in halves],
        "accuracy": {name: asdict(accuracy(hits)) for name, hits in right.items()},
        "hybrid minus SVC": asdict(accuracy_difference(right["hybrid"], right["SVC"])),
        "evaluations": float(np.mean([half["evaluations"].mean() for half in halves])),
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    for half in report["by half"]:
        print(
            "  ".join(f"{name} {value if name == 'evaluations' else 100 * value:.2f}" for name, value in half.items())
        )


if __name__ == "__main__":
    main()
