"""Training: the loss against a re-statement, and small sets that must be learned."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridclf.devices import can_compile
from hybridclf.errors import TrainingError
from hybridclf.models import LateConditioned, LateConditionedDenoiser, LateMLP, LateUNet
from hybridclf.reranker import Reranker
from hybridclf.reranking.allocation import FixedTrials
from hybridclf.training.augmentation import MOST_NOISE, add_noise, affine_jitter, distort, shift_and_mirror
from hybridclf.training.denoiser import CHECK_EVERY, TrainingConfig, TrainingLog, train
from hybridclf.training.losses import denoising_loss
from hybridclf.training.trainer import Examples, Trainer


def brief(max_iter: int, batch_size: int, learning_rate: float, **others: Any) -> TrainingConfig:
    return TrainingConfig(max_iter=max_iter, batch_size=batch_size, learning_rate=learning_rate, **others)


QUICK = brief(30, 64, 5e-3)


def two_classes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Vectors `[n, 6]` around ±0.8 and their classes."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    return 0.5 * torch.randn(n, 6, generator=rng) + 0.8 * (2 * y[:, None] - 1), y


def small(seed: int = 0, n_classes: int = 2) -> LateMLP:
    torch.manual_seed(seed)
    return LateMLP((6,), n_classes, width=32, depth=1)


def randomised(network: LateConditioned) -> LateConditioned:
    """Random weights: a new network predicts the same for every class."""
    torch.manual_seed(3)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return network


def accuracy(network: LateConditioned, x0: Tensor, y: Tensor) -> float:
    denoiser = LateConditionedDenoiser(network, [0, 1], np.zeros(1), np.ones(1), torch.float64)
    results = Reranker(denoiser, allocation=FixedTrials(16)).rerank(x0.numpy(), [[0, 1]] * len(y))
    return float(np.mean([r.ranking[0] == c for r, c in zip(results, y.tolist(), strict=True)]))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_small_set_is_learned(weight: float) -> None:
    network = small()
    log = train(
        network,
        Examples(*two_classes(256, 0)),
        brief(30, 64, 5e-3, wrong_class_weight=weight),
    )
    assert len(log.loss) == log.n_iter == 30
    assert log.held_out == []
    assert log.loss[-1] < log.loss[0] - 0.1
    assert accuracy(network, *two_classes(200, 1)) > 0.95  # chance is 0.5


def test_a_u_net_learns_too() -> None:
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(96) % 2
    x0 = 0.3 * torch.randn(96, 1, 4, 4, generator=rng)
    x0[y == 0, :, :2] += 1  # the upper half is bright, or the lower
    x0[y == 1, :, 2:] += 1
    torch.manual_seed(0)
    network = LateUNet((1, 4, 4), 2, width=8)
    train(network, Examples(x0[:64], y[:64]), brief(40, 32, 5e-3))
    assert accuracy(network, x0[64:, 0], y[64:]) > 0.9


def test_same_seed_same_weights() -> None:
    x0, y = two_classes(64, 0)
    config = TrainingConfig(max_iter=3, batch_size=16, augment=False)
    nets = [small() for _ in range(3)]
    before = torch.get_rng_state()
    for network, seed in zip(nets, (1, 1, 2), strict=True):
        train(network, Examples(x0, y), config, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's random numbers are touched
    a, b, c = (network.state_dict() for network in nets)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_early_stopping_stops_and_keeps_the_best() -> None:
    """Eight images are soon known by heart, and then new ones are no longer explained."""
    few, many = two_classes(8, 0), two_classes(400, 1)
    config = TrainingConfig(
        max_iter=400, batch_size=8, learning_rate=1e-2, weight_decay=0.0, ema_decay=0.5, n_iter_no_change=20
    )
    network = small()
    log = train(network, Examples(*few), config, held_out=Examples(*many))
    assert len(log.loss) < 400
    assert len(log.held_out) == len(log.loss) // CHECK_EVERY
    assert log.n_iter == CHECK_EVERY * (1 + int(np.argmin(log.held_out)))
    assert len(log.loss) - log.n_iter >= 20
    assert log.held_out[-1] > min(log.held_out)
    kept = denoising_loss(network, *many, config.wrong_class_weight, torch.Generator().manual_seed(0))
    assert kept.item() == pytest.approx(min(log.held_out), rel=1e-5)


def test_without_early_stopping_the_average_of_the_last_pass_is_kept() -> None:
    """An average that forgets at once is the network itself: training on from it changes little at a rate of zero."""
    x0, y = two_classes(64, 0)
    slow, quick = small(), small()
    train(slow, Examples(x0, y), brief(4, 16, 5e-3, ema_decay=0.99))
    train(quick, Examples(x0, y), brief(4, 16, 5e-3, ema_decay=0.0))
    start = small().state_dict()

    def moved(network: LateConditioned) -> float:
        return sum(float((v - start[k]).square().sum()) for k, v in network.state_dict().items())

    assert 0 < moved(slow) < moved(quick)  # an average lags behind


def test_the_average_is_that_of_the_steps() -> None:
    """Against a re-statement: weights after each step, from runs of one, two and three steps at a constant rate."""
    x0, y = two_classes(16, 0)

    def final(n_steps: int, decay: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
        monkeypatch.setattr("hybridclf.training.trainer._schedule", lambda *_: 1.0)
        network = small()
        train(
            network,
            Examples(x0, y),
            brief(n_steps, 16, 1e-2, ema_decay=decay),
            seed=4,
        )
        return network.state_dict()

    with pytest.MonkeyPatch.context() as patch:
        steps = [final(n, 0.0, patch) for n in (1, 2, 3)]
        averaged = final(3, 0.99, patch)
    for name, expected in small().state_dict().items():
        for i, weights in enumerate(steps, 1):
            decay = i / (i + 9)  # a short memory at first
            expected = decay * expected + (1 - decay) * weights[name]
        torch.testing.assert_close(averaged[name], expected)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_loss_equals_a_restatement(weight: float) -> None:
    network, n, n_classes = randomised(small(n_classes=4)), 10, 4
    x0, y = torch.randn(n, 6, generator=torch.Generator().manual_seed(0)), torch.arange(n) % n_classes
    loss = denoising_loss(network, x0, y, weight, torch.Generator().manual_seed(5)).item()

    rng = torch.Generator().manual_seed(5)
    t, noise = torch.rand(n, generator=rng), torch.randn(n, 6, generator=rng)
    mse, cross_entropy = [], []
    for i in range(n):
        angle = float(t[i]) * math.pi / 2
        x_t = math.cos(angle) * x0[i] + math.sin(angle) * noise[i]
        errors = []
        for c in range(n_classes):
            with torch.no_grad():
                predicted = network(x_t[None], t[i : i + 1], torch.tensor([0]), torch.tensor([c]))[0]
            errors.append(float(((predicted - noise[i]) ** 2).sum()))
        mse.append(errors[y[i]] / 6)
        likelihood = [math.exp(-e / 2) for e in errors]
        cross_entropy.append(-math.log(likelihood[y[i]] / sum(likelihood)))
    assert loss == pytest.approx(np.mean(mse) + weight * np.mean(cross_entropy), rel=1e-5)
    assert np.mean(cross_entropy) > 0.1


def test_the_wrong_class_term_tells_classes_apart() -> None:
    """More so than denoising alone: the error under the wrong class grows against that under the right one."""
    x0, y = two_classes(128, 0)

    def gap(weight: float) -> float:
        network = small()
        train(
            network,
            Examples(x0, y),
            brief(20, 32, 5e-3, wrong_class_weight=weight),
        )
        rng = (torch.Generator().manual_seed(9) for _ in range(2))
        with torch.no_grad():
            right, wrong = (denoising_loss(network, x0, c, 0.0, next(rng)) for c in (y, 1 - y))
        return float(wrong - right)

    assert gap(1.0) > gap(0.0) > 0


def test_many_classes_are_sampled_for_the_wrong_class_term() -> None:
    """At most ten candidates an image, the right one among them: a network blind to class has a loss of ln 10."""
    network = small(n_classes=40)  # as new: every class predicts the same
    x0, y = two_classes(32, 0)
    with_term, without = (
        denoising_loss(network, x0, y + 20, w, torch.Generator().manual_seed(0)).item() for w in (1.0, 0.0)
    )
    assert with_term - without == pytest.approx(math.log(10), rel=1e-4)


def test_one_class_has_no_wrong_ones() -> None:
    network, x0 = small(n_classes=1), torch.randn(8, 6)
    y = torch.zeros(8, dtype=torch.long)
    a, b = (denoising_loss(network, x0, y, w, torch.Generator().manual_seed(0)).item() for w in (0.0, 1.0))
    assert a == b


def test_noise_is_added_to_half_of_the_images() -> None:
    images = torch.randn(400, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = add_noise(images, torch.Generator().manual_seed(1)) - images
    strength = noise.flatten(1).std(dim=1)
    noisy = strength > 0
    assert 160 < noisy.sum() < 240 and strength.max() < 1.1 * MOST_NOISE
    assert strength[noisy].mean() == pytest.approx(MOST_NOISE / 2, rel=0.1)
    standard = noise[noisy] / strength[noisy].view(-1, 1, 1, 1)
    assert abs(standard.mean()) < 0.01 and standard.pow(4).mean() == pytest.approx(3, abs=0.1)  # Gaussian
    torch.testing.assert_close(add_noise(images, torch.Generator().manual_seed(1)) - images, noise, rtol=0, atol=0)


def test_jitter_is_a_small_affine_map() -> None:
    """On images that are a plane, x and y themselves, the result is a plane whose slopes are the map's."""
    n, size = 64, 16
    axis = (torch.arange(size) + 0.5) * 2 / size - 1  # grid_sample's coordinates
    vertical, horizontal = torch.meshgrid(axis, axis, indexing="ij")
    images = torch.stack([horizontal, vertical]).expand(n, 2, size, size)
    out = affine_jitter(images, torch.Generator().manual_seed(0))
    inside = slice(4, -4)  # whose sources are within the image
    design = torch.stack([horizontal, vertical, torch.ones(size, size)], dim=-1)[inside, inside].reshape(-1, 3)
    maps = torch.linalg.lstsq(design.expand(n, -1, 3), out[:, :, inside, inside].flatten(2).transpose(1, 2)).solution
    residual = design @ maps - out[:, :, inside, inside].flatten(2).transpose(1, 2)
    assert residual.abs().max() < 1e-5
    (a, c), (b, d), shift = maps[:, 0].unbind(1), maps[:, 1].unbind(1), maps[:, 2]
    zoom, angle = torch.hypot(a, b), torch.atan2(-b, a)
    torch.testing.assert_close(torch.stack([a, b]), torch.stack([d, -c]), rtol=0, atol=1e-5)  # no shear
    assert zoom.min() >= 0.925 - 1e-4 and zoom.max() <= 1.075 + 1e-4 and zoom.std() > 0.02
    assert angle.abs().max() <= 0.15 + 1e-4 and angle.std() > 0.04
    assert shift.abs().max() <= 0.125 + 1e-4 and shift.std() > 0.04  # of a width of 2


