"""Noise in the training of a new tier 1, and a stem that whitens less, alone and together (a quarter of an hour):

    python benchmarks/noise_in_training.py DATA [--network convnet16] [--steps 1400] [--images 1000]

DATA holds cifar10-train.parquet and cifar10-test.parquet. Every variant is one training of the same length with the
same seed, and answers for the same test images, as they are and corrupted. Writes `benchmarks/results/noise.json`,
prints a table. A variant that is there is not trained again.
"""

import argparse
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from hybridclf.data.datasets import load_labelled
from hybridclf.devices import as_device
from hybridclf.evaluating.corruptions import corrupted
from hybridclf.metrics import accuracy
from hybridclf.pair_training.checkpoint import save_json
from hybridclf.pair_training.networks import new_trainable
from hybridclf.pair_training.recipe import proposer_job
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.training_data import TrainingData

RESULTS = Path(__file__).parent / "results" / "noise.json"

VARIANTS = {
    "whitened as in the paper, no noise": (5e-4, 0.0),
    "whitened less": (5e-2, 0.0),
    "noise": (5e-4, 0.15),
    "both, as hybridclf train has it": (5e-2, 0.15),
}
"""Smallest variance in the stem, and standard deviation of the strongest noise."""

KINDS = (
    ("Gaussian noise", 1),
    ("Gaussian noise", 3),
    ("impulse noise", 3),
    ("Gaussian blur", 3),
    ("contrast", 3),
    ("JPEG", 3),
    ("fog", 3),
)


def trained(data: TrainingData, network: str, variant: str, n_steps: int) -> nn.Module:
    """Train a network in one variant of the recipe."""
    variance, most_noise = VARIANTS[variant]
    with (
        patch("hybridclf_adapters._timm_convnet.SMALLEST_VARIANCE", variance),
        patch("hybridclf.training.augmentation.MOST_NOISE", most_noise),
    ):
        trainer = proposer_job(data, new_trainable(data, f"timm:{network}").network).trainer
        trainer.n_steps = n_steps
        for _ in tqdm(trainer.run(), desc=variant, total=n_steps, unit="step"):
            pass
    return trainer.average


@torch.inference_mode()
def answers(network: nn.Module, data: TrainingData, pixels: np.ndarray) -> np.ndarray:
    """Class numbers `[n]` of images `[n, S, S, 3]`."""
    parts = torch.from_numpy(pixels).to(data.device).split(250)
    return torch.cat([network(data.encode(part)).argmax(dim=1) for part in parts]).cpu().numpy()


def main(arguments: list[str] | None = None) -> None:
    """Train, ask, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--network", default="convnet16", help="a new network, as hybridclf train --proposer timm:NAME")
    parser.add_argument("--steps", type=int, default=1400, help="of every training")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write")
    args = parser.parse_args(arguments)
    settings = PairSettings(proposer=f"timm:{args.network}")
    images = load_labelled(args.data / "cifar10-train.parquet", settings.image_size, progress=True)
    data = TrainingData.of(images, as_device("auto"), True, settings)
    test = load_labelled(args.data / "cifar10-test.parquet", settings.image_size, progress=True)
    asked = {"clean": test.pixels[: args.images]}
    asked |= {f"{name} {severity}": corrupted(asked["clean"], name, severity) for name, severity in KINDS}
    known: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    for variant in VARIANTS:
        key = f"{args.network}, {args.steps} steps: {variant}"
        if key not in known:
            network = trained(data, args.network, variant, args.steps)
            hits = {name: accuracy(answers(network, data, X) == test.y[: args.images]) for name, X in asked.items()}
            known[key] = {name: [i.value, i.low, i.high] for name, i in hits.items()}
            save_json(args.out, known)
    print(f"| training | {' | '.join(asked)} |\n{'|---' * (len(asked) + 1)}|")
    for key, row in known.items():
        print(f"| {key} | {' | '.join(f'{100 * row[name][0]:.1f}' for name in asked)} |")


if __name__ == "__main__":
    main()
