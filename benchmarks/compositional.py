"""Compositional captions and the shapes pair: `python -m benchmarks.compositional WORK [FOLDER]` (an hour on one core).

Tier 1 (CLIP), tier 2 (diffusion) and both, same weights, same pictures, on scenes that training never saw, half of them
with combinations of a colour and a shape that it never saw: `hybridclf.evaluate` and its like for captions. Questions
and recordings are kept in WORK, from which an interrupted run goes on. Writes `benchmarks/results/compositional.json`
and a picture. Between captions all have `TRIALS` trials, and both a fusion that is fitted on other scenes. Among eighty
single things tier 2 has tier 1's first 20. The U-Net is compiled where that is possible.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.figures.common import colour_of, styled
from benchmarks.shapes.tasks import Questions, attribute_questions, single_questions, swap_questions
from hybridclf import HybridClassifier, evaluate
from hybridclf.devices import can_compile
from hybridclf.evaluating.captions import evaluate_captions, fit_caption_fusion
from hybridclf.reranking.fusion import Fusion

TRIALS = 32
TEST_SEED, CALIBRATION_SEED = 3 * 10**6, 2 * 10**6
METHODS = ("tier 1", "tier 2", "both")


def write_lines(questions: dict[str, Questions], folder: Path) -> Path:
    """Pictures and a file of captions; questions 2i and 2i + 1 that exchange their captions are one line."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    for kind, asked in questions.items():
        names = [f"{kind.replace(', ', '-')}-{i}.png" for i in range(len(asked.captions))]
        for name, picture in zip(names, asked.pictures, strict=True):
            Image.fromarray(picture).save(folder / name)
        if asked.captions[0] == asked.captions[1][::-1]:
            pairs = zip(names[::2], names[1::2], asked.captions[::2], strict=True)
            lines += [{"images": [a, b], "captions": list(both), "kind": kind} for a, b, both in pairs]
        else:
            rows = zip(names, asked.captions, strict=True)
            lines += [{"image": n, "caption": right, "wrong": wrong, "kind": kind} for n, (right, *wrong) in rows]
    path = folder / "captions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def calibrate(clf: HybridClassifier, n: int, work: Path) -> Fusion:
    """A fusion fitted on scenes that are used for nothing else."""
    asked = attribute_questions(n, CALIBRATION_SEED, False) | swap_questions(n // 2, CALIBRATION_SEED, False)
    source = write_lines(asked, work)
    return fit_caption_fusion(clf, source, trials=TRIALS, folder=work / "recording", progress=True)


def measure(clf: HybridClassifier, n: int, work: Path) -> dict[str, Any]:
    """Reports on all questions; each with familiar combinations of colour and shape, and with held-out ones."""
    fusion = calibrate(clf, n // 2, work / "calibration")
    options: dict[str, Any] = {"trials": TRIALS, "progress": True}
    report: dict[str, Any] = {}
    for scenes, seed in (("familiar", TEST_SEED), ("held-out", TEST_SEED + 1000)):
        own, held_out = report.setdefault(scenes, {}), scenes == "held-out"
        for name, questions in (("attributes", attribute_questions), ("swaps", swap_questions)):
            folder = work / scenes / name
            source = write_lines(questions(n, seed, held_out), folder)
            made = evaluate_captions(clf, source, calibrate=fusion, folder=folder / "recording", **options)
            own[name] = made.to_dict()
        (X, y), others = things(n // 2, seed, held_out), things(n // 2, CALIBRATION_SEED, held_out)
        recording = work / scenes / "single"
        singles = evaluate(clf, X, y, calibrate=others, folder=recording, **options)
        own["single"] = singles.to_dict()
    return {"trials": TRIALS, "questions": n} | report


def things(n: int, seed: int, held_out: bool) -> tuple[list[np.ndarray], list[str]]:
    """Pictures of single things with their phrases, n or at least 20."""
    asked = single_questions(max(n, 20), seed, held_out)
    return list(asked.pictures), [captions[0] for captions in asked.captions]


def rows_of(report: dict[str, Any], scenes: str) -> list[tuple[str, int, dict[str, dict[str, float]]]]:
    """Tasks with their number of lines and shares of right ones by method; "all" is all of attributes or of swaps."""
    rows = [
        (f"{name}: {row['kind']}, {row['score']}", row["n"], row["methods"])
        for name in ("attributes", "swaps")
        for row in report[scenes][name]["rows"]
    ]
    single = report[scenes]["single"]
    by_name = {method["method"]: method["accuracy"] for method in single["methods"]}
    hybrid = next(name for name in by_name if name.startswith("hybrid"))
    shares = dict(zip(METHODS, (by_name[n] for n in ("tier 1", list(by_name)[1], hybrid)), strict=True))
    return [("single thing, 80 classes", single["about"]["test_images"], shares), *rows]


@styled
def picture(report: dict[str, Any]) -> Figure:
    """A line per task, a point with its interval per method; panels for familiar and held-out combinations."""
    figure = Figure(figsize=(11, 8.5))
    panels = figure.subplots(1, 2, sharey=True)
    for panel, scenes in zip(panels, ("familiar", "held-out"), strict=True):
        rows = rows_of(report, scenes)
        for method, shift in zip(METHODS, (-0.22, 0, 0.22), strict=True):
            value, low, high = 100 * np.array([[r[2][method][k] for k in ("value", "low", "high")] for r in rows]).T
            at, colour = np.arange(len(rows)) + shift, colour_of(method.replace("both", "hybrid"))
            reach = np.abs([value - low, high - value])
            panel.errorbar(value, at, xerr=reach, fmt="o", markersize=4, elinewidth=1, color=colour, label=method)
        panel.set(xlim=(0, 102), xlabel="right, % (95 % interval)", title=f"{scenes} combinations of colour and shape")
        panel.set_yticks(np.arange(len(rows)), [f"{task}  (n = {n})" for task, n, _ in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
    said = report["familiar"]["swaps"]["verdict"]["sentence"]
    figure.suptitle(f"Two captions with words exchanged: {said}", x=0.01, ha="left")
    return figure


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("models/hybridclf_models/shapes"))
    parser.add_argument("--questions", type=int, default=200, help="of each kind")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    clf = HybridClassifier.load(args.folder)
    if can_compile(clf.denoiser_.device):
        clf.denoiser_.compile()
    report = measure(clf, args.questions, args.work)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "compositional.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    picture(report).savefig(args.out / "compositional.png")
    for scenes in ("familiar", "held-out"):
        for task, n, shares in rows_of(report, scenes):
            cells = (
                "{:.1f} ({:.1f}, {:.1f})".format(*(100 * shares[m][k] for k in ("value", "low", "high")))
                for m in METHODS
            )
            print(f"{scenes:9} {task:44} {n:4} " + " ".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    main()
