"""Examples of tuning: encoded images, each with its right label and rivals of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

__all__ = ["TuningExamples"]

FLOOR = -5.0
"""Lowest log-probability of a rival, so that each comes up now and then: tier 1 may be sure of images it learned."""


@dataclass(frozen=True)
class TuningExamples:
    """Encoded images with their labels.

    Attributes
    ----------
    x0 : Tensor `[n, *shape]`
        Encoded images.
    right : LongTensor `[n]`
        Position of the right label among all labels.
    rivals : LongTensor `[n, m]`
        Positions of wrong labels.
    probability : Tensor `[n, m]`
        Tier 1's probabilities of the rivals; 0 where an image has fewer than m.
    """

    x0: Tensor
    right: Tensor
    rivals: Tensor
    probability: Tensor

    @classmethod
    def of(cls, x0: Tensor, candidates: Sequence[Sequence[int]], log_prior: Sequence[np.ndarray]) -> Self:
        """Make examples of n images and their candidates.

        Parameters
        ----------
        x0 : Tensor `[n, *shape]`
            Encoded images.
        candidates : n sequences of int `[k]`
            Positions of labels, at least two, the right one first.
        log_prior : n arrays `[k]`
            Tier 1's log-probabilities of them.
        """
        m = max(map(len, candidates)) - 1
        rivals, probability = np.zeros((len(candidates), m), dtype=int), np.zeros((len(candidates), m), np.float32)
        for i, (own, prior) in enumerate(zip(candidates, log_prior, strict=True)):
            rivals[i, : len(own) - 1] = own[1:]
            probability[i, : len(own) - 1] = np.exp(np.maximum(prior[1:], FLOOR))
        right = torch.tensor([own[0] for own in candidates])
        return cls(x0, right, torch.from_numpy(rivals), torch.from_numpy(probability))

    def select(self, index: Any) -> Self:
        """Select examples by position."""
        return type(self)(self.x0[index], self.right[index], self.rivals[index], self.probability[index])

    def draw_labels(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """Draw the right label and a rival `[B, 2]` for each image at positions `[B]`.

        Rivals that tier 1 takes for right come up more often.
        """
        chosen = torch.multinomial(self.probability[index], 1, generator=rng)
        return torch.cat([self.right[index][:, None], self.rivals[index].gather(1, chosen)], dim=1)
