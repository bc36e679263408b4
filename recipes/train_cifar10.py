"""Give the embedded pair for photographs a new tier 1: `python -m recipes.train_cifar10 cifar10-train.parquet WORK`.

WORK gets the pair, or goes on with its training. Tier 1 is trained on the images that the embedded pair was trained
on, and copies of these, for `--minutes`; tier 2 stays as it is. Weights are rounded, the fusion is fitted anew on as
many of the other images as before, and both tiers are measured on 500 more. WORK without `training/loss.png` is what
`hybridclf/pretrained/cifar10` holds, beside its card.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.cifar.training_images import training_images
from hybridclf import HybridClassifier
from hybridclf.data.holding_out import pack
from hybridclf.devices import has_bf16
from hybridclf.pair_training.finish import finish
from hybridclf.pair_training.networks import new_trainable
from hybridclf.pair_training.provenance import versions
from hybridclf.pair_training.recipe import proposer_job
from hybridclf.pair_training.run import TrainingRun
from hybridclf.pair_training.tier_1 import NetworkTier1
from hybridclf.pair_training.time_budget import TimeBudget
from hybridclf.pretrained.catalog import model_folder

from .round_weights import rounded

PROPOSER = "timm:convnet64"

BITS = 8
"""Significant bits of the weights, which compress to less in a wheel.

With its tier 2 rounded so, the pair before gave 1,000 test images the same classes; posteriors changed by 0.0002 in the
mean.
"""


@torch.no_grad()
def round_weights(network: nn.Module) -> None:
    """Round a network's weights in place to `BITS` significant bits."""
    for weights in network.parameters():
        weights.copy_(torch.from_numpy(rounded(weights.detach().numpy(), BITS)))


def main() -> None:
    """Train tier 1, fit the fusion, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=65.0, help="of tier 1's training")
    args = parser.parse_args()
    folder = model_folder("cifar10")
    before = json.loads((folder / "training" / "log.json").read_text(encoding="utf-8"))
    data, fusion = training_images(args.source, folder, "cpu")
    # more of those held out are for the fusion
    data = replace(data, settings=replace(data.settings, proposer=PROPOSER), fit_on=fusion)
    trainable = new_trainable(data, PROPOSER)
    tier_1 = NetworkTier1(trainable, proposer_job(data, trainable.network))
    earlier = before["settings"]
    own = {"minutes": args.minutes, "device": "cpu", "bf16": has_bf16(data.device), "compiles": False}
    # how tier 2 was trained stays beside how tier 1 is
    settings = earlier | asdict(data.settings) | own
    settings["tier_2"] = earlier.get("tier_2", {name: earlier[name] for name in own})
    if (args.work / "training").exists():
        run = TrainingRun.resume(args.work, settings)
    else:
        known = {"trained_on": pack(data.digests), "recipe": versions(), "unreadable": []}
        run = TrainingRun.start(args.work, settings, **known)
    tier_1.train(run, 60 * args.minutes, progress=True)
    for name in ("configs", "n_steps", "losses"):  # tier 2's are those of its own training
        run.log[name]["denoiser"] = before[name]["denoiser"]
    tier_2 = HybridClassifier.load(folder).denoiser_
    for network in (tier_1.network, tier_2.network):
        round_weights(network)
    data = replace(data, mean=tier_2.mean, scale=tier_2.scale)  # of the images that it was trained on
    finish(run, data, tier_1, tier_2.network, TimeBudget(600.0, {}), "", progress=True)


if __name__ == "__main__":
    main()
