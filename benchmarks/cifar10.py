"""Worth of the pair for natural images, on CIFAR-10's test images:

    python benchmarks/cifar10.py DATA WORK [--model cifar10] [--images 5000] [--trials 256] [--shifted 500]
        [--rival MINUTES] [--compile]

DATA holds cifar10-train.parquet and cifar10-test.parquet, in the layout of a Hugging Face image dataset. Two calls of
`hybridclf.evaluate`: on clean images, and on the first `--shifted` of them under 40 corruptions, in 64 trials. Fusions
and temperatures are fitted on images that were held out of the pair's training. Recordings are kept in WORK, from which
an interrupted run goes on. `--rival` also trains a bigger classifier for so many minutes, to put in
the second tier's place, and asks it wherever the hybrid is asked.

Writes `report.json`, `report.html` and `shift.png` into `benchmarks/results/cifar10`.
"""

import argparse
import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from cifar import pictures, rival
from figures.common import machine
from tqdm.auto import tqdm

from hybridclf import HybridClassifier, evaluate
from hybridclf.batch.output import fingerprint
from hybridclf.data.datasets import load_labelled
from hybridclf.devices import as_device
from hybridclf.evaluating import Report
from hybridclf.evaluating.corruptions import FAMILIES, SEVERITIES, corrupted
from hybridclf.evaluating.shifted import Shifted
from hybridclf.metrics import accuracy, accuracy_difference
from hybridclf.pair_training.checkpoint import save_json
from hybridclf.pair_training.recipe import worth_compiling
from hybridclf.pair_training.train_pair import stored_settings, trained_on
from hybridclf.pair_training.training_data import TrainingData
from hybridclf.pretrained.catalog import model_folder
from hybridclf.reranking.trials import INFORMATIVE_TRIALS

SHIFTED_TRIALS = INFORMATIVE_TRIALS
RESULTS = Path(__file__).parent / "results" / "cifar10"
CLEAN = "as given"


class Benchmark:
    """A pair, its rival, and test images.

    Parameters
    ----------
    args : Namespace
        Of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.folder = args, model_folder(args.model)
        self.clf = HybridClassifier.load(self.folder)
        if args.compile:
            self.clf.denoiser_.compile()
        self.test = load_labelled(args.data / "cifar10-test.parquet", 32, progress=True)
        self.labels = np.array(self.test.classes)[self.test.y]
        self.settings = stored_settings(json.loads((self.folder / "training" / "log.json").read_text(encoding="utf-8")))
        known = json.dumps([fingerprint(self.folder), args.compile]).encode() + self.test.pixels.tobytes()
        self.work = args.work / hashlib.sha256(known).hexdigest()[:12]  # of this pair and these images
        self.work.mkdir(parents=True, exist_ok=True)

    @cached_property
    def task(self) -> TrainingData:
        """The images that the pair was trained on, and those that were held out."""
        images = load_labelled(self.args.data / "cifar10-train.parquet", self.settings.image_size, progress=True)
        device = as_device("auto")
        compiles = self.args.rival is not None and worth_compiling(self.args.rival, device)
        return TrainingData.of(images, device, True, self.settings, compiles, trained_on(self.folder))

    @cached_property
    def fitted_on(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels to fit a fusion on, held out of the pair's training as those of its own were."""
        return self.task.some_held_out(self.task.fit_on)

    def evaluated(self, n: int, trials: int, name: str, **options: Any) -> Report:
        """The report on the first n test images, its recording in a folder of that name."""
        X, y, folder = self.test.pixels[:n], self.labels[:n], self.work / name
        return evaluate(
            self.clf, X, y, calibrate=self.fitted_on, trials=trials, folder=folder, progress=True, **options
        )

    def conditions(self) -> list[Shifted]:
        """The first test images under every corruption and severity."""
        images, y = self.test.pixels[: self.args.shifted], self.labels[: self.args.shifted]
        return [
            Shifted(f"{name} {severity}", corrupted(images, name, severity), y)
            for name in tqdm([name for names in FAMILIES.values() for name in names], desc="corrupt", unit="kind")
            for severity in SEVERITIES
        ]

    def rivalry(self, conditions: list[Shifted]) -> dict[str, Any]:
        """The rival's accuracy, the hybrid's and their difference, on clean images and under every corruption."""
        network = rival.trained(self.task, self.work / "rival", self.args.rival)
        X, labels = self.fitted_on
        log_proba, y = self.clf.proposer_.predict_log_proba, np.searchsorted(self.clf.classes_, labels)
        cascade = rival.Cascade(log_proba(X), network.predict_log_proba(X), y)
        n = self.args.images
        report: dict[str, Any] = {"seen": {"tier 2": rival.seen(self.folder, "denoiser")}}
        report["seen"]["rival"] = rival.seen(self.work / "rival", "rival")
        for own in tqdm([Shifted(CLEAN, self.test.pixels[:n], self.labels[:n]), *conditions], desc="rival"):
            posterior, results = self.clf.decide(own.images)
            asked = np.array([result.evaluations > 0 for result in results])
            first = log_proba(own.images)
            answers = cascade(self.clf.fusion_.prior(first), first, network.predict_log_proba(own.images), asked)
            right, mine = (self.clf.classes_[p.argmax(axis=1)] == own.y for p in (answers, posterior))
            parts = {
                "rival": accuracy(right),
                "hybrid": accuracy(mine),
                "hybrid minus": accuracy_difference(mine, right),
            }
            report[own.name] = {name: [i.value, i.low, i.high] for name, i in parts.items()}
        return report


