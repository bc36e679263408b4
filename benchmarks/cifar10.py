"""Worth of the pair for natural images, on CIFAR-10's test images:

    python benchmarks/cifar10.py DATA WORK [--model cifar10] [--images 5000] [--trials 256] [--shifted 500]
        [--compile]

DATA holds cifar10-train.parquet and cifar10-test.parquet, in the layout of a Hugging Face image dataset. Two calls of
`hybridclf.evaluate`: on clean images, and on the first `--shifted` of them under 40 corruptions, in 64 trials. Fusions
and temperatures are fitted on images that were held out of the pair's training. Recordings are kept in WORK, from which
an interrupted run goes on.

Writes `report.json`, `report.html` and `shift.png` into `benchmarks/results/cifar10`.
"""

import argparse
import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from cifar import pictures
from cifar.training_images import training_images
from figures.common import machine
from tqdm.auto import tqdm

from hybridclf import HybridClassifier, evaluate
from hybridclf.batch.output import fingerprint
from hybridclf.data.datasets import load_labelled
from hybridclf.evaluating import Report
from hybridclf.evaluating.corruptions import FAMILIES, SEVERITIES, corrupted
from hybridclf.evaluating.shifted import Shifted
from hybridclf.pair_training.checkpoint import save_json
from hybridclf.pretrained.catalog import model_folder
from hybridclf.reranking.trials import INFORMATIVE_TRIALS

SHIFTED_TRIALS = INFORMATIVE_TRIALS
RESULTS = Path(__file__).parent / "results" / "cifar10"
CLEAN = "as given"


class Benchmark:
    """A pair, and test images.

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
        known = json.dumps([fingerprint(self.folder), args.compile]).encode() + self.test.pixels.tobytes()
        self.work = args.work / hashlib.sha256(known).hexdigest()[:12]  # of this pair and these images
        self.work.mkdir(parents=True, exist_ok=True)

    @cached_property
    def fitted_on(self) -> tuple[np.ndarray, np.ndarray]:
        """The images that the pair's own fusion was fitted on, and their labels."""
        data, fusion = training_images(self.args.data / "cifar10-train.parquet", self.folder)
        return data.some_held_out(fusion)

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
    parser.add_argument("--compile", action="store_true", help="compile the denoiser")
    return parser


if __name__ == "__main__":
    main()
