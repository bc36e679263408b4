"""What the pair for natural images is worth on CIFAR-10's test images:

    python benchmarks/cifar10.py [MODEL] [--data FOLDER] [--work FOLDER] [--images 2000] [--rival]

MODEL is a saved pair (default: the embedded "cifar10"), FOLDER holds cifar10-train.parquet and cifar10-test.parquet.
Everything that takes long is kept in WORK, from which an interrupted run goes on. Writes `benchmarks/results/cifar10`:
`report.json` and pictures. `--rival` also trains, for as long as the pair's second tier, a bigger classifier to put in
its place, and asks it wherever the hybrid is asked.

Tier 1, the hybrid and the rival answer for all test images. The expensive methods answer for the first `--images`:
all of them are replayed from one recorded table of errors, so they see the same trials. On corrupted images, tier 2
alone has 16 trials.
"""

import argparse
import json
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar import pictures, rival
from cifar.answers import Answers, hybrid, record, recorded, replay, spread
from cifar.corruptions import FAMILIES, SEVERITIES, corrupted
from figures.common import machine
from timing import flops, medians
from tqdm.auto import tqdm

from hybridclf import FixedTrials, Fusion, HybridClassifier, PairedTTest, Staged
from hybridclf.labelled import LabelledImages, load_labelled
from hybridclf.metrics import accuracy_difference
from hybridclf.pair_training import PairSettings

STAGED = Staged.preset("cifar10")
N_TRIALS = STAGED.max_trials
EXHAUSTIVE = 256
SHIFTED_TRIALS, SHIFTED_IMAGES = 16, 500
TIMED_IMAGES = 200
RESULTS = Path(__file__).parent / "results" / "cifar10"

TIER_1, TIER_2, HYBRID, RIVAL = "tier 1", "tier 2", "hybrid", "rival"


class Benchmark:
    """A pair, its rival, and test images.

    Parameters
    ----------
    args : Namespace
        Of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.clf = HybridClassifier.from_pretrained(args.model).set_params(verbose=True)
        self.test: LabelledImages = load_labelled(args.data / "cifar10-test.parquet", 32, progress=True)
        if list(self.test.classes) != self.clf.classes_.tolist():
            raise SystemExit(f"the pair knows {self.clf.classes_.tolist()}, the images {list(self.test.classes)}")
        args.work.mkdir(parents=True, exist_ok=True)

    @cached_property
    def rival(self) -> tuple[Any, rival.Cascade]:
        """The rival, and its fusion with tier 1."""
        settings = PairSettings(minutes=self.args.minutes)
        source, folder = self.args.data / "cifar10-train.parquet", self.args.work / "rival"
        network, task = rival.trained(source, folder, settings, rival.minutes_of(settings))
        images, labels = rival.held_out(task)
        y = np.searchsorted(self.clf.classes_, labels)
        return network, rival.Cascade(self.log_prior(images), network.predict_log_proba(images), y)

    def log_prior(self, images: np.ndarray) -> np.ndarray:
        """Tier 1's log-probabilities `[n, C]`."""
        return self.clf.proposer_.predict_log_proba(images)

    def cheap(self, images: np.ndarray) -> dict[str, Answers]:
        """Tier 1, the hybrid and, if wanted, the rival."""
        log_prior = self.log_prior(images)
        prior = self.clf.fusion_.prior(log_prior)
        answers = {TIER_1: Answers.free(prior), HYBRID: hybrid(self.clf, images)}
        if self.args.rival:
            network, cascade = self.rival
            asked = answers[HYBRID].evaluations > 0
            posterior = cascade(prior, log_prior, network.predict_log_proba(images), asked)
            answers[RIVAL] = Answers(posterior, asked.astype(int), asked.astype(int))
        return answers

    # --- clean images ---

    def clean(self) -> dict[str, Any]:
        """Every method's summary, and the differences that are claimed."""
        images, y, m = self.test.pixels, self.test.y, self.args.images
        answers = self.cheap(images)
        pictures.gallery(images, y, self.test.classes, answers[TIER_1], answers[HYBRID]).savefig(
            RESULTS / "gallery.png"
        )
        errors = recorded(self.clf, images[:m], N_TRIALS, self.args.work / "errors")
        log_prior, blind = self.log_prior(images[:m]), np.full((m, len(self.test.classes)), 0.0)
        some = {name: answer[:m] for name, answer in answers.items()} | {
            "tier 2, 256 trials": replay(errors, blind, FixedTrials(EXHAUSTIVE), self.clf.fusion_),
            "hybrid, 256 trials": replay(errors, log_prior, FixedTrials(EXHAUSTIVE), self.clf.fusion_),
            "Staged, the paper's": replay(errors, blind, STAGED, Fusion()),
            "PairedTTest": replay(errors, blind, PairedTTest(max_trials=N_TRIALS), Fusion()),
        }
        right = {name: answer.right(y[:m]) for name, answer in some.items()}
        return {
            "all": {name: answer.summary(y) for name, answer in answers.items()},
            "some": {name: answer.summary(y[:m]) for name, answer in some.items()},
            "hybrid_minus": _minus(answers, y),
            "some_hybrid_minus": {
                name: spread(accuracy_difference(right[HYBRID], r)) for name, r in right.items() if name != HYBRID
            },
            "cost": self.cost(),
        }

    def cost(self) -> dict[str, float]:
        """Times per image over tier 1's, and FLOPs: of the hybrid as it runs, and of one row under all classes."""
        images = self.test.pixels[:TIMED_IMAGES]
        self.clf.set_params(verbose=False)
        calls = {TIER_1: partial(self.log_prior, images), HYBRID: partial(self.clf.decide, images)}
        calls["row"] = partial(record, self.clf, images, 4)
        if self.args.rival:
            calls[RIVAL] = partial(self.rival[0].predict_log_proba, images)
        seconds = dict(zip(calls, medians(*calls.values(), repeats=5), strict=True))
        seconds["row"] /= 4
        spent = {name: flops(call) / len(images) / (4 if name == "row" else 1) for name, call in calls.items()}
        self.clf.set_params(verbose=True)
        return {f"{name}, time over tier 1's": s / seconds[TIER_1] for name, s in seconds.items()} | {
            f"{name}, FLOPs": f for name, f in spent.items()
        }

    # --- shifted images ---

    def shifted(self) -> dict[str, Any]:
        """Every method on every corruption, by name and severity; "clean" stands beside them."""
        conditions = [("clean", 0)] + [(name, s) for names in FAMILIES.values() for name in names for s in SEVERITIES]
        report: dict[str, Any] = {}
        for name, severity in tqdm(conditions, desc="corruptions", unit="condition"):
            path = self.args.work / f"shift-{name}-{severity}{'-rival' * self.args.rival}.json"
            if not path.exists():
                path.write_text(json.dumps(self.condition(name, severity)) + "\n", encoding="utf-8")
            report.setdefault(name, {})[severity] = json.loads(path.read_text(encoding="utf-8"))
        return report

    def condition(self, name: str, severity: int) -> dict[str, Any]:
        """Summaries under one corruption, and what re-ranking was worth."""
        images, y = self.test.pixels[:SHIFTED_IMAGES], self.test.y[:SHIFTED_IMAGES]
        if severity:
            images = corrupted(images, name, severity)
        answers = self.cheap(images)
        errors = record(self.clf, images, SHIFTED_TRIALS)
        blind = np.zeros((len(y), len(self.test.classes)))
        answers[TIER_2] = replay(errors, blind, FixedTrials(SHIFTED_TRIALS), self.clf.fusion_)
        return {"methods": {n: a.summary(y) for n, a in answers.items()}, "hybrid_minus": _minus(answers, y)}


