"""Reranker: a diffusion classifier as a re-ranking stage behind any classifier."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from .denoising.batch_size import Batches, check_batch_size, default_batch_size
from .denoising.conditions import ConditionTable
from .denoising.evaluator import DenoiserEvaluator, EvaluationErrors, batch_capacity
from .denoising.weighting import Weighting, uniform_weights
from .errors import FallbackWarning, InvalidInputError, UncalibratedWarning
from .ports import Condition, Denoiser, Label
from .reranking.allocation import Allocation, PairedTTest, Race, check_allocation
from .reranking.evidence import RerankResult
from .reranking.fusion import Fusion
from .reranking.loop import Loop, Step
from .reranking.tasks import Task, as_log_prior, check_tasks, uniform_prior
from .reranking.trials import INFORMATIVE_TRIALS, InformativeOrder, TrialPlan
from .reranking.window import Window
from .utils.bounds import draw_seed
from .utils.progress import progress_bar

__all__ = ["Reranker"]

ENOUGH_PRIORS, FAR_PRIOR = 30, 0.5
"""Images that tell how sure a tier 1 is, and by how much its mean log-probability may differ from the fitted one's."""


class Reranker:
    """Re-ranks each image's candidates by how well a diffusion model explains the image under each.

    Parameters
    ----------
    denoiser : Denoiser
        The conditional diffusion model.
    allocation : Allocation, optional
        Decides which candidates get the next trial, and when to stop. Default: `Race` if the fusion is calibrated, else
        `PairedTTest`.
    fusion : Fusion, optional
        Turns prior and evidence into a posterior; a fitted one goes with the `weighting` and `order` that it was fitted
        for, as `HybridClassifier.reranker` puts them together. Default: unfitted; evidence alone decides.
    objective : "l2", "l1", "huber", "vlb" or "l2+vlb"
        The error between noise and predicted noise; the last two are for a denoiser that has learned its variance.
    weighting : Weighting, optional
        Timestep weights of the errors. Default: those that the denoiser was trained with, if it says so, else uniform.
    order : InformativeOrder, optional
        A fitted order of trials, used by allocations that allow one (Race).
    batch_size : int, optional
        Rows (late-conditioned denoisers) or evaluations (others) in one batch, halved for good where the device's
        memory runs out. Default: by the denoiser's kind and device alone, so that answers repeat.
    random_state : int, RandomState or None
        Decides the noise of all trials.

    Examples
    --------
    >>> reranker = Reranker(denoiser, allocation=Staged.preset("cifar10"))  # doctest: +SKIP
    >>> reranker.rerank(images, [["cat", "dog"]] * len(images))[0].ranking  # doctest: +SKIP
    ('dog', 'cat')
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        allocation: Allocation | None = None,
        fusion: Fusion | None = None,
        objective: str = "l2",
        weighting: Weighting | None = None,
        order: InformativeOrder | None = None,
        batch_size: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.denoiser = denoiser
        check_allocation(allocation)
        self.fusion = Fusion() if fusion is None else fusion
        self.allocation = allocation or (Race() if self.fusion.calibrated else PairedTTest())
        own: Weighting = getattr(denoiser, "weighting", uniform_weights)
        self.weighting = own if weighting is None else weighting
        check_batch_size(batch_size)
        size = default_batch_size(denoiser) if batch_size is None else int(batch_size)
        self._evaluation_errors = EvaluationErrors(denoiser, objective, size)
        self._encoding = Batches(size)
        self.plan = self._plan(draw_seed(random_state), order)
        self.check_prior = True  # a classifier that asks for its own tier 1 need not
        # from images to reasons why tier 1 answers them, where `rerank` is given none
        self.sets_aside: Callable[[Any], list[str]] | None = None
        self._number: dict[Label, int] = {}
        self._conditions: Condition = {}

    def _plan(self, seed: int, order: InformativeOrder | None) -> TrialPlan:
        """Evenly spaced trials; with a fitted order more of them than are used, so that only informative ones are."""
        n_trials = self.allocation.max_trials
        if order is None or not self.allocation.fitted_order:
            return TrialPlan(n_trials, self.denoiser.shape, seed)
        n_trials = max(n_trials, INFORMATIVE_TRIALS)
        return TrialPlan(n_trials, self.denoiser.shape, seed, order(n_trials))

    def rerank(
        self,
        images: Any,
        candidates: Sequence[Sequence[Label]],
        log_prior: Sequence[np.ndarray] | np.ndarray | None = None,
        *,
        aside: Sequence[str] | None = None,
        progress: bool = False,
    ) -> list[RerankResult]:
        """Rank each image's candidates.

        Parameters
        ----------
        images : sequence of n images
            Input of the denoiser's `encode`.
        candidates : n sequences of labels
            The classes to compare, image by image; lengths may differ.
        log_prior : n float sequences, optional
            Tier 1's log-probabilities of these candidates; default uniform.
        aside : sequence of n str, optional
            Reasons why tier 1 answers: "novel" for what is unlike all calibration images, "off" for what tier 2 is not
            asked about, "" for images to rank. Default: what `sets_aside` says, which a classifier's `reranker()` has
            where tier 2 pays on unusual images alone; without it all are ranked.
        progress : bool
            Show a progress bar.

        Returns
        -------
        list of RerankResult `[n]`

        Raises
        ------
        InvalidInputError
            If lengths do not match, a candidate list is a text, or a prior is not a number.
        UnknownLabelError
            If the denoiser does not know a label.
        """
        steps = self.stream(images, candidates, log_prior, aside)
        if log_prior is not None and self.check_prior:
            self._warn_of_another_tier_1(log_prior)
        results: list[RerankResult | None] = [None] * len(candidates)
        with progress_bar(total=len(candidates), desc="rerank", unit="image", leave=None, show=progress) as bar:
            spent = n_novel = 0
            for step in steps:
                spent += step.batch_evaluations
                for image, result in step.finished:
                    results[image] = result
                bar.update(len(step.finished))
                n_novel += sum(result.stopped_by == "novel" for _, result in step.finished)
                bar.set_postfix(evaluations=spent, novel=n_novel, refresh=False)
                del step  # while it is there, its evidence is copied before the images' places are used again
        done = [r for r in results if r is not None]
        self._warn_of_fallbacks(done)
        return done

    def _warn_of_another_tier_1(self, log_prior: Sequence[np.ndarray] | np.ndarray) -> None:
        """Warn if tier 1 is far more or less sure than the fusion's own tier 1."""
        usual = self.fusion.top_log_prior
        tops = [np.max(prior) for prior in log_prior if len(prior)]
        if usual is None or len(tops) < ENOUGH_PRIORS or not abs(np.mean(tops) - usual) > FAR_PRIOR:
            return
        warnings.warn(
            f"tier 1's first class has probability {np.exp(np.mean(tops)):.2f} in the mean; where the fusion was "
            f"fitted it had {np.exp(usual):.2f}: that was another tier 1, or other data. Fit one for this tier 1: "
            "HybridClassifier(FrozenEstimator(tier_1), denoiser).fit(X, y), on images that it was not trained on",
            UncalibratedWarning,
            stacklevel=3,
        )

    def _warn_of_fallbacks(self, results: list[RerankResult]) -> None:
        """Warn once if tier 2 failed for most of the images it was asked about."""
        asked = [r for r in results if r.rows or r.stopped_by == "fallback"]
        failed = sum(r.stopped_by == "fallback" for r in asked)
        if 2 * failed <= len(asked) or not failed:
            return
        advice = (
            'float16 overflows in some models: load it with precision="bf16" or "fp32", or pass '
            'HybridClassifier(dtype="bfloat16")'
            if self.denoiser.dtype == torch.float16
            else "check the pixels' range, and what the denoiser predicts for these images"
        )
        warnings.warn(
            f"tier 2 gave errors that are not finite for {failed} of {len(asked)} images, which have tier 1's answer; "
            f"{advice}",
            FallbackWarning,
            stacklevel=3,
        )

    def stream(
        self,
        images: Any,
        candidates: Sequence[Sequence[Label]],
        log_prior: Sequence[np.ndarray] | np.ndarray | None = None,
        aside: Sequence[str] | None = None,
    ) -> Iterator[Step]:
        """Generate the steps of `rerank`, to be watched; parameters and errors as there."""
        if log_prior is None:
            log_prior = list(map(uniform_prior, candidates))
        if not len(images) == len(candidates) == len(log_prior):
            raise InvalidInputError(
                f"got {len(images)} images, {len(candidates)} candidate lists and {len(log_prior)} log priors; "
                "give one of each per image"
            )
        for i, labels in enumerate(candidates):
            if isinstance(labels, str):  # a sequence, too: of letters
                raise InvalidInputError(
                    f"image {i} needs a list of candidates, got the text {labels!r}; give [{labels!r}], or the same "
                    f"list for every image: [[{labels!r}, …]] * {len(images)}"
                )
        if aside is None:
            aside = self.sets_aside(images) if self.sets_aside else [""] * len(candidates)
        if len(aside) != len(candidates):
            raise InvalidInputError(
                f"got {len(candidates)} candidate lists and {len(aside)} reasons; give one per image"
            )
        tasks = [
            Task(i, tuple(labels), as_log_prior(prior, f"image {i}"), aside=reason)
            for i, (labels, prior, reason) in enumerate(zip(candidates, log_prior, aside, strict=True))
        ]
        check_tasks(tasks)
        return self._run(images, tasks)

    def _run(self, images: Any, tasks: list[Task]) -> Iterator[Step]:
        if not tasks:
            return
        labels = tuple(dict.fromkeys(chain.from_iterable(dict.fromkeys(task.candidates for task in tasks))))
        ahead = int(self.denoiser.device.type == "cuda")  # works by itself
        yield from self.loop(images, labels, max(len(task.candidates) for task in tasks), ahead).run(tasks)

    def loop(self, images: Any, labels: Sequence[Label], n_candidates: int, ahead: int = 0) -> Loop:
        """The loop of this reranker, still empty.

        Parameters
        ----------
        images : sequence or dict
            Images by the numbers that the tasks will have.
        labels : sequence of labels
            Labels of the tasks to come; a task that brings its own condition may have others.
        n_candidates : int
            Length of the longest candidate list to come.
        ahead : int
            Batches that its `run` begins before it has the errors of the one before.
        """
        capacity = batch_capacity(self.denoiser, self.batch_size)
        window = Window.for_batches(capacity, self.allocation.max_trials, n_candidates, ahead)
        evaluate = DenoiserEvaluator(
            self._evaluation_errors,
            self._encoding,
            self.plan,
            self.weighting(*self.levels()),
            ConditionTable(*self.condition(labels)),
            images,
            window.n_slots,
            n_candidates,
        )
        return Loop(self.allocation, self.fusion, evaluate, capacity, window, ahead, self._ceilings())

    def _ceilings(self) -> np.ndarray | None:
        """Highest usual sums of errors by trials; None if the fusion has no usual errors."""
        if self.fusion.usual is None:
            return None
        t, alpha, sigma = self.levels()
        n = self.allocation.max_trials
        return self.fusion.usual.ceilings(t[:n], self.weighting(t, alpha, sigma)[:n])

    @torch.inference_mode()
    def levels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times and noise levels (t, α, σ) of all planned trials in their order, each float `[len(plan)]`."""
        exact = torch.promote_types(self.denoiser.dtype, torch.float32)
        t = torch.from_numpy(self.plan.timesteps(np.arange(len(self.plan))))
        alpha, sigma = self.denoiser.noise_levels(t.to(self.denoiser.device, exact))
        return t.double().numpy(), alpha.cpu().double().numpy(), sigma.cpu().double().numpy()

    @property
    def batch_size(self) -> int:
        """Rows or evaluations in one batch."""
        return self._evaluation_errors.batches.size

    def condition(self, labels: Sequence[Label]) -> tuple[dict[Label, int], Condition]:
        """The denoiser's condition `[L, …]`, and where in it each label is; kept while later labels are among these."""
        if not self._number.keys() >= set(labels):
            self._conditions = self.denoiser.condition(list(labels))
            self._number = {label: i for i, label in enumerate(labels)}
        return self._number, self._conditions

    def __repr__(self) -> str:
        return f"Reranker({type(self.denoiser).__name__}, {self.allocation}, {self.fusion})"
