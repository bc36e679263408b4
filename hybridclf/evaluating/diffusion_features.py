"""Features from inside a diffusion model, as a scikit-learn transformer."""

import copy
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from .. import plugins
from ..captions import NO_PROMPT, without_template
from ..devices import send
from ..errors import InvalidInputError
from ..models.denoiser import LateConditionedDenoiser
from ..ports import Condition, TextModel
from ..utils.bounds import check_number, check_whole, draw_seed

__all__ = ["DiffusionFeatures"]

MIDDLE = ("mid_block", "middle2", "transformer_blocks", "blocks")
"""Names of a network's middle: that of U-Nets, or lists of blocks, whose middle one it is."""


class DiffusionFeatures(TransformerMixin, BaseEstimator):
    """Features of images from inside a diffusion model: the baseline "SD features" with any classifier behind it.

    An image is noised to a fixed level and passed through the network without a prompt. Its features are a layer's
    output, averaged over positions. All images share one noise, so that none depends on its companions.

    Parameters
    ----------
    denoiser : Denoiser or str
        The model, or its spec string such as "diffusers:FOLDER": a model of text, DiT, or a denoiser that `fit` or
        `hybridclf train` made.
    layer : str
        "mid", the middle of the network; or a module's name, such as "down_blocks.1".
    t : float
        Noise level as a time in (0, 1), where 0 is clean.
    batch_size : int
        Images in one pass.
    device : str
        For a spec string: "auto" (a GPU if there is one), or torch's name of the device.
    random_state : int, RandomState or None
        Decides the noise.

    Attributes
    ----------
    denoiser_ : Denoiser
        The model.

    References
    ----------
    Row "SD Features" of Table 1, and Appendix F.4, of arXiv 2303.16203. The classifier there is a ResNet-18 on the
    positions; here it is whatever follows.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> make_pipeline(DiffusionFeatures("diffusers:FOLDER"), LogisticRegression())  # doctest: +SKIP
    """

    def __init__(
        self,
        denoiser: Any,
        *,
        layer: str = "mid",
        t: float = 0.1,
        batch_size: int = 32,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.denoiser = denoiser
        self.layer = layer
        self.t = t
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Load the model; nothing is learned from X and y.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            For options out of range, a layer that the network lacks, or a model that needs a class.
        UnknownSpecError
            For a string that no adapter answers to.
        """
        check_number("t", self.t, above=0, below=1)
        check_whole("batch_size", self.batch_size, 1)
        named = isinstance(self.denoiser, str)
        denoiser = plugins.offer("denoiser", self.denoiser, {"device": self.device}) if named else self.denoiser
        _layer(denoiser, self.layer)
        self._nothing = _no_class(denoiser)
        generator = torch.Generator().manual_seed(draw_seed(self.random_state))
        self._noise = torch.randn(denoiser.shape, generator=generator)
        self.denoiser_ = denoiser
        return self

    @torch.inference_mode()
    def transform(self, X: Any) -> np.ndarray:
        """Compute the features of n images, float32 `[n, width]`.

        Parameters
        ----------
        X : array `[n, …]`, or list of n PIL images
            Input of the denoiser's `encode`.
        """
        check_is_fitted(self)
        parts = [self._features(X[i : i + self.batch_size]) for i in range(0, len(X), self.batch_size)]
        return torch.cat(parts).float().cpu().numpy()

    def _features(self, images: Any) -> Tensor:
        """Features `[B, width]` of one batch."""
        denoiser = self.denoiser_
        x0 = denoiser.encode(images)
        times = send(torch.full((len(x0),), self.t), denoiser.device)
        alpha, sigma = (level.view(-1, *(1,) * (x0.ndim - 1)) for level in denoiser.noise_levels(times))
        x_t = (alpha * x0 + sigma * send(self._noise, denoiser.device)).to(denoiser.dtype)
        condition = {name: value.expand(len(x0), *value.shape[1:]) for name, value in self._nothing.items()}
        found: list[Tensor] = []
        hook = _layer(denoiser, self.layer).register_forward_hook(lambda _, __, output: found.append(_of(output)))
        if isinstance(denoiser, LateConditionedDenoiser):
            denoiser = copy.copy(denoiser)
            denoiser.graphs = denoiser.compiled = False  # a graph's replay calls no hook, a compiled trunk may not
        try:
            denoiser.predict(x_t, times, torch.arange(len(x0), device=x0.device), condition)
        finally:
            hook.remove()
        return _pooled(found[-1])


def _layer(denoiser: Any, name: str) -> nn.Module:
    """The module of that name in the denoiser's network."""
    network: nn.Module = denoiser.network
    if name != "mid":
        try:
            return network.get_submodule(name)
        except AttributeError as error:
            known = ", ".join(name for name, _ in network.named_children())
            raise InvalidInputError(f'the network has no layer {name!r}; give "mid", or one in {known}') from error
    found = next((getattr(network, name) for name in MIDDLE if hasattr(network, name)), None)
    if found is None:
        raise InvalidInputError(f"a {type(network).__name__} has no known middle; name a layer of it")
    return found[len(found) // 2] if isinstance(found, nn.ModuleList) else found


def _no_class(denoiser: Any) -> Condition:
    """Condition `[1, …]` that stands for no class."""
    if isinstance(denoiser, TextModel):
        return without_template(denoiser).condition([NO_PROMPT])
    if hasattr(denoiser, "unconditional"):
        return denoiser.unconditional()
    if isinstance(denoiser, LateConditionedDenoiser):  # its trunk sees no class, so any will do
        return denoiser.condition(denoiser.classes[:1].tolist())
    raise InvalidInputError(
        f"{type(denoiser).__name__} has no prediction without a class; give a model of text, DiT, or a denoiser whose "
        "`unconditional()` is the condition [1, …] of no class"
    )


def _of(output: Any) -> Tensor:
    """The tensor in a layer's output; of several, the last, which is the image's in joint transformer blocks."""
    return output if isinstance(output, Tensor) else output[-1]


def _pooled(features: Tensor) -> Tensor:
    """Mean over positions: of maps `[B, C, h, w]`, or of tokens `[B, positions, C]`; vectors stay as they are."""
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features.mean(dim=1) if features.ndim == 3 else features
