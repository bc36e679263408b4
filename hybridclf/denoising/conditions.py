"""Conditions of many labels in one place, so that images with different labels share a batch."""

from collections.abc import Sequence

import numpy as np
import torch

from ..ports import Condition, Label, n_prompts, take

__all__ = ["ConditionTable"]


class ConditionTable:
    """Conditions of labels, by number: labels come and go, the first ones stay.

    Parameters
    ----------
    number : dict of label to int
        Where in `conditions` each label is, a permutation of range(L).
    conditions : Condition `[L·n, …]`
        Their conditions, each label's n prompts in a row.
    """

    def __init__(self, number: dict[Label, int], conditions: Condition) -> None:
        self._number = dict(number)
        self._conditions = _by_label(conditions, len(number))  # [L, n, …]
        self._n_kept = len(number)

    def __len__(self) -> int:
        return len(self._number)

    @property
    def n_prompts(self) -> int:
        """Prompts of each label, n; 1 while there is no label."""
        return next((value.shape[1] for value in self._conditions.values()), 1)

    @property
    def prompts(self) -> Condition:
        """The conditions of all labels, `[L·n, …]`."""
        return {name: value.flatten(0, 1) for name, value in self._conditions.items()}

    def numbers(self, labels: Sequence[Label]) -> list[int]:
        """The numbers of these labels."""
        return [self._number[label] for label in labels]

    def add(self, labels: Sequence[Label], condition: Condition) -> None:
        """Add the labels `[k]` that are new, from the condition `[k·n, …]` of all k."""
        new = [i for i, label in enumerate(labels) if label not in self._number]
        if not new:
            return
        rows = take(_by_label(condition, len(labels)), torch.tensor(new))
        known = self._conditions
        joined = {name: torch.cat([known[name], row]) for name, row in rows.items()} if known else rows
        self._number |= {labels[i]: len(self) + j for j, i in enumerate(new)}  # last: joining may fail
        self._conditions = joined

    def forget(self, used: np.ndarray) -> np.ndarray:
        """Drop labels that came later and are not `used`; return the new number of each old one, int `[L]`."""
        stay = np.union1d(np.arange(self._n_kept), used)
        moved = np.full(len(self), -1)
        moved[stay] = np.arange(len(stay))
        self._conditions = take(self._conditions, torch.from_numpy(stay))
        self._number = {label: int(moved[n]) for label, n in self._number.items() if moved[n] >= 0}
        return moved


def _by_label(condition: Condition, n_labels: int) -> Condition:
    """A condition `[L·n, …]` as `[L, n, …]`; nothing for no labels."""
    if not n_labels:
        return {}
    n = n_prompts(condition, n_labels)
    return {name: value.unflatten(0, (n_labels, n)) for name, value in condition.items()}
