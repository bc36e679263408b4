"""Ports of both tiers: the proposer (tier 1), the denoiser (tier 2), and the trainable network of a new proposer.

A denoiser is called with **rows** and **evaluations**. A row is one noised image at one trial; an evaluation is
(row, class). If a class has several prompts, each is an evaluation of its own, and their errors are averaged. Indices
are flat, so ragged candidate lists need no padding and images with different labels share a batch. A late-conditioned
denoiser runs its trunk once per row and a light head per evaluation; any other model gathers rows and runs one forward
per evaluation.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from .errors import InvalidInputError

__all__ = [
    "Adaptation",
    "Condition",
    "DecodingDenoiser",
    "Denoiser",
    "FeatureModel",
    "FineTunable",
    "Label",
    "Proposer",
    "TextModel",
    "Trainable",
    "TunableDenoiser",
    "VarianceDenoiser",
    "n_prompts",
    "take",
]

Label = Any
"""Class label of any type that numpy can sort and compare, mostly int or str."""

Condition = Mapping[str, Tensor]
"""Encoded labels, such as class numbers or text embeddings: named tensors `[L, …]`, the first axis being the label.

With n prompts per label they are `[L·n, …]`, label by label.
"""


@runtime_checkable
class Proposer(Protocol):
    """Port of tier 1: scikit-learn's classifier protocol, so every fitted classifier is a proposer.

    A classifier without `predict_log_proba` is asked by `predict_proba` or `decision_function`. A plain function from
    images to log-probabilities is a proposer too.

    A proposer with a true attribute `takes_images` gets images as the user passed them, arrays or PIL images. All
    others get flat vectors, float `[n, d]`. A proposer that reads label names has `fit(None, labels)`, which only sets
    `classes_`, and `__sklearn_clone__`, whose copies share its model; each label set then gets a copy.

    Attributes
    ----------
    classes_ : array `[n_classes]`
        Labels of the columns.
    """

    classes_: np.ndarray

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Predict log-probabilities.

        Parameters
        ----------
        X : array `[n, d]`, or array or list of n images
            The items to classify.

        Returns
        -------
        float array `[n, n_classes]`
            The exponentials of a row sum to one.
        """
        ...


@runtime_checkable
class Denoiser(Protocol):
    """Port of tier 2: a conditional diffusion model that predicts the noise in an image under each label.

    Attributes
    ----------
    shape : tuple of int
        Shape of one encoded image x0, without the batch axis.
    dtype : torch.dtype
        Type of the computation. In float64, results are assumed not to depend on batch shapes. In any other type the
        reranker pads batches a little, on a GPU to the next power of two, and predictions agree within rounding
        whatever else is in the batch. Counted in rows, evaluations are padded to a multiple of 64; a denoiser whose
        results still depend on their number pads them itself.
    device : torch.device
        Device of the tensors that `predict` takes.
    cost_unit : "row" or "evaluation"
        Unit of the batch size: "row" for late-conditioned models, whose evaluations are nearly free, and "evaluation"
        for models that run one forward pass per evaluation.
    weighting : Weighting, optional
        Timestep weights of squared errors that the model was trained with, the default of the reranker. Without it the
        weights are uniform in ε.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    cost_unit: Literal["row", "evaluation"]

    def encode(self, images: Any) -> Tensor:
        """Encode images `[n, …]` to x0 `[n, *shape]` on `device`; called once per image."""
        ...

    def condition(self, labels: Sequence[Label]) -> Condition:
        """Encode L labels for `predict`; called once per label set.

        Returns
        -------
        Condition `[L·n, …]`
            With n ≥ 1 prompts per label.

        Raises
        ------
        UnknownLabelError
            For labels that a class-conditional model was not trained on.
        """
        ...

    def noise_levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels (α_t, σ_t) `[R]` of x_t = α_t·x0 + σ_t·ε, for t in (0, 1), where 0 is clean and 1 pure noise."""
        ...

    def predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> Tensor:
        """Predict the noise of E evaluations.

        Parameters
        ----------
        x_t : Tensor `[R, *shape]`
            Noised images.
        t : Tensor `[R]`
            Times of the rows, in (0, 1).
        row : LongTensor `[E]`
            Row of each evaluation.
        condition : Condition `[E, …]`
            Condition of each evaluation.

        Returns
        -------
        Tensor `[E, *shape]`
            ε̂, whatever the model itself predicts (v, x0 or velocity).
        """
        ...


