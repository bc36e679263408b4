"""Worth of the pair for natural images, on CIFAR-10's test images:

    python benchmarks/cifar10.py DATA WORK [--model cifar10] [--images 2000] [--shifted 500] [--rival [MINUTES]]
        [--compile]

DATA holds cifar10-train.parquet and cifar10-test.parquet, in the layout of a Hugging Face image dataset; the figures in
`benchmarks/results/cifar10` are of 5,000 of the 10,000 test images, every second one of each class, which had gone
through JPEG. Everything that takes long is kept in WORK, from which an interrupted run goes on, and so is a gallery of
images that re-ranking fixed and broke. `--rival` also trains, for as long as the pair's second tier or for so many
minutes, a bigger classifier to put in its place, and asks it wherever the hybrid is asked.

Tier 1, the hybrid and the rival answer for all test images. The expensive methods answer for the first `--images`:
all of them are replayed from one recorded table of errors, so they see the same trials. Published methods have no
weights of trials and no prior; tier 2 and the hybrid with 256 trials have the pair's weights, and fusions of their
own, fitted on the images that the pair's was fitted on. On corrupted images, tier 2 alone has 16 trials.
"""

import argparse
import hashlib
import json
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from cifar import pictures, rival
from cifar.answers import Answers, hybrid, record, recorded, replay, spread, weights
from figures.common import machine
from timing import flops, medians
from tqdm.auto import tqdm

from hybridclf import FixedTrials, Fusion, HybridClassifier, PairedTTest, Staged
from hybridclf.batch.output import fingerprint
from hybridclf.data.datasets import load_labelled
from hybridclf.devices import as_device
from hybridclf.evaluating.corruptions import FAMILIES, SEVERITIES, corrupted
from hybridclf.fitting.calibration import fit_calibration
from hybridclf.fitting.recording import RECORDED_TRIALS
from hybridclf.fitting.recording import record as record_labelled
from hybridclf.metrics import accuracy_difference
from hybridclf.pair_training.checkpoint import save_json
from hybridclf.pair_training.recipe import TrainingData, worth_compiling
from hybridclf.pair_training.train_pair import stored_settings, trained_on
from hybridclf.pretrained.catalog import model_folder

