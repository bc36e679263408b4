"""Objectives: the error between the noise and the noise that a denoiser predicts."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InvalidInputError
from ..ports import VarianceDenoiser

__all__ = ["BOUNDS", "OBJECTIVES", "Objective", "Transition", "check_objective", "resolve_objective"]

Objective = Callable[..., Tensor]
"""Errors `[E]` from noise and predicted noise `[E, …]`; the `BOUNDS` take a `Transition` too."""


def _reduce(distance: Tensor) -> Tensor:
    """Sum over all but the first axis, in float32 or better."""
    return distance.flatten(1).sum(1)


def _residual(noise: Tensor, predicted: Tensor) -> Tensor:
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    return predicted.to(dtype) - noise.to(dtype)


def l2(noise: Tensor, predicted: Tensor) -> Tensor:
    """Squared ℓ2 error ‖ε − ε̂‖² `[E]` of two `[E, …]`: Algorithm 1 of arXiv 2303.16203."""
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    return _reduce(F.mse_loss(predicted.to(dtype), noise.to(dtype), reduction="none"))  # in one pass over memory


def l1(noise: Tensor, predicted: Tensor) -> Tensor:
    """ℓ1 error `[E]`: Table 8 of arXiv 2303.16203 (better than ℓ2 on half of its data sets)."""
    return _reduce(_residual(noise, predicted).abs())


def huber(noise: Tensor, predicted: Tensor) -> Tensor:
    """Squared error below 1 and absolute error above `[E]`: Appendix C of arXiv 2303.16203, as it words it.

    Unlike the textbook Huber loss its slope is not continuous at 1; its value is.
    """
    residual = _residual(noise, predicted).abs()
    return _reduce(torch.where(residual < 1, residual.square(), residual))


class Transition(NamedTuple):
    """Input of the variational bound of E evaluations beside the two noises.

    Attributes
    ----------
    x0, log_variance : Tensor `[E, …]`
        The image, and the learned log-variance of p(x_{t-1} | x_t).
    alpha, sigma, alpha_before, sigma_before : Tensor `[E]`
        Noise levels at t and at t - 1, which are (1, 0) before the first.
    """

    x0: Tensor
    log_variance: Tensor
    alpha: Tensor
    sigma: Tensor
    alpha_before: Tensor
    sigma_before: Tensor


def vlb(noise: Tensor, predicted: Tensor, transition: Transition) -> Tensor:
    """Term of the variational bound in bits `[E]`: Section 6.3.3 of arXiv 2303.16203, Equations 4-6 of 2102.09672.

    KL(q(x_{t-1} | x_t, x0) ‖ p(x_{t-1} | x_t)), and at the first level -log p(x0 | x_1) of pixels in steps of 2/255.
    Summed over dimensions, as all errors are here; the papers' code has the mean.
    """
    residual = _residual(noise, predicted)
    x0, log_variance = (v.to(residual.dtype) for v in transition[:2])
    across = (-1,) + (1,) * (residual.ndim - 1)
    alpha, sigma, alpha_before, sigma_before = (v.to(residual.dtype).view(across) for v in transition[2:])
    ratio = alpha / alpha_before
    beta = sigma.square() - (ratio * sigma_before).square()  # 1 - ratio² without its cancellation
    shift = beta / (sigma * ratio) * residual  # between the two means
    log_true = (beta * (sigma_before / sigma).square()).log()
    kl = (log_variance - log_true - 1 + (log_true - log_variance).exp() + shift.square() * (-log_variance).exp()) / 2
    nats = torch.where(sigma_before > 0, kl, _decoder_nll(x0, shift, log_variance))
    return _reduce(nats) / math.log(2)


def _decoder_nll(x0: Tensor, distance: Tensor, log_variance: Tensor) -> Tensor:
    """-log of the mass that a Gaussian at that distance gives to the steps x0 ± 1/255, open at the ends of [-1, 1]."""
    scale = (-log_variance / 2).exp()
    above, below = (torch.special.ndtr(scale * (distance + half)) for half in (1 / 255, -1 / 255))
    mass = torch.where(x0 < -0.999, above, torch.where(x0 > 0.999, 1 - below, above - below))
    return -mass.clamp(min=1e-12).log()


def l2_vlb(noise: Tensor, predicted: Tensor, transition: Transition) -> Tensor:
    """`l2` + `vlb` `[E]`, with equal weights: Table 5 of arXiv 2303.16203, and what DiT was trained with."""
    return l2(noise, predicted) + vlb(noise, predicted, transition)


OBJECTIVES: dict[str, Objective] = {"l2": l2, "l1": l1, "huber": huber}
"""Errors by name."""

BOUNDS: dict[str, Objective] = {"vlb": vlb, "l2+vlb": l2_vlb}
"""Errors that need a denoiser's learned variance, by name."""


def resolve_objective(name: str) -> Objective:
    """The objective of that name.

    Raises
    ------
    InvalidInputError
        For any other name.
    """
    return _by_name("objective", OBJECTIVES | BOUNDS, name)


def check_objective(name: str, denoiser: Any) -> None:
    """Check that a denoiser supports an objective; None stands for the denoiser that `fit` trains.

    Raises
    ------
    InvalidInputError
        If it needs a variance that the denoiser has not learned.
    """
    if name in BOUNDS and not isinstance(denoiser, VarianceDenoiser):
        kind = "the one that fit trains" if denoiser is None else f"a {type(denoiser).__name__}"
        raise InvalidInputError(
            f"objective {name!r} needs a denoiser that has learned its variance, such as DiT; {kind} has not: use one "
            f"of {', '.join(map(repr, OBJECTIVES))}"
        )


def _by_name(kind: str, table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise InvalidInputError(f"{kind} must be one of {', '.join(map(repr, table))}; got {name!r}")
    return table[name]
