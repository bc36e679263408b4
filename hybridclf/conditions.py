"""Conditions of many labels in one place, so that images with different labels share a batch."""

from collections.abc import Sequence

import numpy as np
import torch

from .ports import Condition, Label, take

__all__ = ["ConditionTable"]


class ConditionTable:
    """The conditions of labels under numbers; labels come and go, those it began with stay.

    Parameters
    ----------
    number : dict of label to int
        Where in `conditions` each label is, a permutation of range(L).
    conditions : Condition `[L, …]`
        Their conditions.
    """

    def __init__(self, number: dict[Label, int], conditions: Condition) -> None:
        self._number = dict(number)
        self.conditions = conditions
        self._n_kept = len(number)

    def __len__(self) -> int:
        return len(self._number)

    def __contains__(self, label: Label) -> bool:
        return label in self._number

    def numbers(self, labels: Sequence[Label]) -> list[int]:
        """Where in `conditions` these labels are."""
        return [self._number[label] for label in labels]

    def add(self, labels: Sequence[Label], condition: Condition) -> None:
        """Take in those of the labels `[k]`, with condition `[k, …]`, that are not here yet."""
        new = [i for i, label in enumerate(labels) if label not in self._number]
        if not new:
            return
        rows = take(condition, torch.tensor(new))
        self._number |= {labels[i]: len(self) + j for j, i in enumerate(new)}
        known = self.conditions
        self.conditions = {name: torch.cat([known[name], row]) for name, row in rows.items()} if known else rows

    def forget(self, used: np.ndarray) -> np.ndarray:
        """Keep the labels it began with and those under the numbers `used`; the new number of each old one `[L]`."""
        stay = np.union1d(np.arange(self._n_kept), used)
        moved = np.full(len(self), -1)
        moved[stay] = np.arange(len(stay))
        self.conditions = take(self.conditions, torch.from_numpy(stay))
        self._number = {label: int(moved[n]) for label, n in self._number.items() if moved[n] >= 0}
        return moved