def test_half_of_the_images_are_jittered_and_half_lose_a_square() -> None:
    n, size = 400, 12
    images = 5 + torch.rand(n, 2, size, size, generator=torch.Generator().manual_seed(1))
    out = distort(images, torch.Generator().manual_seed(0))
    blank = (out == 0).all(1)  # [n, H, W]
    assert torch.equal(blank, (out == 0).any(1))
    rows, columns = blank.any(2).sum(1), blank.any(1).sum(1)
    torch.testing.assert_close(blank.sum((1, 2)), rows * columns)  # rectangles
    assert rows.max() == columns.max() == size // 3 and (rows[rows > 0] < size // 3).any()  # cut at the border
    kept = ~blank[:, None].expand_as(images)
    moved = torch.tensor([not torch.equal(a[k], b[k]) for a, b, k in zip(out, images, kept, strict=True)])
    for share, expected in ((rows > 0, 0.5), (moved, 0.5), ((rows > 0) & moved, 0.25)):
        assert abs(share.float().mean() - expected) < 0.08


def test_augmented_training_runs() -> None:
    torch.manual_seed(0)
    network = LateUNet((1, 4, 4), 2, width=8)
    x0, y = torch.randn(16, 1, 4, 4), torch.arange(16) % 2
    log = train(network, Examples(x0, y), TrainingConfig(max_iter=2, batch_size=8, augment=True))
    assert isinstance(log, TrainingLog)
    assert all(math.isfinite(loss) for loss in log.loss)


