"""Flat digits, as scikit-learn loads them: the hybrid with its defaults beside an RBF-SVC (two minutes a half).

    python -m benchmarks.vectors

Random halves of `load_digits(return_X_y=True)` are trained on, the others asked. Each hybrid and each SVC have the same
images. Tier 2's scale was settled on the first five halves; the others were looked at once, afterwards. Writes
`benchmarks/results/vectors.json`, prints a table. A half that is there is not asked again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from tqdm import tqdm

from hybridclf import HybridClassifier

RESULTS = Path(__file__).parent / "results" / "vectors.json"
SEEDS = {"settled on": range(5), "afterwards": (11, 12, 13)}


def measured(seed: int) -> dict[str, Any]:
    """Accuracy on one half, and evaluations per image."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=seed)
    clf = HybridClassifier(random_state=seed).fit(X_train, y_train)
    posterior, results = clf.decide(X_test)
    answers = {
        "hybrid": clf.classes_[posterior.argmax(axis=1)],
        "tier 1": clf.proposer_.predict(X_test),
        "SVC": SVC().fit(X_train, y_train).predict(X_test),
    }
    accuracies = {name: float(np.mean(given == y_test)) for name, given in answers.items()}
    return accuracies | {"evaluations": float(np.mean([result.evaluations for result in results]))}


def main() -> None:
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for kind, seeds in SEEDS.items():
        halves = known.setdefault(kind, {})
        for seed in tqdm(seeds, desc=kind, unit="half"):
            if str(seed) not in halves:
                halves[str(seed)] = measured(seed)
                RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        for name in ("tier 1", "SVC", "hybrid", "evaluations"):
            values = [half[name] for half in halves.values()]
            print(f"{kind}, {name}: {np.mean(values):.4f}", *(f"{value:.4f}" for value in values))


if __name__ == "__main__":
    main()