def _minus(answers: dict[str, Answers], y: np.ndarray) -> dict[str, list[float]]:
    """The hybrid's accuracy minus every other's, with paired intervals."""
    right = answers[HYBRID].right(y)
    return {n: spread(accuracy_difference(right, a.right(y))) for n, a in answers.items() if n != HYBRID}


def robustness(shifted: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By method: accuracy on clean images and its mean under all corruptions, on the same images."""
    (clean,) = shifted["clean"].values()
    corrupt = [c for name, by_severity in shifted.items() if name != "clean" for c in by_severity.values()]
    return {
        name: {
            "clean": clean["methods"][name]["accuracy"][0],
            "shifted": float(np.mean([c["methods"][name]["accuracy"][0] for c in corrupt])),
            "ece": float(np.mean([c["methods"][name]["ece"] for c in corrupt])),
        }
        for name in clean["methods"]
    }


def main() -> None:
    """Measure, write, print."""
    args = _arguments()
    RESULTS.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(args)
    report = {"model": str(args.model), "machine": machine(torch.device("cpu")), "clean": benchmark.clean()}
    report["shifted"] = benchmark.shifted()
    report["robustness"] = robustness(report["shifted"])
    (RESULTS / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    pictures.shift(json.loads(json.dumps(report["shifted"]))).savefig(RESULTS / "shift.png")
    show(report)


def show(report: dict[str, Any]) -> None:
    """The tables, in Markdown."""
    for part in ("all", "some"):
        print("\n| method | images | accuracy, % (95 %) | ECE | evaluations | rows |\n|---|---|---|---|---|---|")
        for name, s in report["clean"][part].items():
            value, low, high = (100 * v for v in s["accuracy"])
            cells = f"{value:.2f} ({low:.2f}-{high:.2f}) | {s['ece']:.3f} | {s['evaluations']:.1f} | {s['rows']:.2f}"
            print(f"| {name} | {s['n']} | {cells} |")
    print("\n| hybrid minus | points (95 %) |\n|---|---|")
    for part in ("hybrid_minus", "some_hybrid_minus"):
        for name, difference in report["clean"][part].items():
            print("| {} | {:.2f} ({:.2f} to {:.2f}) |".format(name, *(100 * v for v in difference)))
    print("\n| what | |\n|---|---|")
    for name, value in report["clean"]["cost"].items():
        print(f"| {name} | {value:.4g} |")
    print("\n| method | clean, % | shifted, % | ECE shifted |\n|---|---|---|---|")
    for name, r in report["robustness"].items():
        print(f"| {name} | {100 * r['clean']:.1f} | {100 * r['shifted']:.1f} | {r['ece']:.3f} |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="cifar10")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("cifar10-work"))
    parser.add_argument("--images", type=int, default=2000, help="test images for the expensive methods")
    parser.add_argument("--rival", action="store_true")
    parser.add_argument("--minutes", type=float, default=60.0, help="that the pair was trained for")
    return parser.parse_args()


if __name__ == "__main__":
    main()
