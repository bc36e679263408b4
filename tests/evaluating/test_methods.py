"""Methods: what is replayed is what is run."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hybridclf import FixedTrials, Fusion, HybridClassifier, PairedTTest, Race, Staged
from hybridclf.denoising.weighting import heuristic_weights, uniform_weights
from hybridclf.evaluating.methods import TIER_1, Method, calibrated, hybrid_of, published, replay, run, staged_preset
from hybridclf.evaluating.recording import Recording, record
from hybridclf.fitting.calibration import fit_calibration
from hybridclf.fitting.validation import class_numbers


def recorded(world: Any, trials: int) -> tuple[Recording, Any]:
    items = world.clf._read(world.images)
    return record(world.clf, items, class_numbers(world.labels, world.clf.classes_), trials=trials, top_k=6), items


def assert_replayed_as_run(method: Method, clf: HybridClassifier, recording: Recording, items: Any) -> None:
    played, live = replay(method, recording), run(method, clf, items, recording.n_trials)
    np.testing.assert_allclose(played.posterior, live.posterior, atol=1e-5, err_msg=method.name)
    assert played.stopped_by == live.stopped_by
    whole = np.array(played.stopped_by) != "fallback"  # how far it was when an error was not finite is up to batches
    np.testing.assert_array_equal(played.evaluations[whole], live.evaluations[whole])
    np.testing.assert_array_equal(played.rows[whole], live.rows[whole])


@pytest.fixture
def bounded_denoiser(gaussian_denoiser: type) -> type:
    """A denoiser whose errors are not finite for images of very large numbers."""

    class Bounded(gaussian_denoiser):  # type: ignore[misc]
        def encode(self, images: Any) -> torch.Tensor:
            x0 = super().encode(images)
            return x0.where(x0.abs() < 1e6, torch.inf)

    return Bounded


@pytest.mark.parametrize(("cost_unit", "trials"), [("row", 64), ("evaluation", 64), ("row", 24), ("row", 100)])
def test_every_method_is_replayed_as_it_is_run(
    make_world: Callable[..., Any], bounded_denoiser: type, cost_unit: str, trials: int
) -> None:
    world = make_world(60, bounded_denoiser, cost_unit=cost_unit)
    world.images[0] *= 1e3  # unlike all that was calibrated on
    world.images[1] *= 1e8  # of errors that are not finite
    recording, items = recorded(world, trials)
    usual = recording.select(np.arange(2, 60))
    fitted = fit_calibration(usual.for_fitting("l1").select(np.ones(58, bool)), Race(), None, None)
    methods = [
        Method(TIER_1),
        *published(usual, heuristic_weights, "l2"),
        hybrid_of(world.clf, trials),
        calibrated("fitted", fitted, Race(0.9, 8), 3, "l1", "learned"),
    ]
    for method in methods:
        assert_replayed_as_run(method, world.clf, recording, items)
    assert {"confident", "fallback", "novel"} <= set(replay(methods[-2], recording).stopped_by)


def test_several_prompts_are_counted(make_world: Callable[..., Any], variance_denoiser: type) -> None:
    world = make_world(30, variance_denoiser)
    recording, items = recorded(world, 64)
    method = hybrid_of(world.clf, 64)
    assert_replayed_as_run(method, world.clf, recording, items)
    answers = replay(method, recording)
    assert answers.evaluations.sum() > 0 and not (answers.evaluations % 2).any()


def test_the_hybrid_is_what_the_classifier_answers(world: Any) -> None:
    recording, _ = recorded(world, 64)
    posterior, results = world.clf.decide(world.images)
    answers = replay(hybrid_of(world.clf, 64), recording)
    np.testing.assert_allclose(answers.posterior, posterior, atol=1e-5)
    assert answers.evaluations.tolist() == [r.evaluations for r in results]
    assert answers.evaluations.min() < answers.evaluations.max()


def test_an_uncalibrated_classifier_and_one_that_is_off(make_world: Callable[..., Any]) -> None:
    world = make_world(30)
    recording, items = recorded(world, 32)
    clf = HybridClassifier(world.clf.proposer_, world.clf.denoiser_, top_k=4, random_state=0, image_shape=(3, 4))
    clf.fit(None, world.clf.classes_.tolist())
    method = hybrid_of(clf, 32)
    assert method.allocation == PairedTTest(max_trials=32)
    assert_replayed_as_run(method, clf, recorded(world._replace(clf=clf), 32)[0], items)
    off = Method("off", Race(), Fusion(pays=False))
    np.testing.assert_allclose(replay(off, recording).posterior, np.exp(recording.log_proba), rtol=1e-9)
    tier_1 = replay(Method(TIER_1), recording).posterior  # its own, without what the calibration knows of drift
    np.testing.assert_allclose(tier_1, np.exp(recording.log_proba), rtol=1e-9)
    harmed = Method("harmed", Race(max_trials=4), Fusion(calibrated=True, harmed=("bee", "cow")))
    assert_replayed_as_run(harmed, world.clf, recording, items)
    assert set(replay(harmed, recording).stopped_by) >= {"off"}


def test_tier_2_alone_knows_no_prior(world: Any) -> None:
    recording, _ = recorded(world, 16)
    answers = replay(Method("", FixedTrials(16), blind=True), recording)
    sums = recording.errors["l2"].sum(axis=1)
    best = recording.candidates[np.arange(len(recording)), sums.argmin(axis=1)]
    np.testing.assert_array_equal(answers.label, best)
    for method in published(recording, uniform_weights, "l2"):
        assert method.blind and method.fusion.calibrated


def test_stages_are_those_of_the_paper_where_there_are_trials_enough() -> None:
    assert staged_preset(10, 10, 500) == staged_preset(10, 10, 1000) == Staged.preset("cifar10")
    assert staged_preset(10, 10, 64) == Staged((5, 1), (6, 64))
    assert staged_preset(43, 43, 250) == Staged.preset("pets")
    assert staged_preset(1000, 1000, 1000) == Staged.preset("imagenet")
    assert staged_preset(1000, 20, 1000) == Staged((10, 1), (500, 1000)), "the first stages would drop nothing"
    assert staged_preset(10, 10, 2) == Staged((1,), (2,)) or staged_preset(10, 10, 2).max_trials == 2


def test_float32_agrees_too(make_world: Callable[..., Any]) -> None:
    world = make_world(40, dtype=torch.float32)
    recording, items = recorded(world, 64)
    assert_replayed_as_run(hybrid_of(world.clf, 64), world.clf, recording, items)
