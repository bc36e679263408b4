"""Tier 1 of a pretrained network: a linear classifier on its features, fine-tuned if time allows."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DivergedError, TrainingError
from ..fitting.worth import FEWEST
from ..metrics import mean_interval
from ..ports import FeatureModel
from .checkpoint import load_tensors, save_tensors
from .features import features_of, seconds_per_image
from .linear_head import LinearHead, fit_linear_head
from .recipe import CHECKED, TUNING_BATCH, fine_tuning_job, tempered_losses
from .run import TrainingRun
from .tier_1_time import KEPT, MIN_PASSES, Share, most_time, time_share
from .time_budget import MIN_STEPS
from .training_data import TrainingData

__all__ = ["PretrainedTier1"]

MOST_PASSES = 30
"""Most passes over the images, if these are `MIN_STEPS` steps; so a small set leaves its time to tier 2."""

STEP_COST = 2.75
"""Time of an image in a step of fine-tuning, as a multiple of the time of its features, on one core.

For EfficientNet-Lite0 it is 2.75, for MobileNetV3 2.4, for ConvNeXt-Atto 2.2 and for ResNet-18 1.6.
"""

TUNING_CHECKS = 4
"""Checks of the held-out loss in fine-tuning, each of which takes as long as so many features."""

OWN_CHECKS = 3
"""Further ones: before the first step, and of both networks that are compared in the end."""


class PretrainedTier1:
    """Linear classifier on the features of a pretrained network, which is then trained further while there is time.

    Of both, the one with the lower log loss on held-out images is kept.

    Parameters
    ----------
    model : FeatureModel
        Pretrained network.
    data : TrainingData
        Images.
    """

    def __init__(self, model: FeatureModel, data: TrainingData) -> None:
        self.model, self.data = model, data

    def shortest(self) -> float:
        """Time of all features, by that of a few."""
        return seconds_per_image(self.model, self.data.photos) * len(self.data.photos)

    def seconds_per_answer(self, shortest: float) -> float:
        """Time of the features of an image, by that of all."""
        return shortest / len(self.data.photos)

    def share(self, both: float, shortest: float, fewest: float) -> Share:
        """Time of all features, and of fine-tuning if there is time for enough of it and images to judge it by."""
        enough = self._fine_tuned_in(shortest, MIN_PASSES)
        if enough > most_time(both, fewest) or self._n_judged < FEWEST:
            return Share(shortest, shortest)
        most = self._fine_tuned_in(shortest, MOST_PASSES)
        return Share(*(min(seconds, most) for seconds in time_share(both, enough, fewest)))

    @property
    def _n_judged(self) -> int:
        """Held-out images of different groups by which fine-tuning is judged."""
        return len(np.unique(self.data.held_out_groups[self.data.fit_on]))

    def _fine_tuned_in(self, shortest: float, passes: int) -> float:
        """Seconds of all features, of so many passes of fine-tuning and of its checks."""
        steps = STEP_COST * shortest * self._n_steps(passes) * TUNING_BATCH / len(self.data.photos)
        return shortest + self._checking(shortest) + steps

    def _n_steps(self, passes: int) -> int:
        """Steps of so many passes over the images, at least `MIN_STEPS`."""
        return max(MIN_STEPS, math.ceil(passes * len(self.data.photos) / TUNING_BATCH))

    def _checking(self, shortest: float) -> float:
        """Time of the checks of the held-out loss, by that of all features."""
        return (TUNING_CHECKS + OWN_CHECKS) * min(CHECKED, len(self.data.fit_on)) / len(self.data.photos) * shortest

    def train(self, run: TrainingRun, share: Share, progress: bool) -> None:
        """Compute the features, or read them where an earlier run left them, fit the classifier, and fine-tune."""
        features = self._features(run, progress)
        head = fit_linear_head(features, self.data.y.cpu().numpy(), self.data.groups, self.data.settings.seed)
        run.log["head"] = {"C": head.C, "n_features": features.shape[1]}
        self._use(head)
        run.write()  # counts the seconds that this took
        shortest = run.log["plan"]["shortest"]
        spent = run.log["seconds"]["tier_1"] + self._checking(shortest)
        if share.planned <= shortest:
            run.log["fine_tuning"] = {"kept": False, "sentence": self._why_not(run.log["plan"])}
            return
        if run.log.get("fine_tuning", {}).get("failed"):
            return
        if share.planned <= spent and "proposer" not in run.log["n_steps"]:
            sentence = "Tier 1 is not fine-tuned: its features took all of its time, longer than planned."
            run.log["fine_tuning"] = {"kept": False, "sentence": sentence}
            return
        try:
            self._fine_tune(run, Share(share.planned - spent, share.longest - spent), progress)
        except RuntimeError as error:  # such as a lack of memory
            if isinstance(error, TrainingError) and not isinstance(error, DivergedError):
                raise
            self._use(head)
            run.log["losses"].pop("proposer", None)  # those of a network that is not in the result
            sentence = f"Fine-tuning tier 1 failed: {error}. The linear classifier on frozen features is kept."
            run.log["fine_tuning"] = {"kept": False, "failed": True, "sentence": sentence}

    def _why_not(self, plan: Mapping[str, Any]) -> str:
        """Sentence on why there is no fine-tuning, and what would change that."""
        if self._n_judged < FEWEST:
            return (
                f"Tier 1 is not fine-tuned: {self._n_judged} held-out images of different groups do not tell whether "
                f"that helps; it takes {FEWEST}."
            )
        both = self._fine_tuned_in(plan["shortest"], MIN_PASSES) / (1 - KEPT)
        minutes = math.ceil((plan["reading"] + plan["finishing"] + both) / 60)
        return f"Tier 1 is not fine-tuned, for which there would have to be about {minutes} minutes here."

    def _use(self, head: LinearHead) -> None:
        """Make the network with this classifier the result, as long as nothing is better."""
        self.tunable = self.model.with_head(head.weight, head.bias, self.data.classes.tolist())
        self.network = self.tunable.network

    def _features(self, run: TrainingRun, progress: bool) -> np.ndarray:
        path = run.checkpoint("features")
        if path.exists():
            features: np.ndarray = load_tensors(path)["features"].numpy()
            self._check_same(features[:1])
            return features
        features = features_of(self.model, self.data.photos, progress)
        save_tensors(path, {"features": torch.from_numpy(features)})
        run.write()  # their seconds, which a resumed training does not spend again
        return features

    def _check_same(self, before: np.ndarray) -> None:
        """Check by the first image's features `[1, d]` that a resumed training has the network that it started with."""
        now = self.model.features(self.data.photos[:1])
        # another batch, or rounding to bfloat16, changes the last digits
        if now.shape != before.shape or not abs(now - before).max() <= 0.05 * abs(before).max():
            raise TrainingError(
                f"the weights of {self.data.settings.proposer!r} are others than at the start of this training; put "
                "those back, or start anew in another folder"
            )

    def _fine_tune(self, run: TrainingRun, left: Share, progress: bool) -> None:
        """Train the network further, and keep what is best on held-out images, which may be the network before."""
        job, is_done = fine_tuning_job(self.data, self.tunable), "fine_tuning" in run.log
        losses = np.empty(0) if is_done else tempered_losses(job.trainer.average, self.data)
        self.network = run.train(
            job.name,
            job.trainer,
            left.planned,
            job.held_out,
            progress,
            job.loss,
            patience=math.inf,
            n_checks=TUNING_CHECKS,
            most_steps=self._n_steps(MOST_PASSES),
            longest=left.longest,
        )
        if is_done:
            return
        before = run.log["before"][job.name]
        after = min(entry["held_out"] for entry in run.log["losses"][job.name] if "held_out" in entry)
        kept = after < before
        what = (
            f"Fine-tuning tier 1 in {run.log['n_steps'][job.name]} steps changed the log loss of "
            f"{len(losses)} held-out images, which chose among its steps, from {before:.3f} to {after:.3f}"
        )
        end = self._change(losses) if kept else ": the linear classifier on frozen features is kept"
        run.log["fine_tuning"] = {"before": before, "after": after, "kept": kept, "sentence": f"{what}{end}."}

    def _change(self, before: np.ndarray) -> str:
        """Change of the held-out images' log losses `[m]` since before, with its interval."""
        groups = self.data.held_out_groups[self.data.fit_on[: len(before)]]
        if len(np.unique(groups)) == 1:  # of which there is no interval
            return ""
        change = mean_interval(tempered_losses(self.network, self.data) - before, groups=groups)
        return f" ({change.value:+.3f}, {change.low:.3f} to {change.high:.3f})"

    def save(self, folder: Path) -> str:
        """Write the network with its new classifier."""
        return self.tunable.save(self.network, folder)