STAGED = Staged.preset("cifar10")
EXHAUSTIVE, SHIFTED_TRIALS, TIMED_IMAGES, TIMED_TRIALS = 256, 16, 200, 4
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
        self.args, self.folder = args, model_folder(args.model)
        self.clf = HybridClassifier.load(self.folder).set_params(verbose=True)
        if args.compile:
            self.clf.denoiser_.compile()
        self.test = load_labelled(args.data / "cifar10-test.parquet", 32, progress=True)
        if list(self.test.classes) != self.clf.classes_.tolist():
            raise SystemExit(f"the pair knows {self.clf.classes_.tolist()}, the images {list(self.test.classes)}")
        self.settings = stored_settings(json.loads((self.folder / "training" / "log.json").read_text(encoding="utf-8")))
        known = json.dumps([fingerprint(self.folder), args.compile]).encode() + self.test.pixels.tobytes()
        self.work = args.work / hashlib.sha256(known).hexdigest()[:12]  # of this pair and these images
        self.work.mkdir(parents=True, exist_ok=True)

    @property
    def has_rival(self) -> bool:
        """True if one is wanted."""
        return self.args.rival is not None

    @cached_property
    def task(self) -> TrainingData:
        """The images that the pair was trained on, and those that were held out."""
        images = load_labelled(self.args.data / "cifar10-train.parquet", self.settings.image_size, progress=True)
        device = as_device("auto")
        compiles = self.has_rival and worth_compiling(self.settings.minutes, device)
        return TrainingData.of(images, device, True, self.settings, compiles, trained_on(self.folder))

    @cached_property
    def fitted_on(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and class numbers to fit a fusion on, held out of the pair's training as those of its own were."""
        images, labels = self.task.some_held_out(self.task.fit_on)
        return images, np.searchsorted(self.clf.classes_, labels)

    @cached_property
    def rival(self) -> tuple[Any, rival.Cascade]:
        """The rival, and its fusion with tier 1."""
        network = rival.trained(self.task, self.work / "rival", self.args.rival or None)
        images, y = self.fitted_on
        return network, rival.Cascade(self.log_prior(images), network.predict_log_proba(images), y)

    @cached_property
    def fusions(self) -> dict[str, Fusion]:
        """For many trials in the even order, with tier 1's prior and without; the pair's own is for a race."""
        path = self.work / "fusions.json"
        if not path.exists():
            clf, (images, y) = self.clf, self.fitted_on
            options: dict[str, Any] = {"objective": clf.objective, "batch_size": clf.batch_size, "seed": 0}
            made = record_labelled(
                clf.denoiser_, images, clf.classes_, self.log_prior(images), y, progress=True, **options
            )
            none = {name: np.zeros_like(getattr(made, name)) for name in ("log_prior", "all_log_prior")}
            recordings = {TIER_2: replace(made, **none), HYBRID: made}
            allocation, weighting = FixedTrials(RECORDED_TRIALS), clf.calibration_.weighting
            fitted = {n: fit_calibration(r, allocation, None, weighting).fusion for n, r in recordings.items()}
            save_json(path, {name: asdict(fusion) for name, fusion in fitted.items()})
        return {name: Fusion(**saved) for name, saved in json.loads(path.read_text(encoding="utf-8")).items()}

    def log_prior(self, images: np.ndarray) -> np.ndarray:
        """Tier 1's log-probabilities `[n, C]`."""
        return self.clf.proposer_.predict_log_proba(images)

    def cheap(self, images: np.ndarray) -> dict[str, Answers]:
        """Tier 1, the hybrid and, if wanted, the rival, whose images count as rows."""
        log_prior = self.log_prior(images)
        prior = self.clf.fusion_.prior(log_prior)
        answers = {TIER_1: Answers.free(prior), HYBRID: hybrid(self.clf, images)}
        if self.has_rival:
            network, cascade = self.rival
            asked = answers[HYBRID].evaluations > 0
            posterior = cascade(prior, log_prior, network.predict_log_proba(images), asked)
            answers[RIVAL] = Answers(posterior, np.zeros(len(images), dtype=int), asked.astype(int))
        return answers

    def seen(self) -> dict[str, int]:
        """Images that tier 2 and the rival saw in training."""
        seen = {TIER_2: rival.seen(self.folder, "denoiser")}
        return seen | {RIVAL: rival.seen(self.work / "rival", "rival")} if self.has_rival else seen

    # --- clean images ---

    def clean(self) -> dict[str, Any]:
        """Every method's summary, and the hybrid's accuracy minus every other's."""
        images, y, m = self.test.pixels, self.test.y, self.args.images
        answers = self.cheap(images)
        pictures.gallery(images, y, self.test.classes, answers[TIER_1], answers[HYBRID]).savefig(
            self.work / "gallery.png"
        )
        some = {name: answer[:m] for name, answer in answers.items()} | self.expensive(images[:m])
        return {
            "all": {name: answer.summary(y) for name, answer in answers.items()},
            "some": {name: answer.summary(y[:m]) for name, answer in some.items()},
            "hybrid_minus": _minus(answers, y),
            "some_hybrid_minus": _minus(some, y[:m]),
            "cost": self.cost(answers[HYBRID].evaluations[:TIMED_IMAGES] > 0),
        }

    def expensive(self, images: np.ndarray) -> dict[str, Answers]:
        """The methods that look at every image for long."""
        errors = recorded(self.clf, images, STAGED.max_trials, self.work / "errors")
        weighted = errors[:, :EXHAUSTIVE] * weights(self.clf, STAGED.max_trials)[:EXHAUSTIVE]
        blind, exhaustive = np.zeros((len(images), errors.shape[2])), FixedTrials(EXHAUSTIVE)
        return {
            f"tier 2, {EXHAUSTIVE} trials": replay(weighted, blind, exhaustive, self.fusions[TIER_2]),
            f"hybrid, {EXHAUSTIVE} trials": replay(weighted, self.log_prior(images), exhaustive, self.fusions[HYBRID]),
            f"Staged {STAGED.keep}, {STAGED.trials}": replay(errors, blind, STAGED, Fusion()),
            "PairedTTest": replay(errors, blind, PairedTTest(max_trials=STAGED.max_trials), Fusion()),
        }

    def cost(self, asked: np.ndarray) -> dict[str, float]:
        """Times per image over tier 1's, and FLOPs: of whole calls, and of one row under all classes; not compiled."""
        images = self.test.pixels[:TIMED_IMAGES]
        self.clf.set_params(verbose=False)
        compiled, self.clf.denoiser_.compiled = self.clf.denoiser_.compiled, False
        calls = {TIER_1: partial(self.log_prior, images), HYBRID: partial(self.clf.decide, images)}
        calls["a row"] = partial(record, self.clf, images, TIMED_TRIALS)
        if self.has_rival:
            calls[RIVAL] = lambda: [self.log_prior(images), self.rival[0].predict_log_proba(images[asked])]
        seconds = dict(zip(calls, medians(*calls.values(), repeats=5), strict=True))
        spent = {name: flops(call) / len(images) for name, call in calls.items()}
        self.clf.denoiser_.compiled = compiled
        self.clf.set_params(verbose=True)
        parts = {name: TIMED_TRIALS if name == "a row" else 1 for name in calls}
        return {f"{n}, time over tier 1's": seconds[n] / parts[n] / seconds[TIER_1] for n in calls} | {
            f"{n}, FLOPs": spent[n] / parts[n] for n in calls
        }

    # --- shifted images ---

    def shifted(self) -> dict[str, Any]:
        """Every method on every corruption, by name and severity; "clean" stands beside them."""
        conditions = [("clean", 0)] + [(name, s) for names in FAMILIES.values() for name in names for s in SEVERITIES]
        report: dict[str, Any] = {}
        for name, severity in tqdm(conditions, desc="corruptions", unit="condition"):
            path = self.work / f"shifted-{name}-{severity}-{self.args.shifted}{'-rival' * self.has_rival}.json"
            if not path.exists():
                save_json(path, self.condition(name, severity))
            report.setdefault(name, {})[str(severity)] = json.loads(path.read_text(encoding="utf-8"))
        return report

    def condition(self, name: str, severity: int) -> dict[str, Any]:
        """Summaries under one corruption, and what re-ranking was worth."""
        images, y = self.test.pixels[: self.args.shifted], self.test.y[: self.args.shifted]
        if severity:
            images = corrupted(images, name, severity)
        answers, blind = self.cheap(images), np.zeros((len(y), len(self.test.classes)))
        errors = record(self.clf, images, SHIFTED_TRIALS) * weights(self.clf, SHIFTED_TRIALS)
        answers[TIER_2] = replay(errors, blind, FixedTrials(SHIFTED_TRIALS), self.fusions[TIER_2])
        return {"methods": {n: a.summary(y) for n, a in answers.items()}, "hybrid_minus": _minus(answers, y)}


def _minus(answers: dict[str, Answers], y: np.ndarray) -> dict[str, list[float]]:
    """The hybrid's accuracy minus every other's, with paired intervals."""
    right = answers[HYBRID].right(y)
    return {n: spread(accuracy_difference(right, a.right(y))) for n, a in answers.items() if n != HYBRID}


def robustness(shifted: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By method: accuracy on clean images, its mean under all corruptions of the same images, and calibration there."""
    (clean,) = shifted["clean"].values()
    corrupt = [c for name, by_severity in shifted.items() if name != "clean" for c in by_severity.values()]
    return {
        name: {
            "clean": clean["methods"][name]["accuracy"][0],
            "shifted": float(np.mean([c["methods"][name]["accuracy"][0] for c in corrupt])),
            "ece": float(np.mean([c["methods"][name]["ece"] for c in corrupt])),
            "evaluations": float(np.mean([c["methods"][name]["evaluations"] for c in corrupt])),
        }
        for name in clean["methods"]
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, write, print."""
    args = _parser().parse_args(arguments)
    RESULTS.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(args)
    on = machine(benchmark.clf.denoiser_.device)
    about = {"model": str(args.model), "machine": on, "compiled": args.compile}
    report = about | {"clean": benchmark.clean(), "shifted": benchmark.shifted(), "seen": benchmark.seen()}
    report["robustness"] = robustness(report["shifted"])
    save_json(RESULTS / "report.json", report)
    pictures.shift(report["shifted"]).savefig(RESULTS / "shift.png")
    pictures.frontier(report["clean"]["some"]).savefig(RESULTS / "cost.png")
    show(report)


def show(report: dict[str, Any]) -> None:
    """The tables, in Markdown."""
    for part in ("all", "some"):
        print("\n| method | images | accuracy, % (95 %) | ECE | evaluations | rows |\n|---|---|---|---|---|---|")
        for name, s in report["clean"][part].items():
            value, low, high = (100 * v for v in s["accuracy"])
            ece = "" if s["ece"] is None else f"{s['ece']:.3f}"
            cells = f"{value:.2f} ({low:.2f}-{high:.2f}) | {ece} | {s['evaluations']:.1f} | {s['rows']:.2f}"
            print(f"| {name} | {s['n']} | {cells} |")
    print("\n| hybrid minus | points (95 %) |\n|---|---|")
    for part in ("hybrid_minus", "some_hybrid_minus"):
        for name, difference in report["clean"][part].items():
            print("| {} | {:.2f} ({:.2f} to {:.2f}) |".format(name, *(100 * v for v in difference)))
    print("\n| what | |\n|---|---|")
    for name, value in report["clean"]["cost"].items():
        print(f"| {name} | {value:.4g} |")
    print("\n| method | clean, % | shifted, % | ECE, shifted | evaluations, shifted |\n|---|---|---|---|---|")
    for name, r in report["robustness"].items():
        print(
            f"| {name} | {100 * r['clean']:.1f} | {100 * r['shifted']:.1f} | {r['ece']:.3f} | {r['evaluations']:.1f} |"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--model", default="cifar10", help="a saved pair, as hybridclf train leaves it")
    parser.add_argument("--images", type=int, default=2000, help="test images for the expensive methods")
    parser.add_argument("--shifted", type=int, default=500, help="test images under each corruption")
    parser.add_argument("--rival", type=float, nargs="?", const=0.0, metavar="MINUTES", help="default: as tier 2's")
    parser.add_argument("--compile", action="store_true", help="tier 2, for many thousand rows")
    return parser


if __name__ == "__main__":
    main()
