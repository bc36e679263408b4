"""Loss of tuning: the denoising loss and the wrong-class term, at times where labels differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..denoising.batch_size import Batches
from ..ports import Adaptation, Condition, Denoiser, Label, n_prompts, take
from .examples import TuningExamples

__all__ = ["Conditions", "Objective", "TimeProfile", "measure_profile"]

N_BINS = 10
"""Bins of time, equally wide."""

PROFILED, ROUNDS, PROFILE_BATCH = 64, 4, 32
"""Images that the profile is measured on at most, draws of noise per image and bin, and images per pass."""

LEAST = 0.2
"""Least probability of a bin of time, as a share of the average one: every time is trained a little."""


class Conditions:
    """Conditions of labels by position: encoded once, or anew at each call if the embeddings of words are trained.

    Parameters
    ----------
    adaptation : Adaptation
        Denoiser in tuning.
    labels : sequence of L labels
        All labels.
    """

    def __init__(self, adaptation: Adaptation, labels: Sequence[Label]) -> None:
        self.adaptation, self.labels = adaptation, list(labels)
        self._known = None if adaptation.encodes_anew else adaptation.condition(self.labels)

    def __call__(self, index: Tensor, rng: torch.Generator) -> Condition:
        """Conditions `[B·k, …]` of the labels at positions `[B, k]`.

        Of several prompts per label one is drawn for each image, the same for all of its labels.
        """
        if self._known is None:
            used, place = index.unique(return_inverse=True)
            known = self.adaptation.condition([self.labels[i] for i in used.tolist()])
        else:
            used, place, known = torch.arange(len(self.labels)), index, self._known
        n = n_prompts(known, len(used))
        prompt = torch.randint(n, (len(index), 1), generator=rng)
        return take(known, (place * n + prompt).flatten())


@dataclass(frozen=True)
class TimeProfile:
    """Profile over time of a denoiser before tuning: the size of its gaps, and where they tell labels apart.

    A gap is the error of a rival minus that of the right label, in one trial.

    Attributes
    ----------
    scale : Tensor `[n_bins]`
        Root mean square of the gaps.
    probability : Tensor `[n_bins]`
        Probability that a time of training is in the bin, in proportion to mean / deviation of the gaps.
    """

    scale: Tensor
    probability: Tensor

    @classmethod
    def of(cls, gaps: Tensor) -> Self:
        """Make a profile of gaps `[n_bins, n]`."""
        power = (gaps.mean(1) / gaps.std(1).clamp(min=1e-12)).clamp(min=0)
        power = (power / power.mean().clamp(min=1e-12)).clamp(min=LEAST)
        return cls(gaps.square().mean(1).sqrt().clamp(min=1e-12), power / power.sum())

    def draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n times in (0, 1), and their bins, each `[n]`."""
        bins = torch.multinomial(self.probability, n, replacement=True, generator=rng)
        return (bins + torch.rand(n, generator=rng)) / len(self.probability), bins


@dataclass(frozen=True)
class Objective:
    """Training loss of a denoiser in tuning.

    The denoising loss is the mean squared error in ε under the right label. The wrong-class term is the cross-entropy
    between the right label and a rival, whose scores are minus their errors over the profile's scale.

    Attributes
    ----------
    denoiser : Denoiser
        Denoiser in tuning.
    conditions : Conditions
        Conditions of all labels.
    profile : TimeProfile
        Times and scales.
    wrong_class_weight : float
        Weight of the second term; 0 leaves it out.

    References
    ----------
    Appendix D of arXiv 2303.16203 has the idea of the wrong-class term.
    """

    denoiser: Denoiser
    conditions: Conditions
    profile: TimeProfile
    wrong_class_weight: float

    def loss(self, examples: TuningExamples, index: Tensor, rng: torch.Generator) -> Tensor:
        """Compute the mean loss of the images at positions `[B]`; the generator draws rivals, times and noise."""
        t, bins = self.profile.draw(len(index), rng)
        labels = examples.draw_labels(index, rng)
        if not self.wrong_class_weight:
            labels = labels[:, :1]
        errors = _errors(self.denoiser, examples.x0[index], t, self.conditions(labels, rng), labels.shape[1], rng)
        loss = errors[:, 0].mean() / examples.x0[0].numel()
        if not self.wrong_class_weight:
            return loss
        gap = (errors[:, 1] - errors[:, 0]) / self.profile.scale[bins].to(errors.device)
        # of two labels, the cross-entropy is softplus of minus the difference of their scores
        return loss + self.wrong_class_weight * F.softplus(-gap).mean()


@torch.no_grad()
def measure_profile(denoiser: Denoiser, conditions: Conditions, examples: TuningExamples, seed: int) -> TimeProfile:
    """Measure a denoiser's profile on some training images."""
    rng = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(examples.x0), generator=rng)[:PROFILED].repeat(ROUNDS)
    gaps = torch.empty(N_BINS, len(index))
    for i, of_bin in enumerate(gaps):
        for part, target in zip(index.split(PROFILE_BATCH), of_bin.split(PROFILE_BATCH), strict=True):
            t = (i + torch.rand(len(part), generator=rng)) / N_BINS
            condition = conditions(examples.draw_labels(part, rng), rng)
            errors = _errors(denoiser, examples.x0[part], t, condition, 2, rng)
            target.copy_(errors[:, 1] - errors[:, 0])
    return TimeProfile.of(gaps)


def _errors(denoiser: Denoiser, x0: Tensor, t: Tensor, condition: Condition, k: int, rng: torch.Generator) -> Tensor:
    """Compute the summed squared errors `[B, k]` of B images, each under k conditions with the same noise."""
    device = denoiser.device
    noise = torch.randn(x0.shape, generator=rng).to(device)
    t, x0 = t.to(device), x0.to(device, torch.float32)
    alpha, sigma = (level.view(-1, *(1,) * (x0.ndim - 1)) for level in denoiser.noise_levels(t))
    x_t = alpha * x0 + sigma * noise

    def errors(start: int, size: int) -> Tensor:
        """Errors `[b, k]` of the b images from a position on."""
        part = slice(start, start + size)
        n = len(t[part])
        # with k = 2, rows are 0, 0, 1, 1, …
        row = torch.arange(n, device=device).repeat_interleave(k)
        own = take(condition, torch.arange(start * k, (start + n) * k))
        predicted = denoiser.predict(x_t[part], t[part], row, own).float()
        return (predicted - noise[part][row]).square().flatten(1).sum(1).view(n, k)

    return torch.cat(Batches(len(x0))(errors, len(x0)))
