"""Late-conditioned networks: one trunk pass per row, a head per pair, and the denoiser port around them."""

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hybridclf.devices import can_compile
from hybridclf.errors import InvalidInputError, UnknownLabelError
from hybridclf.models import LateConditioned, LateConditionedDenoiser, LateMLP, LateUNet, build
from hybridclf.models.denoiser import cosine_levels, scattered
from hybridclf.ports import DecodingDenoiser, Denoiser, take
from hybridclf.reranking.trials import TrialPlan

N_CLASSES = 5
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp of vectors": {"kind": "mlp", "shape": [12], "n_classes": N_CLASSES, "width": 24, "depth": 2},
    "mlp of images": {"kind": "mlp", "shape": [2, 3, 4], "n_classes": N_CLASSES, "width": 24, "depth": 1},
    "unet": {"kind": "unet", "shape": [1, 8, 8], "n_classes": N_CLASSES, "width": 8},
    "deeper unet": {"kind": "unet", "shape": [3, 8, 12], "n_classes": N_CLASSES, "width": 8, "levels": 3},
    "patched unet": {"kind": "unet", "shape": [3, 8, 12], "n_classes": N_CLASSES, "width": 16, "patch": 2, "depth": 2}
    | {"attention": True, "head_width": 8},
}


def make(name: str, dtype: torch.dtype = torch.float64) -> LateConditioned:
    """A network with random weights; a new one predicts the same for every class."""
    torch.manual_seed(0)
    network = build(NETWORKS[name])
    for p in network.parameters():
        nn.init.normal_(p, std=0.2)
    return network.to(dtype).eval().requires_grad_(False)


