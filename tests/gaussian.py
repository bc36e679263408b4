"""A denoiser in closed form."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridclf.errors import UnknownLabelError


class GaussianDenoiser:
    """Denoiser port of classes that are Gaussians N(μ_c, s²I): the exact ε̂ = E[ε | x_t, c], in closed form.

    It is computed in a rotated basis, which changes nothing but makes float32 rounding depend on the batch's shape,
    as in a network. It counts what it is asked.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        means: Mapping[Any, np.ndarray],
        s: float = 0.5,
        dtype: torch.dtype = torch.float64,
        cost_unit: str = "row",
    ) -> None:
        self.means, self.s, self.dtype, self.cost_unit = dict(means), s, dtype, cost_unit
        self.shape = np.shape(next(iter(self.means.values())))
        size = int(np.prod(self.shape))
        normal = np.random.default_rng(0).standard_normal((size, size))
        self.basis = torch.from_numpy(np.linalg.qr(normal)[0]).to(dtype)
        self.encoded: list[int] = []
        self.conditioned: list[tuple[Any, ...]] = []
        self.rows = self.pairs = 0

    def encode(self, images: Any) -> Tensor:
        self.encoded.append(len(images))
        return torch.from_numpy(np.stack([np.asarray(image, dtype=float) for image in images])).to(self.dtype)

    def condition(self, labels: Sequence[Any]) -> dict[str, Tensor]:
        self.conditioned.append(tuple(labels))
        unknown = [label for label in labels if label not in self.means]
        if unknown:
            raise UnknownLabelError(f"no class {unknown[0]!r}")
        return {"mean": torch.from_numpy(np.stack([self.means[label] for label in labels])).to(self.dtype)}

    def noise_levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cos(torch.pi / 2 * t), torch.sin(torch.pi / 2 * t)

    def predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        self.rows, self.pairs = self.rows + len(x_t), self.pairs + len(row)
        alpha, sigma = (v[row, None] for v in self.noise_levels(t))
        residual = x_t[row].flatten(1) @ self.basis - alpha * (condition["mean"].flatten(1) @ self.basis)
        noise = sigma * residual / (alpha.square() * self.s**2 + sigma.square())
        return (noise @ self.basis.T).view(len(row), *self.shape)
