"""DDIM inversion, against the closed form of Gaussian classes and against diffusers' schedulers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridclf.denoising.inversion import invert, regenerate
from hybridclf.ports import take

STD = 0.7


def grid(strength: float, steps: int) -> Tensor:
    return torch.linspace(0, strength, steps + 1, dtype=torch.float64)[1:]


@pytest.fixture
def gaussian(gaussian_denoiser: type) -> Any:
    means = np.random.default_rng(0).standard_normal((2, 3, 4))
    return gaussian_denoiser(dict(zip("ab", means, strict=True)), STD)


@pytest.fixture
def x0() -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal((5, 3, 4)))


def conditions(denoiser: Any, label: str, n: int) -> Any:
    return take(denoiser.condition([label]), torch.zeros(n, dtype=torch.long))


def levels(denoiser: Any, t: float) -> tuple[float, float, float]:
    """α, σ and the standard deviation √(α²s² + σ²) of x_t."""
    alpha, sigma = (v.item() for v in denoiser.noise_levels(torch.tensor([t], dtype=torch.float64)))
    return alpha, sigma, float(np.hypot(alpha * STD, sigma))


@pytest.mark.parametrize("strength", [0.3, 0.8])
def test_noise_is_that_of_the_probability_flow(strength: float, gaussian: Any, x0: Tensor) -> None:
    """Of N(μ, s²I) its path is x_t = α·μ + √(α²s² + σ²)/s·(x0 − μ), as each x_t keeps its quantile."""
    mean, (alpha, _, spread) = torch.from_numpy(gaussian.means["a"]), levels(gaussian, strength)
    exact = alpha * mean + spread / STD * (x0 - mean)
    errors = [
        (invert(gaussian, x0, conditions(gaussian, "a", 5), grid(strength, steps)) - exact).abs().max().item()
        for steps in (50, 100, 200)
    ]
    assert errors[2] < 0.02 and errors[1] == pytest.approx(2 * errors[2], rel=0.2)  # of first order
    assert errors[0] == pytest.approx(2 * errors[1], rel=0.2)


@pytest.mark.parametrize("strength", [0.3, 0.8, 0.99])
def test_back_under_the_same_class_and_under_another(strength: float, gaussian: Any, x0: Tensor) -> None:
    """The other class moves x0 by (μ_b − μ_a)·(1 − α·s/√(α²s² + σ²)): by all of the difference at time 1."""
    a, b = (conditions(gaussian, label, 5) for label in "ab")
    alpha, _, spread = levels(gaussian, strength)
    moved = torch.from_numpy(gaussian.means["b"] - gaussian.means["a"]) * (1 - alpha * STD / spread)
    same, other = [], []
    for steps in (50, 100, 200):
        times = grid(strength, steps)
        noise = invert(gaussian, x0, a, times)
        same.append((regenerate(gaussian, noise, a, times) - x0).abs().max().item())
        other.append((regenerate(gaussian, noise, b, times) - (x0 + moved)).abs().max().item())
    assert same[2] < same[1] < same[0] and same[2] < 0.1
    assert other[2] < other[1] < other[0] and other[2] < 0.1
    if strength == 0.99:
        full = torch.from_numpy(gaussian.means["b"] - gaussian.means["a"])
        torch.testing.assert_close(moved, full, rtol=0.02, atol=0)


def test_prompts_of_a_class_are_averaged(gaussian: Any, x0: Tensor) -> None:
    """ε̂ is linear in the mean here, so that two prompts are as one of their mean."""
    both, times = gaussian.condition(["a", "b"]), grid(0.5, 5)
    mean = {"mean": both["mean"].mean(dim=0, keepdim=True)}
    torch.testing.assert_close(invert(gaussian, x0[:1], both, times), invert(gaussian, x0[:1], mean, times))


def test_half_precision_keeps_small_steps(gaussian_denoiser: type, gaussian: Any, x0: Tensor) -> None:
    class Half(gaussian_denoiser):  # type: ignore[misc]
        """A denoiser that sees and predicts bfloat16."""

        def predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Any) -> Tensor:
            assert x_t.dtype == torch.bfloat16
            exact = {name: value.double() for name, value in condition.items()}
            return super().predict(x_t.double(), t, row, exact).bfloat16()

    half = Half(gaussian.means, STD)
    half.dtype = torch.bfloat16
    found = invert(half, x0.bfloat16(), conditions(half, "a", 5), grid(0.5, 400))
    exact = invert(gaussian, x0.bfloat16().double(), conditions(gaussian, "a", 5), grid(0.5, 400))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=0.03)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_steps_are_those_of_diffusers_schedulers(prediction: str, tmp_path: Path) -> None:
    """DDIMInverseScheduler there and DDIMScheduler back, with the pipeline's own network, every 50th level.

    The inverse scheduler takes v for that of the level it starts from, whatever the network was told; it is given ε̂.
    """
    diffusers = pytest.importorskip("diffusers")
    from hybridclf_adapters.diffusers import load
    from tests.adapters.tiny_diffusers import save, stable_diffusion

    it = load(str(save(lambda: stable_diffusion(prediction), tmp_path / "pipe")), device="cpu")
    config = dict(it.pipe.scheduler.config) | {
        "clip_sample": False,
        "set_alpha_to_one": True,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    }
    there = diffusers.DDIMInverseScheduler.from_config(config | {"prediction_type": "epsilon"})
    back = diffusers.DDIMScheduler.from_config(config)
    for scheduler in (there, back):
        scheduler.set_timesteps(20)
    assert there.timesteps.tolist() == back.timesteps.flip(0).tolist()
    condition = it.condition(["cat"])

    def follow(x: Tensor, scheduler: Any) -> Tensor:
        for timestep in scheduler.timesteps:
            output, mean = it.forward(x, timestep[None], condition), scheduler.alphas_cumprod[timestep]
            if prediction == "v_prediction" and scheduler is there:
                output = mean.sqrt() * output + (1 - mean).sqrt() * x
            x = scheduler.step(output, int(timestep), x).prev_sample
        return x

    times = (there.timesteps + 0.5) / 1000
    x0 = torch.randn(1, *it.shape, generator=torch.Generator().manual_seed(0))
    noise = invert(it, x0, condition, times)
    expected = follow(x0, there)
    torch.testing.assert_close(noise, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(regenerate(it, noise, condition, times), follow(expected, back), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_flow_takes_eulers_steps(tmp_path: Path) -> None:
    """As its own sampler does on the way back: x + (σ' − σ)·velocity."""
    pytest.importorskip("diffusers")
    from hybridclf_adapters.diffusers import load
    from tests.adapters.tiny_diffusers import save, stable_diffusion_3

    it = load(str(save(stable_diffusion_3, tmp_path / "pipe")), device="cpu")
    condition, times = it.condition(["cat"]), grid(0.9, 10)
    noise = torch.randn(1, *it.shape, generator=torch.Generator().manual_seed(0))
    index = it.schedule.index(times)
    sigma = torch.cat([torch.zeros(1), it.schedule.sigma[index]])
    x = noise
    for i in reversed(range(10)):
        velocity = it.forward(x, it.schedule.timestep[index[i]][None], condition)
        x = x + (sigma[i] - sigma[i + 1]) * velocity
    torch.testing.assert_close(regenerate(it, noise, condition, times), x, rtol=1e-4, atol=1e-4)
