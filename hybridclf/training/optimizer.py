"""Optimiser: AdamW, or Muon for weight matrices and AdamW for the rest."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import has_bf16

__all__ = ["Optimizer", "StackedMuon"]

NARROWEST = 17
"""Fewest rows and columns of a weight for Muon: layers next to colours or to a few classes stay with AdamW."""

MUON: dict[str, Any] = {"nesterov": True, "adjust_lr_fn": "match_rms_adamw"}

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Optimizer:
    """AdamW for all parameters of a network, or Muon for its wide weights and AdamW for the rest.

    Wide weights are of linear layers and of convolutions without groups, with at least `NARROWEST` channels on either
    side. Muon takes steps along orthogonalised momenta; a convolution counts as a matrix `[first, second · h · w]`. Its
    steps are scaled to the size of AdamW's, so that both share one learning rate.

    Parameters
    ----------
    network : nn.Module
        Network whose parameters are changed in place; they must keep their memory.
    weight_decay : float
        Weight decay of both optimisers.
    muon : bool
        Use Muon for the wide weights.
    rates : mapping of str to float
        Factors on AdamW's learning rate, by the parameter's name; 1 for the others.

    References
    ----------
    K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    Section 2.2 of arXiv 2502.16982: the scale of the steps.
    """

    def __init__(
        self,
        network: nn.Module,
        weight_decay: float,
        muon: bool = False,
        rates: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._parameters = list(network.parameters())
        wide = _wide_weights(network) if muon else []
        self._matrices = {id(weight): (weight, nn.Parameter(_as_matrix(weight.detach(), weight))) for weight in wide}
        groups: dict[float, dict[str, Any]] = {1.0: {"params": [], "factor": 1.0}}  # AdamW needs a group, even empty
        for name, parameter in network.named_parameters():
            if id(parameter) not in self._matrices:
                factor = rates.get(name, 1.0)
                groups.setdefault(factor, {"params": [], "factor": factor})["params"].append(parameter)
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(list(groups.values()), weight_decay=weight_decay, fused=True)
        ]
        if wide:
            matrices = [matrix for _, matrix in self._matrices.values()]
            self._parts.append(StackedMuon(matrices, weight_decay=weight_decay, **MUON))

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self, learning_rate: float) -> None:
        """Take one step along the parameters' gradients."""
        for weight, matrix in self._matrices.values():
            matrix.grad = None if weight.grad is None else _as_matrix(weight.grad, weight)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate * group.get("factor", 1.0)
            part.step()

    def state_dict(self) -> dict[str, Tensor]:
        """State between steps, such as momenta, by "number of the parameter.name of the state"."""
        return {
            f"{i}.{name}": value
            for i, (part, parameter) in enumerate(self._places())
            for name, value in part.state.get(parameter, {}).items()
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore a `state_dict` of an optimiser for the same network."""
        for part in self._parts:
            part.state.clear()
        for key, value in tensors.items():
            i, name = key.split(".", 1)
            part, parameter = self._places()[int(i)]
            part.state[parameter][name] = _laid_out(value, parameter)

    def _places(self) -> list[tuple[torch.optim.Optimizer, Tensor]]:
        """List each parameter's optimiser and the tensor it optimises: the parameter itself or its matrix."""
        found = [self._matrices.get(id(p)) for p in self._parameters]
        return [(self._parts[bool(f)], f[1] if f else p) for f, p in zip(found, self._parameters, strict=True)]


def _wide_weights(network: nn.Module) -> list[Tensor]:
    """List the weights that Muon takes."""
    layers = [layer for layer in network.modules() if isinstance(layer, LAYERS)]
    weights = [layer.weight for layer in layers if getattr(layer, "groups", 1) == 1]
    return [weight for weight in weights if min(weight.shape[:2]) >= NARROWEST]


def _as_matrix(values: Tensor, weight: Tensor) -> Tensor:
    """View a weight or its gradient as a matrix that shares its memory."""
    # dim_order is the order in memory (channels last, say), so that flatten need not copy
    return values.permute(weight.dim_order()).flatten(1)


def _laid_out(moment: Tensor, parameter: Tensor) -> Tensor:
    """Copy a moment to the memory layout of its parameter, which fused kernels rely on."""
    if moment.ndim == 0:  # AdamW's count of steps
        return moment.to(parameter.device, copy=True)
    return torch.empty_like(parameter, requires_grad=False).copy_(moment)


class StackedMuon(torch.optim.Muon):
    """torch's Muon over stacks of equally shaped matrices, in bfloat16 only if the device has it.

    One by one, 38 matrices of ten shapes took more than half of the 8,700 operations of a U-Net's training step; on a
    GPU, a small operation takes as long as its launch. Processors without bfloat16 emulate it: for a U-Net of 2.9 M
    parameters on a core with AVX2 alone, a step in bfloat16 took more than ten times as long as in float32, and longer
    than the forward and backward pass.

    Parameters
    ----------
    matrices : sequence of Tensor
        Parameters to optimise.
    **options
        Options of torch's Muon, as in `MUON`.
    """

    def __init__(self, matrices: Sequence[Tensor], **options: Any) -> None:
        super().__init__(matrices, **options)
        self.dtype = torch.bfloat16 if has_bf16(matrices[0].device) else torch.float32

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step along the matrices' gradients."""
        for group in self.param_groups:
            for matrices in _by_shape(matrix for matrix in group["params"] if matrix.grad is not None):
                self._descend(matrices, group)

    def _descend(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """Take one step of matrices of one shape."""
        keep, rate = group["momentum"], group["lr"]
        grads: list[Any] = [matrix.grad for matrix in matrices]
        momenta = [self._momentum(matrix) for matrix in matrices]
        torch._foreach_lerp_(momenta, grads, 1 - keep)
        # Nesterov: the momentum as it would be after this gradient once more
        ahead = torch.stack(torch._foreach_lerp(grads, momenta, keep)).to(self.dtype)
        steps = _orthogonalised(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"]).to(matrices[0].dtype)
        # decoupled weight decay, then a step whose root mean square is that of AdamW's: 0.2 · √max(a, b)
        torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
        torch._foreach_add_(matrices, steps.unbind(), alpha=-0.2 * rate * math.sqrt(max(matrices[0].shape)))

    def _momentum(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        return state["momentum_buffer"]


def _by_shape(matrices: Iterable[Tensor]) -> list[list[Tensor]]:
    """Group matrices by shape."""
    found: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        found.setdefault(matrix.shape, []).append(matrix)
    return list(found.values())


def _orthogonalised(matrices: Tensor, coefficients: tuple[float, float, float], n_steps: int, eps: float) -> Tensor:
    """Approach the nearest orthogonal matrices `[n, a, b]` by Newton-Schulz iteration, as torch's Muon does."""
    a, b, c = coefficients
    # the Gram matrix is smaller on the wide side
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(n_steps):
        gram = x @ x.mT
        # a·x + (b·G + c·G²)·x with G = x·xᵀ: an odd polynomial that drives all singular values towards 1
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
