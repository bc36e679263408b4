"""Trunks replayed as CUDA graphs: the same results as the trunk's own, whatever happens to its weights."""

import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridclf.models import LateConditionedDenoiser, LateUNet
from hybridclf.models.graphed import KEPT, GraphedTrunk, _Graph

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


@torch.inference_mode()
def check(graphed: GraphedTrunk, trunk: LateUNet, sizes: tuple[int, ...] = (16,)) -> None:
    """Calls with rows of each size equal the network's trunk, and each other to the last bit."""
    for n in sizes:
        first = graphed(*rows(n, 0))
        for ours, theirs in zip(graphed(*rows(n, 1)), trunk.trunk(*rows(n, 1)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        for again, ours in zip(graphed(*rows(n, 0)), first, strict=True):
            assert torch.equal(again, ours)


def recorded(graphed: GraphedTrunk) -> int:
    """Graphs that would be replayed."""
    return sum(isinstance(graph, _Graph) for graph in graphed._graphs.values())


def test_a_graph_gives_what_the_trunk_gives() -> None:
    trunk = network()
    graphed = GraphedTrunk(trunk)
    check(graphed, trunk, (16, 5))
    assert recorded(graphed) == 2


def test_weights_may_change_and_move() -> None:
    trunk = network()
    graphed = GraphedTrunk(trunk)
    check(graphed, trunk)
    with torch.no_grad():
        for p in trunk.parameters():
            p.mul_(1.1)
    check(graphed, trunk)
    before = [p.detach() for p in trunk.parameters()]
    trunk.to("cpu").to("cuda")
    for storage in before:
        storage.zero_()
    check(graphed, trunk)


def test_a_trunk_that_cannot_be_recorded_runs_itself() -> None:
    """In a process of its own: with torch before 2.12, none that comes later could be recorded either."""
    program = f"import runpy; runpy.run_path({__file__!r})['check_waiting']()"
    subprocess.run([sys.executable, "-c", program], check=True)


def check_waiting() -> None:
    trunk = network(Waiting)
    graphed = GraphedTrunk(trunk)
    stream = torch.cuda.current_stream()
    check(graphed, trunk)
    assert recorded(graphed) == 0
    assert torch.cuda.current_stream() == stream


def test_few_graphs_are_kept() -> None:
    trunk = network()
    graphed = GraphedTrunk(trunk)
    for n in range(1, 3 * KEPT):
        check(graphed, trunk, (n,))
    assert recorded(graphed) == len(graphed._graphs) == KEPT


def test_threads_do_not_disturb_each_other() -> None:
    trunk = network()
    graphed = GraphedTrunk(trunk)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(check, graphed, trunk) for _ in range(40)]:
            done.result()


@torch.inference_mode()
def test_a_row_may_be_anywhere_in_its_batch() -> None:
    """512 rows of coloured 32x32 pixels, as they are and shuffled: the same noise to the last bit, again and again."""
    torch.manual_seed(0)
    trunk = LateUNet((3, 32, 32), 10, levels=3)
    for p in trunk.parameters():
        torch.nn.init.normal_(p, std=0.1)
    denoiser = LateConditionedDenoiser(trunk, range(10), np.zeros(3), np.ones(3), device="cuda")
    rng = torch.Generator("cuda").manual_seed(0)
    x_t, t = torch.randn(512, 3, 32, 32, device="cuda", generator=rng), torch.rand(512, device="cuda", generator=rng)
    row, label = torch.arange(512, device="cuda"), torch.arange(512, device="cuda") % 10
    expected = denoiser.predict(x_t, t, row, {"label": label})
    for _ in range(2):
        order = torch.randperm(512, device="cuda", generator=rng)
        shuffled = denoiser.predict(x_t[order], t[order], row, {"label": label[order]})
        assert torch.equal(shuffled, expected[order])


def made(dtype: torch.dtype = torch.float32) -> LateConditionedDenoiser:
    return LateConditionedDenoiser(network(), list("abc"), np.zeros(1), np.ones(1), dtype, device="cuda")


def ask(denoiser: LateConditionedDenoiser) -> Tensor:
    x_t, t = rows(6, 0)
    row, condition = torch.arange(6, device="cuda"), {"label": torch.arange(6, device="cuda") % 3}
    return denoiser.predict(x_t.to(denoiser.dtype), t, row, condition)


def test_where_no_graph_would_do_none_is_recorded() -> None:
    """In float64, whose batches are not padded; where gradients may be asked for; where it is not wanted."""
    denoiser, exact = made(), made(torch.float64)
    denoiser.graphs = False
    with torch.inference_mode():
        ask(denoiser)
        ask(exact)
    denoiser.graphs = True
    ask(denoiser)
    assert not denoiser._graphed._graphs and not exact._graphed._graphs
    with torch.inference_mode():
        ask(denoiser)
    assert recorded(denoiser._graphed) == 1


@torch.inference_mode()
def test_copies_record_graphs_of_their_own() -> None:
    denoiser = made()
    expected = ask(denoiser)
    for other in (copy.deepcopy(denoiser), pickle.loads(pickle.dumps(denoiser))):
        assert other._graphed.network is other.network and other.network is not denoiser.network
        torch.testing.assert_close(ask(other), expected)
        assert recorded(other._graphed) == 1
