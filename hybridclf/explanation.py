"""Explanations of one answer: why class A and not class B."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .denoising.evaluator import noised
from .denoising.objectives import BOUNDS, OBJECTIVES, resolve_objective
from .errors import InvalidInputError
from .ports import Label, n_prompts, take
from .reranker import Reranker
from .reranking.evidence import TIER_1_ANSWERS, RerankResult

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """Comparison of two classes for an image: contributions to the log-odds of class a against class b.

    Log-odds are natural logarithms of the posterior of a over that of b. They are the sum of tier 1's
    contribution and of that of tier 2's errors in T trials. The map shows where in the image the errors differ.

    Attributes
    ----------
    a, b : labels
        The two classes.
    prior : float
        Tier 1's contribution to the log-odds.
    evidence : float
        Tier 2's contribution after all T trials; 0 where it is not asked.
    map : float array `[H, W]`, or `[d]` for a vector
        Weighted error under b minus that under a, by pixel, mean over trials; positive where the image looks like a.
        From latents it is interpolated to the size of the image.
    t : float array `[T]`
        Times of the trials.
    gaps : float array `[T]`
        The same difference of errors in each trial, summed over the image: positive where a trial speaks for a.
    asked : bool
        False if tier 1 answers alone: its prior settles the image without a trial, or `stopped_by` is "off", "novel" or
        "fallback". `map` and `gaps` are then what tier 2 would say, and count for nothing.
    """

    a: Label
    b: Label
    prior: float
    evidence: float
    map: np.ndarray
    t: np.ndarray
    gaps: np.ndarray
    asked: bool = True

    @property
    def log_odds(self) -> float:
        """Natural logarithm of the posterior of a over that of b."""
        return self.prior + self.evidence

    def __str__(self) -> str:
        side, other = (self.a, self.b) if self.log_odds >= 0 else (self.b, self.a)
        if not self.asked:
            return f"{side!r} rather than {other!r}, log-odds {abs(self.log_odds):.2f} from tier 1 alone"
        return (
            f"{side!r} rather than {other!r}, log-odds {abs(self.log_odds):.2f}: for {self.a!r} speak "
            f"{self.prior:+.2f} from tier 1 and {self.evidence:+.2f} from tier 2 in {len(self.t)} trials "
            f"({(self.gaps > 0).sum()} of them for {self.a!r})"
        )


@torch.inference_mode()
def explain(
    stage: Reranker,
    image: Any,
    size: tuple[int, int] | None,
    labels: tuple[Label, Label],
    log_prior: np.ndarray,
    objective: str,
    result: RerankResult,
) -> Explanation:
    """Ask a denoiser about one image under two classes, and keep the errors by pixel.

    Parameters
    ----------
    stage : Reranker
        Denoiser, trials, weights and fusion; the first `allocation.max_trials` of its trials are run.
    image : sequence of one image
        Input of the denoiser's `encode`.
    size : (H, W) or None
        Size of the map; None for vectors.
    labels : (a, b)
        The two classes.
    log_prior : float array `[2]`
        Tier 1's log-probabilities of them.
    objective : str
        Error between noise and predicted noise.
    result : RerankResult
        Outcome of the image's re-ranking: tier 1 may have answered alone.

    Raises
    ------
    InvalidInputError
        For an objective that has no error by pixel, or errors that are not finite.
    """
    if objective in BOUNDS:
        raise InvalidInputError(f"objective {objective!r} has no error by pixel; explain with {', '.join(OBJECTIVES)}")
    denoiser, n_trials = stage.denoiser, stage.allocation.max_trials
    x0 = denoiser.encode(image).to(denoiser.device, denoiser.dtype)
    number, conditions = stage.condition(labels)
    per_class = n_prompts(conditions, len(number))
    weight = stage.weighting(*stage.levels())[:n_trials]
    index = [number[label] * per_class + prompt for label in labels for prompt in range(per_class)]
    condition = take(conditions, torch.tensor(index))
    differences = []
    for trial in range(n_trials):  # one by one: a map of pixels per trial, and few rows at a time in memory
        rows = noised(denoiser, stage.plan, x0, np.array([trial]))
        row = torch.zeros(len(index), dtype=torch.long, device=x0.device)
        predicted = denoiser.predict(rows.x_t, rows.t, row, condition)
        errors = _by_pixel(objective, rows.noise.expand_as(predicted), predicted).unflatten(0, (2, per_class)).mean(1)
        differences.append(errors[1] - errors[0])
    # [T, h, w] or [T, d], those under b minus those under a
    maps = torch.stack(differences).double().cpu() * torch.from_numpy(weight).view(-1, *(1,) * differences[0].ndim)
    gaps = maps.flatten(1).sum(dim=1).numpy()
    if not np.isfinite(gaps).all():
        raise InvalidInputError(
            "tier 2's errors are not finite for this image, so that tier 1 answered; nothing to show"
        )
    sums, trials = np.array([[-gaps.sum() / 2, gaps.sum() / 2]]), np.array([n_trials])
    together, alone = (stage.fusion.scores(prior[None], sums, trials)[0] for prior in (log_prior, np.zeros(2)))
    evidence = float(alone[0] - alone[1])
    asked = result.rows > 0 and result.stopped_by not in TIER_1_ANSWERS
    tier_1 = np.log(stage.fusion.tier_1(log_prior[None], result.stopped_by)[0])
    return Explanation(
        a=labels[0],
        b=labels[1],
        prior=float(together[0] - together[1]) - evidence if asked else float(tier_1[0] - tier_1[1]),
        evidence=evidence if asked else 0.0,
        map=_image_map(maps.mean(dim=0), size),
        t=stage.levels()[0][:n_trials],
        gaps=gaps,
        asked=asked,
    )


def _by_pixel(objective: str, noise: Tensor, predicted: Tensor) -> Tensor:
    """Errors `[E, h, w]`, or `[E, d]` of vectors: a pixel's channels count as one evaluation of their own."""
    error, image = resolve_objective(objective), noise.ndim == 4
    pixels = (v.permute(0, 2, 3, 1).flatten(0, 2) if image else v.reshape(-1, 1) for v in (noise, predicted))
    shape = (len(noise), *noise.shape[2:]) if image else tuple(noise.shape)
    return error(*pixels).view(shape)


def _image_map(mean: Tensor, size: tuple[int, int] | None) -> np.ndarray:
    """Errors `[h, w]` interpolated to `[H, W]`, their sum kept; a vector's as they are."""
    if size is None:
        return mean.numpy()
    small = mean[None, None]
    scale = small.shape[2] * small.shape[3] / (size[0] * size[1])
    return (F.interpolate(small, size, mode="bilinear", align_corners=False)[0, 0] * scale).numpy()
