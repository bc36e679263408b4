"""Reranker against a plain loop over (image, trial, class), and against Bayes' rule where the denoiser is exact."""

import copy
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from hybridclf.denoising.weighting import BinnedWeights, heuristic_weights
from hybridclf.errors import (
    FallbackWarning,
    HybridClfError,
    InvalidInputError,
    InvalidTypeError,
    UncalibratedWarning,
    UnknownLabelError,
)
from hybridclf.models import LateConditionedDenoiser, LateUNet
from hybridclf.ports import Denoiser
from hybridclf.reranker import Reranker
from hybridclf.reranking.allocation import Allocation, FixedTrials, PairedTTest, Race, Staged
from hybridclf.reranking.evidence import RerankResult
from hybridclf.reranking.fusion import Fusion
from hybridclf.reranking.tasks import Task
from hybridclf.reranking.trials import InformativeOrder

LABELS = ("ant", "bee", "cow", "dog", "elk")
FUSED = Fusion(prior_alone=1.0, prior_weight=0.6, error_weight=0.4, correlation=0.1, calibrated=True)
ALLOCATIONS = [FixedTrials(7), Staged((4, 2, 1), (2, 5, 12)), PairedTTest(0.05, 3, 12), Race(0.95, 12)]
LINES: dict[str, Callable[[np.ndarray], float]] = {
    "l2": lambda d: (d**2).sum(),
    "l1": lambda d: np.abs(d).sum(),
    "huber": lambda d: np.where(np.abs(d) < 1, d**2, np.abs(d)).sum(),
}

each_allocation = pytest.mark.parametrize("allocation", ALLOCATIONS, ids=lambda a: type(a).__name__)


@pytest.fixture
def n_images() -> int:
    return 23


@pytest.fixture(scope="module")
def unet() -> LateConditionedDenoiser:
    """A float32 U-Net with random weights (a new one predicts the same for every class)."""
    torch.manual_seed(0)
    network = LateUNet((1, 8, 8), 5, width=8)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.15)
    return LateConditionedDenoiser(network, LABELS, np.zeros(1), np.ones(1))


def same(a: RerankResult, b: RerankResult) -> None:
    """Equal to the last bit."""
    for field in fields(RerankResult):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


def alike(a: RerankResult, b: RerankResult, rtol: float = 1e-10) -> None:
    """Equal but for rounding."""
    for field in fields(RerankResult):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            np.testing.assert_allclose(
                x, y, rtol=max(rtol, 1e-6) if x.dtype == np.float32 else rtol, err_msg=field.name
            )
        else:
            assert x == y, field.name


def plain_errors(reranker: Reranker, image: Any, labels: list[str], objective: str) -> np.ndarray:
    """Weighted errors `[T, k]` of one image: one forward of the bare denoiser for each trial and class."""
    denoiser, plan = reranker.denoiser, reranker.plan
    x0 = denoiser.encode([image])[0].double().numpy()
    errors = np.zeros((len(plan), len(labels)))
    for i in range(len(plan)):
        t = torch.from_numpy(plan.timesteps(np.array([i]))).to(denoiser.dtype)
        noise = plan.noise(np.array([i]))[0].astype(float)
        alpha, sigma = (v.double().numpy() for v in denoiser.noise_levels(t))
        x_t = torch.from_numpy(alpha * x0 + sigma * noise).to(denoiser.dtype)
        weight = reranker.weighting(t.double().numpy(), alpha, sigma)[0]
        for j, label in enumerate(labels):
            predicted = denoiser.predict(x_t[None], t, torch.tensor([0]), denoiser.condition([label]))
            errors[i, j] = weight * LINES[objective](predicted[0].double().numpy() - noise)
    return errors


