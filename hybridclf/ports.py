"""The two ports everything meets at: a proposer (tier 1) and a denoiser (tier 2); and how a new proposer is trained.

Work for a denoiser comes in **rows and pairs**. A row is one noised image at one trial; a pair is
(row, class); where a class has several prompts, each of them is a pair of its own, and their errors
are averaged. Indices are flat, so ragged candidate lists need no padding and images with different
labels share a batch. A late-conditioned denoiser runs its trunk once per row and a light head per
pair; any other model gathers rows and runs one forward per pair.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from .errors import InvalidInputError

__all__ = ["Condition", "Denoiser", "Label", "Proposer", "Trainable", "VarianceDenoiser", "n_prompts", "take"]

Label = Any
"""A class label: whatever numpy can sort and compare, mostly int or str."""

Condition = Mapping[str, Tensor]
"""What a denoiser needs to know of L labels: named tensors whose first axis is the label, `[L, …]`.

With n prompts per label it is `[L·n, …]`, label by label.
"""


@runtime_checkable
class Proposer(Protocol):
    """Tier 1: scikit-learn's own classifier protocol, so any fitted classifier is a proposer.

    `predict_log_proba` is preferred; `hybridclf.proposer.log_proba` also takes `predict_proba` or
    `decision_function` where a classifier has nothing better. A proposer whose `takes_images` is true gets
    images as the user passed them (arrays or PIL images); all others get flat vectors, float `[n, d]`.
    One that goes by label names has `fit(None, labels)`, which only sets `classes_`, and `__sklearn_clone__`, whose
    copies share its model: each label set is told to a copy. A plain function needs none of this.
    """

    classes_: np.ndarray

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Log-probabilities `[n, n_classes]`; rows of their exponentials sum to one."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """Tier 2: a conditional diffusion model, asked for the noise in an image under each label.

    Attributes
    ----------
    shape : tuple of int
        Shape of one encoded image x0, without the batch axis.
    dtype : torch.dtype
        In float64, results are taken not to depend on batch shapes. In any other type the reranker pads every
        batch to a fixed number of rows or pairs, whichever `cost_unit` counts, so that a prediction cannot depend on
        its companions, and the pairs of one that is counted in rows to a multiple of 64; where their number changes a
        result all the same, that denoiser pads them itself.
    device : torch.device
        Where `predict` wants its tensors.
    cost_unit : "row" or "pair"
        What a batch is counted in: "row" for late-conditioned models (pairs are nearly free there),
        "pair" for models that run one forward per pair.
    weighting : Weighting, optional
        Timestep weights of squared errors that the model was trained with, used where no others are asked for; uniform
        in ε if it has none.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    cost_unit: Literal["row", "pair"]

    def encode(self, images: Any) -> Tensor:
        """Images `[n, …]` to x0 `[n, *shape]`, on `device`; called once per image."""
        ...

    def condition(self, labels: Sequence[Label]) -> Condition:
        """What `predict` needs to know of L labels, `[L·n, …]` for n ≥ 1 prompts of each; called once per label set.

        Raises
        ------
        UnknownLabelError
            For labels that a class-conditional model was not trained on.
        """
        ...

    def noise_levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(α_t, σ_t) `[R]` of x_t = α_t·x0 + σ_t·ε, for t in (0, 1), 0 clean and 1 pure noise."""
        ...

    def predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> Tensor:
        """Predicted noise ε̂ `[P, *shape]` for P pairs.

        Parameters
        ----------
        x_t : Tensor `[R, *shape]`
            Noised images.
        t : Tensor `[R]`
            Their times in (0, 1).
        row : LongTensor `[P]`
            Which row each pair belongs to.
        condition : Condition `[P, …]`
            What each pair is conditioned on.
        """
        ...


@runtime_checkable
class VarianceDenoiser(Denoiser, Protocol):
    """A denoiser that has learned the variance of p(x_{t-1} | x_t) too, as DiT has: for the variational bound."""

    def predict_variance(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Predicted noise, and log-variance of p(x_{t-1} | x_t), each `[P, *shape]`; arguments as for `predict`."""
        ...

    def previous_levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(α, σ) `[R]` of the level before that of time t; (1, 0) before the first."""
        ...


class Trainable(Protocol):
    """A network that becomes tier 1 once it is trained.

    Its adapter's function, under the entry-point group `hybridclf.trainables`, takes what follows the adapter's name in
    the spec string, and by keyword: `classes`, the C label names; `image_size`, S; `mean` and `scale`, three numbers
    each, by which pixels from 0 to 255 are standardised.

    Attributes
    ----------
    network : nn.Module
        From standardised images `[B, 3, S, S]` to logits `[B, C]`; new, its weights drawn from torch's global
        generator. In training it draws no random numbers.
    """

    network: nn.Module

    def load(self, folder: Path) -> None:
        """Give the network the weights that `save` wrote into a folder.

        An OSError if they cannot be read, and a RuntimeError if they are another network's.
        """
        ...

    def save(self, network: nn.Module, folder: Path) -> str:
        """Write a trained copy of the network into a new folder; the spec string of the proposer that loads it.

        That proposer takes uint8 images `[n, S, S, 3]` and knows the classes by their names.
        """
        ...


def take(condition: Condition, index: Tensor) -> Condition:
    """The conditions of the labels at `index` `[P]`, in that order."""
    return {name: value[index.to(value.device)] for name, value in condition.items()}


def n_prompts(condition: Condition, n_labels: int) -> int:
    """How many prompts each of L labels has in their condition `[L·n, …]`.

    Raises
    ------
    InvalidInputError
        If they cannot all have the same number.
    """
    length = len(next(iter(condition.values())))
    if length == 0 or length % n_labels:
        raise InvalidInputError(
            f"the denoiser's condition of {n_labels} labels has {length} rows; give each label the same number"
        )
    return length // n_labels
