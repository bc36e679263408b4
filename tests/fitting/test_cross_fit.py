"""Cross-fitting: what is recorded was seen by neither tier, and the final tiers see all they may."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from hybridclf.data.arrays import Items, select
from hybridclf.errors import UncalibratedWarning
from hybridclf.fitting import cross_fit as module
from hybridclf.fitting import recording
from hybridclf.fitting.cross_fit import CrossFit
from hybridclf.fitting.recording import Recording
from hybridclf.fitting.tier_fitter import FittedTiers, Sample, TierFitter
from hybridclf.proposer import FunctionProposer, aligned_log_proba
from hybridclf.training.denoiser import TrainingConfig

CLASSES = np.array(["ant", "bee", "cow"])
N = 60
X = np.random.default_rng(0).standard_normal((N, 4))
Y = np.random.default_rng(1).permutation(np.arange(N) % 3)  # nothing in X tells of it


@pytest.fixture
def denoiser(gaussian_denoiser: Callable[..., Any]) -> Any:
    return gaussian_denoiser(dict(zip(CLASSES.tolist(), np.eye(3, 4), strict=True)))


@pytest.fixture
def recipe(denoiser: Any) -> TierFitter:
    return TierFitter(
        proposer=KNeighborsClassifier(1),
        denoiser=denoiser,
        architecture="auto",
        training=TrainingConfig(max_iter=1),
        validation_fraction=0.5,
        device=torch.device("cpu"),
        dtype=None,
    )


@pytest.fixture(autouse=True)
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "RECORDED_TRIALS", 4)


def sample(X: np.ndarray, y: np.ndarray) -> Sample:
    return Sample(Items(X, X), y)


def cross_fit(recipe: TierFitter) -> CrossFit:
    return CrossFit(recipe, CLASSES, seed=0, objective="l2", batch_size=None)


def accuracy(log_prior: np.ndarray, y: np.ndarray) -> float:
    return float((log_prior.argmax(axis=1) == y).mean())


@dataclass(frozen=True)
class Watched(TierFitter):
    """A recipe that notes what it is asked to fit on, and what came of it."""

    seen: list[np.ndarray] = field(default_factory=list)
    asked: list[int | None] = field(default_factory=list)
    made: list[FittedTiers] = field(default_factory=list)

    def fit(self, sample: Sample, classes: np.ndarray, seed: int, **options: Any) -> FittedTiers:
        index = options.get("index")
        self.seen.append(sample.items.images if index is None else sample.items.images[index])
        self.asked.append(options.get("n_iter"))
        self.made.append(super().fit(sample, classes, seed, **options))
        return self.made[-1]


class Memory(ClassifierMixin, BaseEstimator):
    """Is sure of the first class for images it was fitted on, of the last for all others."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Memory":
        self.classes_, self.seen_ = np.unique(y), {row.tobytes() for row in X}
        return self

    def predict_log_proba(self, X: np.ndarray) -> np.ndarray:
        seen = np.array([row.tobytes() in self.seen_ for row in X])
        return np.where(seen[:, None], [0.0, -9.0, -9.0], [-9.0, -9.0, 0.0])


@pytest.mark.parametrize("cv", [2, 3, 0.3])
def test_a_memorising_proposer_is_recorded_at_chance(recipe: TierFitter, cv: int | float) -> None:
    parts, recording = cross_fit(recipe).fit(sample(X, Y), cv)
    assert recording is not None
    assert accuracy(aligned_log_proba(parts.proposer, X, CLASSES), Y) > 0.75  # it knows what it was fitted on
    assert accuracy(recording.log_prior, recording.y) < 0.6


@pytest.mark.parametrize("cv", [2, 5, 0.25])
def test_no_recorded_image_was_seen(recipe: TierFitter, cv: int | float) -> None:
    _, recording = cross_fit(replace(recipe, proposer=Memory())).fit(sample(X, Y), cv)
    assert recording is not None
    assert (recording.log_prior.argmax(axis=1) == 2).all()


@dataclass(frozen=True)
class Noting(CrossFit):
    """Notes which images are recorded with which denoiser."""

    recorded: list[tuple[int, bytes]] = field(default_factory=list)

    def record(self, tiers: FittedTiers, sample: Sample, *args: Any, **options: Any) -> Recording:
        self.recorded.extend((id(tiers.denoiser), row.tobytes()) for row in sample.items.images)
        return super().record(tiers, sample, *args, **options)


def test_the_denoisers_of_the_folds_are_trained_without_their_fold(recipe: TierFitter) -> None:
    watched = Watched(**{**vars(recipe), "denoiser": None})
    noting = Noting(**vars(cross_fit(watched)))
    noting.fit(sample(X, Y), 3)
    rows = [row.tobytes() for row in X]
    fits = zip(watched.made, watched.seen, strict=True)
    trained_on = {id(parts.denoiser): {row.tobytes() for row in seen} for parts, seen in fits}
    assert sorted(row for _, row in noting.recorded) == sorted(rows)  # every image once
    assert all(row not in trained_on[denoiser] for denoiser, row in noting.recorded)
    assert trained_on[id(watched.made[-1].denoiser)] == set(rows)  # the final one sees them all