@pytest.mark.parametrize("objective", LINES)
@pytest.mark.parametrize(("dtype", "cost_unit"), [(torch.float64, "row"), (torch.float32, "evaluation")])
def test_errors_equal_a_plain_loop(
    objective: str,
    dtype: torch.dtype,
    cost_unit: str,
    gaussian_denoiser: Callable[..., Denoiser],
    means: dict[str, np.ndarray],
    images: np.ndarray,
    candidates: list[list[str]],
    priors: list[np.ndarray],
) -> None:
    reranker = Reranker(
        gaussian_denoiser(means, dtype=dtype, cost_unit=cost_unit),
        allocation=FixedTrials(6),
        objective=objective,
        weighting=heuristic_weights if objective == "l2" else BinnedWeights(np.array([0.5, 2.0, 1.0])),
        batch_size=7,
        random_state=5,
    )
    for image, labels, result in zip(images, candidates, reranker.rerank(images, candidates, priors), strict=True):
        assert result.candidates == tuple(labels)
        if len(labels) > 1:
            expected = plain_errors(reranker, image, labels, objective)
            np.testing.assert_allclose(result.evidence, expected, rtol=1e-6 if cost_unit == "row" else 1e-4)
            assert result.ranking[0] == labels[expected.mean(axis=0).argmin()]
        assert result.evaluations == (6 * len(labels) if len(labels) > 1 else 0)


def ahead_and_not(reranker: Reranker, images: np.ndarray) -> list[dict[int, RerankResult]]:
    """Results by image with batches begun ahead, and without."""
    tasks = [Task(i, LABELS, np.log(np.full(5, 0.2))) for i in range(len(images))]
    loops = [reranker.loop(images, LABELS, 5, ahead) for ahead in (1, 0)]
    return [dict(pair for step in loop.run(tasks) for pair in step.finished) for loop in loops]


