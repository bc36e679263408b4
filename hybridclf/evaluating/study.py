"""Everything that an evaluation knows: what figures and the report are made from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..data.arrays import Items
from ..denoising.weighting import Weighting, uniform_weights
from ..estimator import HybridClassifier
from ..fitting.drift import DriftSample
from ..fitting.guarantee import Guarantee
from .cost import Cost, measure_costs
from .guarantee import Bound, HeldToIt, bounded
from .methods import TIER_1, Answers, Method, published, replay
from .recording import Recording
from .scores import Score, compare, score
from .settings import HYBRID, OWN, Settings, recommend

__all__ = ["Study"]


@dataclass(frozen=True)
class Study:
    """A recording, split into images to calibrate on and images to test on, and the methods' answers.

    Attributes
    ----------
    clf : HybridClassifier
        Both tiers, for what is not in the recording.
    items : Items
        The n images that were recorded.
    recording : Recording
        Both tiers' recording of them.
    calibrating : bool array `[n]`
        Images that settings and fusions are fitted on; the others are for the test.
    seed : int
        Seed of all that is random.
    progress : bool
        Show progress bars.
    bound : Bound or None
        Bound on what stopping early costs, for methods that keep it; None for none.
    drift : DriftSample or None
        Tier 1's answers to corrupted copies of the images to calibrate on; None for anything but images of one size.
    """

    clf: HybridClassifier
    items: Items
    recording: Recording
    calibrating: np.ndarray
    seed: int = 0
    progress: bool = False
    bound: Bound | None = None
    drift: DriftSample | None = None

    @cached_property
    def calibration(self) -> Recording:
        """The recording of the images to calibrate on."""
        return replace(self.recording.select(self.calibrating), drift=self.drift)

    @cached_property
    def test(self) -> Recording:
        """The recording of the images to test on, m of them."""
        return self.recording.select(~self.calibrating)

    @cached_property
    def test_items(self) -> Items:
        """These images."""
        return self.items.select(np.flatnonzero(~self.calibrating))

    @cached_property
    def _recommended(self) -> tuple[Settings, list[Method]]:
        return recommend(self.clf, self.calibration, self.seed, self.progress)

    @property
    def settings(self) -> Settings:
        """Recommended settings, chosen on the images to calibrate on."""
        return self._recommended[0]

    @property
    def hybrid(self) -> str:
        """Name of the method that is recommended where re-ranking pays."""
        return OWN if self.settings.own else HYBRID

    @property
    def weighting(self) -> Weighting:
        """Timestep weights that the denoiser was trained with: those of tier 2 alone."""
        weighting: Weighting = getattr(self.clf.denoiser_, "weighting", uniform_weights)
        return weighting

    @cached_property
    def _bounded(self) -> tuple[Guarantee | None, list[Method]]:
        return bounded(self.clf, self.calibration, self.bound, self.progress) if self.bound else (None, [])

    @cached_property
    def methods(self) -> list[Method]:
        """Methods that are compared: tier 1, tier 2 alone, then both; those of a bound are the last two."""
        alone = published(self.calibration, self.weighting, "l2")
        return [Method(TIER_1), *alone, *self._recommended[1], *self._bounded[1]]

    @cached_property
    def answers(self) -> dict[str, Answers]:
        """Every method's answers to the test images, by its name."""
        return {method.name: replay(method, self.test) for method in self.methods}

    @cached_property
    def scores(self) -> dict[str, Score]:
        """Their scores."""
        return {name: score(name, answers, self.test.y, self.test.groups) for name, answers in self.answers.items()}

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """Cost of every method, by name, measured now."""
        order = np.random.default_rng(self.seed).permutation(len(self.test))
        items, scores = self.test_items.select(order), list(self.scores.values())
        costs = measure_costs(self.clf, self.methods, scores, items, self.recording.n_trials, self.progress)
        return {cost.method: cost for cost in costs}

    @property
    def held_to_it(self) -> HeldToIt | None:
        """The guarantee on what stopping early costs, held to the test images; None where none was asked for."""
        guarantee, methods = self._bounded
        if guarantee is None:
            return None
        exhaustive, early = (method.name for method in methods)
        answers, test = self.answers, self.test
        difference = compare((early, exhaustive), answers[early], answers[exhaustive], test.y, test.groups)
        return HeldToIt.of(guarantee, difference, self.scores[early], self.scores[exhaustive])

    def examples(self, images: np.ndarray, n: int) -> Sequence[int]:
        """At most n of some test images, bool `[m]`, by chance."""
        chosen = np.random.default_rng(self.seed).permutation(np.flatnonzero(images))
        return np.sort(chosen[:n]).tolist()
