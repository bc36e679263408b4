"""Trials that fill up batches: nothing changes but the number of batches."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from hybridclf.denoising import lookahead as foresight_module
from hybridclf.denoising.lookahead import DEPTH, Foresight
from hybridclf.models import LateConditionedDenoiser, LateUNet
from hybridclf.ports import Denoiser
from hybridclf.reranker import Reranker
from hybridclf.reranking.allocation import Allocation, FixedTrials, PairedTTest, Race, Staged
from hybridclf.reranking.batches import Batch, Capacity
from hybridclf.reranking.evidence import RerankResult
from hybridclf.reranking.fusion import Fusion

LABELS = ("ant", "bee", "cow", "dog", "elk")
FUSED = Fusion(prior_alone=1.0, prior_weight=0.6, error_weight=0.4, correlation=0.1, calibrated=True)
ALLOCATIONS = [FixedTrials(7), Staged((4, 2, 1), (2, 5, 12)), PairedTTest(0.05, 3, 12), Race(0.95, 12)]


class Counting:
    """A denoiser that counts its batches; one of them may break at a time."""

    def __init__(self, denoiser: Denoiser, broken: tuple[float, float] = (2.0, 2.0)) -> None:
        self.denoiser, self.broken, self.batches = denoiser, broken, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, row: torch.Tensor, condition: Any) -> torch.Tensor:
        self.batches += 1
        low, high = self.broken
        breaks = ((t > low) & (t < high))[row].view(-1, *(1,) * (x_t.ndim - 1))
        return self.denoiser.predict(x_t, t, row, condition).masked_fill(breaks, torch.nan)


@pytest.fixture(params=["row", "pair"])
def denoiser(request: pytest.FixtureRequest, gaussian_denoiser: Callable[..., Denoiser]) -> Denoiser:
    """In float32, whose batches are padded: a late-conditioned U-Net, and a model of a forward pass per pair."""
    if request.param == "pair":
        means = np.random.default_rng(0).standard_normal((5, 8, 8))
        return gaussian_denoiser(dict(zip(LABELS, means, strict=True)), dtype=torch.float32, cost_unit="pair")
    torch.manual_seed(0)
    network = LateUNet((1, 8, 8), 5, width=8)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.15)
    return LateConditionedDenoiser(network, LABELS, np.zeros(1), np.ones(1))


def ask(denoiser: Denoiser, n: int, allocation: Allocation, batch_size: int) -> list[RerankResult]:
    reranker = Reranker(denoiser, allocation=allocation, fusion=FUSED, batch_size=batch_size)
    return reranker.rerank(np.random.default_rng(1).standard_normal((n, 8, 8)), [LABELS] * n)


def same(a: RerankResult, b: RerankResult) -> None:
    """Equal to the last bit."""
    for field in fields(RerankResult):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize(("n", "batch_size"), [(1, 32), (3, 40), (23, 6), (23, 64)])
def test_filling_up_changes_no_result_and_saves_batches(
    allocation: Allocation, n: int, batch_size: int, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    filling, padding = Counting(denoiser), Counting(denoiser)
    filled = ask(filling, n, allocation, batch_size)
    monkeypatch.setattr(foresight_module, "DEPTH", 0)
    for a, b in zip(filled, ask(padding, n, allocation, batch_size), strict=True):
        same(a, b)
    assert filling.batches <= padding.batches
    if n == 1 and isinstance(allocation, PairedTTest | Race):  # which judge after every trial
        trials = filled[0].rows
        first = 1 if isinstance(allocation, Race) else allocation.min_trials
        assert padding.batches == trials - first + 1 > 2
        assert filling.batches == 1 if denoiser.cost_unit == "row" else filling.batches < padding.batches / 2


@pytest.mark.filterwarnings("ignore:tier 2 gave errors:hybridclf.errors.FallbackWarning")
def test_what_was_never_asked_for_cannot_break_an_answer(denoiser: Denoiser) -> None:
    """The errors of the second trial, t = 3/4, are not finite, but after the first everything is clear."""
    sure = Race(0.21, 2)
    clean, broken = (ask(Counting(denoiser, b), 1, sure, 32)[0] for b in ((2.0, 2.0), (0.6, 1.0)))
    assert clean.rows == 1
    same(broken, clean)
    (fallback,) = ask(Counting(denoiser, (0.6, 1.0)), 1, FixedTrials(2), 32)
    assert fallback.stopped_by == "fallback"


def test_float64_is_neither_padded_nor_filled_up(gaussian_denoiser: Callable[..., Any]) -> None:
    means = np.random.default_rng(0).standard_normal((5, 8, 8))
    exact = gaussian_denoiser(dict(zip(LABELS, means, strict=True)))
    results = ask(exact, 3, Race(0.95, 12), 64)
    assert exact.rows == sum(r.rows for r in results) and exact.pairs == sum(r.evaluations for r in results)


def work(slot: list[int], trial: list[int], candidates: list[list[int]]) -> Batch:
    """A batch of these rows."""
    row = np.repeat(np.arange(len(slot)), [len(c) for c in candidates])
    return Batch(np.array(slot), np.array(slot) + 100, np.array(trial), row, np.concatenate(candidates))


def triples(batch: Batch) -> list[tuple[int, int, int]]:
    columns = (batch.slot[batch.row], batch.trial[batch.row], batch.candidate)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_batch_is_filled_up_evenly_and_what_it_brings_is_known_until_it_is_forgotten() -> None:
    foresight = Foresight(max_trials=6, n_candidates=3)
    asked = work([7, 7, 2], [0, 1, 4], [[0, 2], [0, 2], [1]])
    assert np.isnan(foresight.known(asked)).all()
    filled = foresight.filled(asked, np.ones(5, dtype=bool), Capacity(9, 100))
    own, more = triples(asked), [(7, t, c) for t in (2, 3, 4) for c in (0, 2)] + [(2, 5, 1)]  # slot 2 has 6 trials
    assert triples(filled) == own + more
    assert filled.image.tolist() == [107, 107, 102, 107, 107, 107, 102]
    errors = np.arange(len(filled.row)) / 8
    foresight.keep(filled, errors, len(asked.row))
    again = work([7, 2, 7], [2, 5, 5], [[2], [1], [0, 2]])
    assert foresight.known(again).tolist()[:2] == [errors[6], errors[11]]
    rest = foresight.filled(again, np.isnan(foresight.known(again)), Capacity(1, 3))
    assert triples(rest) == [(7, 5, 0), (7, 5, 2)]
    foresight.forget(np.array([7]))
    assert np.isnan(foresight.known(again)).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("capacity", "n_more"),
    [(Capacity(64, 4), 1), (Capacity(64, 7), 2), (Capacity(2, 99), 1), (Capacity(999, 999), DEPTH)],
)
def test_no_more_than_fits(capacity: Capacity, n_more: int) -> None:
    asked = work([0], [0], [[0, 1]])
    filled = Foresight(99, 2).filled(asked, np.ones(2, dtype=bool), capacity)
    assert len(filled.slot) == 1 + n_more