@each_allocation
def test_batches_begun_ahead_give_the_same_results(allocation: Allocation, unet: LateConditionedDenoiser) -> None:
    images = np.random.default_rng(0).standard_normal((17, 8, 8))
    ahead, waited = ahead_and_not(Reranker(unet, allocation=allocation, fusion=FUSED, batch_size=6), images)
    assert len(ahead) == 17
    for i in range(17):
        alike(ahead[i], waited[i], rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@each_allocation
def test_a_gpu_that_is_not_waited_for_gives_the_same_results(
    allocation: Allocation, unet: LateConditionedDenoiser
) -> None:
    images = np.random.default_rng(0).standard_normal((300, 8, 8))
    on_gpu = LateConditionedDenoiser(copy.deepcopy(unet.network), LABELS, np.zeros(1), np.ones(1), device="cuda")
    ahead, waited = ahead_and_not(Reranker(on_gpu, allocation=allocation, fusion=FUSED, batch_size=32), images)
    for i in range(300):
        alike(ahead[i], waited[i], rtol=1e-4)
    here = Reranker(unet, allocation=FixedTrials(3)).rerank(images[:20], [LABELS] * 20)
    there = Reranker(on_gpu, allocation=FixedTrials(3)).rerank(images[:20], [LABELS] * 20)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(b.evidence, a.evidence, rtol=1e-3)


def test_float32_u_net_equals_a_plain_loop(unet: LateConditionedDenoiser) -> None:
    images = np.random.default_rng(0).standard_normal((3, 8, 8))
    reranker = Reranker(unet, allocation=FixedTrials(3), batch_size=6)
    for image, result in zip(images, reranker.rerank(images, [LABELS] * 3), strict=True):
        np.testing.assert_allclose(result.evidence, plain_errors(reranker, image, list(LABELS), "l2"), rtol=1e-5)
        assert np.ptp(result.evidence, axis=1).min() > 1e-3  # classes do differ


def test_an_exact_denoiser_decides_as_bayes_rule_does(
    gaussian_denoiser: Callable[..., Denoiser], means: dict[str, np.ndarray]
) -> None:
    """Under N(μ_c, s²I) and equal priors the best class is the one with the nearest mean."""
    rng = np.random.default_rng(0)
    images = np.stack([means[LABELS[i % 5]] for i in range(80)]) + rng.standard_normal((80, 3, 4))
    distance = np.stack([((images - means[label]) ** 2).sum(axis=(1, 2)) for label in LABELS], axis=1)
    clear = np.diff(np.sort(distance, axis=1)[:, :2], axis=1)[:, 0] > 1.0
    denoiser = gaussian_denoiser(means, s=1.0)
    for allocation in (FixedTrials(128), Staged((3, 1), (32, 128)), PairedTTest(1e-4, 20, 128)):
        results = Reranker(denoiser, allocation=allocation).rerank(images, [LABELS] * 80)
        best = np.array([LABELS.index(r.ranking[0]) for r in results])
        assert (best == distance.argmin(axis=1))[clear].mean() > 0.97, allocation


@pytest.mark.parametrize("allocation", [FixedTrials(5), Race(0.9, 6), PairedTTest(0.2, 2, 6), Staged((2, 1), (2, 5))])
@pytest.mark.parametrize("model", ["float32 U-Net", "float32 pairs", "float64 rows"])
def test_predictions_do_not_depend_on_their_companions(
    model: str,
    allocation: Allocation,
    unet: LateConditionedDenoiser,
    gaussian_denoiser: Callable[..., Denoiser],
    means: dict[str, np.ndarray],
    candidates: list[list[str]],
    priors: list[np.ndarray],
) -> None:
    """Alone or in company, in any order, whatever labels the others are asked about: but for rounding."""
    rtol = 1e-10 if model == "float64 rows" else 1e-4
    if model == "float32 U-Net":
        denoiser: Denoiser = unet
    elif model == "float32 pairs":
        denoiser = gaussian_denoiser(means, dtype=torch.float32, cost_unit="evaluation")
    else:
        denoiser = gaussian_denoiser(means)
    images = np.random.default_rng(4).standard_normal((23, 8, 8) if denoiser is unet else (23, 3, 4))
    reranker = Reranker(denoiser, allocation=allocation, fusion=FUSED, batch_size=8)
    together = reranker.rerank(images, candidates, priors)
    assert len({r.rows for r in together}) > 1
    for i in range(0, 23, 4):
        (alone,) = reranker.rerank(images[i : i + 1], [candidates[i]], [priors[i]])
        alike(alone, together[i], rtol)
    order = np.random.default_rng(5).permutation(23)
    shuffled = reranker.rerank(images[order], [candidates[i] for i in order], [priors[i] for i in order])
    for i, result in zip(order, shuffled, strict=True):
        alike(result, together[i], rtol)


def test_batch_size_changes_nothing_in_float64(
    gaussian_denoiser: Callable[..., Denoiser],
    means: dict[str, np.ndarray],
    images: np.ndarray,
    candidates: list[list[str]],
) -> None:
    results = [
        Reranker(gaussian_denoiser(means), allocation=FixedTrials(5), batch_size=size).rerank(images, candidates)
        for size in (1, 4, 1000)
    ]
    for a, b, c in zip(*results, strict=True):
        alike(a, b)
        alike(a, c)


@pytest.mark.parametrize("cost_unit", ["row", "evaluation"])
def test_batches_of_float32_have_few_sizes_or_are_full(
    cost_unit: str,
    gaussian_denoiser: Callable[..., Any],
    means: dict[str, np.ndarray],
    images: np.ndarray,
    candidates: list[list[str]],
) -> None:
    rows, evaluations = set(), set()

    class Watched(gaussian_denoiser):  # type: ignore[misc,valid-type]
        def predict(self, x_t: Any, t: Any, row: Any, condition: Any) -> torch.Tensor:
            rows.add(len(x_t))
            evaluations.add(len(row))
            return super().predict(x_t, t, row, condition)

    denoiser = Watched(means, dtype=torch.float32, cost_unit=cost_unit)
    Reranker(denoiser, allocation=Race(0.9, 8), batch_size=12).rerank(images, candidates)
    most = 12 * 16 if cost_unit == "row" else 12
    small = {*range(1, 9), *range(10, 17, 2), *range(20, 33, 4)}
    assert rows <= small and evaluations <= small | {*range(40, 65, 8), *range(80, 129, 16), 160, 192, most}
    assert max(rows if cost_unit == "row" else evaluations) == 12


def test_float64_is_not_padded(gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray]) -> None:
    denoiser = gaussian_denoiser(means)
    images = np.random.default_rng(1).standard_normal((3, 3, 4))
    results = Reranker(denoiser, allocation=Race(0.95, 12), batch_size=64).rerank(images, [LABELS] * 3)
    assert denoiser.rows == sum(r.rows for r in results) and denoiser.pairs == sum(r.evaluations for r in results)