def test_final_tiers_are_trained_for_as_long_as_the_folds_found_best(recipe: TierFitter) -> None:
    training = TrainingConfig(max_iter=15, n_iter_no_change=5)
    watched = Watched(**{**vars(recipe), "denoiser": None, "training": training})
    parts, _ = cross_fit(watched).fit(sample(X, Y), 3)
    found = [made.log.n_iter for made in watched.made[:3] if made.log is not None]
    assert watched.asked == [None, None, None, round(float(np.median(found)))]
    assert parts.log is not None and len(parts.log.loss) == watched.asked[-1]


def test_every_image_is_recorded_once(recipe: TierFitter) -> None:
    _, recording = cross_fit(recipe).fit(sample(X, Y), 4)
    assert recording is not None
    assert recording.log_prior.shape == (N, 3)
    assert recording.errors.shape[::2] == (N, 3)
    assert np.bincount(recording.y).tolist() == [20, 20, 20]


def test_a_held_out_share_is_kept_from_the_final_tiers_too(recipe: TierFitter) -> None:
    parts, recording = cross_fit(recipe).fit(sample(X, Y), 0.3)
    assert recording is not None and len(recording.y) == 18
    assert parts.proposer.n_samples_fit_ == 42
    assert np.bincount(recording.y).tolist() == [6, 6, 6]  # stratified


def test_a_share_leaves_every_class_an_image(recipe: TierFitter) -> None:
    y = np.where(np.arange(N) < 2, 2, np.arange(N) % 2)
    watched = Watched(**vars(recipe))
    parts, recording = cross_fit(watched).fit(sample(X, y), 0.8)
    assert set(parts.proposer.classes_) == set(CLASSES)
    assert recording is not None and 44 <= len(recording.y) <= 48  # the last image of a class stays


def test_given_tiers_are_recorded_on_all_images(recipe: TierFitter, denoiser: Any) -> None:
    frozen = FrozenEstimator(GaussianNB().fit(X, CLASSES[Y]))
    parts, recording = cross_fit(replace(recipe, proposer=frozen)).fit(sample(X, Y), 3)
    assert parts == (frozen, denoiser, None)
    assert recording is not None and len(recording.y) == N


def test_a_given_tier_that_knows_more_classes_than_there_are_images_of(recipe: TierFitter) -> None:
    frozen = FrozenEstimator(GaussianNB().fit(X, CLASSES[Y]))
    some = Y < 2
    _, recording = cross_fit(replace(recipe, proposer=frozen)).fit(sample(X[some], Y[some]), 3)
    assert recording is not None
    assert set(recording.y) == {0, 1}
    assert recording.log_prior.shape == (40, 3)


def test_a_class_with_fewer_images_than_folds_is_held_out_too(recipe: TierFitter) -> None:
    y = np.where(np.arange(N) < 2, 2, np.arange(N) % 2)
    watched = Watched(**vars(recipe))
    _, recording = cross_fit(watched).fit(sample(X, y), 5)
    assert len(watched.seen) == 6
    assert recording is not None and len(recording.y) == N


def test_a_class_with_a_single_image_is_never_held_out(recipe: TierFitter) -> None:
    y = np.where(np.arange(N) < 1, 2, np.arange(N) % 2)
    watched = Watched(**vars(recipe))
    _, recording = cross_fit(watched).fit(sample(X, y), 3)
    assert all((seen == X[0]).all(axis=1).any() for seen in watched.seen)
    assert recording is not None
    assert np.bincount(recording.all_y).tolist() == np.bincount(y)[:2].tolist()


def test_nothing_but_single_images_leaves_nothing_to_hold_out(recipe: TierFitter) -> None:
    with pytest.warns(UncalibratedWarning, match="no image can be held out.*give every class at least 2 images"):
        parts, recording = cross_fit(recipe).fit(sample(X[:3], np.arange(3)), 3)
    assert recording is None
    assert parts.proposer.n_samples_fit_ == 3


def test_groups_are_held_out_together(recipe: TierFitter) -> None:
    copies = np.repeat(X[:20], 3, axis=0)  # each image three times
    y, groups = np.repeat(Y[:20], 3), np.repeat(np.arange(20), 3)
    _, apart = cross_fit(replace(recipe, proposer=Memory())).fit(Sample(Items(copies, copies), y, None, groups), 4)
    _, together = cross_fit(replace(recipe, proposer=Memory())).fit(sample(copies, y), 4)
    assert apart is not None and together is not None
    assert (apart.log_prior.argmax(axis=1) == 2).all()  # never seen
    assert not (together.log_prior.argmax(axis=1) == 2).all()


def test_weights_reach_tier_1_the_training_and_the_recording(recipe: TierFitter) -> None:
    weight = np.random.default_rng(3).uniform(0.1, 3, N)
    weighted = Sample(Items(X, X), Y, weight)
    training = TrainingConfig(max_iter=2)
    plain, trained = (
        cross_fit(replace(recipe, proposer=GaussianNB(), denoiser=None, training=training)).fit(s, 3)
        for s in (sample(X, Y), weighted)
    )
    np.testing.assert_array_equal(
        trained[0].proposer.theta_, GaussianNB().fit(X, CLASSES[Y], sample_weight=weight).theta_
    )
    first, other = (parts.denoiser.network.state_dict() for parts, _ in (plain, trained))
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert trained[1] is not None and trained[1].all_weight is not None
    np.testing.assert_allclose(np.sort(trained[1].all_weight), np.sort(weight))