@pytest.mark.parametrize("mirror", [True, False])
def test_shifts_move_whole_pixels_and_repeat_the_border(mirror: bool) -> None:
    """Against a re-statement: every result is one of the shifted and mirrored images that there can be."""
    size, reach = 16, 2
    image = torch.arange(size * 8 * 3, dtype=torch.uint8).view(size, 8, 3)  # 8 wide: one pixel at most
    padded = torch.nn.functional.pad(
        image.permute(2, 0, 1)[None].float(), (reach, reach, reach, reach), mode="replicate"
    )[0].permute(1, 2, 0)
    possible = set()
    for dy in range(-reach, reach + 1):
        for dx in (-1, 0, 1):
            view = padded[reach + dy :, reach + dx :][:size, :8].to(torch.uint8)
            possible |= {view.numpy().tobytes()} | ({view.flip(1).numpy().tobytes()} if mirror else set())
    out = shift_and_mirror(image.expand(800, -1, -1, -1), torch.Generator().manual_seed(0), mirror)
    assert out.dtype == torch.uint8
    assert {result.numpy().tobytes() for result in out} == possible


def test_most_times_are_drawn_from_the_range() -> None:
    """Nine in ten, the others from all of (0, 1)."""
    seen: list[Tensor] = []

    class Spy(LateMLP):
        def forward(self, x_t: Tensor, t: Tensor, row: Tensor, label: Tensor) -> Tensor:
            seen.append(t)
            return super().forward(x_t, t, row, label)

    x0, y = torch.zeros(2000, 6), torch.zeros(2000, dtype=torch.long)
    for times in ((0.2, 0.6), (0.0, 1.0)):
        denoising_loss(Spy((6,), 2, width=8, depth=1), x0, y, 0.0, torch.Generator().manual_seed(0), times)
    focused, even = seen
    inside = (focused >= 0.2) & (focused < 0.6)
    assert inside.float().mean() == pytest.approx(0.9 + 0.1 * 0.4, abs=0.02)
    assert focused[~inside].min() < 0.05 and focused[~inside].max() > 0.95
    torch.testing.assert_close(even, torch.rand(2000, generator=torch.Generator().manual_seed(0)), rtol=0, atol=0)


