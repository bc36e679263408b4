"""The optimiser: torch's own steps, whatever a weight's shape and layout, and nothing lost by saving."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hybridclf.training.optimizer import Optimizer, StackedMuon


def network(memory_format: torch.memory_format = torch.contiguous_format) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 32, 3, padding=1),  # next to the pixels
        nn.Conv2d(32, 24, 3, padding=1),
        nn.ConvTranspose2d(24, 40, 2, stride=2),
        nn.Conv2d(40, 40, 3, padding=1, groups=2),  # in groups
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(40, 20),
        nn.Linear(20, 5),  # next to the classes
    ]
    return nn.Sequential(*layers).to(memory_format=memory_format)


INNER = (1, 2, 6)


def backward(net: nn.Module, step: int) -> None:
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(step))
    net(x.to(next(net.parameters()).dtype)).square().mean().backward()


def descend(net: nn.Module, step: Callable[[float], None], zero_grad: Callable[[], None], rates: list[float]) -> None:
    for i, rate in enumerate(rates):
        zero_grad()
        backward(net, i)
        step(rate)


def assert_same(ours: nn.Module, theirs: nn.Module, atol: float) -> None:
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def test_without_muon_it_is_adamw() -> None:
    ours = network().double()  # where no gradient is so small that rounding turns AdamW's step around
    theirs, rates = copy.deepcopy(ours), [0.01, 0.02, 0.005]
    own = Optimizer(ours, weight_decay=0.1)
    descend(ours, own.step, own.zero_grad, rates)
    other = torch.optim.AdamW(theirs.parameters(), weight_decay=0.1, fused=False)

    def step(rate: float) -> None:
        other.param_groups[0]["lr"] = rate
        other.step()

    descend(theirs, step, other.zero_grad, rates)
    assert_same(ours, theirs, atol=1e-12)


def test_a_parameter_has_its_own_rate() -> None:
    ours = network().double()
    theirs, factors = copy.deepcopy(ours), {"0.weight": 0.1, "6.bias": 0.5}
    own = Optimizer(ours, weight_decay=0.1, rates=factors)
    descend(ours, own.step, own.zero_grad, [0.01, 0.02])
    groups = [{"params": [p], "factor": factors.get(name, 1.0)} for name, p in theirs.named_parameters()]
    other = torch.optim.AdamW(groups, weight_decay=0.1, fused=False)

    def step(rate: float) -> None:
        for group in other.param_groups:
            group["lr"] = rate * group["factor"]
        other.step()

    descend(theirs, step, other.zero_grad, [0.01, 0.02])
    assert_same(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_inner_layers_are_muons_on_matrices(
    memory_format: torch.memory_format, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: weights flattened, given to Muon, and put back.

    Both sides run the same kernels, on any processor. Were the hand's AdamW not the fused one too, the weights that it
    takes would differ by 1e-7, the next gradients as well, and bfloat16 would make some of that into 1e-3.
    """
    monkeypatch.setattr("hybridclf.training.optimizer.has_bf16", lambda device: able)
    ours = network(memory_format)
    theirs, rates = network(memory_format), [0.01, 0.02]
    own = Optimizer(ours, weight_decay=0.1, muon=True)
    descend(ours, own.step, own.zero_grad, rates)

    weights = [theirs[i].weight for i in INNER]
    matrices = [nn.Parameter(_matrix(w, memory_format)) for w in weights]
    others = [p for p in theirs.parameters() if all(p is not w for w in weights)]
    adam = torch.optim.AdamW(others, weight_decay=0.1, fused=True)
    muon = StackedMuon(matrices, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")

    def step(rate: float) -> None:
        for weight, matrix in zip(weights, matrices, strict=True):
            matrix.grad = _matrix(weight.grad, memory_format)
        for optimizer in (adam, muon):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        for weight, matrix in zip(weights, matrices, strict=True):
            with torch.no_grad():
                weight.copy_(_back(matrix, weight, memory_format))

    descend(theirs, step, theirs.zero_grad, rates)
    assert_same(ours, theirs, atol=1e-6)


def _matrix(weight: Tensor | None, memory_format: torch.memory_format) -> Tensor:
    assert weight is not None
    if weight.ndim == 4 and memory_format == torch.channels_last:
        weight = weight.permute(0, 2, 3, 1)
    return weight.detach().flatten(1).clone()


def _back(matrix: Tensor, weight: Tensor, memory_format: torch.memory_format) -> Tensor:
    if weight.ndim == 4 and memory_format == torch.channels_last:
        first, second, height, width = weight.shape
        return matrix.view(first, height, width, second).permute(0, 3, 1, 2)
    return matrix.view_as(weight)


@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("rates", [{}, {"0.weight": 0.1, "6.bias": 0.5}])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_saved_and_loaded_it_goes_on_bit_for_bit(
    muon: bool, rates: dict[str, float], memory_format: torch.memory_format
) -> None:
    straight, stopped = network(memory_format), network(memory_format)
    one, two = Optimizer(straight, 0.1, muon, rates), Optimizer(stopped, 0.1, muon, rates)
    descend(straight, one.step, one.zero_grad, [0.01] * 4)
    descend(stopped, two.step, two.zero_grad, [0.01] * 2)
    fresh = copy.deepcopy(stopped)
    three = Optimizer(fresh, 0.1, muon, rates)
    three.load_state_dict({name: value.clone() for name, value in two.state_dict().items()})
    for i in (2, 3):
        three.zero_grad()
        backward(fresh, i)
        three.step(0.01)
    for a, b in zip(straight.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)


def test_nothing_but_wide_weights() -> None:
    net = nn.Linear(20, 20, bias=False)
    optimizer = Optimizer(net, 0.1, muon=True)
    before = net.weight.detach().clone()
    net(torch.ones(1, 20)).sum().backward()
    optimizer.step(0.1)
    assert not torch.equal(net.weight, before)


def test_what_has_no_gradient_stays() -> None:
    net = network()
    before = copy.deepcopy(net.state_dict())
    optimizer = Optimizer(net, 0.1, muon=True)
    optimizer.zero_grad()
    optimizer.step(0.1)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("able", [True, False])
def test_stacked_muon_is_torchs(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it computes in, it differs from torch's, in bfloat16, by no more than bfloat16 does.

    A number is rounded by 2^-9 at most, some fifteen products follow one another, and momentum adds three steps up: a
    few roundings beside what the weights moved. A coefficient 10 % off, a step left out, or momentum that does not
    look ahead makes 17 % and more.
    """
    monkeypatch.setattr("hybridclf.training.optimizer.has_bf16", lambda device: able)
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((24, 60), (60, 24), (20, 20), (24, 60))]
    theirs = copy.deepcopy(ours)
    options: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    pair = StackedMuon(ours, **options), torch.optim.Muon(theirs, **options)
    assert pair[0].dtype == (torch.bfloat16 if able else torch.float32)
    before = copy.deepcopy(ours)
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for muon in pair:
            muon.step()
    for a, b, start in zip(ours, theirs, before, strict=True):
        assert (a - b).norm() < 0.05 * (a - start).norm()
        torch.testing.assert_close(pair[0].state[a]["momentum_buffer"], pair[1].state[b]["momentum_buffer"])
