"""Is the hybrid ever worse than its own tier 1? `python benchmarks/harmless.py` (about an hour on one core).

Twelve tables (four of scikit-learn's, eight made) and four proposers, each fitted with the defaults on 60 % of the rows
and asked about the rest: as they are, and broken in four ways that happen in production. For every cell the hybrid
minus its own tier 1, in accuracy and in log loss, with paired 95 % intervals. One-sided tests of harm (exact McNemar;
paired t) are corrected by Holm's method over all cells. Fits are kept in WORK, so that an interrupted run goes on.

- "× 1000": the most telling feature comes in another unit.
- "-999": it comes as the code of a missing value.
- "+ 10 sd": its sensor drifts by ten standard deviations.
- "rare column": a 0/1 column that was 1 in a single row of the training data is 1.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from figures.common import machine
from scipy.stats import ttest_1samp
from significance import better_than, holm
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_classification, make_moons
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from hybridclf import HybridClassifier, metrics
from hybridclf.devices import as_device
from hybridclf.pair_training.checkpoint import save_json
from hybridclf.proposer import aligned_log_proba

RESULTS = Path(__file__).parent / "results" / "harmless.json"
CLEAN = "clean"


def _made(n: int, seed: int, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    settings = {"n_features": 12, "n_informative": 6, "n_classes": 3, "class_sep": 1.0} | options
    return make_classification(n, random_state=seed, **settings)


def _scales() -> tuple[np.ndarray, np.ndarray]:
    X, y = _made(600, 3)
    return X * 10.0 ** np.linspace(-6, 6, X.shape[1]), y


def _heavy_tails() -> tuple[np.ndarray, np.ndarray]:
    X, y = _made(600, 5)
    return X + np.random.default_rng(5).standard_t(1.5, X.shape), y


def _one_hot() -> tuple[np.ndarray, np.ndarray]:
    X, y = _made(600, 6)
    return np.concatenate([np.eye(4)[np.digitize(column, [-1, 0, 1])] for column in X.T[:8]], axis=1), y


SETS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "iris": lambda: load_iris(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "breast cancer": lambda: load_breast_cancer(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
    "few rows": lambda: _made(60, 1),
    "flipped labels": lambda: _made(600, 2, flip_y=0.3),
    "scales": _scales,
    "imbalance": lambda: _made(1000, 4, weights=[0.86, 0.11, 0.03]),
    "heavy tails": _heavy_tails,
    "one-hot": _one_hot,
    "moons": lambda: make_moons(600, noise=0.3, random_state=7),
    "50 classes": lambda: _made(5000, 8, n_features=30, n_informative=20, n_classes=50, n_clusters_per_class=1),
}

PROPOSERS: dict[str, Callable[[], Any]] = {
    "logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "SVC": lambda: make_pipeline(StandardScaler(), SVC()),
    "random forest": lambda: RandomForestClassifier(random_state=0),
    "histogram boosting": lambda: HistGradientBoostingClassifier(random_state=0),
}


def broken(X: np.ndarray, y: np.ndarray, shown: np.ndarray) -> dict[str, np.ndarray]:
    """The rows shown `[m, d]`, as they are and broken in each way; X `[n, d]` and y are what was fitted on."""
    j = int(np.argmax(np.nan_to_num(f_classif(X[:, :-1], y)[0])))
    changes: dict[str, Callable[[np.ndarray], None]] = {
        CLEAN: lambda rows: None,
        "× 1000": lambda rows: rows[:, j].__imul__(1000),
        "-999": lambda rows: rows[:, j].fill(-999),
        "+ 10 sd": lambda rows: rows[:, j].__iadd__(10 * X[:, j].std()),
        "rare column": lambda rows: rows[:, -1].fill(1),
    }
    return {name: _changed(shown, change) for name, change in changes.items()}


def _changed(rows: np.ndarray, change: Callable[[np.ndarray], None]) -> np.ndarray:
    copy = rows.astype(float)
    change(copy)
    return copy


def with_rare_column(X: np.ndarray) -> np.ndarray:
    """X `[n, d]` with one more column, 1 in the first row and 0 elsewhere."""
    return np.column_stack([X, np.arange(len(X)) == 0]).astype(float)


def measured(name: str, proposer: str, seed: int) -> dict[str, Any]:
    """One fit, asked about all conditions."""
    X, y = SETS[name]()
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, stratify=y, random_state=seed)
    X_train = with_rare_column(X_train)
    clf = HybridClassifier(PROPOSERS[proposer](), random_state=seed).fit(X_train, y_train)
    shown = broken(X_train, y_train, np.column_stack([X_test, np.zeros(len(X_test))]))
    cells = {condition: _cell(clf, rows, y_test) for condition, rows in shown.items()}
    return {"worth": str(clf.worth_), "cells": cells}


def _cell(clf: HybridClassifier, X: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """The hybrid minus its own tier 1 on these rows."""
    alone = aligned_log_proba(clf.proposer_, X, clf.classes_)
    posterior, results = clf.decide(X)
    column, rows = np.searchsorted(clf.classes_, y), np.arange(len(y))
    right, before = posterior.argmax(axis=1) == column, alone.argmax(axis=1) == column
    loss = np.log(np.exp(alone).sum(axis=1)) - alone[rows, column]
    gain = loss + np.log(np.maximum(posterior[rows, column], 1e-13))
    reasons = [result.stopped_by for result in results]
    interval = metrics.accuracy_difference(right, before)
    return {
        "n": len(y),
        "tier 1": float(before.mean()),
        "hybrid": float(right.mean()),
        "accuracy": [interval.value, interval.low, interval.high],
        "accuracy harm p": better_than(before, right),
        "log loss gain": _interval(gain),
        "log loss harm p": float(ttest_1samp(gain, 0, alternative="less").pvalue) if gain.std() > 1e-9 else 1.0,
        "evaluations": float(np.mean([result.evaluations for result in results])),
        "stopped_by": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
    }


def _interval(values: np.ndarray) -> list[float]:
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return [float(values.mean()), float(values.mean() - half), float(values.mean() + half)]


def main(arguments: list[str] | None = None) -> None:
    """Fit, measure, write, print."""
    args = _parser().parse_args(arguments)
    args.work.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": machine(as_device("cpu")), "seed": args.seed, "fits": {}}
    for name in args.sets:
        for proposer in args.proposers:
            path = args.work / f"{name}-{proposer}-{args.seed}.json"
            if not path.exists():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    save_json(path, measured(name, proposer, args.seed))
            report["fits"][f"{name}, {proposer}"] = json.loads(path.read_text(encoding="utf-8"))
            show(f"{name}, {proposer}", report["fits"][f"{name}, {proposer}"])
    cells = [(f, c, cell) for f, fit in report["fits"].items() for c, cell in fit["cells"].items()]
    kinds = ("accuracy", "log loss")
    adjusted = holm([cell[f"{kind} harm p"] for kind in kinds for _, _, cell in cells])
    named = [f"{fit}, {condition}: {kind}" for kind in kinds for fit, condition, _ in cells]
    report["harmed"] = {name: p for name, p in zip(named, adjusted, strict=True) if p < 0.05}
    print(f"\n{len(cells)} cells; significantly below tier 1 (Holm, 5 %): {report['harmed'] or 'none'}")
    if args.out:
        save_json(args.out, report)


def show(name: str, fit: dict[str, Any]) -> None:
    """A line for each condition."""
    print(f"\n{name}\n  {fit['worth']}")
    for condition, c in fit["cells"].items():
        accuracy = "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * v for v in c["accuracy"]))
        loss = "{:+.3f} ({:+.3f} to {:+.3f})".format(*c["log loss gain"])
        print(
            f"  {condition:12s} tier 1 {100 * c['tier 1']:5.1f} hybrid {100 * c['hybrid']:5.1f}  points {accuracy}  "
            f"log loss gain {loss}  evaluations {c['evaluations']:.1f}  {c['stopped_by']}",
            flush=True,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("harmless-work"), help="where fits are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--proposers", nargs="+", choices=PROPOSERS, default=list(PROPOSERS))
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
