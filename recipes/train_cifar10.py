"""Make the embedded pair for photographs anew: `python -m recipes.train_cifar10 cifar10-train.parquet WORK`.

WORK gets the pair, or goes on with its training. Tier 1 is trained on the images that the embedded pair was trained
on, and copies of these, for `--minutes`. Tier 2 stays as it is, or is trained anew for `--tier-2-minutes`; that is for
a GPU (`--device cuda`). Weights are rounded, the fusion is fitted anew on as many of the other images as before, and
both tiers are measured on 500 more. WORK without `training/loss.png` is what `hybridclf/pretrained/cifar10` holds,
beside its card.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.cifar.training_images import training_images
from hybridclf import HybridClassifier
from hybridclf.data.holding_out import pack
from hybridclf.devices import has_bf16
from hybridclf.pair_training.finish import finish
from hybridclf.pair_training.networks import new_trainable, same_unet
from hybridclf.pair_training.provenance import versions
from hybridclf.pair_training.recipe import PATIENCE, denoiser_job, proposer_job
from hybridclf.pair_training.run import TrainingRun
from hybridclf.pair_training.tier_1 import NetworkTier1
from hybridclf.pair_training.tier_1_time import Share
from hybridclf.pair_training.time_budget import TimeBudget
from hybridclf.pair_training.training_data import TrainingData
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
        weights.copy_(torch.from_numpy(rounded(weights.detach().cpu().numpy(), BITS)))


def new_tier_2(run: TrainingRun, data: TrainingData, minutes: float) -> nn.Module:
    """A U-Net like the embedded one, trained anew until its held-out loss no longer falls or the time is over."""
    job = denoiser_job(data, same_unet(data, run.log["settings"]["network"]))
    return run.train(job.name, job.trainer, 60 * minutes, job.held_out, True, job.loss, PATIENCE)


def embedded_tier_2(run: TrainingRun, folder: Path, before: dict[str, Any]) -> Any:
    """The embedded pair's tier 2, whose training goes into the log."""
    for name in ("configs", "n_steps", "losses"):
        run.log[name]["denoiser"] = before[name]["denoiser"]
    return HybridClassifier.load(folder).denoiser_


def main() -> None:
    """Train, fit the fusion, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=65.0, help="of tier 1's training")
    parser.add_argument("--tier-2-minutes", type=float, help="of tier 2's; default: it stays as it is")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args()
    folder = model_folder("cifar10")
    before = json.loads((folder / "training" / "log.json").read_text(encoding="utf-8"))
    data, fusion = training_images(args.source, folder, args.device)
    # more of those held out are for the fusion
    data = replace(data, settings=replace(data.settings, proposer=PROPOSER), fit_on=fusion)
    trainable = new_trainable(data, PROPOSER)
    tier_1 = NetworkTier1(trainable, proposer_job(data, trainable.network))
    earlier = before["settings"]
    own = {"minutes": args.minutes, "device": args.device, "bf16": has_bf16(data.device), "compiles": False}
    settings = earlier | asdict(data.settings) | own
    if args.tier_2_minutes is None:  # how it was trained stays beside how tier 1 is
        settings["tier_2"] = earlier.get("tier_2", {name: earlier[name] for name in own})
    else:
        settings["tier_2"] = own | {"minutes": args.tier_2_minutes}
    if (args.work / "training").exists():
        run = TrainingRun.resume(args.work, settings)
    else:
        known = {"trained_on": pack(data.digests), "recipe": versions(), "unreadable": []}
        run = TrainingRun.start(args.work, settings, **known)
    tier_1.train(run, Share(60 * args.minutes, 60 * args.minutes), progress=True)
    if args.tier_2_minutes is None:
        tier_2 = embedded_tier_2(run, folder, before)
        network = tier_2.network
        data = replace(data, mean=tier_2.mean, scale=tier_2.scale)  # of the images that it was trained on
    else:
        network = new_tier_2(run, data, args.tier_2_minutes)
    for one in (tier_1.network, network):
        round_weights(one)
    finish(run, data, tier_1, network, TimeBudget(600.0, {}), "", progress=True)


if __name__ == "__main__":
    main()
