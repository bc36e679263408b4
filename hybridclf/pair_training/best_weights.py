"""Weights of a training with the lowest held-out loss."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from .checkpoint import save_tensors

__all__ = ["BestWeights"]


@dataclass
class BestWeights:
    """Weights with the lowest held-out loss so far, in a file.

    Attributes
    ----------
    path : Path
        File of the weights.
    patience : float
        Checks without a lower loss after which the loss is settled.
    loss : float
        Lowest loss.
    since : int
        Checks since.
    """

    path: Path
    patience: float
    loss: float = math.inf
    since: int = 0

    @classmethod
    def after(cls, path: Path, patience: float, losses: Iterable[float]) -> "BestWeights":
        """The best of weights checked earlier, by their losses; the file is there."""
        best = cls(path, patience)
        for loss in losses:
            best._count(loss)
        return best

    def check(self, loss: float, network: nn.Module) -> None:
        """Keep the weights if their loss is lower."""
        if self._count(loss):
            save_tensors(self.path, network.state_dict())

    def _count(self, loss: float) -> bool:
        """Count a check, and tell whether its loss is the lowest."""
        is_lower = loss < self.loss
        self.loss, self.since = min(loss, self.loss), 0 if is_lower else self.since + 1
        return is_lower

    @property
    def is_latest(self) -> bool:
        """True if the last check's loss is the lowest."""
        return self.since == 0

    @property
    def is_settled(self) -> bool:
        """True once the loss has not fallen for long enough."""
        return self.since >= self.patience
