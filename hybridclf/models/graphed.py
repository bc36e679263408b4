"""A trunk that an NVIDIA GPU is told to run as a whole (a CUDA graph) instead of kernel by kernel."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from .late import LateConditioned

__all__ = ["GraphedTrunk"]

KEPT = 12
"""Graphs that are kept, each with memory of its own: a reranker's batches are powers of two of rows, up to 1,024."""

_ONE_BY_ONE = Lock()
"""Graphs are recorded one at a time in a process, and each has one place for what goes in and comes out."""

Trunk = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class GraphedTrunk:
    """The trunk of a network on an NVIDIA GPU: a small one's kernels end sooner than a processor can launch them.

    In batches of 256 the pair for CIFAR-10 made 88,000 rows a second on an H200 instead of 52,000, and one trial of a
    single image took 5.2 ms instead of 8.4 (before results were copied, which threads need); batches of 1,024 keep that
    GPU busy either way.

    The first call with a shape records its graph. Where that fails, for a trunk that waits for its own results, say,
    the trunk itself runs for that shape, kernel by kernel.

    Parameters
    ----------
    network : LateConditioned
        It may be moved, or given other weights, at any time.
    """

    def __init__(self, network: LateConditioned) -> None:
        self.network = network
        self._graphs: OrderedDict[Hashable, Trunk] = OrderedDict()

    def __call__(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """What the trunk makes of rows `[R, *shape]` at times `[R]`; in inference mode only, from any thread."""
        weights = tuple(p.data_ptr() for p in self.network.parameters())  # a graph reads them where they were
        stream = torch.cuda.current_stream(x_t.device)
        key = (stream, x_t.shape, x_t.dtype, t.dtype, weights)
        with _ONE_BY_ONE, torch.cuda.device(x_t.device):
            if key not in self._graphs:
                if len(self._graphs) == KEPT:
                    self._graphs.popitem(last=False)
                self._graphs[key] = self._recorded(x_t, t)
            self._graphs.move_to_end(key)
            return self._graphs[key](x_t, t)

    def forget(self) -> None:
        """Give back the memory of all graphs, as where it has run out; what comes again is recorded again."""
        with _ONE_BY_ONE:
            self._graphs.clear()

    def _recorded(self, x_t: Tensor, t: Tensor) -> Trunk:
        try:
            with torch.cuda.stream(torch.cuda.current_stream()):  # which a failure would not restore by itself
                return _Graph(self.network.trunk, x_t, t)
        except torch.OutOfMemoryError:  # smaller batches are the way out
            raise
        except RuntimeError:
            return self.network.trunk

    def __getstate__(self) -> dict[str, Any]:
        """Copies record graphs of their own."""
        return {"network": self.network, "_graphs": OrderedDict()}


class _Graph:
    """The graph of a trunk for one shape of rows and times."""

    def __init__(self, trunk: Trunk, x_t: Tensor, t: Tensor) -> None:
        trunk(x_t, t)  # what libraries set up at a first call is no part of it
        self._x_t, self._t = x_t.clone(), t.clone()
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(x_t.device)  # torch's own would be of the first device that ever recorded
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._features, self._common = trunk(self._x_t, self._t)

    def __call__(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        self._x_t.copy_(x_t)
        self._t.copy_(t)
        self._graph.replay()
        return self._features.clone(), self._common.clone()  # the next call overwrites them