def test_threads_change_no_bit(recipe: TierFitter) -> None:
    training = TrainingConfig(max_iter=2)
    one, two = (
        replace(cross_fit(replace(recipe, denoiser=None, training=training)), n_jobs=n).fit(sample(X, Y), 3)
        for n in (1, 2)
    )
    assert one[1] is not None and two[1] is not None
    np.testing.assert_array_equal(one[1].errors, two[1].errors)


@pytest.mark.slow
def test_processes_change_nothing_and_move_the_bar(
    recipe: TierFitter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()  # the processes would know nothing of it
    training = TrainingConfig(max_iter=2)
    shown = replace(cross_fit(replace(recipe, denoiser=None, training=training)), progress=True, n_jobs=2)
    one = shown.fit(sample(X, Y), 3)
    with parallel_config("loky"):
        two = shown.fit(sample(X, Y), 3)
    assert one[1] is not None and two[1] is not None
    np.testing.assert_allclose(one[1].errors, two[1].errors, rtol=1e-5)
    assert capsys.readouterr().err.count("8/8") == 2


def test_recordings_are_bounded_in_all(recipe: TierFitter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RECORDED_IMAGES", 7)
    _, in_folds = cross_fit(recipe).fit(sample(X, Y), 3)
    _, held_out = cross_fit(recipe).fit(sample(X, Y), 0.5)
    assert in_folds is not None and len(in_folds.y) <= 7
    assert held_out is not None and len(held_out.y) == 7


def test_training_that_has_not_settled_is_said(recipe: TierFitter) -> None:
    short = replace(recipe, denoiser=None, training=TrainingConfig(max_iter=1))
    with pytest.warns(ConvergenceWarning, match="still falling after max_iter=1 passes; raise max_iter"):
        cross_fit(short).fit(sample(X, Y), 3)


def test_the_seed_decides_the_folds(recipe: TierFitter) -> None:
    first, again, other = (replace(cross_fit(recipe), seed=s).fit(sample(X, Y), 3)[1] for s in (1, 1, 2))
    assert first is not None and again is not None and other is not None
    np.testing.assert_array_equal(first.errors, again.errors)
    np.testing.assert_array_equal(first.log_prior, again.log_prior)
    assert not np.array_equal(first.errors, other.errors)


def test_log_probabilities_come_in_the_order_of_the_classes() -> None:
    class Looking:
        takes_images = True
        classes_ = np.array(["x", "cow", "ant", "bee"])

        def predict_proba(self, images: Any) -> np.ndarray:
            assert images is shown
            return np.tile([0.1, 0.2, 0.3, 0.4], (2, 1))

    shown = [object(), object()]
    np.testing.assert_allclose(np.exp(aligned_log_proba(Looking(), shown, CLASSES)), [[0.3, 0.4, 0.2]] * 2)


def test_scikit_learn_classifiers_get_flat_vectors() -> None:
    model = GaussianNB().fit(X, CLASSES[Y])
    np.testing.assert_array_equal(
        aligned_log_proba(model, X.reshape(N, 2, 2, 1), CLASSES), aligned_log_proba(model, X, CLASSES)
    )


def test_select_from_arrays_and_lists() -> None:
    assert select(list("abcd"), np.array([3, 1])) == ["d", "b"]
    np.testing.assert_array_equal(select(X, np.array([3, 1])), X[[3, 1]])
    assert math.isclose(select(X[:, 0], np.array([2]))[0], X[2, 0])


def test_what_nothing_is_fitted_to_is_recorded_without_corrupted_copies(
    recipe: TierFitter, gaussian_denoiser: Callable[..., Any]
) -> None:
    asked: list[int] = []

    def tier_1(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        return np.full((len(images), 3), np.log(1 / 3))

    rng = np.random.default_rng(0)
    means, images = rng.uniform(size=(3, 4, 4, 1)), rng.uniform(size=(40, 4, 4, 1))
    denoiser = gaussian_denoiser(dict(zip(CLASSES.tolist(), means, strict=True)))
    tiers = FittedTiers(FunctionProposer(tier_1).fit(None, CLASSES), denoiser, None)
    cross = replace(cross_fit(recipe), pixel_range=(0.0, 1.0))
    full = cross.record(tiers, sample(images, np.arange(40) % 3))
    assert sum(asked) > 40 and full.drift is not None and full.copies is not None
    asked.clear()
    plain = cross.record(tiers, sample(images, np.arange(40) % 3), corrupted=False)
    assert asked == [40] and plain.drift is not None and plain.copies is None
    np.testing.assert_array_equal(plain.drift.clean, full.drift.clean)
    np.testing.assert_array_equal(plain.errors, full.errors)
    assert len(plain.select(np.arange(40) < 5).drift.clean) == 5
