"""What is usual for the lowest error of an image, and images that are beyond it."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from hybridclf import Fusion
from hybridclf.reranking.novelty import IMAGE_SLACK, QUANTILE, VECTOR_SLACK, UsualErrors, UsualValues

T = 16
TIMES = np.random.default_rng(0).permutation((np.arange(T) + 0.5) / T)  # in the order of use
WEIGHTS = np.linspace(0.5, 2.0, T)


@pytest.fixture(scope="module")
def errors() -> np.ndarray:
    """Errors `[n, T, k]` whose level differs by image and by time."""
    rng = np.random.default_rng(1)
    level = np.exp(0.3 * rng.standard_normal((400, 1, 1))) * (1 + TIMES[:, None])
    return level * (3 + rng.uniform(0, 1, (400, T, 4)))


@pytest.mark.parametrize(("vectors", "slack"), [(True, VECTOR_SLACK), (False, IMAGE_SLACK)])
def test_the_ceiling_is_a_quantile_of_what_calibration_images_had(
    errors: np.ndarray, vectors: bool, slack: float
) -> None:
    ceilings = UsualErrors.fit(errors, TIMES, WEIGHTS, vectors).ceilings(TIMES, WEIGHTS)
    assert ceilings.shape == (T + 1,) and ceilings[0] == np.inf
    for n in (1, 2, 4, 8, 16):  # where the limits were fitted; brute force
        lowest = np.array([min((image[:n, c] * WEIGHTS[:n]).sum() for c in range(4)) for image in errors])
        assert ceilings[n] == pytest.approx(slack * np.quantile(lowest, QUANTILE, method="higher"), rel=0.02)
        if vectors:
            assert (lowest > ceilings[n]).mean() <= 1 - QUANTILE
    assert (np.diff(ceilings[1:]) > 0).all()


def test_other_trials_are_judged_by_their_times(errors: np.ndarray) -> None:
    usual = UsualErrors.fit(errors, TIMES, np.ones(T), True)
    even = (np.arange(64) + 0.5) / 64
    ceilings = usual.ceilings(even, np.ones(64))
    assert ceilings[64] == pytest.approx(4 * usual.ceilings(TIMES, np.ones(T))[T], rel=0.05)
    late, early = (usual.ceilings(np.full(8, t), np.ones(8))[-1] for t in (0.9, 0.1))
    assert late > 1.4 * early  # as errors are larger there


def test_weights_of_zero_make_nothing_novel(errors: np.ndarray) -> None:
    ceilings = UsualErrors.fit(errors, TIMES, np.zeros(T)).ceilings(TIMES, np.zeros(T))
    assert not (ceilings < 0.0).any()


def test_a_fusion_with_it_goes_through_json(errors: np.ndarray) -> None:
    fusion = Fusion(1.0, 0.5, 0.2, usual=UsualErrors.fit(errors, TIMES, WEIGHTS), harmed=("cat", "dog"), pays=True)
    assert Fusion(**json.loads(json.dumps(asdict(fusion)))) == fusion


@pytest.mark.parametrize("kind", ["rare", "heavy", "normal"])
def test_few_vectors_of_the_same_kind_are_novel_however_many_columns_there_are(kind: str) -> None:
    rng = np.random.default_rng(3)
    rate = rng.uniform(0.002, 0.05, 300)

    def draw(n: int) -> np.ndarray:
        if kind == "rare":
            return (rng.random((n, 300)) < rate).astype(float)
        return rng.lognormal(size=(n, 500)) if kind == "heavy" else rng.standard_normal((n, 50))

    usual, new = UsualValues.fit(draw(300)), draw(1000)
    assert usual.novel(new).mean() < 0.02
    new[:, 7] = 1e6
    assert usual.novel(new).all()


def test_rows_of_new_groups_are_no_more_novel_than_stated() -> None:
    rng = np.random.default_rng(0)

    def draw(n_groups: int) -> np.ndarray:
        return (rng.standard_normal((n_groups, 1, 64)) + 0.1 * rng.standard_normal((n_groups, 25, 64))).reshape(-1, 64)

    vectors, units = draw(12), np.repeat(np.arange(12), 25)
    new = draw(200)
    assert UsualValues.fit(vectors, units).novel(new).mean() < 0.05 < UsualValues.fit(vectors).novel(new).mean()
    alone = UsualValues.fit(vectors[:25], np.zeros(25, dtype=int))  # of a single group no half is left
    assert np.isfinite([alone.low, alone.high]).all()


def test_values_beyond_the_second_extreme_and_half_the_width_are_novel() -> None:
    rng = np.random.default_rng(2)
    vectors = np.column_stack([rng.uniform(0, 10, 200), np.arange(200) == 7, rng.standard_normal(200)])
    usual = UsualValues.fit(vectors)
    second = np.sort(vectors[:, 0])[[1, -2]]
    assert usual.low[0] == pytest.approx(second[0] - (second[1] - second[0]) / 2)
    assert usual.high[0] == pytest.approx(second[1] + (second[1] - second[0]) / 2)
    seen = vectors[np.arange(200) != 7]
    assert not usual.novel(seen).any()
    for column, value in ((0, 1e4), (0, -999.0), (1, 1.0), (2, 10.0)):  # the 1 was in a single row
        far = seen.copy()
        far[:, column] = value
        assert usual.novel(far).all()
    again = UsualValues(usual.low.tolist(), usual.high.tolist())
    np.testing.assert_array_equal(again.novel(vectors), usual.novel(vectors))
