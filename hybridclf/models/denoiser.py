"""A late-conditioned network behind the denoiser port."""

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..data.arrays import as_array, block_means
from ..devices import check_compiles, mixed_precision, send
from ..errors import UnknownLabelError, choices
from ..ports import Condition, Label
from .graphed import GraphedTrunk
from .late_conditioned import LateConditioned

__all__ = ["LateConditionedDenoiser", "cosine_levels"]

HEAD_EVALUATIONS = {"cpu": 64, "cuda": 1024}
"""Evaluations in one pass of the head, by device: bounds its memory.

A U-Net with ten classes made 82,000 rows a second of 32x32 pixels on an H100, with passes of 64 evaluations 33,000.
"""


def cosine_levels(t: Tensor) -> tuple[Tensor, Tensor]:
    """Noise levels (α_t, σ_t) = (cos πt/2, sin πt/2) of the variance-preserving cosine schedule, t in (0, 1)."""
    angle = t * (torch.pi / 2)
    return angle.cos(), angle.sin()


class LateConditionedDenoiser:
    """Denoiser port of a late-conditioned network: one trunk pass per row, one light head per evaluation.

    Parameters
    ----------
    network : LateConditioned
        The trained network.
    classes : sequence of labels
        Labels of the class numbers 0, 1, ….
    mean, scale : float arrays `[d]` or `[C]`
        Images are encoded as (image - mean) / scale, per channel of an image or per feature of a vector, whose features
        may all have the same scale.
    dtype : torch.dtype
        Type of weights and computation.
    device : torch.device or str
        Device of the network.
    mirror : bool
        Show the network the image and its noise mirrored at about half of all times, evenly scattered. Only for images
        whose class does not change by it, and a network trained on both.
    shrink : int
        Factor by which images are averaged down to the network's side.
    mixed : bool
        Multiply in bfloat16 on a processor that does so natively, if `dtype` is float32; weights, images and noise stay
        in float32. On other devices it changes nothing.

    Attributes
    ----------
    graphs : bool
        Run the trunk as a CUDA graph on an NVIDIA GPU (see `GraphedTrunk`). It has no effect in float64, compiled,
        under autocast or outside of inference mode. Set False to count or time single kernels.
    """

    cost_unit: Literal["row", "evaluation"] = "row"

    def __init__(
        self,
        network: LateConditioned,
        classes: Sequence[Label] | np.ndarray,
        mean: np.ndarray,
        scale: np.ndarray,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        mirror: bool = False,
        shrink: int = 1,
        mixed: bool = False,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.mirror, self.shrink, self.mixed = mirror, shrink, mixed
        self.network = network.to(device=self.device, dtype=dtype).eval().requires_grad_(False)
        self.compiled, self.graphs = False, True
        self._graphed = GraphedTrunk(self.network)
        self.classes = np.asarray(classes)
        self.mean, self.scale = np.asarray(mean, dtype=float), np.asarray(scale, dtype=float)
        self.shape: tuple[int, ...] = tuple(network.config["shape"])
        self._number = {label: i for i, label in enumerate(self.classes.tolist())}

    def compile(self) -> None:
        """Compile the network (torch.compile) for later predictions, worthwhile in jobs of many minutes.

        The first prediction then takes about a minute longer. Errors change in their last digits.

        Raises
        ------
        MissingDependencyError
            If this machine cannot compile.
        """
        check_compiles(self.device)
        self.compiled = True

    def taking(self, shape: Sequence[int]) -> "LateConditionedDenoiser":
        """Make a denoiser of the same network for images (H, W, C) of a multiple of its size, which it averages down.

        For any other shape it is the denoiser itself.
        """
        factor = 0 if len(self.shape) == 1 else shape[0] // self.shape[1]
        if factor in (0, self.shrink) or tuple(shape) != self._image_shape(factor):
            return self
        other = copy.copy(self)
        other.shrink = factor
        return other

    def _image_shape(self, factor: int) -> tuple[int, ...]:
        """Shape of an image that many times as large as the network's, or of a vector."""
        return self.shape if len(self.shape) == 1 else (*(factor * s for s in self.shape[1:]), self.shape[0])

    def encode(self, images: Any) -> Tensor:
        """Standardise images to `[n, *shape]`, channels first.

        Parameters
        ----------
        images : array or list of images
            Anything `arrays.as_array` reads.

        Raises
        ------
        InvalidInputError
            If the images have another shape than the network, times `shrink`.
        """
        array, mean, scale = as_array(images, self._image_shape(self.shrink)), self.mean, self.scale
        if len(self.shape) > 1:  # channels are moved in uint8, before float64 makes the images eight times as large
            array = np.ascontiguousarray(np.moveaxis(block_means(array, self.shrink), -1, 1))
            mean, scale = mean[:, None, None], scale[:, None, None]
        x0 = array - mean
        x0 /= scale  # in place: one copy less
        return send(torch.from_numpy(x0), self.device, self.dtype)

    def decode(self, x0: Tensor) -> np.ndarray:
        """Undo `encode`: float64 images `[n, H, W, C]` or vectors `[n, d]` in the range of the training images.

        They may leave this range a little. Pixels that were averaged come back as squares of one colour.
        """
        array = x0.double().cpu().numpy()
        if len(self.shape) > 1:
            array = np.moveaxis(array, 1, -1).repeat(self.shrink, axis=1).repeat(self.shrink, axis=2)
        return array * self.scale + self.mean

    def condition(self, labels: Sequence[Label]) -> Condition:
        """Look up the class numbers `[L]` of labels.

        Raises
        ------
        UnknownLabelError
            For a label that the network was not trained on.
        """
        unknown = [label for label in labels if label not in self._number]
        if unknown:
            raise UnknownLabelError(
                f"the denoiser does not know {unknown[0]!r}; it knows {choices(self.classes.tolist(), 20)}"
            )
        return {"label": torch.tensor([self._number[label] for label in labels], device=self.device)}

    def noise_levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels (α_t, σ_t) `[R]` of the cosine schedule, on which the network was trained."""
        return cosine_levels(t)

    def predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> Tensor:
        """Predicted noise `[E, *shape]`: a trunk for R rows, a light head for E evaluations."""
        try:
            return self._predict(x_t, t, row, condition)
        except torch.OutOfMemoryError:
            self._graphed.forget()  # the caller tries again with a smaller batch, whose shape has no graph yet
            raise

    def _predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> Tensor:
        if not self.mirror:
            return self._passes(x_t, t, row, condition)
        mirrored = scattered(t)  # per time, not per image: all classes and images of a trial are seen alike
        return _flip(self._passes(_flip(x_t, mirrored), t, row, condition), mirrored[row])

    def _passes(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> Tensor:
        network, (trunk, head) = self.network, _parts(type(self.network), self.compiled)
        size = HEAD_EVALUATIONS.get(self.device.type, HEAD_EVALUATIONS["cpu"])
        passes = zip(row.split(size), condition["label"].split(size), strict=True)
        with mixed_precision(x_t, self.mixed):
            features, common = self._graphed(x_t, t) if self._takes_graph(x_t) else trunk(network, x_t, t)
            common = common.to(x_t.dtype)
            return torch.cat([common[r] + head(network, features[r], label) for r, label in passes])

    def _takes_graph(self, x_t: Tensor) -> bool:
        """Tell if the trunk may run as a graph: its shapes come again (not in float64, where no batch is padded)."""
        repeats = self.dtype != torch.float64 and not self.compiled and not torch.is_autocast_enabled("cuda")
        return self.graphs and x_t.is_cuda and repeats and torch.is_inference_mode_enabled()


def scattered(t: Tensor) -> Tensor:
    """Pick about half of all times `[R]`, bool `[R]`, by one bit of MurmurHash3's finaliser."""
    # a hash of the float's bits, since any rule on t itself could favour one side of a grid of evenly spaced times
    x = t.float().view(torch.int32).long()
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = ((x ^ x >> shift) * factor) & 0xFFFFFFFF
    return (x ^ x >> 16) % 2 == 1


def _flip(x: Tensor, where: Tensor) -> Tensor:
    """Mirror some of the images `[n, C, H, W]`, chosen by `where`, bool `[n]`."""
    return torch.where(where[:, None, None, None], x.flip(-1), x)


@cache
def _parts(kind: type[LateConditioned], compiled: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Trunk and head of a network class as unbound functions, compiled or not."""
    # cached, so that all networks of a class share one compilation
    return (torch.compile(kind.trunk), torch.compile(kind.head)) if compiled else (kind.trunk, kind.head)