# --- several prompts per class ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "cost_unit", "batch_size"),
    [
        (torch.float64, "row", 3),
        (torch.float64, "evaluation", 7),
        (torch.float32, "evaluation", 2),
        (torch.float32, "row", 1),
    ],
)
def test_errors_are_averaged_over_the_prompts_of_a_class(
    dtype: torch.dtype,
    cost_unit: str,
    batch_size: int,
    gaussian_denoiser: Callable[..., Any],
    means: dict[str, np.ndarray],
    images: np.ndarray,
    candidates: list[list[str]],
) -> None:
    """As if each prompt had its own denoiser, and their tables were averaged."""
    prompts = np.random.default_rng(6).normal(scale=0.5, size=(3, 3, 4))
    largest = 0

    class Prompted(gaussian_denoiser):  # type: ignore[misc,valid-type]
        def condition(self, labels: Any) -> dict[str, torch.Tensor]:
            mean = super().condition(labels)["mean"]
            return {"mean": (mean[:, None] + torch.from_numpy(prompts).to(self.dtype)).flatten(0, 1)}

        def predict(self, x_t: Any, t: Any, row: Any, condition: Any) -> torch.Tensor:
            nonlocal largest
            largest = max(largest, len(row if cost_unit == "evaluation" else x_t))
            return super().predict(x_t, t, row, condition)

    options: dict[str, Any] = {"allocation": FixedTrials(4), "batch_size": batch_size}
    several = Reranker(Prompted(means, dtype=dtype, cost_unit=cost_unit), **options)
    results = several.rerank(images, candidates)
    assert largest <= batch_size
    singles = [gaussian_denoiser({k: m + prompt for k, m in means.items()}, dtype=dtype) for prompt in prompts]
    tables = [Reranker(single, **options).rerank(images, candidates) for single in singles]
    for result, *single in zip(results, *tables, strict=True):
        expected = np.mean([s.evidence for s in single], axis=0)
        np.testing.assert_allclose(result.evidence, expected, rtol=1e-6 if dtype == torch.float64 else 1e-4)
        assert result.evaluations == sum(s.evaluations for s in single)
    steps = list(several.stream(images, candidates))
    assert sum(step.batch_evaluations for step in steps) == sum(r.evaluations for r in results)


def test_prompts_that_some_labels_lack_are_refused(
    gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray], images: np.ndarray
) -> None:
    class Uneven(gaussian_denoiser):  # type: ignore[misc,valid-type]
        def condition(self, labels: Any) -> dict[str, torch.Tensor]:
            return {"mean": super().condition(labels)["mean"].repeat(2, 1, 1)[:-1]}

    with pytest.raises(InvalidInputError, match="condition of 5 labels has 9 rows; give each label the same number"):
        Reranker(Uneven(means), allocation=FixedTrials(2)).rerank(images[:1], [LABELS])


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowded(gaussian_denoiser: Callable[..., Any]) -> type[Any]:
    """The class: a Gaussian denoiser on a device with memory for so many rows or pairs, and so many images."""

    class Crowded(gaussian_denoiser):  # type: ignore[misc,valid-type]
        room = 3
        encoding_room = 2

        def encode(self, images: Any) -> torch.Tensor:
            if len(images) > self.encoding_room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().encode(images)

        def predict(self, x_t: Any, t: Any, row: Any, condition: Any) -> torch.Tensor:
            if len(x_t if self.cost_unit == "row" else row) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().predict(x_t, t, row, condition)

    return Crowded


