"""End of a training: the fusion is fitted, the pair measured, and the folder completed."""

import shutil
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..atomic import sync_folder, sync_tree
from ..data.holding_out import digests, pack
from ..errors import MissingDependencyError
from ..estimator import HybridClassifier
from ..fitting.validation import class_numbers
from ..models import LateConditionedDenoiser
from ..proposer import aligned_log_proba
from ..reranking.allocation import Race
from ..reranking.fusion import Fusion
from .checkpoint import writing
from .loss_plot import plot_losses
from .planning import use_held_out
from .result import advice, cut_short, guessing, measure
from .run import TrainingRun
from .tier_1 import NetworkTier1, Tier1
from .time_budget import RACE_TRIALS, TimeBudget
from .training_data import TrainingData

__all__ = ["RACE", "TOP_K", "finish", "publish"]

TEMPERED = 2000
"""Most images for the temperature of a tier 1 that answers alone, a new network."""

TOP_K, RACE = 5, Race(confidence=0.95, max_trials=RACE_TRIALS)
"""Number of candidates and allocation with which a pair is saved.

With an earlier tier 1, of 2,000 held-out images of CIFAR-10 99.2 % had their class among the five. With a fusion
fitted on a quarter of them, accuracy on the others was 89.3 %, with 16 trials at most 89.4 %, and with 64 trials of
all ten classes 89.0 %. The cost per image was 4.1, 12.1 and 640 evaluations, or 1.2, 3.8 and 64 rows.
"""


def finish(
    run: TrainingRun,
    data: TrainingData,
    tier_1: Tier1,
    network: nn.Module,
    budget: TimeBudget,
    too_short: str,
    progress: bool,
) -> None:
    """Fit the fusion, measure and save the pair.

    Parameters
    ----------
    run, data, tier_1, network, budget
        The training, its images, both tiers, and the time.
    too_short : str
        Sentence on a time that was too short, or "".
    progress : bool
        Show progress bars.
    """
    # saved beside the checkpoints first, so that `out` never holds half a model
    folder = run.folder / "model"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        usage = use_held_out(run, budget, data, network)
        with budget.spending("finishing"):
            with writing(folder):
                folder.mkdir()
                proposer = tier_1.save(folder / "proposer")
            clf = _calibrated(proposer, network, data, usage.n_fusion, progress)
            run.log["validation"] = measure(clf, data, usage)
            fitted_on = data.fit_on
            if clf.calibration_ is not None and not clf.fusion_.pays:
                fitted_on = _for_temperature(data, TEMPERED if isinstance(tier_1, NetworkTier1) else 0)
                clf.fusion_ = _tempered(clf, data, fitted_on)
                clf.calibration_ = replace(clf.calibration_, fusion=clf.fusion_)
            run.log["fitted_on"] = pack(digests(data.held_out_photos[fitted_on]))
        if clf.worth_ is not None:
            run.log["worth"] = asdict(clf.worth_) | {"sentence": str(clf.worth_)}
        sentences = cut_short(run.log), guessing(run.log["validation"], data), advice(clf, too_short)
        run.log["advice"] = " ".join(filter(None, sentences))
        with writing(folder):
            clf.set_params(device="auto", verbose=False).save(folder)
        run.write()
        with writing(run.folder), suppress(MissingDependencyError):  # matplotlib is an extra
            plot_losses(run.log["losses"]).savefig(run.folder / "loss.png")
        publish(folder, run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, run: TrainingRun) -> None:
    """Move a saved model to its final folder, and remove the checkpoints."""
    with writing(run.out):
        sync_tree(folder)
        # model.json last, as its presence says that the model is complete; everything before it is on the disk by then
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "model.json"):
            if path.name == "model.json":
                sync_folder(run.out)
            target = run.out / path.name
            if target.is_dir():  # left by an earlier attempt, interrupted here
                shutil.rmtree(target)
            path.replace(target)
        sync_folder(run.out)
        for path in run.folder.glob("*.safetensors"):
            path.unlink()


def _calibrated(proposer: Any, network: Any, data: TrainingData, n_images: int, progress: bool) -> HybridClassifier:
    """Join the two tiers to a classifier, its fusion fitted on some of the held-out images."""
    # rounded to float16 as in the saved file, so that the fusion fits the weights that will be loaded
    network = network.to(memory_format=torch.contiguous_format).half().float()
    denoiser = LateConditionedDenoiser(
        network,
        data.classes,
        data.mean,
        data.scale,
        device=data.device,
        mirror=data.mirror,
        shrink=data.shrink,
        mixed=True,
    )
    clf = HybridClassifier(
        proposer,
        denoiser,
        top_k=TOP_K,
        allocation=RACE,
        device=str(data.device),
        verbose=progress,
        random_state=data.settings.seed,
    )
    chosen = data.fit_on[:n_images]
    return clf.fit(*data.some_held_out(chosen), groups=data.held_out_groups[chosen])


def _for_temperature(data: TrainingData, most: int) -> np.ndarray:
    """Choose held-out images for the temperature of a tier 1 that answers alone, and return their positions.

    They are all images that are there for the fusion, and more up to so many. Those that the result was measured on are
    among them, since a temperature changes no answer.
    """
    others = np.setdiff1d(np.arange(len(data.held_out_photos)), np.union1d(data.fit_on, data.measure_on))
    more = np.concatenate([data.measure_on, others])[: max(0, most - len(data.fit_on))]
    return np.concatenate([data.fit_on, more])


def _tempered(clf: HybridClassifier, data: TrainingData, chosen: np.ndarray) -> Fusion:
    """Fit the temperature of a tier 1 that answers alone on held-out images at some positions."""
    images, labels = data.some_held_out(chosen)
    log_prior = aligned_log_proba(clf.proposer_, images, clf.classes_)
    return clf.fusion_.tempered(log_prior, class_numbers(labels, clf.classes_))
