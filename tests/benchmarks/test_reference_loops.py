"""The published loops against the Reranker: same weights and same noise, so the same errors, costs and answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference_loops import Answer, ReferenceLoops
from scipy.stats import ttest_rel
from sklearn.datasets import load_digits

from hybridclf import FixedTrials, HybridClassifier, PairedTTest, Reranker, RerankResult, Staged
from hybridclf.models import LateConditionedDenoiser, LateUNet
from hybridclf_adapters.diffusers import load
from tests.adapters.tiny_diffusers import save, stable_diffusion, stable_diffusion_v

STAGED = Staged((4, 2, 1), (3, 7, 20))
T_TEST = PairedTTest(p=0.05, min_trials=4, max_trials=40)
LABELS = ["ant", "bee", "cow", "dog", "elk", "fox"]

Case = tuple[Any, Any, list[Any]]


def digits_mlp(_: Path) -> Case:
    denoiser = HybridClassifier.from_pretrained("digits").denoiser_
    return denoiser, load_digits().images[:12], denoiser.classes.tolist()


def late_unet(_: Path) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LateUNet((3, 8, 8), len(LABELS), width=8)
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.15)
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    return LateConditionedDenoiser(network, LABELS, np.full(3, 128.0), np.full(3, 64.0)), images, LABELS


def diffusers(build: Callable[[], Any]) -> Callable[[Path], Case]:
    def case(folder: Path) -> Case:
        pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
        return load(str(save(build, folder)), device="cpu"), [Image.fromarray(p) for p in pixels], LABELS

    return case


CASES = {
    "digits MLP": digits_mlp,
    "late U-Net": late_unet,
    "SD": diffusers(stable_diffusion),
    "SD, v-prediction": diffusers(stable_diffusion_v),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A denoiser, images and labels."""
    return CASES[request.param](tmp_path_factory.mktemp("pipeline"))


def alike(answer: Answer, result: RerankResult, denoiser: Any) -> None:
    """The same answer at the same cost, on errors that differ by rounding alone."""
    assert answer.label == result.ranking[0]
    assert answer.evaluations == result.evaluations
    np.testing.assert_array_equal(np.isnan(answer.errors[: result.rows]), np.isnan(result.evidence))
    assert np.isnan(answer.errors[result.rows :]).all()
    exact = denoiser.dtype == torch.float64
    np.testing.assert_allclose(answer.errors[: result.rows], result.evidence, rtol=1e-6 if exact else 1e-4)


def test_staged(case: Case) -> None:
    denoiser, images, labels = case
    reranker = Reranker(denoiser, allocation=STAGED, random_state=3)
    loops = ReferenceLoops(denoiser, labels, reranker.plan)
    for image, result in zip(images, reranker.rerank(images, [labels] * len(images)), strict=True):
        answer = loops.staged(image, STAGED.keep, STAGED.trials)
        alike(answer, result, denoiser)
        assert answer.evaluations == STAGED.evaluations(len(labels))


def test_one_stage_is_every_trial_for_every_class(case: Case) -> None:
    denoiser, images, labels = case
    reranker = Reranker(denoiser, allocation=FixedTrials(7))
    (result,) = reranker.rerank(images[:1], [labels])
    answer = ReferenceLoops(denoiser, labels, reranker.plan).staged(images[0], (1,), (7,))
    alike(answer, result, denoiser)
    assert not np.isnan(answer.errors).any()


def test_paired_t_test(case: Case) -> None:
    denoiser, images, labels = case
    reranker = Reranker(denoiser, allocation=T_TEST, random_state=4)
    loops = ReferenceLoops(denoiser, labels, reranker.plan)
    results = reranker.rerank(images, [labels] * len(images))
    assert any(np.isnan(r.evidence).any() for r in results)  # something was dropped
    for image, result in zip(images, results, strict=True):
        alike(loops.t_test(image, T_TEST.p, T_TEST.min_trials, T_TEST.max_trials), result, denoiser)


def test_classes_are_dropped_where_scipys_test_says_so() -> None:
    denoiser, images, labels = digits_mlp(Path())
    loops = ReferenceLoops(denoiser, labels, Reranker(denoiser, allocation=T_TEST).plan)
    for image in images:
        errors = loops.t_test(image, T_TEST.p, T_TEST.min_trials, T_TEST.max_trials).errors
        n_trials, n_classes = np.isfinite(errors).any(axis=1).sum(), np.isfinite(errors).sum(axis=0)
        for n in range(T_TEST.min_trials, n_trials):
            (alive,) = np.nonzero(n_classes >= n)
            best = alive[errors[:n, alive].mean(axis=0).argmin()]
            for c in alive[alive != best]:
                worse = ttest_rel(errors[:n, c], errors[:n, best]).pvalue < T_TEST.p
                assert worse == (n_classes[c] == n)


def test_pairs_come_one_per_row_in_batches_of_32() -> None:
    denoiser, images, labels = digits_mlp(Path())
    sizes: list[int] = []
    denoiser.network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    reranker = Reranker(denoiser, allocation=Staged((5, 1), (8, 25)))
    ReferenceLoops(denoiser, labels, reranker.plan).staged(images[0], (5, 1), (8, 25))
    assert sizes == [32, 32, 16, 32, 32, 21]  # 8 trials of 10 classes, 17 more of 5