@pytest.mark.parametrize("cost_unit", ["row", "evaluation"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_batches_halve_for_good_when_memory_runs_out(
    dtype: torch.dtype,
    cost_unit: str,
    crowded: Callable[..., Any],
    gaussian_denoiser: Callable[..., Denoiser],
    means: dict[str, np.ndarray],
    images: np.ndarray,
    candidates: list[list[str]],
) -> None:
    options: dict[str, Any] = {"allocation": FixedTrials(5), "batch_size": 16}
    roomy = Reranker(gaussian_denoiser(means, dtype=dtype, cost_unit=cost_unit), **options)
    tight = Reranker(crowded(means, dtype=dtype, cost_unit=cost_unit), **options)
    for a, b in zip(roomy.rerank(images, candidates), tight.rerank(images, candidates), strict=True):
        np.testing.assert_allclose(a.evidence, b.evidence, rtol=1e-6 if dtype == torch.float64 else 1e-4)
        assert (a.ranking, a.evaluations, a.stopped_by) == (b.ranking, b.evaluations, b.stopped_by)
    assert tight.batch_size == 2
    assert max(tight.denoiser.encoded) == 2
    tight.denoiser.room = tight.denoiser.encoding_room = 16
    tight.rerank(images, candidates)
    assert tight.batch_size == max(tight.denoiser.encoded) == 2


@pytest.mark.parametrize("what", ["room", "encoding_room"])
def test_without_memory_for_one_row_or_image_there_is_one_clear_error(
    what: str, crowded: Callable[..., Any], means: dict[str, np.ndarray], images: np.ndarray
) -> None:
    denoiser = crowded(means)
    setattr(denoiser, what, 0)
    with pytest.raises(HybridClfError, match="no memory for a single item; choose another device"):
        Reranker(denoiser, allocation=FixedTrials(2)).rerank(images[:4], [LABELS] * 4)


def test_images_as_array_or_list(
    gaussian_denoiser: Callable[..., Denoiser],
    means: dict[str, np.ndarray],
    images: np.ndarray,
    candidates: list[list[str]],
) -> None:
    reranker = Reranker(gaussian_denoiser(means), allocation=FixedTrials(3), batch_size=5)
    wanted = reranker.rerank(images, candidates)
    for given in (list(images), tuple(images), torch.from_numpy(images)):
        for a, b in zip(reranker.rerank(given, candidates), wanted, strict=True):
            same(a, b)
    ragged = np.empty(23, dtype=object)
    ragged[:] = [tuple(c) for c in candidates]
    for a, b in zip(reranker.rerank(images, ragged), wanted, strict=True):
        same(a, b)


def test_images_are_encoded_once_and_those_that_the_prior_settles_never(
    gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray], images: np.ndarray
) -> None:
    denoiser = gaussian_denoiser(means)
    priors = np.log(np.full((23, 5), 0.2))
    priors[:9] = np.log([0.996, 0.001, 0.001, 0.001, 0.001])
    reranker = Reranker(denoiser, allocation=Race(0.99, 8), fusion=FUSED, batch_size=4)
    results = reranker.rerank(images, [LABELS] * 23, priors)
    assert [r.rows > 0 for r in results] == [False] * 9 + [True] * 14
    assert sum(denoiser.encoded) == 14
    assert max(denoiser.encoded) <= 4
    assert all(r.ranking[0] == "ant" and r.stopped_by == "confident" for r in results[:9])


def test_labels_are_conditioned_once_per_label_set(
    gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray], images: np.ndarray
) -> None:
    denoiser = gaussian_denoiser(means)
    reranker = Reranker(denoiser, allocation=FixedTrials(3), batch_size=4)
    first = reranker.rerank(images[:6], [["bee", "cow"], ["cow", "dog"]] * 3)
    again = reranker.rerank(images[:6], [["bee", "cow"], ["cow", "dog"]] * 3)
    for a, b in zip(first, again, strict=True):
        same(a, b)
    assert len(denoiser.conditioned) == 1
    assert sorted(denoiser.conditioned[0]) == ["bee", "cow", "dog"]
    reranker.rerank(images[:1], [["ant", "bee"]])
    assert len(denoiser.conditioned) == 2


def test_labels_of_any_kind(gaussian_denoiser: Callable[..., Denoiser]) -> None:
    means = {label: np.array([float(i), 1.0]) for i, label in enumerate([3, "three", (3, 3), None])}
    reranker = Reranker(gaussian_denoiser(means, s=0.1), allocation=FixedTrials(8))
    (result,) = reranker.rerank([np.array([2.0, 1.0])], [[None, 3, (3, 3)]])
    assert result.ranking[0] == (3, 3)


