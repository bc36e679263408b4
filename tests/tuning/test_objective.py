"""Loss of tuning, against sums by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridclf.errors import TrainingError
from hybridclf.tuning import memory
from hybridclf.tuning.examples import TuningExamples
from hybridclf.tuning.memory import choose_micro_batch
from hybridclf.tuning.objective import Conditions, Objective, TimeProfile, measure_profile


class Shrinking:
    """Denoiser port whose predicted noise is x_t times the label's factor; α = 1 - t, σ = t."""

    shape, dtype, device, cost_unit = (2, 3, 3), torch.float32, torch.device("cpu"), "evaluation"
    encodes_anew, denoiser = False, None

    def condition(self, labels: list[float]) -> dict[str, Tensor]:
        return {"factor": torch.tensor(labels)}

    def noise_levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t

    def predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: dict[str, Tensor]) -> Tensor:
        return x_t[row] * condition["factor"].view(-1, 1, 1, 1)


@pytest.fixture
def examples() -> TuningExamples:
    x0 = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    return TuningExamples.of(x0, [[i % 3, (i + 1) % 3] for i in range(6)], [np.log([0.5, 0.5])] * 6)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_loss_is_what_a_loop_sums_up(examples: TuningExamples, weight: float) -> None:
    denoiser, factors = Shrinking(), [0.2, 0.5, 0.9]
    profile = TimeProfile(torch.linspace(1, 2, 10), torch.full((10,), 0.1))
    objective = Objective(denoiser, Conditions(denoiser, factors), profile, weight)  # type: ignore[arg-type]
    index = torch.tensor([4, 0, 3])
    actual = objective.loss(examples, index, torch.Generator().manual_seed(3))
    # the same draws in the same order: times, rivals, prompts, noise
    rng = torch.Generator().manual_seed(3)
    t, bins = profile.draw(3, rng)
    labels = examples.draw_labels(index, rng)
    torch.randint(1, (3, 1), generator=rng)
    noise = torch.randn(3, 2, 3, 3, generator=rng)
    total = 0.0
    for i, j in enumerate(index.tolist()):
        x_t = (1 - t[i]) * examples.x0[j] + t[i] * noise[i]
        right, wrong = (float((factors[label] * x_t - noise[i]).square().sum()) for label in labels[i].tolist())
        total += right / 18
        total += weight * float(np.log1p(np.exp((right - wrong) / float(profile.scale[bins[i]]))))
    assert float(actual) == pytest.approx(total / 3, rel=1e-5)


def test_times_are_drawn_where_labels_differ() -> None:
    gaps = torch.stack([torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 1.0]), torch.tensor([2.0, 6.0])])
    profile = TimeProfile.of(gaps)
    # mean / deviation: 2 / √2, 0 and 4 / √8, of which the second is raised to a fifth of the mean
    power = np.array([2**0.5, 0.2 * (2 * 2**0.5) / 3, 2**0.5])
    np.testing.assert_allclose(profile.probability, power / power.sum(), rtol=1e-5)
    np.testing.assert_allclose(profile.scale, [5**0.5, 1, 20**0.5], rtol=1e-6)
    t, bins = profile.draw(5000, torch.Generator().manual_seed(0))
    assert torch.equal((t * 3).long(), bins)
    np.testing.assert_allclose(np.bincount(bins) / 5000, profile.probability, atol=0.03)


def test_a_profile_measures_the_gaps(examples: TuningExamples) -> None:
    denoiser = Shrinking()
    same = measure_profile(denoiser, Conditions(denoiser, [0.5, 0.5, 0.5]), examples, 0)  # type: ignore[arg-type]
    np.testing.assert_allclose(same.probability, 0.1, rtol=1e-5)  # no time tells equal labels apart
    # a factor near 1 is right where x_t is noise: with it as the right label, late times tell most
    only = TuningExamples.of(examples.x0, [[1, 0]] * 6, [np.log([0.5, 0.5])] * 6)
    late = measure_profile(denoiser, Conditions(denoiser, [0.2, 0.95, 0.0]), only, 0)  # type: ignore[arg-type]
    assert late.probability[5:].sum() > 0.8


def test_as_many_images_as_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(1000, requires_grad=True)

    def loss(index: Tensor) -> Tensor:  # keeps two tensors of 4,000 bytes: the weight, and its exponential
        return ((weight * 2).exp() * weight).sum()

    def never() -> None:
        raise AssertionError("there is room enough")

    monkeypatch.setattr(memory, "_free_bytes", lambda device: 100_000 / memory.USED)
    n = choose_micro_batch(loss, 64, torch.device("cpu"), never)
    assert 6 <= n <= 12  # 100,000 bytes, at 8,000 to 16,000 each
    assert choose_micro_batch(loss, 4, torch.device("cpu"), never) == 4
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 1000)
    saved = []
    with pytest.raises(TrainingError, match=r"GiB of activations.*lower resolution"):
        choose_micro_batch(loss, 64, torch.device("cpu"), lambda: saved.append(1))
    assert saved == [1]


def test_a_pass_that_does_not_fit_is_split(examples: TuningExamples, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is known of the memory that a step takes, and with the same result."""
    rows: list[int] = []

    class Small(Shrinking):
        def predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: dict[str, Tensor]) -> Tensor:
            if len(row) > 4:
                raise torch.OutOfMemoryError("no")
            rows.append(len(row))
            return super().predict(x_t, t, row, condition)

    conditions = Conditions(Shrinking(), [0.2, 0.5, 0.9])  # type: ignore[arg-type]
    found, whole = (measure_profile(d, conditions, examples, 2) for d in (Small(), Shrinking()))  # type: ignore[arg-type]
    torch.testing.assert_close(found.scale, whole.scale)
    assert max(rows) <= 4
