"""Shortcuts: whether a generative second tier avoids what its training images suggest (an hour of one core):

    python benchmarks/shortcuts.py DATA [--steps 400] [--longer 1600] [--images 1000]

DATA holds colourmnist10-train.parquet, in which a digit's colour tells its class in 95 % of the images, and
colourmnist10-test.parquet, in which colours are drawn at random. Trained are tier 1, tier 2 with the wrong-class term
in its loss, and tier 2 by denoising alone, for as many steps and for more: once each, on the same images, from the same
seed. All answer for the same test images; tier 2 has 16 trials of every class. That generative classifiers avoid
shortcuts is a claim of arXiv 2512.25034.

Writes `benchmarks/results/shortcuts.json`, prints a table. A variant that is there is not trained again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn
from tqdm.auto import tqdm

from hybridclf import FixedTrials, Reranker
from hybridclf.data.datasets import load_labelled
from hybridclf.devices import as_device
from hybridclf.metrics import accuracy
from hybridclf.models import LateConditionedDenoiser
from hybridclf.pair_training.checkpoint import save_json
from hybridclf.pair_training.networks import new_trainable, new_unet
from hybridclf.pair_training.recipe import Job, denoiser_job, proposer_job
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.training_data import TrainingData

RESULTS = Path(__file__).parent / "results" / "shortcuts.json"
WIDTH, TRIALS = 16, 16


def trained(job: Job, name: str, n_steps: int) -> nn.Module:
    """Train a network for so many steps, and return its average."""
    job.trainer.n_steps = n_steps
    for _ in tqdm(job.trainer.run(), desc=name, total=n_steps, unit="step"):
        pass
    return job.trainer.average


@torch.inference_mode()
def answers_of_tier_1(network: nn.Module, data: TrainingData, pixels: np.ndarray) -> np.ndarray:
    """Class numbers `[n]` of images `[n, S, S, 3]`."""
    parts = torch.from_numpy(pixels).to(data.device).split(250)
    return torch.cat([network(data.encode(part)).argmax(dim=1) for part in parts]).cpu().numpy()


def answers_of_tier_2(network: Any, data: TrainingData, pixels: np.ndarray) -> np.ndarray:
    """Class numbers `[n]` of the lowest error over all trials."""
    classes = data.classes.tolist()
    denoiser = LateConditionedDenoiser(network, classes, data.mean, data.scale, device=data.device)
    results = Reranker(denoiser, allocation=FixedTrials(TRIALS)).rerank(pixels, [classes] * len(pixels))
    return np.stack([result.evidence.sum(axis=0) for result in results]).argmin(axis=1)


def summary(found: np.ndarray, y: np.ndarray, colours: np.ndarray) -> dict[str, list[float]]:
    """Accuracy with its interval: in all, where the colour is the class's own, where it is another's, and worst class.

    The worst class is that of the lowest accuracy where the colour is another's.
    """
    right, misled = found == y, colours != y
    by_class = [right[misled & (y == label)] for label in np.unique(y[misled])]
    parts = {
        "all": right,
        "own colour": right[~misled],
        "another's colour": right[misled],
        "worst class": min(by_class, key=np.mean),
    }
    return {name: [(one := accuracy(hits)).value, one.low, one.high] for name, hits in parts.items()}


def main(arguments: list[str] | None = None) -> None:
    """Train, ask, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--steps", type=int, default=400, help="of every training but the longer one")
    parser.add_argument("--longer", type=int, default=1600, help="of tier 2 by denoising alone, once more")
    parser.add_argument("--images", type=int, default=1000, help="test images of a set")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write")
    args = parser.parse_args(arguments)
    settings = PairSettings(image_size=32)
    images = load_labelled(args.data / "colourmnist10-train.parquet", 32, progress=True)
    data = TrainingData.of(images, as_device("auto"), False, settings)  # a mirrored digit is another one, or none
    generative = replace(data, settings=replace(settings, wrong_class_weight=0.0))
    jobs: dict[str, Any] = {
        f"tier 1, {args.steps} steps": lambda: proposer_job(data, new_trainable(data, "timm:convnet16").network),
        f"tier 2, {args.steps} steps": lambda: denoiser_job(data, new_unet(data, WIDTH)),
    }
    for steps in (args.steps, args.longer):
        jobs[f"tier 2 by denoising alone, {steps} steps"] = lambda: denoiser_job(generative, new_unet(data, WIDTH))
    path = args.data / "colourmnist10-test.parquet"
    test, colours = load_labelled(path, 32), pq.read_table(path)["colour"].to_numpy()
    known: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name, job in jobs.items():
        if name not in known:
            network = trained(job(), name, int(name.split()[-2]))
            answers = answers_of_tier_1 if name.startswith("tier 1") else answers_of_tier_2
            found = answers(network, data, test.pixels[: args.images])
            known[name] = summary(found, test.y[: args.images], colours[: args.images])
            save_json(args.out, known)
    parts = list(next(iter(known.values())))
    print(f"| training | {' | '.join(parts)} |\n{'|---' * (len(parts) + 1)}|")
    for name, row in known.items():
        print(f"| {name} | {' | '.join('{:.1f} ({:.0f}-{:.0f})'.format(*(100 * v for v in row[p])) for p in parts)} |")


if __name__ == "__main__":
    main()
