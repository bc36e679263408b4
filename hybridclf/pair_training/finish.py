"""End of a training: the fusion is fitted, the pair measured, and the folder completed."""

import shutil
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..atomic import sync_folder, sync_tree
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
from .result import advice, measure
from .run import TrainingRun
from .tier_1 import Tier1
from .time_budget import RACE_TRIALS, TimeBudget
from .training_data import TrainingData

__all__ = ["RACE", "TOP_K", "finish", "publish"]

TEMPERED, AT_ONCE, TEMPERING_SHARE = 2000, 250, 0.03
"""Most images for the temperature of a tier 1 that answers alone, images per call, and share of the time."""

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
            if clf.calibration_ is not None and not clf.fusion_.pays:
                clf.fusion_ = _tempered(clf, data, TEMPERING_SHARE * 60 * budget.minutes)
                clf.calibration_ = replace(clf.calibration_, fusion=clf.fusion_)
        if clf.worth_ is not None:
            run.log["worth"] = asdict(clf.worth_) | {"sentence": str(clf.worth_)}
        run.log["advice"] = advice(clf, too_short)
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
        network, data.classes, data.mean, data.scale, device=data.device, mirror=data.mirror, shrink=data.shrink
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
    return clf.fit(*data.some_held_out(data.fit_on[:n_images]))


def _tempered(clf: HybridClassifier, data: TrainingData, seconds: float) -> Fusion:
    """Fit the temperature of a tier 1 that answers alone on as many held-out images as it answers in that time.

    These are at least all that are there for the fusion. Those that the result was measured on may be among them, since
    a temperature changes no answer.
    """
    end = time.monotonic() + seconds
    others = np.setdiff1d(np.arange(len(data.held_out_photos)), np.union1d(data.fit_on, data.measure_on))
    more = np.concatenate([data.measure_on, others])[: max(0, TEMPERED - len(data.fit_on))]
    log_prior: list[np.ndarray] = []
    y: list[np.ndarray] = []
    for chosen in (data.fit_on, *(more[i : i + AT_ONCE] for i in range(0, len(more), AT_ONCE))):
        if log_prior and time.monotonic() > end:
            break
        images, labels = data.some_held_out(chosen)
        log_prior.append(aligned_log_proba(clf.proposer_, images, clf.classes_))
        y.append(class_numbers(labels, clf.classes_))
    return clf.fusion_.tempered(np.concatenate(log_prior), np.concatenate(y))