def test_bfloat16_trains_float32_weights() -> None:
    network = small()
    log = train(
        network,
        Examples(*two_classes(256, 0)),
        brief(30, 64, 5e-3, bf16=True),
    )
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert log.loss[-1] < log.loss[0] - 0.1
    exact = small()
    train(exact, Examples(*two_classes(256, 0)), brief(30, 64, 5e-3))
    assert not torch.equal(network.outlet.weight, exact.outlet.weight)
    assert accuracy(network, *two_classes(200, 1)) > 0.95


def test_a_diverged_training_says_so() -> None:
    x, y = torch.full((20, 1, 8, 8), torch.nan), torch.arange(20) % 2
    network = LateMLP((1, 8, 8), 2, width=16, depth=1)
    with pytest.raises(TrainingError, match="the training of the denoiser diverged: at step 1 its loss is nan"):
        train(network, Examples(x, y), TrainingConfig(max_iter=2))


@pytest.mark.slow
def test_compiled_training_takes_the_same_steps() -> None:
    """As far as float32 allows; and every batch is a whole one."""
    if not can_compile(torch.device("cpu")):
        pytest.skip("nothing to compile with")
    x, y = torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 2
    weights = []
    for compiled in (False, True):
        torch.manual_seed(0)
        network = LateUNet((1, 8, 8), 2, width=16)
        config = TrainingConfig(batch_size=16, muon=False, compiled=compiled, ema_decay=0.5)
        trainer = Trainer(network, x, y, lambda n, a, b, rng: denoising_loss(n, a, b, 1.0, rng), config, 3, 0)
        assert len(list(trainer.run())) == 3
        assert trainer.steps_per_pass == (3 if compiled else 4)
        weights.append(torch.cat([p.flatten() for p in trainer.average.parameters()]))
    torch.testing.assert_close(*weights, rtol=0, atol=1e-4)
