"""Contenders of a training set, each trained once and kept in a folder: a pair, its rival, a pair behind features."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hybridclf import HybridClassifier, train_pair
from hybridclf.data.datasets import load_labelled
from hybridclf.devices import as_device
from hybridclf.errors import TrainingError
from hybridclf.pair_training.networks import PROPOSERS
from hybridclf.pair_training.settings import stored_settings
from hybridclf.pair_training.start_from import Start
from hybridclf.pair_training.tier_1 import NEW
from hybridclf.pair_training.training_data import TrainingData
from hybridclf.pretrained.catalog import model_folder
from hybridclf.proposer import aligned_log_proba
from hybridclf.reranking.allocation import FixedTrials
from hybridclf.reranking.fusion import Fusion

from .rival import Cascade, trained, unsure
from .sets import Row

__all__ = ["METHODS", "Contenders", "alone"]

METHODS = ("tier 1", "tier 2", "hybrid", "rival", "features", "features, hybrid")
"""Contenders: both tiers alone and together, the rival, and tier 1 and the hybrid behind a pretrained network."""

TRIALS = 16
"""Trials of tier 2 alone, each of every class."""


@dataclass(frozen=True)
class Contenders:
    """Contenders of one training set.

    Attributes
    ----------
    row : Row
        A row with that training set.
    folder : Path
        Folder of their models; trainings that were interrupted go on there.
    minutes : float
        Time of each pair.
    pretrained : str or None
        Spec string of a pretrained network with features, for a second pair.
    start_from : str or None
        Pair whose weights all pairs, and the rival, start from.
    """

    row: Row
    folder: Path
    minutes: float
    pretrained: str | None
    start_from: str | None = None

    @cached_property
    def pair(self) -> HybridClassifier:
        """The pair with a new tier 1."""
        return self._trained("pair", None)

    @cached_property
    def behind(self) -> HybridClassifier | None:
        """The pair behind the pretrained network; None without one, or if the minutes are too few for its features."""
        if not self.pretrained:
            return None
        try:
            return self._trained("features", self.pretrained)
        except TrainingError as error:
            if "too few for anything" not in str(error):  # of the plan, before the start
                raise
            print(f"{self.row.training}: no pair behind {self.pretrained}: {error}", file=sys.stderr)
            return None

    @cached_property
    def data(self) -> TrainingData:
        """Images of the pair's training."""
        log = self.log("pair")
        settings = stored_settings(log)
        images = load_labelled(self.row.train, log["settings"]["side"], True, settings.group)
        more: dict[str, Any] = {}
        if settings.start_from is not None:
            start = Start.of(Path(settings.start_from), images.classes, settings.image_size)
            more = {"seen": start.seen, "start": start}
        return TrainingData.of(images, as_device("auto"), True, settings, **more)

    @cached_property
    def rival(self) -> tuple[Any, Cascade]:
        """A second network of tier 1's kind, trained for as long as tier 2, and its fusion with tier 1."""
        log, data = self.log("pair"), self.data
        specs: Sequence[str] = PROPOSERS if data.start is None else (data.settings.proposer,)
        network = trained(data, self.folder / "rival", log["seconds"]["tier_2"], specs)
        held_out, labels = data.some_held_out(data.fit_on[: log["usage"]["n_fusion"]])
        first, second = (self._log_proba(p, held_out) for p in (self.pair.proposer_, network))
        return network, Cascade(first, second, np.searchsorted(self.pair.classes_, labels))

    @property
    def side(self) -> int:
        """Side in pixels of the images that the pair takes."""
        _ = self.pair  # trained first: its log has the side
        return int(self.log("pair")["settings"]["side"])

    @property
    def photo_side(self) -> int | None:
        """Side of the images that the pair behind features takes, some times that of the other; None without one."""
        return None if self.behind is None else int(self.behind.image_shape_[0])

    def log(self, name: str) -> dict[str, Any]:
        """Log of a training."""
        return json.loads((self.folder / name / "training" / "log.json").read_text(encoding="utf-8"))

    def answers(self, pixels: np.ndarray, photos: np.ndarray | None) -> dict[str, np.ndarray]:
        """Posteriors `[n, C]` by method, and as "evaluations" how many the hybrid made `[n]`.

        Photos are the same images for the pair behind features, None without one.
        """
        found = self._of_pair(self.pair, pixels)
        network, cascade = self.rival
        first, second = (self._log_proba(p, pixels) for p in (self.pair.proposer_, network))
        found["rival"] = cascade(found["tier 1"], first, second, unsure(found["tier 1"]))
        if self.behind is not None:
            behind = self._of_pair(self.behind, photos, with_tier_2=False)
            found |= {"features": behind["tier 1"], "features, hybrid": behind["hybrid"]}
        return found

    def _log_proba(self, proposer: Any, pixels: np.ndarray) -> np.ndarray:
        """Log-probabilities `[n, C]` of a network, in the pair's order of classes."""
        return aligned_log_proba(proposer, pixels, self.pair.classes_)

    def _trained(self, name: str, proposer: str | None) -> HybridClassifier:
        out = self.folder / name
        resume = (out / "training" / "log.json").exists()
        if resume:
            self._check_same(name, proposer)
        if not (out / "model.json").exists():
            settings = {"minutes": self.minutes, "proposer": proposer or NEW, "group": self.row.group}
            settings |= {"start_from": self.start_from}
            train_pair(self.row.train, out, resume=resume, progress=True, **settings)
        return HybridClassifier.load(out).set_params(verbose=True)

    def _check_same(self, name: str, proposer: str | None) -> None:
        """Check that a pair of an earlier run is the one asked for.

        Raises
        ------
        SystemExit
            If it had other minutes or another start, or stands behind another network.
        """
        settings = stored_settings(self.log(name))
        start_from = self.start_from and str(model_folder(self.start_from).resolve())
        asked = {"minutes": self.minutes, "start_from": start_from} | ({"proposer": proposer} if proposer else {})
        other = [f"{k} {was}, not {v}" for k, v in asked.items() if (was := getattr(settings, k)) != v]
        if other:
            raise SystemExit(
                f"{self.folder / name} was trained with {'; '.join(other)}; give these, or another folder than "
                f"{self.folder.parent}"
            )

    @staticmethod
    def _of_pair(clf: HybridClassifier, pixels: Any, with_tier_2: bool = True) -> dict[str, np.ndarray]:
        """Posteriors of a pair's tiers and of both."""
        posterior, results = clf.decide(pixels)
        found = {
            "tier 1": clf.fusion_.prior(aligned_log_proba(clf.proposer_, pixels, clf.classes_)),
            "hybrid": posterior,
            "evaluations": np.array([result.evaluations for result in results]),
        }
        if with_tier_2:
            found["tier 2"] = alone(clf, pixels)
        return found


def alone(clf: HybridClassifier, pixels: np.ndarray) -> np.ndarray:
    """Posteriors `[n, C]` of a pair's tier 2 alone, by `TRIALS` trials of every class."""
    stage = clf.reranker(FixedTrials(TRIALS), Fusion())
    ranked = stage.rerank(pixels, [clf.classes_.tolist()] * len(pixels), progress=True)
    return np.stack([result.posterior for result in ranked])
