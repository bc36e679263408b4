"""Trunks replayed as CUDA graphs: the same results as the trunk's own, whatever happens to its weights."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridclf.models import LateConditionedDenoiser, LateUNet
from hybridclf.models.graphed import KEPT, GraphedTrunk

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Waiting(LateUNet):
    """A network whose trunk waits for a result, which no graph can."""

    def trunk(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return super().trunk(x_t * float(t.sum().item() > 0), t)


def network(kind: type[LateUNet] = LateUNet) -> LateUNet:
    torch.manual_seed(0)
    made = kind((1, 8, 8), 3, width=8)
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.15)
    return made.eval().requires_grad_(False).to("cuda")


def rows(n: int, seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(n, 1, 8, 8, device="cuda", generator=rng), torch.rand(n, device="cuda", generator=rng)


def check(graphed: GraphedTrunk, trunk: LateUNet, sizes: tuple[int, ...] = (16,)) -> None:
    """Three calls with each size, of other rows every time, equal the network's trunk."""
    for seed in range(3):
        for n in sizes:
            with torch.inference_mode():
                expected = trunk.trunk(*rows(n, seed))
            for ours, theirs in zip(graphed(*rows(n, seed)), expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def recorded(graphed: GraphedTrunk) -> int:
    """Graphs that would be replayed."""
    return sum(type(graph).__name__ == "_Graph" for graph in graphed._graphs.values())


def test_a_graph_gives_what_the_trunk_gives() -> None:
    trunk = network()
    graphed = GraphedTrunk(trunk)
    check(graphed, trunk, (16, 5, 32))
    assert recorded(graphed) == 3


def test_weights_may_change_and_move() -> None:
    trunk = network()
    graphed = GraphedTrunk(trunk)
    check(graphed, trunk)
    with torch.no_grad():
        for p in trunk.parameters():
            p.mul_(1.1)
    check(graphed, trunk)
    trunk.to("cpu").to("cuda")
    check(graphed, trunk)


def test_a_trunk_that_cannot_be_recorded_runs_itself() -> None:
    trunk = network(Waiting)
    graphed = GraphedTrunk(trunk)
    check(graphed, trunk)
    assert recorded(graphed) == 0


def test_few_graphs_are_kept() -> None:
    trunk = network()
    graphed = GraphedTrunk(trunk)
    for n in range(1, 3 * KEPT):
        check(graphed, trunk, (n,))
    assert recorded(graphed) == len(graphed._graphs) == KEPT


def test_copies_record_graphs_of_their_own() -> None:
    denoiser = LateConditionedDenoiser(network(), list("abc"), np.zeros(1), np.ones(1), device="cuda")
    x_t, t = rows(6, 0)
    row, condition = torch.arange(6, device="cuda"), {"label": torch.arange(6, device="cuda") % 3}
    expected = [denoiser.predict(x_t, t, row, condition) for _ in range(3)][-1]
    for other in (copy.deepcopy(denoiser), pickle.loads(pickle.dumps(denoiser))):
        assert other._graphed.network is other.network and other.network is not denoiser.network
        for _ in range(3):
            torch.testing.assert_close(other.predict(x_t, t, row, condition), expected)