@runtime_checkable
class DecodingDenoiser(Denoiser, Protocol):
    """Port of a denoiser that also decodes x0 to images; counterfactuals need it."""

    def decode(self, x0: Tensor) -> np.ndarray:
        """Decode x0 `[n, *shape]` to images.

        Returns
        -------
        array `[n, H, W, C]`, `[n, H, W]` or `[n, d]`
            Images that `encode` takes, in the value range that it expects of floats, or as uint8. What `encode` leaves
            out is lost, such as the margin that it crops.
        """
        ...


@runtime_checkable
class VarianceDenoiser(Denoiser, Protocol):
    """Port of a denoiser that also predicts the variance of p(x_{t-1} | x_t), as DiT does; the VLB needs it."""

    def predict_variance(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Predict the noise and the log-variance of p(x_{t-1} | x_t), each `[E, *shape]`; arguments as in `predict`."""
        ...

    def previous_levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels (α, σ) `[R]` one step before time t; (1, 0) before the first."""
        ...


class Adaptation(Protocol):
    """Port of a pretrained denoiser in tuning: a few new parameters are trained, its own weights are frozen.

    Attributes
    ----------
    denoiser : Denoiser
        Denoiser that predicts with the new parameters, and with gradients.
    parameters : nn.Module
        Module that holds the new parameters alone. At first they change no prediction.
    encodes_anew : bool
        True if conditions depend on the new parameters.
    """

    denoiser: Denoiser
    parameters: nn.Module
    encodes_anew: bool

    def condition(self, labels: Sequence[Label]) -> Condition:
        """Encode L labels as the denoiser does, with gradients if `encodes_anew`."""
        ...

    def save_memory(self) -> None:
        """Compute the network's activations once more in the backward pass instead of keeping them."""
        ...

    def save(self, folder: Path) -> Mapping[str, str]:
        """Write the new parameters into an existing folder.

        Returns
        -------
        mapping of str to str
            File names by the option of the denoiser's spec string that takes them.
        """
        ...


@runtime_checkable
class TunableDenoiser(Denoiser, Protocol):
    """Port of a pretrained denoiser that can be tuned on labelled images."""

    def adapted(self, rank: int, words_of: Sequence[Label], seed: int) -> AbstractContextManager[Adaptation]:
        """Add new parameters in a `with` block; afterwards the denoiser is as before.

        Parameters
        ----------
        rank : int
            Rank of a LoRA (arXiv 2106.09685) on the layers by which the condition enters; 0 for none.
        words_of : sequence of labels
            Labels whose words or classes get new embeddings (textual inversion, arXiv 2208.01618); may be empty.
        seed : int
            Seed of the first weights.
        """
        ...


@runtime_checkable
class TextModel(Protocol):
    """Port of a tier that reads any text: labels by way of a prompt template, and captions as they are.

    A proposer among them has `logits(images)`, its unnormalised log-probabilities `[n, n_classes]`, which can be
    compared between images.
    """

    def with_prompts(self, prompts: str) -> Self:
        """The same model, its weights shared, with another prompt template, in which {} stands for the text."""
        ...


@runtime_checkable
class FeatureModel(Protocol):
    """Port of a pretrained proposer whose features a new linear classifier can be fitted on.

    Attributes
    ----------
    feature_side : int
        Side in pixels of the images that the network sees; others are stretched to it.
    """

    feature_side: int

    def features(self, images: Any) -> np.ndarray:
        """Compute the features of images.

        Parameters
        ----------
        images : array or list of n images
            Input of the proposer's `predict_log_proba`.

        Returns
        -------
        float32 array `[n, d]`
        """
        ...

    def check_head(self) -> None:
        """Check, before anything is trained, that a copy `with_head` can be saved.

        Raises
        ------
        InvalidInputError
            If it cannot; the error says why.
        """
        ...

    def with_head(self, weight: np.ndarray, bias: np.ndarray, classes: Sequence[str]) -> "FineTunable":
        """Copy the network, with a new classifier: features @ weight.T + bias.

        Parameters
        ----------
        weight, bias : float array `[C, d]`, `[C]`
            Classifier of the features.
        classes : sequence of C str
            Names of the classes.
        """
        ...


class FineTunable(Protocol):
    """Port of a pretrained network with a new classifier, to be saved as it is or trained further first.

    Attributes
    ----------
    network : nn.Module
        Network from RGB images `[B, 3, H, W]` of any size, float in [0, 255], to logits `[B, C]`. It resizes and
        standardises them itself. It stays in evaluation, so that it draws no random numbers and its running statistics
        are fixed. Its parameters require gradients.
    """

    network: nn.Module

    def learning_rates(self, decay: float, lowest: float) -> Mapping[str, float]:
        """Factors on the learning rate, by the parameter's name.

        It is 1 in the last layer, and from each layer to the one before it it falls by the factor `decay`, but never
        below `lowest`.
        """
        ...

    def save(self, network: nn.Module, folder: Path) -> str:
        """Write the network, or a trained copy of it, into a new folder.

        Returns
        -------
        str
            Spec string of the proposer that loads it, whose `classes_` are the class names.
        """
        ...


class Trainable(Protocol):
    """Port of a network that becomes tier 1 once trained; `hybridclf train` takes timm's small convolutional ones.

    Its adapter is a function under the entry-point group `hybridclf.trainables`. It gets the part of the spec string
    after the adapter's name and, by keyword, `classes`, the C label names; `image_size`, S; `mean` and `scale`, three
    numbers each, which standardise pixels from 0 to 255.

    It may have a method `prepare(images, mirrored)`, called before training. `images`, `[m, 3, S, S]`, are some of the
    standardised training images, and `mirrored` is true if mirrored images show the same class.

    Attributes
    ----------
    network : nn.Module
        New network from standardised images `[B, 3, S, S]` to logits `[B, C]`, its weights drawn from torch's global
        generator. In training it draws no random numbers.
    """

    network: nn.Module

    def load(self, folder: Path, same_classes: bool = True) -> None:
        """Load the weights that `save` wrote into a folder; of a network for other classes, all but the last layer's.

        Raises
        ------
        OSError
            If they cannot be read.
        RuntimeError
            If they belong to another network.
        """
        ...

    def save(self, network: nn.Module, folder: Path) -> str:
        """Write a trained copy of the network into a new folder.

        Returns
        -------
        str
            Spec string of the proposer that loads it, which takes uint8 images `[n, S, S, 3]` and has the class names
            as `classes_`.
        """
        ...


def take(condition: Condition, index: Tensor) -> Condition:
    """Select the conditions of the labels at positions `index` `[E]`."""
    return {name: value[index.to(value.device)] for name, value in condition.items()}


def n_prompts(condition: Condition, n_labels: int) -> int:
    """Number n of prompts per label in a condition `[L·n, …]` of L labels.

    Raises
    ------
    InvalidInputError
        If the first axis is empty or no multiple of L.
    """
    length = len(next(iter(condition.values())))
    if length == 0 or length % n_labels:
        raise InvalidInputError(
            f"the denoiser's condition of {n_labels} labels has {length} rows; give each label the same number"
        )
    return length // n_labels
