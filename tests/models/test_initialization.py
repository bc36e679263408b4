"""Fresh networks: the constructor's weights, from a generator of their own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hybridclf.models import LateConditioned, LateMLP, LateUNet
from hybridclf.models.initialization import new_network

MAKERS: dict[str, Callable[[], LateConditioned]] = {
    "mlp": lambda: LateMLP((5,), 3, width=16, depth=2),
    "unet": lambda: LateUNet((3, 16, 16), 4, width=16, levels=3),
    "unet with attention and patches": lambda: LateUNet((3, 32, 32), 4, width=32, patch=2, depth=2, attention=True),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_weights_are_those_of_the_constructor(make: Callable[[], LateConditioned]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        wanted = make()
    made = new_network(wanted.config, 7).state_dict()
    assert made.keys() == wanted.state_dict().keys()
    for name, value in wanted.state_dict().items():
        torch.testing.assert_close(made[name], value, rtol=0, atol=0, msg=name)
    assert any(not value.any() for value in made.values())  # some layers start at zero


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    config: dict[str, Any] = LateMLP((5,), 3).config
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = new_network(config, 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again = new_network(config, 0)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