def test_stream_tells_what_rerank_spends(
    gaussian_denoiser: Callable[..., Any],
    means: dict[str, np.ndarray],
    images: np.ndarray,
    candidates: list[list[str]],
    priors: list[np.ndarray],
) -> None:
    denoiser = gaussian_denoiser(means)
    reranker = Reranker(denoiser, allocation=Race(0.95, 12), fusion=FUSED, batch_size=4)
    steps = list(reranker.stream(images, candidates, priors))
    finished = dict(pair for step in steps for pair in step.finished)
    assert sorted(finished) == list(range(23))
    assert (
        sum(step.batch_evaluations for step in steps) == sum(r.evaluations for r in finished.values()) == denoiser.pairs
    )
    assert sum(step.batch_rows for step in steps) == sum(r.rows for r in finished.values()) == denoiser.rows
    for i, result in enumerate(reranker.rerank(images, candidates, priors)):
        same(result, finished[i])


def test_stream_does_no_work_before_it_is_asked(
    gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray], images: np.ndarray
) -> None:
    denoiser = gaussian_denoiser(means)
    steps = Reranker(denoiser, allocation=FixedTrials(50), batch_size=8).stream(images, [LABELS] * 23)
    assert denoiser.rows == 0
    while denoiser.rows == 0:
        next(steps)
    assert denoiser.rows == 8


def test_a_denoiser_that_breaks_on_one_image_harms_no_other(
    gaussian_denoiser: Callable[..., Denoiser], means: dict[str, np.ndarray], images: np.ndarray
) -> None:
    reranker = Reranker(gaussian_denoiser(means), allocation=FixedTrials(4), fusion=FUSED, batch_size=6)
    priors = np.log(np.random.default_rng(0).dirichlet(np.ones(5), 23))
    clean = reranker.rerank(images, [LABELS] * 23, priors)
    broken = images.copy()
    broken[7, 0, 0] = np.inf
    results = reranker.rerank(broken, [LABELS] * 23, priors)
    np.testing.assert_allclose(results[7].posterior, np.exp(priors[7]))
    assert results[7].stopped_by == "fallback"
    for i in set(range(23)) - {7}:
        alike(results[i], clean[i])


def test_only_race_uses_a_fitted_order(
    gaussian_denoiser: Callable[..., Denoiser], means: dict[str, np.ndarray]
) -> None:
    order = InformativeOrder(np.array([0.0, 3.0, 1.0]))
    raced = Reranker(gaussian_denoiser(means), allocation=Race(0.9, 9), order=order)
    t, alpha, sigma = raced.levels()
    assert set(np.round(t[:3] * 9 - 0.5)) == {3, 4, 5}
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-6)
    np.testing.assert_allclose(sigma, np.sin(np.pi / 2 * t), rtol=1e-6)
    for allocation in (FixedTrials(9), Staged((1,), (9,)), PairedTTest(0.1, 2, 9)):
        plan = Reranker(gaussian_denoiser(means), allocation=allocation, order=order).plan
        assert np.array_equal(plan.order, Reranker(gaussian_denoiser(means), allocation=allocation).plan.order)


def test_random_state_decides_the_noise(
    gaussian_denoiser: Callable[..., Denoiser], means: dict[str, np.ndarray], images: np.ndarray
) -> None:
    a, b, c = (
        Reranker(gaussian_denoiser(means), allocation=FixedTrials(2), random_state=seed).rerank(images[:1], [LABELS])[0]
        for seed in (1, 1, 2)
    )
    same(a, b)
    assert (a.evidence != c.evidence).all()


def test_default_allocation_follows_the_fusion(
    gaussian_denoiser: Callable[..., Denoiser], means: dict[str, np.ndarray]
) -> None:
    assert Reranker(gaussian_denoiser(means)).allocation == PairedTTest()
    assert Reranker(gaussian_denoiser(means), fusion=FUSED).allocation == Race()


