"""Calibration: what is fitted, and that confidence then means what it says."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from hybridclf.denoising.weighting import BinnedWeights, heuristic_weights, paired_gaps, uniform_weights
from hybridclf.fitting import calibration as module
from hybridclf.fitting.calibration import (
    SHARPNESS,
    calibrate,
    cross_answers,
    cross_fits,
    fit_calibration,
    worth_with,
)
from hybridclf.fitting.drift import DriftSample
from hybridclf.fitting.recording import Copies, Recording, record
from hybridclf.fitting.replay import replay
from hybridclf.fitting.worth import FEWEST_UNUSUAL
from hybridclf.persistence.calibrations import describe_calibration, restore_calibration
from hybridclf.reranker import Reranker
from hybridclf.reranking.allocation import FixedTrials, PairedTTest, Race, Staged
from hybridclf.reranking.fusion import Fusion
from hybridclf.reranking.trials import InformativeOrder, even_order

FUSED = Fusion(prior_alone=0.8, prior_weight=0.6, error_weight=0.7, correlation=0.25, calibrated=True)


def make_recording(n: int, seed: int = 0, early: float = 1.5, late: float = 1.5) -> Recording:
    """32 correlated trials in the even order; gaps before and after t = 0.5 may differ; the prior is over-sure."""
    rng = np.random.default_rng(seed)
    k, t = 6, (even_order(32) + 0.5) / 32
    log_prior = log_softmax(rng.normal(scale=2, size=(n, k)), axis=1)
    y = (softmax(0.5 * log_prior, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=k - 1)
    errors = 30 + 0.6 * rng.standard_normal((n, 1, k)) + rng.standard_normal((n, 32, k))
    errors[np.arange(n), :, y] -= np.where(t < 0.5, early, late)
    alpha, sigma = np.cos(t * np.pi / 2), np.sin(t * np.pi / 2)
    return Recording(log_prior, errors.astype(np.float32), t, alpha, sigma, y, log_prior, y)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return make_recording(600)


def test_the_prior_alone_is_fitted_on_all_classes_and_images() -> None:
    """Two hundred classes of which ten were recorded, and some images whose right class was not among these."""
    recording, rng = make_recording(600), np.random.default_rng(5)
    log_prior = log_softmax(rng.normal(scale=2, size=(900, 200)), axis=1)
    y = (softmax(0.7 * log_prior, axis=1).cumsum(axis=1) < rng.random((900, 1))).sum(axis=1).clip(max=199)
    fitted = fit_calibration(replace(recording, all_log_prior=log_prior, all_y=y), FixedTrials(16), None, None)
    assert fitted.fusion.prior_alone == pytest.approx(0.7, rel=0.05)
    confidence = fitted.fusion.prior(log_prior).max(axis=1).mean()
    assert confidence == pytest.approx((log_prior.argmax(axis=1) == y).mean(), abs=0.03)


def bare(fusion: Fusion) -> Fusion:
    """What maximum likelihood gives alone."""
    return replace(fusion, usual=None, top_log_prior=None)


def test_where_sharpness_makes_no_difference_the_fusion_stays() -> None:
    """Tier 1 is so sure of every image that the race never asks the denoiser."""
    recording = make_recording(50)
    sure = np.where(np.eye(6, dtype=bool)[recording.y], 0.0, -40.0)
    recording = replace(recording, log_prior=sure, all_log_prior=sure)
    fitted = fit_calibration(recording, Race(max_trials=8), None, uniform_weights)
    errors = recording.errors[:, np.argsort(-fitted.order.at(recording.t), kind="stable")]
    assert bare(fitted.fusion) == Fusion.fit(sure, errors, recording.y)


def test_given_weights_are_used_and_not_learned(recording: Recording) -> None:
    allocation = FixedTrials(16)
    fitted = fit_calibration(recording, allocation, None, heuristic_weights)
    assert fitted.weighting is None
    assert fitted.n_images == 600
    weights = heuristic_weights(recording.t, recording.alpha, recording.sigma)
    weighted = replace(recording, errors=recording.errors * weights[None, :, None])
    again = fit_calibration(weighted, allocation, None, uniform_weights)
    assert bare(again.fusion) == bare(fitted.fusion)
    np.testing.assert_array_equal(again.order.discriminability, fitted.order.discriminability)


def test_learned_weights_and_order_find_the_telling_times() -> None:
    recording = make_recording(400, early=4, late=1.5)
    fitted = fit_calibration(recording, Race(0.95, 16), None, None)
    assert isinstance(fitted.weighting, BinnedWeights)
    np.testing.assert_array_equal(
        fitted.weighting.values, BinnedWeights.fit(recording.errors, recording.t, recording.y).values
    )
    values, middle = fitted.weighting.values, len(fitted.weighting.values) // 2
    assert values[:middle].min() > 2 * values[middle:].max()  # Fisher's weights go as the gaps: 4 to 1.5
    assert (fitted.order(32)[:16] < 16).all()  # the telling half comes first
    assert fitted.fusion.calibrated


def test_weights_are_learned_where_single_trials_say_little() -> None:
    """With six classes the smallest wrong error of a trial is mostly below the right one; the gaps still tell."""
    recording = make_recording(600, early=0.6, late=0.06)
    values = BinnedWeights.fit(recording.errors, recording.t, recording.y, n_bins=4).values
    assert values[:2].min() > 4 * values[2:].max()
    assert (InformativeOrder.fit(paired_gaps(recording.errors, recording.y), recording.t, 2)(32)[:16] < 16).all()


@pytest.mark.parametrize("allocation", [Race(0.99, 32), FixedTrials(4), Staged((3, 1), (2, 8))])
def test_confidence_means_what_it_says_at_the_moment_of_stopping(
    allocation: Race | FixedTrials | Staged, recording: Recording
) -> None:
    fitted = fit_calibration(recording, allocation, None, uniform_weights)
    fresh = make_recording(1500, seed=7)
    position = np.argsort(-fitted.order.at(fresh.t), kind="stable") if allocation.fitted_order else np.arange(32)
    final, _ = replay(fitted.fusion, allocation, fresh.log_prior, fresh.errors[:, position])
    confidence, right = final.max(axis=1), final.argmax(axis=1) == fresh.y
    assert right.mean() == pytest.approx(confidence.mean(), abs=0.03)
    assert right.mean() > (fresh.log_prior.argmax(axis=1) == fresh.y).mean() + 0.1


def test_sharpness_is_chosen_on_replays(recording: Recording) -> None:
    """The answers at the moment of stopping are likelier than with what maximum likelihood at fixed numbers gives."""
    allocation = Race(0.9, 32)
    fitted = fit_calibration(recording, allocation, 4, uniform_weights)
    errors = recording.errors[:, np.argsort(-fitted.order.at(recording.t), kind="stable")]  # as Race will use them

    def likelihood(fusion: Fusion) -> float:
        posterior, _ = replay(fusion, allocation, recording.log_prior, errors, 4)
        return float(np.log(posterior[np.arange(len(recording.y)), recording.y]).mean())

    plain = Fusion.fit(recording.log_prior, errors, recording.y)
    assert likelihood(fitted.fusion) > likelihood(plain) + 0.01
    # climbing finds the best of all
    assert likelihood(fitted.fusion) == max(likelihood(plain.sharpened(factor)) for factor in SHARPNESS.values())


@pytest.mark.parametrize("allocation", [PairedTTest(), FixedTrials(64), Race(0.99, 64)])
def test_an_allocation_longer_than_the_recording_is_fitted_without_replays(
    allocation: PairedTTest | FixedTrials | Race,
) -> None:
    recording = make_recording(300, early=1.0, late=3.0)
    fitted = fit_calibration(recording, allocation, None, uniform_weights)
    position = np.arange(32)
    if isinstance(allocation, Race):  # Race alone takes the most telling times first
        position = np.argsort(-fitted.order.at(recording.t), kind="stable")
        assert (recording.t[position[:16]] > 0.5).all()
    assert bare(fitted.fusion) == Fusion.fit(recording.log_prior, recording.errors[:, position], recording.y)


def test_what_is_replayed_is_what_will_be_run(gaussian_denoiser: Callable[..., Any]) -> None:
    """The same images, noise, order and weights: a race on the denoiser ends as its replay on the recording."""
    rng = np.random.default_rng(0)
    classes, y = np.array(["ant", "bee", "cow"]), rng.integers(0, 3, 60)
    means = 0.4 * rng.standard_normal((3, 6))
    denoiser = gaussian_denoiser(dict(zip(classes.tolist(), means, strict=True)), s=1.0)
    images = means[y] + rng.standard_normal((60, 6))
    log_prior = log_softmax(rng.normal(size=(60, 3)), axis=1)
    made = record(denoiser, images, classes, log_prior, y, objective="l2", batch_size=64, seed=3)
    race = Race(0.8, 8)
    fitted = fit_calibration(made, race, 3, None)
    assert fitted.weighting is not None
    errors = made.errors * fitted.weighting(made.t, made.alpha, made.sigma)[None, :, None]
    errors = errors[:, np.argsort(-fitted.order.at(made.t), kind="stable")]
    expected, _ = replay(fitted.fusion, race, made.log_prior, errors, 3)
    stage = Reranker(
        denoiser,
        allocation=race,
        fusion=fitted.fusion,
        weighting=fitted.weighting,
        order=fitted.order,
        random_state=3,
    )
    results = stage.rerank(images, [classes.tolist()] * 60, log_prior)
    np.testing.assert_allclose(np.stack([r.posterior for r in results]), expected, atol=1e-6)
    assert 0 < sum(r.rows for r in results) < 60 * 8


def drifting(n: int) -> tuple[Recording, np.ndarray]:
    """Tier 1 is over-sure on copies that are far too bright, and one image in fifty is too bright, bool `[n]`."""
    made, rng = make_recording(n), np.random.default_rng(1)
    clean, far = np.zeros((n, 5)), np.arange(n) % 50 == 0
    bright = np.tile([8.0, 0, 0, 0, 0], (n, 1))
    sample = DriftSample(clean, bright, 3 * made.all_log_prior, made.all_y, np.arange(n), (0.0, 1.0))
    clean[:, 0] = np.where(far, 3.0, rng.uniform(-0.1, 0.1, n))
    return replace(made, drift=sample), far


def test_the_comparison_with_tier_1_knows_of_drift() -> None:
    made, far = drifting(600)
    race = (Race(), None)
    without, answers = (
        cross_answers(r, cross_fits(r, *race, uniform_weights, 0), race, uniform_weights)
        for r in (replace(made, drift=None), made)
    )
    np.testing.assert_array_equal(answers.loss[0], without.loss[0])  # tier 1 alone
    changed = np.abs(answers.loss[1] - without.loss[1]) > 1e-9
    np.testing.assert_array_equal(changed, far)
    assert answers.evaluations[far].mean() > without.evaluations[far].mean()


def test_no_image_is_answered_with_a_drift_fitted_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = drifting(200)
    part = np.random.default_rng(0).permutation(200) % 5
    fitted: list[DriftSample] = []
    fit = module.Drift.fit

    def watched(sample: DriftSample, prior_alone: float) -> Any:
        fitted.append(sample)
        return fit(sample, prior_alone)

    monkeypatch.setattr(module.Drift, "fit", watched)
    cross_fits(made, Race(), None, uniform_weights, 0)
    assert made.drift is not None and len(fitted) == 5
    for p, sample in enumerate(fitted):
        np.testing.assert_array_equal(sample.clean, made.drift.clean[part != p])
        np.testing.assert_array_equal(sample.log_prior, made.drift.log_prior[part != p])


def test_worth_is_measured_again_with_other_settings(recording: Recording) -> None:
    classes, before = np.array(list("abcdef")), (Race(), None)
    fitted = calibrate(recording, classes, *before, uniform_weights)
    assert fitted.worth is not None and fitted.worth.pays and not fitted.worth.harmed
    assert worth_with(recording, fitted.worth, classes, before, before, uniform_weights) == fitted.worth
    again = worth_with(recording, fitted.worth, classes, before, (FixedTrials(4), 3), uniform_weights)
    assert again.evaluations == 4 * 3 and again.pays
    assert again.tier_1_log_loss == fitted.worth.tier_1_log_loss
    off = worth_with(recording, replace(fitted.worth, harmed=tuple("ab")), classes, before, before, uniform_weights)
    assert off.harmed == ("a", "b") and off.evaluations < fitted.worth.evaluations


# --- unusual images ---------------------------------------------------------------------------------------------------


def with_copies(n: int, telling: bool) -> Recording:
    """Tier 1 knows n images, and tells nothing of their copies, which are far too bright; tier 2 may know both."""
    rng, made = np.random.default_rng(2), make_recording(n)
    looks, clean = np.tile([8.0, 0, 0, 0, 0], (n, 1)), np.zeros((n, 5))
    clean[:, 0] = rng.uniform(-0.1, 0.1, n)
    sure = log_softmax(20.0 * (np.arange(6) == made.y[:, None]), axis=1)
    over_sure = log_softmax(rng.normal(scale=3, size=(n, 6)), axis=1)
    sample = DriftSample(clean, looks, over_sure, made.y, np.arange(n), (0.0, 1.0))
    errors = made.errors if telling else rng.permuted(made.errors, axis=2)
    copies = replace(made, log_prior=over_sure, all_log_prior=over_sure, errors=errors)
    original = replace(made, log_prior=sure, all_log_prior=sure)
    return replace(original, drift=sample, copies=Copies(looks, np.arange(n), copies))


def test_tier_2_is_on_for_unusual_images_alone_where_it_pays_on_these_alone() -> None:
    settings: tuple[Any, ...] = (np.array(list("abcdef")), Race(), None, uniform_weights)
    fitted, useless = (calibrate(with_copies(200, telling), *settings) for telling in (True, False))
    assert fitted.unusual_alone and fitted.fusion.pays and not fitted.fusion.harmed and fitted.drift is not None
    worth = fitted.worth
    assert worth is not None and not worth.pays and worth.unusual is not None
    assert worth.unusual.accuracy_gain.low > 0.1 and worth.unusual.n_images == 200
    assert "on for these alone: tier 1 alone is right for" in str(worth) and "of 200 corrupted copies" in str(worth)
    assert not useless.unusual_alone and not useless.fusion.pays and useless.drift is None
    assert useless.worth is not None and str(useless.worth).startswith("Re-ranking does not pay here and is off")


def test_a_few_unusual_copies_say_nothing() -> None:
    recording = with_copies(200, True)
    assert recording.copies is not None
    few = replace(recording, copies=recording.copies.select(np.arange(200) < FEWEST_UNUSUAL - 1))
    fitted = calibrate(few, np.array(list("abcdef")), Race(), None, uniform_weights)
    assert fitted.worth is not None and fitted.worth.unusual is None and not fitted.fusion.pays


def test_copies_go_with_their_images() -> None:
    first, second = with_copies(40, True), with_copies(60, False)
    joined = Recording.join([first, second])
    assert joined.copies is not None and first.copies is not None and second.copies is not None
    np.testing.assert_array_equal(joined.copies.of, np.arange(100))
    chosen = np.arange(100) % 3 == 0
    part = joined.select(chosen)
    assert part.copies is not None
    np.testing.assert_array_equal(part.copies.of, np.arange(34))
    expected = np.concatenate([first.copies.recording.all_y, second.copies.recording.all_y])[chosen]
    np.testing.assert_array_equal(part.copies.recording.all_y, expected)


def test_worth_on_unusual_images_is_kept_in_json() -> None:
    fitted = calibrate(with_copies(200, True), np.array(list("abcdef")), Race(), None, uniform_weights)
    saved = json.loads(json.dumps(describe_calibration(fitted, np.dtype("<U1")), default=np.ndarray.tolist))
    restored = restore_calibration(saved)
    assert restored.worth == fitted.worth and restored.unusual_alone


def test_a_replay_has_the_times_of_the_allocations_own_plan() -> None:
    """One trial is at t = 0.5, where this denoiser tells nothing; the first recorded one is at 1/64, where it does."""
    recording = make_recording(400)
    telling = np.abs(recording.t - 0.5) > 0.4
    errors = np.where(telling[None, :, None], recording.errors, 30.0).astype(np.float32)
    recording = replace(recording, errors=errors)
    settings = FixedTrials(1), None
    parts = cross_fits(recording, *settings, uniform_weights, 0)
    answers = cross_answers(recording, parts, settings, uniform_weights)
    np.testing.assert_array_equal(answers.right[1], answers.right[0])  # tier 1's answers


def test_images_of_one_group_are_in_one_part() -> None:
    recording = replace(make_recording(60), all_groups=np.repeat(list("abcdefghijkl"), 5))
    for part, *_ in cross_fits(recording, Race(), None, uniform_weights, 0):
        assert set(part.reshape(12, 5).sum(axis=1)) <= {0, 5}
    joined = Recording.join([recording, recording]).select(np.arange(120) >= 55)
    assert joined.units.tolist() == [11] * 5 + np.repeat(np.arange(12), 5).tolist()


def test_images_with_unusual_errors_keep_tier_1s_answer_in_replays() -> None:
    recording = make_recording(200)
    fitted = fit_calibration(recording, Race(), None, uniform_weights)
    errors, ceilings = module.in_order(recording, fitted, Race(), uniform_weights)
    assert ceilings is not None
    far = errors.copy()
    far[:3] *= 100
    posterior, _ = replay(fitted.fusion, Race(max_trials=8), recording.log_prior, far, None, ceilings)
    asked = replay(fitted.fusion, Race(max_trials=8), recording.log_prior, errors, None, ceilings)[0]
    np.testing.assert_allclose(posterior[:3], np.exp(recording.log_prior[:3]), rtol=1e-6)
    np.testing.assert_allclose(posterior[3:], asked[3:], rtol=1e-6)
    assert not np.allclose(asked[:3], posterior[:3])


def test_the_cost_of_images_whose_class_was_not_recorded_is_the_mean() -> None:
    recording = make_recording(100)
    at = np.arange(0, 100, 2)
    half = replace(recording.select(np.arange(100) % 2 == 0), all_log_prior=recording.log_prior, all_y=recording.y)
    half = replace(half, at=at)
    settings = FixedTrials(4), 3
    answers = cross_answers(half, cross_fits(half, *settings, uniform_weights, 0), settings, uniform_weights)
    assert answers.evaluations.tolist() == [12.0] * 100
