"""The embedded pairs in bfloat16, as a processor that multiplies it natively computes by default, and in float32:

    python -m benchmarks.bfloat16 DATA [--images 2000] [--questions 20]

DATA holds cifar10-test.parquet. Both answer for the same test images with one thread, the captions' pair for questions
of two captions in 32 trials, and are timed in turns. Writes `benchmarks/results/bfloat16.json`, prints a table. The
pair for digits is left out: its network is an MLP in float64.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.figures.common import machine
from benchmarks.shapes.tasks import attribute_questions, swap_questions
from benchmarks.timing import ratio_range, timings
from hybridclf import FixedTrials, HybridClassifier
from hybridclf.data.datasets import load_labelled
from hybridclf.devices import as_device, inference_dtype
from hybridclf.metrics import accuracy, accuracy_difference
from hybridclf.pair_training.checkpoint import save_json

RESULTS = Path(__file__).parent / "results" / "bfloat16.json"
TRIALS, TURNS, TIMED, SEED = 32, 5, 64, 3 * 10**6


def compared(posteriors: list[np.ndarray], right: np.ndarray) -> dict[str, Any]:
    """Figures of two posteriors `[n, C]` of the same images, bfloat16 first, with the columns `[n]` that are right."""
    low, full = (p.argmax(axis=1) for p in posteriors)
    difference = np.abs(posteriors[0] - posteriors[1])
    gain = accuracy_difference(low == right, full == right)
    return {
        "n": len(right),
        "same": int((low == full).sum()),
        "bfloat16": accuracy(low == right).value,
        "float32": accuracy(full == right).value,
        "difference": [gain.value, gain.low, gain.high],
        "posteriors differ": {"mean": float(difference.mean()), "most": float(difference.max())},
    }


def timed(answer: Callable[[Any], Any], pairs: Sequence[Any]) -> dict[str, Any]:
    """Time of float32 over that of bfloat16: the median of the turns, the least and the most."""
    low, full = timings(*(partial(answer, one) for one in pairs), repeats=TURNS).T
    median, (least, most) = ratio_range(full, low)
    return {"times as fast": [median, least, most]}


def photographs(data: Path, n: int) -> dict[str, Any]:
    """The pair for photographs on test images of CIFAR-10."""
    test = load_labelled(data / "cifar10-test.parquet", 32)
    pairs = [HybridClassifier.from_pretrained("cifar10", dtype=dtype) for dtype in (None, "float32")]
    images, right = test.pixels[:n], np.searchsorted(pairs[0].classes_, np.array(test.classes)[test.y[:n]])
    found = compared([clf.predict_proba(images) for clf in pairs], right)
    return found | timed(lambda clf: clf.predict_proba(images[:TIMED]), pairs)


def captions(n: int) -> dict[str, dict[str, Any]]:
    """The pair for captions, by kind of question; the times are of one kind."""
    asked = attribute_questions(n, SEED, False) | swap_questions(n // 2, SEED, False)
    pairs = [HybridClassifier.from_pretrained("shapes", dtype=dtype) for dtype in (None, "float32")]
    stages = [clf.reranker(FixedTrials(TRIALS)) for clf in pairs]

    def posteriors(stage: Any, questions: Any) -> np.ndarray:
        results = stage.rerank(questions.pictures, [list(both) for both in questions.captions])
        return np.array([result.posterior for result in results])

    rows = {}
    for kind, questions in asked.items():
        rows[kind] = compared([posteriors(s, questions) for s in stages], np.zeros(len(questions.captions), dtype=int))
    speed = timed(lambda stage: posteriors(stage, asked["colours"]), stages)
    return {kind: row | (speed if kind == "colours" else {}) for kind, row in rows.items()}


def main(arguments: list[str] | None = None) -> None:
    """Ask, time, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--images", type=int, default=2000, help="test images")
    parser.add_argument("--questions", type=int, default=20, help="of each kind, about captions")
    args = parser.parse_args(arguments)
    device = as_device("cpu")
    if inference_dtype(device) != torch.bfloat16:
        raise SystemExit("this processor does not multiply bfloat16 natively: there is nothing to compare")
    torch.set_num_threads(1)
    rows = {"photographs": photographs(args.data, args.images)} | captions(args.questions)
    save_json(RESULTS, {"machine": machine(device), "rows": rows})
    print("\n| asked about | n | same answer | bfloat16, % | float32, % | times as fast |\n|---|---|---|---|---|---|")
    for name, row in rows.items():
        speed = "{:.2f} ({:.2f}-{:.2f})".format(*row["times as fast"]) if "times as fast" in row else ""
        percents = f"{100 * row['bfloat16']:.1f} | {100 * row['float32']:.1f}"
        print(f"| {name} | {row['n']} | {row['same']} | {percents} | {speed} |")


if __name__ == "__main__":
    main()
