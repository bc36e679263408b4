"""The optimiser of our trainings: AdamW, or Muon for the weights that are matrices."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .devices import has_bf16

__all__ = ["Float32Muon", "Optimizer"]

NARROWEST = 17
"""Fewest rows and channels of a weight that Muon takes: layers next to colours or to a few classes stay AdamW's."""

MUON: dict[str, Any] = {"nesterov": True, "adjust_lr_fn": "match_rms_adamw"}

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Optimizer:
    """AdamW for all parameters of a network, or Muon for its wide weights and AdamW for the rest.

    Wide are the weights of linear layers and of convolutions without groups that have at least `NARROWEST` channels on
    either side. Muon takes steps along orthogonalised momenta (Jordan et al., 2024); a convolution counts as a matrix
    `[first, second · h · w]`. Its steps are scaled to the size of AdamW's, so that both share one learning rate
    (Section 2.2 of arXiv 2502.16982).

    Parameters
    ----------
    network : nn.Module
        Its parameters are changed in place; they must stay where they are.
    weight_decay : float
        Of both.
    muon : bool
        Whether Muon takes the wide weights.
    """

    def __init__(self, network: nn.Module, weight_decay: float, muon: bool = False) -> None:
        self._parameters = list(network.parameters())
        wide = _wide_weights(network) if muon else []
        self._matrices = {id(weight): (weight, nn.Parameter(_as_matrix(weight.detach(), weight))) for weight in wide}
        others = [p for p in self._parameters if id(p) not in self._matrices]
        groups = [{"params": others}]  # of which there may be none
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)]
        if wide:
            matrices = [matrix for _, matrix in self._matrices.values()]
            kind = torch.optim.Muon if has_bf16(matrices[0].device) else Float32Muon
            self._parts.append(kind(matrices, weight_decay=weight_decay, **MUON))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self, learning_rate: float) -> None:
        """One step along the gradients that the parameters hold."""
        for weight, matrix in self._matrices.values():
            matrix.grad = None if weight.grad is None else _as_matrix(weight.grad, weight)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def state_dict(self) -> dict[str, Tensor]:
        """What is remembered from step to step, by "number of the parameter.name"."""
        return {
            f"{i}.{name}": value
            for i, (part, parameter) in enumerate(self._places())
            for name, value in part.state.get(parameter, {}).items()
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave, of an optimiser for the same network."""
        for part in self._parts:
            part.state.clear()
        for key, value in tensors.items():
            i, name = key.split(".", 1)
            part, parameter = self._places()[int(i)]
            part.state[parameter][name] = _laid_out(value, parameter)

    def _places(self) -> list[tuple[torch.optim.Optimizer, Tensor]]:
        """For each parameter of the network: who optimises it, and as what."""
        found = [self._matrices.get(id(p)) for p in self._parameters]
        return [(self._parts[bool(f)], f[1] if f else p) for f, p in zip(found, self._parameters, strict=True)]


def _wide_weights(network: nn.Module) -> list[Tensor]:
    layers = [layer for layer in network.modules() if isinstance(layer, LAYERS)]
    weights = [layer.weight for layer in layers if getattr(layer, "groups", 1) == 1]
    return [weight for weight in weights if min(weight.shape[:2]) >= NARROWEST]


def _as_matrix(values: Tensor, weight: Tensor) -> Tensor:
    """A weight or its gradient as a matrix; of the weight itself, one that shares its memory."""
    return values.permute(weight.dim_order()).flatten(1)


def _laid_out(moment: Tensor, parameter: Tensor) -> Tensor:
    """A copy of a moment in the memory layout of its parameter, which the optimisers' kernels count on."""
    if moment.ndim == 0:  # the number of steps
        return moment.to(parameter.device, copy=True)
    return torch.empty_like(parameter, requires_grad=False).copy_(moment)


class Float32Muon(torch.optim.Muon):
    """torch's Muon in float32, for devices without a bfloat16 of their own; with the options in `MUON`.

    torch's orthogonalises in bfloat16, which other processors go a long way round to compute: for a U-Net of 2.9 M
    parameters, on a core with no more than AVX2, a step took more than ten times as long, and longer than forward and
    backward pass.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step along the gradients that the matrices hold."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._descend(matrix, matrix.grad, group)

    def _descend(self, matrix: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, keep = self.state[matrix], group["momentum"]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        momentum = state["momentum_buffer"].lerp_(grad, 1 - keep)
        direction = _orthogonalised(
            grad.lerp(momentum, keep), group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(direction, alpha=-0.2 * group["lr"] * math.sqrt(max(matrix.shape)))


def _orthogonalised(matrix: Tensor, coefficients: tuple[float, float, float], n_steps: int, eps: float) -> Tensor:
    """Newton-Schulz iteration towards the orthogonal matrix next to one, as torch's Muon does it."""
    a, b, c = coefficients
    tall = len(matrix) > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(n_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