def test_nothing_to_rerank(gaussian_denoiser: Callable[..., Denoiser], means: dict[str, np.ndarray]) -> None:
    assert Reranker(gaussian_denoiser(means)).rerank([], []) == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"candidates": [["ant", "bee"]] * 2}, InvalidInputError, "3 images, 2 candidate lists and 2 log priors"),
        ({"log_prior": np.zeros((2, 2))}, InvalidInputError, "3 images, 3 candidate lists and 2 log priors"),
        ({"log_prior": [[0, 0], [0, np.nan], [0, 0]]}, InvalidInputError, "image 1.*finite number or -inf"),
        ({"log_prior": [[0, 0], [0, 0], [0, 0, 0]]}, InvalidInputError, "image 2 has 2 candidates"),
        ({"log_prior": [[0, 0], ["a", "b"], [0, 0]]}, InvalidInputError, "image 1: a log prior must be one number per"),
        ({"candidates": [["ant", "bee"], [], ["ant"]]}, InvalidInputError, "image 1 has no candidates"),
        ({"candidates": [["ant", "ant"]] * 3}, InvalidInputError, "image 0 lists a candidate twice"),
        ({"candidates": ["ant", "bee", "ant"]}, InvalidInputError, r"got the text 'ant'; give \['ant'\], or the same"),
        ({"candidates": [["ant"], ["ant"], "bee"]}, InvalidInputError, "image 2 needs a list of candidates"),
        ({"candidates": [["ant", "yak"]] * 3}, UnknownLabelError, "yak"),
    ],
)
def test_bad_input_is_refused(
    change: dict[str, Any],
    error: type[Exception],
    message: str,
    gaussian_denoiser: Callable[..., Denoiser],
    means: dict[str, np.ndarray],
    images: np.ndarray,
) -> None:
    arguments: dict[str, Any] = {"candidates": [["ant", "bee"]] * 3, "log_prior": None, **change}
    with pytest.raises(error, match=message):
        Reranker(gaussian_denoiser(means), allocation=FixedTrials(2)).rerank(images[:3], **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[({"batch_size": n}, "batch_size") for n in (0, 2.5, True, "x", np.nan, np.array([1, 2]))],
        *[({"random_state": n}, "random_state") for n in (-1, 2.5, True, "x", np.nan, 2**32, np.random.default_rng())],
        ({"objective": "l3"}, "objective"),
    ],
)
def test_bad_parameters_are_refused(
    change: dict[str, Any], message: str, gaussian_denoiser: Callable[..., Denoiser], means: dict[str, np.ndarray]
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Reranker(gaussian_denoiser(means), **change)


def test_an_allocation_that_is_none_is_refused(
    gaussian_denoiser: Callable[..., Denoiser], means: dict[str, np.ndarray]
) -> None:
    for allocation in ("race", Race, 3):
        with pytest.raises(InvalidTypeError, match="allocation must be an object such as Race"):
            Reranker(gaussian_denoiser(means), allocation=allocation)  # type: ignore[arg-type]


def test_a_fusion_of_another_tier_1_is_said(gaussian_denoiser: Callable[..., Any]) -> None:
    denoiser = gaussian_denoiser(dict(zip("ab", np.eye(2), strict=True)))
    fusion = Fusion(1.0, 0.5, 0.2, calibrated=True, top_log_prior=float(np.log(0.9)))
    stage, images = Reranker(denoiser, allocation=FixedTrials(1), fusion=fusion), np.zeros((40, 2))
    stage.rerank(images, [["a", "b"]] * 40, np.log([[0.8, 0.2]] * 40))
    stage.rerank(images, [["a", "b"]] * 40)  # no tier 1 at all
    with pytest.warns(UncalibratedWarning, match=r"probability 0.50 .* it had 0.90: that was another tier 1"):
        stage.rerank(images, [["a", "b"]] * 40, np.log([[0.5, 0.5]] * 40))
    stage.rerank(images[:5], [["a", "b"]] * 5, np.log([[0.5, 0.5]] * 5))  # too few to tell


def test_a_model_that_overflows_is_warned_of_once(gaussian_denoiser: Callable[..., Any]) -> None:
    broken = gaussian_denoiser(dict(zip("ab", np.eye(2), strict=True)), dtype=torch.float16)
    broken.predict = lambda x_t, t, row, condition: torch.full((len(row), 2), torch.inf, dtype=torch.float16)
    with pytest.warns(FallbackWarning, match=r'40 of 40 images.*float16 overflows.*precision="bf16"') as caught:
        results = Reranker(broken, allocation=FixedTrials(1)).rerank(np.zeros((40, 2)), [["a", "b"]] * 40)
    assert len(caught) == 1
    assert {r.stopped_by for r in results} == {"fallback"}