def work(network: LateConditioned, n_rows: int, n_pairs: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_t `[R, …]`, t `[R]`, row `[P]`, label `[P]`: ragged, rows in order."""
    rng = torch.Generator().manual_seed(1)
    dtype = next(network.parameters()).dtype
    x_t = torch.randn(n_rows, *network.config["shape"], generator=rng, dtype=torch.float64).to(dtype)
    t = torch.rand(n_rows, generator=rng, dtype=torch.float64).to(dtype)
    row = torch.randint(0, n_rows, (n_pairs,), generator=rng).sort().values
    return x_t, t, row, torch.randint(0, N_CLASSES, (n_pairs,), generator=rng)


each_network = pytest.mark.parametrize("name", NETWORKS)


@each_network
def test_pairs_equal_single_calls(name: str) -> None:
    network = make(name)
    x_t, t, row, label = work(network, 6, 20)
    predicted = network(x_t, t, row, label)
    assert predicted.shape == (20, *network.config["shape"])
    zero = torch.tensor([0])
    for p, r, c in zip(predicted, row, label, strict=True):
        torch.testing.assert_close(p, network(x_t[r][None], t[r][None], zero, c[None])[0], rtol=1e-9, atol=1e-9)
    everything = network(x_t, t, torch.arange(6).repeat_interleave(N_CLASSES), torch.arange(N_CLASSES).repeat(6))
    spread = everything.view(6, N_CLASSES, -1).std(dim=1).mean(dim=1)
    assert (spread > 1e-3).all()  # the class matters to every row


@each_network
def test_trunk_runs_once_per_row_and_head_once_per_evaluation(name: str) -> None:
    network = make(name, torch.float32)
    passed: dict[str, list[int]] = {}
    for part in ("time", "inlet", "common", "to_head", "modulation", "outlet"):
        counts = passed.setdefault(part, [])
        getattr(network, part).register_forward_hook(lambda _, given, __, counts=counts: counts.append(len(given[0])))
    denoiser = LateConditionedDenoiser(network, range(N_CLASSES), np.zeros(1), np.ones(1), torch.float64)
    x_t, t, row, label = work(network, 7, 150)
    denoiser.predict(x_t, t, row, {"label": label})
    assert all(passed[part] == [7] for part in ("time", "inlet", "common", "to_head"))
    assert passed["modulation"] == passed["outlet"] == [64, 64, 22]


@each_network
@pytest.mark.parametrize("n_pairs", [1, 63, 64, 65, 200])
def test_float32_equals_float64(name: str, n_pairs: int) -> None:
    exact = make(name)
    x_t, t, row, label = work(exact, 9, n_pairs)
    wanted = exact(x_t, t, row, label)
    denoiser = LateConditionedDenoiser(make(name), range(N_CLASSES), np.zeros(1), np.ones(1))
    predicted = denoiser.predict(x_t.float(), t.float(), row, {"label": label})
    assert predicted.dtype == torch.float32
    scale = wanted.abs().max().item()
    torch.testing.assert_close(predicted.double(), wanted, rtol=1e-5, atol=1e-5 * scale)
    whole = denoiser.network(x_t.float(), t.float(), row, label)
    torch.testing.assert_close(predicted, whole, rtol=1e-5, atol=1e-5 * scale)


@each_network
def test_mixed_precision_multiplies_in_bfloat16_where_that_is_native(name: str, request: pytest.FixtureRequest) -> None:
    options = range(N_CLASSES), np.zeros(1), np.ones(1)
    plain, mixed = (
        LateConditionedDenoiser(make(name), *options),
        LateConditionedDenoiser(make(name), *options, mixed=True),
    )
    x_t, t, row, label = work(plain.network, 9, 150)
    exact = plain.predict(x_t, t, row, {"label": label})
    torch.testing.assert_close(mixed.predict(x_t, t, row, {"label": label}), exact, rtol=0, atol=0)
    request.getfixturevalue("native_bfloat16")
    torch.testing.assert_close(plain.predict(x_t, t, row, {"label": label}), exact, rtol=0, atol=0)
    rounded = mixed.predict(x_t, t, row, {"label": label})
    assert rounded.dtype == mixed.dtype == next(mixed.network.parameters()).dtype == torch.float32
    assert 1e-4 < (rounded - exact).norm() / exact.norm() < 0.03
    in_double = LateConditionedDenoiser(make(name), *options, torch.float64, mixed=True)
    x_t, t, row, label = work(in_double.network, 9, 150)
    assert in_double.predict(x_t, t, row, {"label": label}).dtype == torch.float64


@each_network
def test_evaluations_do_not_depend_on_others_but_for_rounding(name: str) -> None:
    denoiser = LateConditionedDenoiser(make(name), range(N_CLASSES), np.zeros(1), np.ones(1))
    x_t, t, row, label = work(make(name, torch.float32), 9, 150)
    together = denoiser.predict(x_t, t, row, {"label": label})
    for start, stop in ((0, 1), (40, 90), (149, 150)):
        some = denoiser.predict(x_t, t, row[start:stop], {"label": label[start:stop]})
        torch.testing.assert_close(some, together[start:stop], rtol=1e-5, atol=1e-5 * together.abs().max().item())


@each_network
def test_rows_do_not_see_each_other(name: str) -> None:
    network = make(name)
    x_t, t, row, label = work(network, 4, 12)
    before = network(x_t, t, row, label)
    changed = x_t.clone()
    changed[2] += 1
    after = network(changed, t, row, label)
    others = row != 2
    torch.testing.assert_close(after[others], before[others], rtol=1e-12, atol=1e-12)
    assert (after[~others] != before[~others]).all()


@pytest.mark.parametrize("name", ["unet", "deeper unet"])
def test_every_pixel_of_a_u_net_sees_every_other(name: str) -> None:
    network = make(name)
    x_t, t, _, _ = work(network, 1, 1)
    x_t.requires_grad_()
    corner = network(x_t, t, torch.tensor([0]), torch.tensor([1]))[0, 0, 0, 0]
    (gradient,) = torch.autograd.grad(corner, x_t)
    assert (gradient != 0).all()


@each_network
def test_time_matters(name: str) -> None:
    network = make(name)
    x_t, t, row, label = work(network, 3, 6)
    assert (network(x_t, t, row, label) != network(x_t, t + 0.1, row, label)).all()


@each_network
def test_config_builds_the_same_network(name: str) -> None:
    network = make(name)
    twin = build(json.loads(json.dumps(network.config))).double()
    assert type(twin) is type(network)
    assert twin.config == network.config
    twin.load_state_dict(network.state_dict())
    given = work(network, 3, 6)
    assert torch.equal(twin(*given), network(*given))


def test_default_networks_describe_themselves() -> None:
    for network in (LateMLP((4,), 2), LateUNet((1, 4, 4), 2)):
        assert list(build(network.config).state_dict()) == list(network.state_dict())


def test_new_networks_predict_the_same_for_every_class() -> None:
    """Nothing is known yet, so nothing is told apart."""
    for network in (LateMLP((4,), 3, width=16), LateUNet((1, 4, 4), 3, width=8)):
        x_t, t = torch.randn(1, *network.config["shape"]), torch.tensor([0.5])
        predicted = network(x_t, t, torch.tensor([0, 0, 0]), torch.arange(3))
        assert torch.equal(predicted[0], predicted[1])
        assert torch.equal(predicted[0], predicted[2])


# --- behind the port --------------------------------------------------------------------------------------------------


def test_a_mirroring_denoiser_sees_images_mirrored_at_half_of_all_times() -> None:
    denoiser = LateConditionedDenoiser(make("patched unet"), range(N_CLASSES), np.zeros(1), np.ones(1), torch.float64)
    n, label = 40, {"label": torch.arange(80) % N_CLASSES}
    x_t = torch.randn(n, *denoiser.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t, row = (torch.arange(n, dtype=torch.float64) + 0.5) / n, torch.arange(n).repeat_interleave(2)
    plain = denoiser.predict(x_t, t, row, label)
    mirrored = denoiser.predict(x_t.flip(-1), t, row, label).flip(-1)
    denoiser.mirror = True
    either = denoiser.predict(x_t, t, row, label)
    is_plain, is_mirrored = ((either == other).flatten(1).all(1) for other in (plain, mirrored))
    assert torch.equal(is_plain, ~is_mirrored) and torch.equal(is_mirrored[::2], scattered(t))


@pytest.mark.parametrize("n", [16, 50, 64, 100, 249, 256, 332, 500, 997, 1000])
def test_about_half_of_any_plans_trials_are_mirrored(n: int) -> None:
    """And of those at times that tell classes apart."""
    t = torch.from_numpy(np.sort(TrialPlan(n, (1,)).timesteps(np.arange(n))))
    for part in (t, t[t < 0.35], t[(t > 0.35) & (t < 0.7)]):
        assert abs(scattered(part).double().mean() - 0.5) < 1.5 / len(part) ** 0.5


@pytest.mark.slow
def test_a_compiled_denoiser_predicts_the_same() -> None:
    """As far as float32 allows; compiled or not, it can be pickled."""
    if not can_compile(torch.device("cpu")):
        pytest.skip("nothing to compile with")
    denoiser = LateConditionedDenoiser(make("unet"), range(N_CLASSES), np.zeros(1), np.ones(1))
    x_t, t, row, label = work(denoiser.network, 4, 9)
    plain = denoiser.predict(x_t, t, row, {"label": label})
    denoiser.compile()
    with torch.inference_mode():
        compiled = denoiser.predict(x_t, t, row, {"label": label})
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-4)
    assert not torch.equal(compiled, plain)  # another arithmetic: it was compiled
    again = pickle.loads(pickle.dumps(denoiser))
    torch.testing.assert_close(again.predict(x_t, t, row, {"label": label}), compiled)


class TooBig(LateUNet):
    """A network whose head finds no memory left."""

    def head(self, features: Tensor, label: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no memory left")


def test_memory_that_has_run_out_takes_recorded_graphs_along() -> None:
    denoiser = LateConditionedDenoiser(TooBig((1, 8, 8), 5), range(5), np.zeros(1), np.ones(1))
    denoiser._graphed._graphs["a shape"] = denoiser.network.trunk
    row, condition = torch.arange(2), {"label": torch.arange(2)}
    with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
        denoiser.predict(torch.zeros(2, 1, 8, 8), torch.full((2,), 0.5), row, condition)
    assert not denoiser._graphed._graphs


def test_it_is_a_denoiser() -> None:
    denoiser = LateConditionedDenoiser(make("unet"), "abcde", np.zeros(1), np.ones(1))
    assert isinstance(denoiser, Denoiser)
    assert (denoiser.shape, denoiser.cost_unit, denoiser.dtype) == ((1, 8, 8), "row", torch.float32)
    assert not any(p.requires_grad for p in denoiser.network.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_encode_takes_images_in_any_form(dtype: torch.dtype) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    denoiser = LateConditionedDenoiser(make("unet"), range(5), np.array([100.0]), np.array([50.0]), dtype)
    wanted = torch.from_numpy((grey[:, None].astype(float) - 100) / 50).to(dtype)
    forms: list[Any] = [
        grey,
        grey[..., None],
        grey.reshape(4, 64),
        grey.astype(float),
        [Image.fromarray(g) for g in grey],
        [Image.fromarray(g).convert("RGB") for g in grey],  # the network is grey
    ]
    for form in forms:
        x0 = denoiser.encode(form)
        assert x0.dtype == dtype
        assert torch.equal(x0, wanted)


def test_encode_puts_channels_first_and_standardises_each() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    mean, scale = np.array([10.0, 20.0, 30.0]), np.array([1.0, 2.0, 4.0])
    denoiser = LateConditionedDenoiser(make("deeper unet"), range(5), mean, scale, torch.float64)
    wanted = np.stack([(colour[..., c] - mean[c]) / scale[c] for c in range(3)], axis=1)
    for form in (colour, colour.reshape(3, -1), [Image.fromarray(c) for c in colour]):
        np.testing.assert_array_equal(denoiser.encode(form).numpy(), wanted)


@pytest.mark.parametrize("shape", [(12,), (1, 8, 8), (3, 8, 12)])
def test_decode_undoes_encode(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    network = {(12,): "mlp of vectors", (1, 8, 8): "unet", (3, 8, 12): "deeper unet"}[shape]
    size = shape[0]  # of features or channels
    denoiser = LateConditionedDenoiser(make(network), range(5), rng.random(size), 1 + rng.random(size), torch.float64)
    assert isinstance(denoiser, DecodingDenoiser)
    images = rng.random((2, *shape[1:], shape[0]))
    np.testing.assert_allclose(denoiser.decode(denoiser.encode(images)), images, atol=1e-12)


def test_decode_gives_images_of_the_size_that_encode_takes() -> None:
    denoiser = LateConditionedDenoiser(make("unet"), range(5), np.ones(1), np.ones(1), torch.float64, shrink=3)
    x0 = denoiser.encode(np.random.default_rng(0).random((2, 24, 24)))
    large = denoiser.decode(x0)
    assert large.shape == (2, 24, 24, 1)
    torch.testing.assert_close(denoiser.encode(large), x0)


def test_encode_standardises_vectors_by_feature() -> None:
    rng = np.random.default_rng(0)
    X, mean, scale = rng.random((6, 12)), rng.random(12), 0.5 + rng.random(12)
    denoiser = LateConditionedDenoiser(make("mlp of vectors"), range(5), mean, scale, torch.float64)
    np.testing.assert_array_equal(denoiser.encode(X).numpy(), (X - mean) / scale)


@pytest.mark.parametrize("shape", [(2, 8, 9), (2, 8, 8, 3), (2, 63)])
def test_encode_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    denoiser = LateConditionedDenoiser(make("unet"), range(5), np.zeros(1), np.ones(1))
    with pytest.raises(InvalidInputError, match="expected images of 8x8x1"):
        denoiser.encode(np.zeros(shape))


def test_conditions_are_class_numbers() -> None:
    classes = np.array(["ant", "bee", "cow", "dog", "elk"])
    denoiser = LateConditionedDenoiser(make("unet"), classes, np.zeros(1), np.ones(1))
    condition = denoiser.condition(["dog", np.str_("ant"), "dog"])
    assert condition["label"].tolist() == [3, 0, 3]
    assert take(condition, torch.tensor([2, 1, 1]))["label"].tolist() == [3, 0, 0]
    with pytest.raises(UnknownLabelError, match=r"does not know 'yak'; it knows 'ant', 'bee', 'cow', 'dog', 'elk'$"):
        denoiser.condition(["ant", "yak"])


def test_conditions_of_numbers() -> None:
    denoiser = LateConditionedDenoiser(make("unet"), np.array([10, 20, 30, 40, 50]), np.zeros(1), np.ones(1))
    assert denoiser.condition([30, np.int64(10)])["label"].tolist() == [2, 0]
    with pytest.raises(UnknownLabelError, match="does not know 2;"):
        denoiser.condition([2])


def test_cosine_levels_preserve_the_variance_and_run_from_clean_to_noise() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha, sigma = cosine_levels(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))
    torch.testing.assert_close(torch.atan2(sigma, alpha), t * np.pi / 2)
    assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()


def test_larger_images_are_averaged_down() -> None:
    """A pixel of the network for every three of a side, as it says; no other size is taken."""
    denoiser = LateConditionedDenoiser(make("unet"), range(5), np.zeros(1), np.ones(1), torch.float64, shrink=3)
    large = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 1), dtype=np.uint8)
    expected = large.reshape(2, 8, 3, 8, 3).astype(float).mean(axis=(2, 4)).round()
    np.testing.assert_array_equal(denoiser.encode(large)[:, 0].numpy(), expected)
    with pytest.raises(InvalidInputError, match="expected images of 24x24x1, got images of 8x8x1"):
        denoiser.encode(large[:, :8, :8])


def test_a_denoiser_takes_any_multiple_of_its_size() -> None:
    denoiser = LateConditionedDenoiser(make("unet"), range(5), np.zeros(1), np.ones(1), torch.float64)
    larger = denoiser.taking((24, 24, 1))
    assert (larger.shrink, denoiser.shrink) == (3, 1) and larger.network is denoiser.network
    large = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 1), dtype=np.uint8)
    averaged = large.reshape(2, 8, 3, 8, 3, 1).astype(float).mean(axis=(2, 4)).round()
    torch.testing.assert_close(larger.encode(large), denoiser.encode(averaged))
    assert larger.taking((8, 8, 1)).shrink == 1
    for other in ((8, 8, 1), (24, 16, 1), (20, 20, 1), (24, 24, 3), (4, 4, 1), (64,)):
        assert denoiser.taking(other) is denoiser
    wide = LateConditionedDenoiser(make("deeper unet"), range(5), np.zeros(3), np.ones(3))  # 8 x 12
    assert wide.taking((16, 24, 3)).shrink == 2 and wide.taking((24, 16, 3)) is wide
    vectors = LateConditionedDenoiser(make("mlp of vectors"), range(5), np.zeros(12), np.ones(12))
    assert vectors.taking((24, 24, 1)) is vectors
