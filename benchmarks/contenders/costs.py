"""Costs of the contenders of a training set: minutes and FLOPs of their training, and FLOPs of their answers."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from timing import flops

from hybridclf import HybridClassifier
from hybridclf.pair_training.networks import new_trainable, same_unet
from hybridclf.pair_training.recipe import (
    TUNING_BATCH,
    Job,
    classifier_job,
    denoiser_job,
    fine_tuning_job,
    proposer_job,
)
from hybridclf.pair_training.tier_1 import choose
from hybridclf.pair_training.training_data import TrainingData
from hybridclf.proposer import aligned_log_proba

from .rival import unsure
from .training import Contenders, alone

__all__ = ["costs", "pretrained_flops", "training_flops"]

COUNTED = 32
"""Images that the FLOPs of answers are counted on."""

Cost = dict[str, float]


def costs(contenders: Contenders, pixels: np.ndarray, photos: np.ndarray | None) -> dict[str, Cost]:
    """Count what each method costs; images as for `Contenders.answers`.

    Returns
    -------
    dict
        By method "minutes" of its training, "training flops" of all its networks' training, and "flops" per image of
        its answers. Training FLOPs are those of the steps, and of a pretrained network's features of all training
        images. Held-out images, the fits of the fusion and of a linear classifier, and the training of a pair that
        was started from are left out. The rival's FLOPs are those of the cascade: tier 1 on all images, and the rival
        on those that it is asked about. Its minutes are both tiers', the most that it may take.
    """
    found = _beside_each_other(contenders, pixels[:COUNTED])
    if contenders.behind is not None and photos is not None:
        found |= _behind_features(contenders, contenders.behind, photos[:COUNTED])
    return found


def _beside_each_other(contenders: Contenders, pixels: np.ndarray) -> dict[str, Cost]:
    """Costs of the pair, of its tiers and of the rival."""
    clf, (rival, _), data = contenders.pair, contenders.rival, contenders.data
    log, rival_log, n = contenders.log("pair"), contenders.log("rival"), len(data.y)
    spent, second = log["seconds"], _tier_2_flops(data, log)
    first = training_flops(proposer_job(data, new_trainable(data, data.settings.proposer).network), log, n)
    job = classifier_job("rival", 0.0, data, new_trainable(data, rival_log["spec"]).network)
    both = first + training_flops(job, rival_log, n)

    def cascade() -> None:
        prior = clf.fusion_.prior(aligned_log_proba(clf.proposer_, pixels, clf.classes_))
        if (asked := unsure(prior)).any():
            rival.predict_log_proba(pixels[asked])

    return {
        "tier 1": _cost(spent["tier_1"], first, lambda: clf.proposer_.predict_log_proba(pixels), pixels),
        "tier 2": _cost(spent["tier_2"], second, lambda: alone(clf, pixels), pixels),
        "hybrid": _cost(sum(spent.values()), first + second, lambda: clf.decide(pixels), pixels),
        "rival": _cost(spent["tier_1"] + spent["tier_2"], both, cascade, pixels),
    }


def _behind_features(contenders: Contenders, clf: HybridClassifier, photos: np.ndarray) -> dict[str, Cost]:
    """Costs of the classifier of a pretrained network's features, and of the pair behind it."""
    log = contenders.log("features")
    spent, first = log["seconds"], pretrained_flops(contenders.data, log, photos.shape[1])
    both = first + _tier_2_flops(contenders.data, log)
    return {
        "features": _cost(spent["tier_1"], first, lambda: clf.proposer_.predict_log_proba(photos), photos),
        "features, hybrid": _cost(sum(spent.values()), both, lambda: clf.decide(photos), photos),
    }


def _cost(seconds: float, training: float, answer: Callable[[], Any], images: np.ndarray) -> Cost:
    return {"minutes": seconds / 60, "training flops": training, "flops": flops(answer) / len(images)}


def _tier_2_flops(data: TrainingData, log: Mapping[str, Any]) -> int:
    """FLOPs of the training of a pair's tier 2."""
    return training_flops(denoiser_job(data, same_unet(data, log["settings"]["network"])), log, len(data.y))


def pretrained_flops(data: TrainingData, log: Mapping[str, Any], side: int) -> float:
    """FLOPs of the features of all training images, and of fine-tuning if there was any.

    They are counted on black images `[n, side, side, 3]`, as those of others are the same.
    """
    y = data.y[:TUNING_BATCH]
    black = np.zeros((len(y), side, side, 3), np.uint8)
    model = choose(log["settings"]["proposer"], 0, str(data.device)).model
    features = flops(lambda: model.features(black)) / len(black) * len(data.y)
    if "proposer" not in log["losses"]:
        return features
    n_classes = len(data.classes)
    tunable = model.with_head(
        np.zeros((n_classes, log["head"]["n_features"])), np.zeros(n_classes), data.classes.tolist()
    )
    job = fine_tuning_job(replace(data, photos=black, y=y), tunable)
    return features + training_flops(job, log, len(data.y))


def training_flops(job: Job, log: Mapping[str, Any], n: int) -> int:
    """Count the FLOPs of a network's training, forward, backward and of the optimiser.

    They are those of one step, of a batch of the mean size, times the steps.

    Parameters
    ----------
    job : Job
        Training of such a network on at least a batch of the images, not compiled; a step of it is taken.
    log : mapping
        Log of the training.
    n : int
        Number of training images.
    """
    config, n_steps = log["configs"][job.name], log["losses"][job.name][-1]["step"]
    # the last batch of a pass is smaller, and left out if the network was compiled
    mean = config["batch_size"] if config["compiled"] else round(n / math.ceil(n / config["batch_size"]))
    trainer = job.trainer
    trainer.config, trainer.n_steps = replace(trainer.config, batch_size=mean), 1
    return n_steps * flops(lambda: next(trainer.run()))
