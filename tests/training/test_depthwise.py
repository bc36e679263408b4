"""Depthwise convolutions in float32."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from hybridclf.training.depthwise import depthwise_in_float32


def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("tf_efficientnet_lite0", num_classes=3).eval()


def images(size: int = 64) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def types_of_convolutions(made: nn.Module) -> dict[bool, set[torch.dtype]]:
    """Types that convolutions put out under autocast, of depthwise ones (True) and others."""
    found: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            is_depthwise = module.groups == module.in_channels > 1
            module.register_forward_hook(lambda _m, _i, out, kind=is_depthwise: found[kind].add(out.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        made(images())
    return found


def test_only_depthwise_convolutions_are_in_float32() -> None:
    plain, made = network(), network()
    depthwise_in_float32(made)
    assert types_of_convolutions(plain) == {True: {torch.bfloat16}, False: {torch.bfloat16}}
    assert types_of_convolutions(made) == {True: {torch.float32}, False: {torch.bfloat16}}
    assert list(made.state_dict()) == list(plain.state_dict())


def test_answers_and_gradients_are_those_of_the_network() -> None:
    plain, made = network(), network()
    depthwise_in_float32(made)
    for one in (plain, made):
        one(images()).logsumexp(1).sum().backward()
    torch.testing.assert_close(made(images()), plain(images()), rtol=1e-4, atol=1e-5)
    for (name, own), theirs in zip(made.named_parameters(), plain.parameters(), strict=True):
        scale = float(theirs.grad.abs().max())
        assert float((own.grad - theirs.grad).abs().max()) <= 1e-3 * scale + 1e-7, name


@pytest.mark.parametrize("emptied", ["copy", "original"])
def test_a_copy_has_its_own_weights(emptied: str) -> None:
    made = network()
    depthwise_in_float32(made)
    other, before = copy.deepcopy(made), made(images())
    changed, kept = (other, made) if emptied == "copy" else (made, other)
    with torch.no_grad():
        for module in changed.modules():
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                module.weight.zero_()
    torch.testing.assert_close(kept(images()), before)
    assert not torch.allclose(changed(images()), before)