def robustness(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By method: accuracy on clean images, and its mean and that of the calibration error under all corruptions."""
    report = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        report[method] = {
            "clean": next(row["accuracy"]["value"] for row in own if row["source"] == CLEAN),
            "shifted": float(np.mean([row["accuracy"]["value"] for row in own if row["source"] != CLEAN])),
            "ece": float(np.mean([row["calibration_error"] for row in own if row["source"] != CLEAN])),
        }
    return report


def main(arguments: list[str] | None = None) -> None:
    """Measure, write, print."""
    args = _parser().parse_args(arguments)
    benchmark = Benchmark(args)
    clean, conditions = benchmark.evaluated(args.images, args.trials, "clean"), benchmark.conditions()
    print(clean)
    shifted = benchmark.evaluated(args.shifted, SHIFTED_TRIALS, "under-shift", shifted=conditions)
    rows = shifted.to_dict()["shifts"]
    about = {"model": str(args.model), "machine": machine(benchmark.clf.denoiser_.device), "compiled": args.compile}
    report = about | {"clean": clean.to_dict(), "shifted": rows, "robustness": robustness(rows)}
    if args.rival is not None:
        report["rival"] = benchmark.rivalry(conditions)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "report.html").write_text(clean.to_html(), encoding="utf-8")
    save_json(RESULTS / "report.json", report)
    pictures.shift(rows).savefig(RESULTS / "shift.png")
    print("\n| method | clean, % | shifted, % | ECE, shifted |\n|---|---|---|---|")
    for name, r in report["robustness"].items():
        print(f"| {name} | {100 * r['clean']:.1f} | {100 * r['shifted']:.1f} | {r['ece']:.3f} |")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--model", default="cifar10", help="a saved pair, as hybridclf train leaves it")
    parser.add_argument("--images", type=int, default=5000, help="test images")
    parser.add_argument("--trials", type=int, default=256, help="of each clean image")
    parser.add_argument("--shifted", type=int, default=500, help="images under each corruption")
    parser.add_argument("--rival", type=float, metavar="MINUTES", help="train a rival as well, for so long")
    parser.add_argument("--compile", action="store_true", help="compile the denoiser")
    return parser


if __name__ == "__main__":
    main()
