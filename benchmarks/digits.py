"""Worth of both tiers on scikit-learn's digits: `python benchmarks/digits.py` (about 11 minutes on two cores).

Stratified half splits, seeds 0-4: `hybridclf.evaluate` of a pair fitted to one half, on the other, 30 % of which fit
temperatures. In each run every method sees the same weights and the same test images. Writes
`benchmarks/results/digits.json`, prints a table and the claims with what was measured; the exit code is 1 if a claim
does not hold.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy.stats import t as student
from sklearn.svm import SVC
from timing import class_cost, loop_share
from tqdm import tqdm

from hybridclf import FixedTrials, Fusion, HybridClassifier, Race, evaluate
from hybridclf.demo.digits import Digits, split_digits

SEEDS, TRIALS = range(5), 256
TIER_1, EXHAUSTIVE, STAGED, T_TEST, HYBRID = range(5)
"""Places of the methods in a report."""
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Claim:
    """A claim, its bound, and the mean over seeds with its 95 % interval (Student's t)."""

    text: str
    bound: str
    mean: float
    low: float
    high: float
    holds: bool


def main() -> None:
    """Measure, write, print."""
    runs = [measure(seed) for seed in tqdm(SEEDS, desc="seeds", unit="seed")]
    claims = judge(runs)
    RESULTS.mkdir(exist_ok=True)
    report = {"claims": [asdict(c) for c in claims], "runs": runs}
    (RESULTS / "digits.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_methods(runs)
    for c in claims:
        interval = f"{c.mean:.4g} ({c.low:.4g} to {c.high:.4g})"
        print(f"{'holds' if c.holds else 'FAILS':6} {c.text}: {interval}, wanted {c.bound}")
    sys.exit(not all(c.holds for c in claims))


def measure(seed: int) -> dict[str, Any]:
    """One split: fit, evaluate, time the loop."""
    data = split_digits(seed)
    start = perf_counter()
    clf = HybridClassifier(random_state=seed).fit(data.train, data.train_labels)
    fit_seconds = perf_counter() - start
    report = evaluate(clf, data.test, data.test_labels, trials=TRIALS)
    rows, evaluations = oracle(clf, data)
    svc = SVC().fit(data.train.reshape(len(data.train), -1), data.train_labels)
    unet = timing_unet(data)
    return {
        "seed": seed,
        "fit_seconds": fit_seconds,
        "methods": report.to_dict()["methods"],
        "rival": float(svc.score(data.test.reshape(len(data.test), -1), data.test_labels)),
        "oracle_rows": rows,
        "oracle_evaluations": evaluations,
        "loop_share_mlp": share(clf, data),
        "loop_share_unet": share(unet, data),
        "class_cost_mlp": class_cost(clf.denoiser_, 256),
        "class_cost_unet": class_cost(unet.denoiser_, 128),
    }


def oracle(clf: HybridClassifier, data: Digits) -> tuple[float, float]:
    """Race's rows and evaluations over those of an oracle, on the images that were re-ranked at all.

    The oracle runs the same trials in the same order on the same candidates, drops none, and stops at the first trial
    from which the answer stays that of `TRIALS` trials of all classes (never before the first; at the end of the budget
    where it does not come to that).
    """
    every = clf.reranker(FixedTrials(TRIALS), Fusion()).rerank(data.test, [clf.classes_.tolist()] * len(data.test))
    exhaustive = [result.ranking[0] for result in every]
    candidates, log_prior = clf.propose(data.test)
    raced = clf.reranker().rerank(data.test, candidates, log_prior)
    again = [i for i, r in enumerate(raced) if r.evaluations]
    endless = Race(confidence=1 - 1e-12, max_trials=Race().max_trials)  # the order of a race, without its end
    full = clf.reranker(endless).rerank(data.test[again], [candidates[i] for i in again], [log_prior[i] for i in again])
    needed = np.array([
        _settled(clf.fusion_, np.asarray(log_prior[i]), result.evidence, result.candidates.index(exhaustive[i]))
        if exhaustive[i] in result.candidates
        else endless.max_trials
        for i, result in zip(again, full, strict=True)
    ])  # fmt: skip
    width = np.array([len(candidates[i]) for i in again])
    rows = sum(raced[i].rows for i in again) / needed.sum()
    return float(rows), float(sum(raced[i].evaluations for i in again) / (needed * width).sum())


def _settled(fusion: Fusion, log_prior: np.ndarray, errors: np.ndarray, answer: int) -> int:
    """First trial from which the fused answer stays `answer`; the number of trials if it does not end there."""
    n = np.arange(1, len(errors) + 1)
    sums = np.nan_to_num(errors, nan=np.inf).cumsum(axis=0, dtype=float)  # a candidate that was dropped has lost
    leader = fusion.scores(np.tile(log_prior, (len(n), 1)), sums, n).argmax(axis=1)
    wrong = np.flatnonzero(leader != answer)
    return min(int(wrong[-1]) + 2 if len(wrong) else 1, len(n))


def timing_unet(data: Digits) -> HybridClassifier:
    """A U-Net on the same 8x8 images, trained just enough to race as a trained one does."""
    clf = HybridClassifier(architecture="unet", max_iter=10, cv=0.2, random_state=0)
    return clf.fit(data.train, data.train_labels)


def share(clf: HybridClassifier, data: Digits) -> float:
    """The loop's share on the first 300 test images, every class and 16 trials each."""
    images = data.test[:300]
    return loop_share(clf.denoiser_, FixedTrials(16), images, [clf.classes_.tolist()] * len(images))


def judge(runs: list[dict]) -> list[Claim]:
    """The claims, against the mean over seeds."""

    def of(method: int, key: str) -> np.ndarray:
        return np.array([run["methods"][method][key] for run in runs])

    def plain(key: str) -> np.ndarray:
        return np.array([run[key] for run in runs])

    accuracy, exhaustive = (
        np.array([100 * run["methods"][method]["accuracy"]["value"] for run in runs]) for method in (HYBRID, EXHAUSTIVE)
    )
    evaluations = of(HYBRID, "evaluations")
    return [
        _claim("hybrid accuracy, %", accuracy, at_least=99.0),
        _claim("exhaustive (256 trials, all classes) minus hybrid, points", exhaustive - accuracy, at_most=0.2),
        _claim("evaluations per image", evaluations, at_most=10),
        _claim(
            "published stages' evaluations over the hybrid's",
            of(STAGED, "evaluations") / evaluations,
            at_least=100,
        ),
        _claim("PairedTTest evaluations over the hybrid's", of(T_TEST, "evaluations") / evaluations, at_least=10),
        _claim("expected calibration error", of(HYBRID, "calibration_error"), at_most=0.015),
        _claim("fit, seconds", plain("fit_seconds"), at_most=90),
        _claim("loop time over bare denoiser, 8x8 U-Net", plain("loop_share_unet"), at_most=1.10),
        _claim("loop time over bare denoiser, MLP", plain("loop_share_mlp")),
        _claim("one more class over the trunk, 8x8 U-Net", plain("class_cost_unet"), at_most=0.05),
        _claim("one more class over the trunk, MLP", plain("class_cost_mlp")),
        _claim("evaluations over an oracle's, re-ranked images (aim: under 3)", plain("oracle_evaluations")),
        _claim("rows over an oracle's, re-ranked images", plain("oracle_rows")),
    ]


def _claim(text: str, values: np.ndarray, *, at_least: float | None = None, at_most: float | None = None) -> Claim:
    mean = float(values.mean())
    half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    holds = (at_least is None or mean >= at_least) and (at_most is None or mean <= at_most)
    bound = f">= {at_least}" if at_least is not None else f"<= {at_most}" if at_most is not None else "(reported)"
    return Claim(text, bound, mean, mean - half, mean + half, holds)


def print_methods(runs: list[dict]) -> None:
    """Means over seeds, a line per method."""
    print(f"{'method':44} accuracy %  evaluations     rows  untouched  time / tier 1's")
    for methods in zip(*(run["methods"] for run in runs), strict=True):
        keys = ("evaluations", "rows", "no_evaluation", "time")
        evaluations, rows, untouched, time = (np.mean([m[key] for m in methods]) for key in keys)
        accuracy = 100 * np.mean([m["accuracy"]["value"] for m in methods])
        print(
            f"{methods[0]['method']:44} {accuracy:10.2f} {evaluations:12.1f} {rows:8.1f} {untouched:10.2f} {time:16.1f}"
        )
    print(f"{'RBF-SVC':44} {100 * np.mean([run['rival'] for run in runs]):10.2f}")


if __name__ == "__main__":
    main()
