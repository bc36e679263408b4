"""Counterfactuals: an image as a denoiser would have it if it were of another class."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .data.arrays import to_bytes
from .denoising.inversion import invert, regenerate
from .errors import InvalidInputError, InvalidTypeError
from .ports import DecodingDenoiser, Denoiser, Label, n_prompts, take
from .reranker import Reranker

__all__ = ["Counterfactual", "counterfactual", "decoding"]


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """An image, its reconstructions under two classes, and its change from one to the other.

    A picture is an array `[H, W]` or `[H, W, C]`, or `[d]` of a vector. It is uint8 if the denoiser decodes to it or
    the image was uint8, a PIL image or a file; otherwise it is in the image's own value range.

    Attributes
    ----------
    a, b : labels
        The two classes.
    image : array
        The image as the denoiser has it, encoded and decoded.
    reconstruction_a, reconstruction_b : arrays
        The image inverted to noise under a class, and regenerated under the same.
    changed : array
        The image inverted under a and regenerated under b.
    """

    a: Label
    b: Label
    image: np.ndarray
    reconstruction_a: np.ndarray
    reconstruction_b: np.ndarray
    changed: np.ndarray


def decoding(denoiser: Denoiser) -> DecodingDenoiser:
    """The same denoiser, if it decodes.

    Raises
    ------
    InvalidTypeError
        If it does not.
    """
    if isinstance(denoiser, DecodingDenoiser):
        return denoiser
    raise InvalidTypeError(
        f"a counterfactual needs a denoiser that decodes, and {type(denoiser).__name__} has no method decode; give it "
        "one, decode(x0) -> images, or use explain, which needs none"
    )


@torch.inference_mode()
def counterfactual(
    stage: Reranker,
    image: Any,
    labels: tuple[Label, Label],
    steps: int,
    strength: float,
    pixel_range: tuple[float, float] | None,
    progress: bool = False,
) -> Counterfactual:
    """Invert an image under two classes by DDIM, and regenerate it (Appendix D of arXiv 2303.16203).

    Parameters
    ----------
    stage : Reranker
        Denoiser and conditions.
    image : sequence of one image
        Input of the denoiser's `encode`.
    labels : (a, b)
        The two classes.
    steps : int
        Steps either way; 5 evaluations each, times the prompts of a class.
    strength : float
        Time in (0, 1) to which the image is inverted.
    pixel_range : (low, high) or None
        Values that become 0 and 255 of a picture in uint8. None keeps the type that the denoiser decodes to.
    progress : bool
        Show the steps.

    Raises
    ------
    InvalidTypeError
        If the denoiser does not decode.
    InvalidInputError
        If what it predicts is not finite.
    """
    denoiser = decoding(stage.denoiser)
    number, conditions = stage.condition(labels)
    n = n_prompts(conditions, len(number))
    prompts = torch.tensor([[number[label] * n + prompt for prompt in range(n)] for label in labels])  # [2, n]
    x0 = denoiser.encode(image).to(denoiser.device, denoiser.dtype)
    times = torch.linspace(0, strength, steps + 1, dtype=torch.float64)[1:]
    way_there, way_back = (take(conditions, prompts[i].flatten()) for i in ([0, 1], [0, 1, 1]))
    noise_a, noise_b = invert(denoiser, x0.expand(2, *x0.shape[1:]), way_there, times, progress)
    regenerated = regenerate(denoiser, torch.stack([noise_a, noise_b, noise_a]), way_back, times, progress)
    if not regenerated.isfinite().all():
        raise InvalidInputError("tier 2's predictions are not finite for this image; there is no counterfactual")
    if (regenerated[0] - x0[0]).abs().mean() > x0.abs().mean():
        warnings.warn(
            "the reconstruction is far from the image, so the change means nothing: take more steps, or less strength",
            stacklevel=3,
        )
    decoded = denoiser.decode(torch.cat([x0, regenerated.to(x0)]))
    decoded = decoded[..., 0] if decoded.ndim == 4 and decoded.shape[3] == 1 else decoded
    if pixel_range is not None and decoded.dtype != np.uint8 and decoded.ndim > 2:
        decoded = to_bytes(decoded, pixel_range)
    return Counterfactual(*labels, *decoded)
