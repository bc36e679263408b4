"""HybridClassifier as a user meets it: every form of X and every kind of proposer, scikit-learn's tools, bad input."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from hybridclf import FixedTrials, HybridClassifier, PairedTTest, Race, Staged
from hybridclf.errors import (
    FallbackWarning,
    HybridClfError,
    InvalidInputError,
    InvalidTypeError,
    UncalibratedWarning,
    UnknownLabelError,
    UnknownSpecError,
)
from hybridclf.fitting import calibration, recording
from hybridclf.models import LateConditionedDenoiser, LateMLP, LateUNet
from hybridclf.proposer import aligned_log_proba

QUICK = Race(max_trials=8)
LABELS = np.array(["ant", "bee", "cow", "dog"])


@pytest.fixture(scope="module", autouse=True)
def quick_to_fit() -> Iterator[None]:
    """Recorded are as many trials as the quick allocations use, and no sharpness is chosen: more only takes time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "RECORDED_TRIALS", 8)
        patch.setattr(calibration, "SHARPNESS", {0: 1.0})
        yield


# --- images: digits 0, 1 and 2, and a denoiser trained for a moment ---------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """120 images uint8 `[n, 8, 8]` from 0 to 16, and their labels."""
    images, y = load_digits(n_class=3, return_X_y=True)
    return images[:120].reshape(-1, 8, 8).astype(np.uint8), y[:120]


@pytest.fixture(scope="module")
def trained(digits: tuple[np.ndarray, np.ndarray]) -> HybridClassifier:
    """Fitted on the first 60 digits."""
    return HybridClassifier(max_iter=3, cv=2, allocation=QUICK, random_state=0).fit(digits[0][:60], digits[1][:60])


# --- vectors: four overlapping Gaussian classes, and the denoiser that knows them exactly -----------------------------


@pytest.fixture(scope="module")
def means() -> dict[str, np.ndarray]:
    return dict(zip(LABELS.tolist(), np.random.default_rng(0).standard_normal((4, 6)), strict=True))


@pytest.fixture(scope="module")
def blobs(means: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """80 vectors `[n, 6]`, and their labels: the first 40 to fit, the others to predict."""
    y = LABELS[np.arange(80) % 4]
    return np.stack([means[label] for label in y]) + 0.7 * np.random.default_rng(1).standard_normal((80, 6)), y


@pytest.fixture(scope="module")
def denoiser(gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray]) -> Any:
    return gaussian_denoiser(means, s=0.7)


@pytest.fixture(scope="module")
def frozen(blobs: tuple[np.ndarray, np.ndarray]) -> FrozenEstimator:
    """A weak tier 1 from another sample: it looks at two features of six."""
    X, y = blobs
    masked = np.random.default_rng(2).permutation(X[::-1]) * 0
    masked[:, :2] = X[:, :2]
    return FrozenEstimator(LogisticRegression().fit(masked, y))


@pytest.fixture(scope="module")
def given(frozen: FrozenEstimator, denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]) -> HybridClassifier:
    """Both tiers given, calibrated on 40 vectors."""
    return HybridClassifier(frozen, denoiser, allocation=QUICK, random_state=0).fit(blobs[0][:40], blobs[1][:40])


def with_params(clf: HybridClassifier, **params: Any) -> HybridClassifier:
    """A fitted copy with other parameters."""
    return pickle.loads(pickle.dumps(clf)).set_params(**params)


# --- forms of X -------------------------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "[n, d]": lambda images: images.reshape(len(images), -1),
    "[n, d] float": lambda images: images.reshape(len(images), -1).astype(np.float32),
    "[n, H, W]": lambda images: images,
    "[n, H, W, C]": lambda images: images[..., None],
    "[n, H, W, C] float": lambda images: images[..., None].astype(float),
    "PIL images": lambda images: list(map(Image.fromarray, images)),
    "list of arrays": list,
    "data frame": lambda images: pd.DataFrame(images.reshape(len(images), -1)),
}

TABLE_TOLERANCE = 1e-6
"""Tier 1 computes in the type of the table that it is given, float32 for instance."""


@pytest.mark.parametrize("form", FORMS)
def test_predictions_do_not_depend_on_the_form_of_X(
    form: str, trained: HybridClassifier, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images = digits[0][60:80]
    ours, reference = trained.predict_proba(FORMS[form](images)), trained.predict_proba(images)
    np.testing.assert_allclose(ours, reference, rtol=0, atol=TABLE_TOLERANCE if "d" in form else 0)


@pytest.mark.parametrize("form", FORMS)
def test_fitting_does_not_depend_on_the_form_of_X(
    form: str, gaussian_denoiser: Callable[..., Any], digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images, y = digits
    exact = gaussian_denoiser({c: images[y == c].mean(axis=0)[..., None] for c in range(3)}, s=4.0)
    clf = HybridClassifier(GaussianNB(var_smoothing=0.1), exact, image_shape=(8, 8), allocation=QUICK, random_state=0)
    reference = clone(clf).fit(images[:60], y[:60]).predict_proba(images[60:])
    fitted = clf.fit(FORMS[form](images[:60]), y[:60])
    assert (fitted.image_shape_, fitted.n_features_in_) == ((8, 8, 1), 64)
    ours = fitted.predict_proba(FORMS[form](images[60:]))
    np.testing.assert_allclose(ours, reference, rtol=0, atol=TABLE_TOLERANCE if "d" in form else 0)


def test_pil_images_are_scaled_to_the_range_that_a_model_was_fitted_on(
    trained: HybridClassifier, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    steps = digits[0][60:80].astype(np.uint8)  # 0 to 16
    ranged = pickle.loads(pickle.dumps(trained))
    ranged.pixel_range_ = (0.0, 51 / 5)
    listed = [Image.fromarray(15 * image) for image in steps]
    np.testing.assert_array_equal(ranged.predict_proba(listed), trained.predict_proba(15 * steps * (51 / 5 / 255)))


def test_colour_images_as_array_and_as_pil_images() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(30) % 2
    images = rng.integers(0, 100, (30, 8, 8, 3), dtype=np.uint8)
    images[y == 1, :, :, 2] += 100
    clf = HybridClassifier(max_iter=1, cv=2, allocation=QUICK, random_state=0).fit(images, y)
    assert clf.image_shape_ == (8, 8, 3)
    listed = list(map(Image.fromarray, images))
    np.testing.assert_array_equal(clf.predict_proba(listed), clf.predict_proba(images))
    np.testing.assert_array_equal(clone(clf).fit(listed, y).predict_proba(images), clf.predict_proba(images))
    grey = [image.convert("L") for image in listed]
    np.testing.assert_array_equal(clf.predict_proba(grey), clf.predict_proba([g.convert("RGB") for g in grey]))


def test_a_model_of_vectors_reads_images_too(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, y = digits
    clf = HybridClassifier(max_iter=1, cv=0.3, allocation=QUICK, random_state=0).fit(images.reshape(-1, 64), y)
    assert clf.image_shape_ == (64,)
    reference = clf.predict_proba(images[:9].reshape(9, 64))
    for form in FORMS.values():
        np.testing.assert_allclose(clf.predict_proba(form(images[:9])), reference, rtol=0, atol=TABLE_TOLERANCE)


def test_any_fixed_range_gives_the_same_predictions(
    trained: HybridClassifier, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images, y = digits
    every = with_params(trained, allocation=FixedTrials(4), top_k=3)  # tier 2 has a say on every image
    wanted = every.predict_proba(images[60:])
    for factor, offset in ((1 / 16, 0.0), (255 / 16, 0.0), (1 / 8, -1.0)):
        ranged = images * factor + offset
        fitted = with_params(clone(trained).fit(ranged[:60], y[:60]), allocation=FixedTrials(4), top_k=3)
        assert fitted.pixel_range_ == pytest.approx((ranged[:60].min(), ranged[:60].max()))
        np.testing.assert_allclose(fitted.predict_proba(ranged[60:]), wanted, atol=1e-3)
        np.testing.assert_array_equal(fitted.predict(ranged[60:]), every.predict(images[60:]))


# --- scikit-learn's tools ---------------------------------------------------------------------------------------------


def test_pipeline(denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = blobs
    pipeline = make_pipeline(StandardScaler(), HybridClassifier(max_iter=1, cv=2, allocation=QUICK, random_state=0))
    assert pipeline.fit(X[:40], y[:40]).score(X[40:], y[40:]) > 0.7
    assert pipeline.predict_proba(X[40:]).shape == (40, 4)


def test_grid_search_over_allocation_and_top_k(denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    grid = {"allocation": [FixedTrials(4), Race(max_trials=4), Staged((2, 1), (2, 4))], "top_k": [1, 3]}
    clf = HybridClassifier(GaussianNB(), denoiser, cv=2, random_state=0)
    search = GridSearchCV(clf, grid, cv=2).fit(*blobs)
    assert len(search.cv_results_["params"]) == 6
    assert search.best_score_ > 0.8
    assert search.predict(blobs[0]).shape == (80,)


def test_grid_search_reaches_into_the_proposer(denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    clf = HybridClassifier(LogisticRegression(), denoiser, cv=2, allocation=QUICK, random_state=0)
    search = GridSearchCV(clf, {"proposer__C": [0.1, 1.0]}, cv=2).fit(*blobs)
    assert search.best_params_["proposer__C"] == search.best_estimator_.proposer_.C


@pytest.fixture(scope="module")
def numbered(
    gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray], blobs: tuple[np.ndarray, np.ndarray]
) -> tuple[HybridClassifier, np.ndarray]:
    """A classifier and the labels as numbers, which is what tools that encode labels hand over."""
    exact = gaussian_denoiser(dict(enumerate(means.values())), s=0.7)
    clf = HybridClassifier(GaussianNB(), exact, cv=2, allocation=QUICK, random_state=0)
    return clf, np.searchsorted(LABELS, blobs[1])


def test_cross_val_predict(numbered: tuple[HybridClassifier, np.ndarray], blobs: Any) -> None:
    clf, y = numbered
    posterior = cross_val_predict(clf, blobs[0], y, cv=2, method="predict_proba")
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    assert (posterior.argmax(axis=1) == y).mean() > 0.8


def test_calibrated_classifier(denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    clf = HybridClassifier(GaussianNB(), denoiser, cv=2, allocation=QUICK, random_state=0)
    calibrated = CalibratedClassifierCV(clf, cv=2).fit(*blobs)
    assert calibrated.score(*blobs) > 0.8


def test_stacking(numbered: tuple[HybridClassifier, np.ndarray], blobs: Any) -> None:
    clf, y = numbered
    stack = StackingClassifier([("hybrid", clf), ("neighbours", KNeighborsClassifier())], cv=2)
    assert stack.fit(blobs[0], y).score(blobs[0], y) > 0.8


def test_tools_take_images_too(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, y = digits
    clf = HybridClassifier(max_iter=1, cv=2, allocation=QUICK, random_state=0)
    assert (cross_val_predict(clf, images[:60], y[:60], cv=2) == y[:60]).mean() > 0.8


def test_clone_is_unfitted_and_fits_to_the_same(given: HybridClassifier, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = blobs
    copy = clone(given)
    assert not hasattr(copy, "classes_")
    assert copy.get_params(deep=False).keys() == given.get_params(deep=False).keys()
    assert (copy.allocation, copy.random_state) == (given.allocation, given.random_state)
    np.testing.assert_array_equal(copy.fit(X[:40], y[:40]).predict_proba(X), given.predict_proba(X))


@pytest.mark.parametrize("fitted", ["given", "trained"])
def test_pickle_and_joblib(fitted: str, request: pytest.FixtureRequest, tmp_path: Any) -> None:
    clf = request.getfixturevalue(fitted)
    X = request.getfixturevalue("blobs" if fitted == "given" else "digits")[0][60:]
    wanted = clf.predict_proba(X)
    joblib.dump(clf, tmp_path / "clf.joblib")
    for copy in (pickle.loads(pickle.dumps(clf)), joblib.load(tmp_path / "clf.joblib")):
        np.testing.assert_array_equal(copy.predict_proba(X), wanted)


def test_set_params_reaches_prediction(given: HybridClassifier, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    copy = pickle.loads(pickle.dumps(given)).set_params(allocation=FixedTrials(3), top_k=2)
    results = copy.rerank(blobs[0][:5])
    assert all(r.rows == 3 and len(r.candidates) == 2 and r.stopped_by == "budget" for r in results)


def test_a_data_frame_keeps_its_names(denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = pd.DataFrame(blobs[0], columns=list("abcdef")), pd.Series(blobs[1])
    clf = HybridClassifier(GaussianNB(), denoiser, cv=2, allocation=QUICK, random_state=0).fit(X, y)
    assert clf.feature_names_in_.tolist() == list("abcdef")
    assert clf.score(X, y) > 0.8
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(X[list("fedcba")])


def test_a_second_fit_forgets_the_first(
    denoiser: Any, frozen: FrozenEstimator, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    X, y = blobs
    frame = pd.DataFrame(X, columns=list("abcdef"))
    clf = HybridClassifier(max_iter=1, cv=0.5, allocation=QUICK, random_state=0).fit(frame, y)
    assert clf.n_iter_ == 1
    clf.set_params(proposer=frozen, denoiser=denoiser, image_shape=(2, 3)).set_params(image_shape=None).fit(X, y)
    assert not hasattr(clf, "n_iter_") and not hasattr(clf, "training_log_")
    clf.set_params(proposer=None, denoiser=None).fit(X.reshape(-1, 2, 3), y)
    assert not hasattr(clf, "feature_names_in_")
    assert clf.image_shape_ == (2, 3, 1)
    assert clf.predict(X).shape == (80,)


# --- proposers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "proposer",
    [
        LogisticRegression(),
        GaussianNB(),
        LinearSVC(),
        RidgeClassifier(),
        SVC(),
        RandomForestClassifier(5, random_state=0),
        KNeighborsClassifier(3),
        make_pipeline(StandardScaler(), LinearSVC()),
        "sklearn:GaussianNB",
    ],
    ids=lambda p: p if isinstance(p, str) else type(p).__name__,
)
def test_any_classifier_proposes(proposer: Any, denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = blobs
    clf = HybridClassifier(proposer, denoiser, cv=2, allocation=QUICK, random_state=0).fit(X[:40], y[:40])
    posterior = clf.predict_proba(X[40:])
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    assert np.isfinite(posterior).all() and np.isfinite(clf.predict_log_proba(X[40:])).all()
    assert clf.score(X[40:], y[40:]) > 0.8
    assert clf.classes_.tolist() == LABELS.tolist()
    assert isinstance(proposer, str) or not hasattr(proposer, "classes_")  # the user's object stays unfitted


def test_the_proposer_is_logistic_regression_by_default(trained: HybridClassifier) -> None:
    assert trained.proposer is None
    assert isinstance(trained.proposer_[-1], LogisticRegression)


def test_a_frozen_proposer_is_used_as_it_is(given: HybridClassifier, frozen: FrozenEstimator) -> None:
    assert given.proposer_.estimator is frozen.estimator


def test_a_frozen_proposer_may_know_more_classes_than_y_holds(
    frozen: FrozenEstimator, denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    X, y = blobs
    some = np.isin(y, ["bee", "dog"])
    clf = HybridClassifier(frozen, denoiser, allocation=QUICK, random_state=0).fit(X[some], y[some])
    assert clf.classes_.tolist() == LABELS.tolist()
    assert clf.calibration_.n_images == some.sum()
    assert clf.predict_proba(X).shape == (80, 4)
    assert (clf.predict(X[~some]) == y[~some]).mean() > 0.7
    with pytest.raises(InvalidInputError, match="no image of class 'ant': a denoiser cannot be trained"):
        clone(clf).set_params(denoiser=None).fit(X[some], y[some])


def test_a_frozen_proposer_must_know_every_label(
    denoiser: Any, frozen: FrozenEstimator, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    y = np.where(blobs[1] == "ant", "elk", blobs[1])
    with pytest.raises(InvalidInputError, match=r"label 'elk' is not in the classes \['ant', 'bee', 'cow', 'dog'\]"):
        HybridClassifier(frozen, denoiser).fit(blobs[0], y)


@pytest.mark.parametrize("proposer", [LinearRegression(), LogisticRegression, 7])
def test_what_is_no_proposer(proposer: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(InvalidTypeError, match="proposer must be a classifier"):
        HybridClassifier(proposer).fit(*blobs)


@pytest.mark.parametrize("labels", [np.array([3, 5, 7, 11]), np.array(["a", "b", "c", "d"], dtype=object), LABELS])
def test_labels_of_any_kind(labels: np.ndarray, gaussian_denoiser: Callable[..., Any], means: Any, blobs: Any) -> None:
    X, number = blobs[0], np.searchsorted(LABELS, blobs[1])
    exact = gaussian_denoiser({new: means[old] for new, old in zip(labels.tolist(), LABELS.tolist(), strict=True)})
    clf = HybridClassifier(GaussianNB(), exact, cv=2, allocation=QUICK, random_state=0).fit(X, labels[number])
    assert clf.classes_.dtype == labels.dtype and clf.predict(X).dtype == labels.dtype
    assert clf.score(X, labels[number]) > 0.8
    assert set(clf.rerank(X[:1])[0].candidates) <= set(labels.tolist())


# --- what fit does for which parts ------------------------------------------------------------------------------------


def test_fit_unfitted_and_none(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    clf = HybridClassifier(GaussianNB(), max_iter=2, cv=2, allocation=QUICK, random_state=0).fit(*blobs)
    assert clf.proposer_.class_count_.sum() == 80
    assert isinstance(clf.denoiser_, LateConditionedDenoiser) and isinstance(clf.denoiser_.network, LateMLP)
    assert clf.n_iter_ == len(clf.training_log_.loss) == 2
    assert clf.calibration_.n_images == 80 and clf.fusion_.calibrated


def test_fit_frozen_and_none(frozen: FrozenEstimator, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    clf = HybridClassifier(frozen, max_iter=1, cv=2, allocation=QUICK, random_state=0).fit(*blobs)
    assert clf.proposer_.estimator is frozen.estimator
    assert clf.n_iter_ == 1
    assert clf.calibration_.n_images == 80


def test_fit_unfitted_and_given(denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    clf = HybridClassifier(GaussianNB(), denoiser, cv=2, allocation=QUICK, random_state=0).fit(*blobs)
    assert clf.proposer_.class_count_.sum() == 80
    assert clf.denoiser_ is denoiser
    assert not hasattr(clf, "n_iter_")
    assert clf.calibration_.n_images == 80


def test_fit_frozen_and_given(given: HybridClassifier, denoiser: Any) -> None:
    assert given.denoiser_ is denoiser
    assert not hasattr(given, "n_iter_")
    assert given.calibration_.n_images == 40 and given.fusion_.calibrated
    assert isinstance(given.reranker().allocation, Race)


def test_a_share_for_cv_is_held_out_for_good(denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    clf = HybridClassifier(GaussianNB(), denoiser, cv=0.25, allocation=QUICK, random_state=0).fit(*blobs)
    assert clf.proposer_.class_count_.tolist() == [15] * 4
    assert clf.calibration_.n_images == 20


def test_fit_from_label_names_alone_then_calibrate(
    frozen: FrozenEstimator, denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    X, y = blobs
    clf = HybridClassifier(frozen, denoiser, allocation=FixedTrials(8), random_state=0).fit(None, LABELS.tolist())
    assert clf.classes_.tolist() == LABELS.tolist()
    assert clf.calibration_ is None and not clf.fusion_.calibrated
    before = log_loss(y[40:], clf.predict_proba(X[40:]))
    assert clf.score(X[40:], y[40:]) > 0.7

    assert clf.calibrate(X[:40], y[:40]) is clf
    assert clf.calibration_.n_images == 40 and clf.fusion_.calibrated
    assert log_loss(y[40:], clf.predict_proba(X[40:])) < before
    assert clf.proposer_.estimator is frozen.estimator and clf.denoiser_ is denoiser


def test_the_default_allocation_is_a_t_test_until_something_is_calibrated(
    frozen: FrozenEstimator, denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    clf = HybridClassifier(frozen, denoiser, random_state=0).fit(None, LABELS)
    assert clf.reranker().allocation == PairedTTest()
    assert clf.calibrate(blobs[0][:20], blobs[1][:20]).reranker().allocation == Race()


def test_label_names_may_be_some_of_the_classes_in_any_order(
    frozen: FrozenEstimator, denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    X, y = blobs
    clf = HybridClassifier(frozen, denoiser, allocation=FixedTrials(8), random_state=0).fit(None, ["dog", "ant"])
    some = np.isin(y, ["dog", "ant"])
    posterior = clf.predict_proba(X[some])
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    assert (np.array(["dog", "ant"])[posterior.argmax(axis=1)] == y[some]).mean() > 0.8
    assert clf.calibrate(X[some], y[some]).score(X[some], y[some]) > 0.8


class Zeroshot:
    """A proposer by label names that looks at images; as an adapter's, it is no scikit-learn estimator."""

    takes_images = True

    def __sklearn_clone__(self) -> "Zeroshot":
        return Zeroshot()

    def fit(self, X: Any, y: Any) -> "Zeroshot":
        self.classes_ = np.asarray(y)
        return self

    def predict_log_proba(self, X: Any) -> np.ndarray:
        return np.full((len(X), len(self.classes_)), -np.log(len(self.classes_)))


def test_a_proposer_by_names_is_told_the_labels(denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = blobs
    clf = HybridClassifier(Zeroshot(), denoiser, allocation=FixedTrials(8), random_state=0)
    for labels in (["dog", "ant"], LABELS.tolist()):
        assert clf.fit(None, labels).proposer_.classes_.tolist() == labels
        assert clf.predict(X[:4]).shape == (4,)
    assert clf.fit(X, y).classes_.tolist() == LABELS.tolist()
    assert clf.image_shape_ is None  # images of any size may come
    assert not hasattr(clf.proposer, "classes_")


def test_a_function_proposes(denoiser: Any, frozen: FrozenEstimator, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    """With labels it is the same as the classifier behind it, whose columns are in that order."""
    X, y = blobs
    settings: dict[str, Any] = {"allocation": FixedTrials(8), "random_state": 0}
    wanted = HybridClassifier(frozen, denoiser, **settings).fit(None, LABELS)
    clf = HybridClassifier(frozen.predict_log_proba, denoiser, **settings).fit(None, LABELS)
    np.testing.assert_array_equal(clf.predict_proba(X), wanted.predict_proba(X))
    fitted = clone(clf).fit(X[:40], y[:40])
    assert fitted.classes_.tolist() == LABELS.tolist() and fitted.calibration_.n_images == 40
    np.testing.assert_array_equal(fitted.predict_proba(X), clone(wanted).fit(X[:40], y[:40]).predict_proba(X))
    some = clf.with_labels(["dog", "ant"])
    np.testing.assert_array_equal(some.predict_proba(X), wanted.with_labels(["dog", "ant"]).predict_proba(X))
    with pytest.raises(InvalidInputError, match=r"'predict_log_proba' returned shape \(80, 4\), not \(80, 2\)"):
        HybridClassifier(frozen.predict_log_proba, denoiser).fit(None, ["dog", "ant"]).predict(X)


def test_a_denoiser_is_trained_behind_a_function(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, y = digits
    seen: list[Any] = []

    def brightness(images: np.ndarray) -> np.ndarray:
        seen.append(images.shape[1:])
        share = images.mean(axis=(1, 2, 3)) / 16
        return np.log(np.stack([share, (1 - share) / 2, (1 - share) / 2], axis=1))

    clf = HybridClassifier(brightness, max_iter=1, cv=2, allocation=QUICK, random_state=0).fit(images, y)
    assert set(seen) == {(8, 8, 1)}
    assert clf.classes_.tolist() == [0, 1, 2]
    assert clf.predict_proba(images[:3]).shape == (3, 3)


def test_some_of_the_classes_are_asked_about(given: HybridClassifier, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = blobs
    some = given.with_labels(["dog", "ant"])
    assert some.classes_.tolist() == ["dog", "ant"] and given.classes_.tolist() == LABELS.tolist()
    assert some.calibration_ == replace(given.calibration_, novelty=None)
    whole, part = tier_1(given, X), tier_1(some, X)
    np.testing.assert_allclose(part, whole[:, [3, 0]] / whole[:, [3, 0]].sum(axis=1, keepdims=True))
    chosen = np.isin(y, ["dog", "ant"])
    assert some.score(X[chosen], y[chosen]) > 0.8
    assert some.with_labels(LABELS).predict_proba(X).tolist() == given.predict_proba(X).tolist()
    with pytest.raises(InvalidInputError, match="label 'elk' is not in the proposer's classes"):
        given.with_labels(["ant", "elk"])
    with pytest.raises(NotFittedError):
        HybridClassifier().with_labels(["ant", "bee"])


NOT_ZERO_SHOT: dict[str, dict[str, Any]] = {
    "neither": {},
    "no denoiser": {"proposer": "frozen"},
    "no proposer": {"denoiser": "denoiser"},
    "unfitted proposer": {"denoiser": "denoiser", "proposer": "sklearn:GaussianNB"},
}


@pytest.mark.parametrize("case", NOT_ZERO_SHOT)
def test_label_names_alone_train_nothing(case: str, request: pytest.FixtureRequest) -> None:
    parts = {k: request.getfixturevalue(v) if ":" not in v else v for k, v in NOT_ZERO_SHOT[case].items()}
    with pytest.raises(InvalidInputError, match=r"fit\(None, labels\) needs two tiers that are trained already"):
        HybridClassifier(**parts).fit(None, LABELS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "at least two different names, got None"),
        (["ant"], "at least two different names"),
        (["ant", "ant"], "at least two different names"),
        (["ant", "elk"], "label 'elk' is not in the proposer's classes"),
    ],
)
def test_label_names_that_cannot_be_used(labels: Any, message: str, frozen: FrozenEstimator, denoiser: Any) -> None:
    with pytest.raises(InvalidInputError, match=message):
        HybridClassifier(frozen, denoiser).fit(None, labels)


def test_a_denoiser_must_know_every_class(
    frozen: FrozenEstimator, gaussian_denoiser: Callable[..., Any], means: Any, blobs: Any
) -> None:
    three = gaussian_denoiser({label: means[label] for label in LABELS[:3]})
    with pytest.raises(UnknownLabelError, match="'dog'"):
        HybridClassifier(frozen, three, allocation=QUICK).fit(*blobs)


def test_a_denoiser_whose_errors_are_not_finite_leaves_tier_1(
    frozen: FrozenEstimator, gaussian_denoiser: Callable[..., Any], means: Any, blobs: Any
) -> None:
    broken = gaussian_denoiser({label: mean * np.nan for label, mean in means.items()})
    clf = HybridClassifier(frozen, broken, allocation=QUICK, random_state=0)
    with (
        pytest.warns(UncalibratedWarning, match="the answer is tier 1's; check what the denoiser predicts"),
        pytest.warns(FallbackWarning, match="80 of 80 images, which have tier 1's answer"),
    ):
        clf.fit(*blobs)
    assert clf.calibration_ is None and clf.worth_ is None
    np.testing.assert_array_equal(clf.predict(blobs[0]), frozen.predict(blobs[0]))
    assert {(r.stopped_by, r.evaluations) for r in clf.rerank(blobs[0])} == {("off", 0)}


def test_a_class_with_a_single_image(denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = blobs
    kept = np.flatnonzero((y != "dog") | (np.arange(80) == 3))
    clf = HybridClassifier(GaussianNB(), denoiser, allocation=FixedTrials(8), random_state=0)
    clf.fit(X[kept], y[kept])
    assert clf.calibration_ is not None
    assert clf.calibration_.n_images == len(kept) - 1  # the others are held out, one part after the other
    assert clf.worth_ is not None and clf.worth_.pays
    assert clf.classes_.tolist() == LABELS.tolist()
    assert clf.predict_proba(X).shape == (80, 4)


def test_nothing_but_single_images(denoiser: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = blobs
    first = np.unique(y, return_index=True)[1]
    clf = HybridClassifier(GaussianNB(var_smoothing=1.0), denoiser, random_state=0)
    with pytest.warns(UncalibratedWarning, match="the answer is tier 1's; give every class at least 2 images"):
        clf.fit(X[first], y[first])
    assert clf.calibration_ is None
    np.testing.assert_array_equal(clf.predict(X), clf.proposer_.predict(X))
    assert {(r.stopped_by, r.evaluations) for r in clf.rerank(X)} == {("off", 0)}


# --- the posterior ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fitted", ["given", "trained"])
def test_predictions_agree_with_each_other(fitted: str, request: pytest.FixtureRequest) -> None:
    clf = request.getfixturevalue(fitted)
    X, y = request.getfixturevalue("blobs" if fitted == "given" else "digits")
    posterior = clf.predict_proba(X)
    assert posterior.min() >= 0
    np.testing.assert_allclose(posterior.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[posterior.argmax(axis=1)])
    np.testing.assert_allclose(np.exp(clf.predict_log_proba(X)), posterior, atol=1e-12)
    assert clf.score(X, y) == (clf.predict(X) == y).mean()
    scores = clf.decision_function(X)
    assert scores.shape == (len(X), len(clf.classes_))
    np.testing.assert_array_equal(clf.classes_[scores.argmax(axis=1)], clf.predict(X))


def test_two_classes_have_one_score(denoiser: Any, frozen: FrozenEstimator, blobs: Any) -> None:
    some = np.isin(blobs[1], ["ant", "bee"])
    X, y = blobs[0][some], blobs[1][some]
    clf = HybridClassifier(GaussianNB(), denoiser, cv=2, allocation=QUICK, random_state=0).fit(X, y)
    scores, posterior = clf.decision_function(X), clf.predict_proba(X)
    assert scores.shape == (40,) and posterior.shape == (40, 2)
    np.testing.assert_allclose(scores, np.log(posterior[:, 1] / posterior[:, 0]))
    np.testing.assert_array_equal(scores > 0, clf.predict(X) == "bee")


def test_the_hybrid_is_better_than_tier_1(given: HybridClassifier, frozen: FrozenEstimator, blobs: Any) -> None:
    X, y = blobs[0][40:], blobs[1][40:]
    assert given.score(X, y) > frozen.score(X, y) + 0.1
    assert log_loss(y, given.predict_proba(X)) < log_loss(y, frozen.predict_proba(X))


def tier_1(clf: HybridClassifier, X: np.ndarray) -> np.ndarray:
    return clf.fusion_.prior(aligned_log_proba(clf.proposer_, X, clf.classes_))


def test_classes_that_were_no_candidates_keep_tier_1s_share(given: HybridClassifier, blobs: Any) -> None:
    clf, X = with_params(given, top_k=2), blobs[0]
    posterior, prior, results = clf.predict_proba(X), tier_1(given, X), clf.rerank(X)
    assert sum(r.evaluations > 0 for r in results) > 40
    for p, q, result in zip(posterior, prior, results, strict=True):
        others = ~np.isin(LABELS, result.candidates)
        assert others.sum() == 2
        np.testing.assert_allclose(p[others], q[others], rtol=1e-9)
        assert set(LABELS[~others]) == set(LABELS[np.argsort(-q)[:2]])


def test_rerank_is_the_posterior_among_the_candidates(given: HybridClassifier, blobs: Any) -> None:
    X = blobs[0]
    posterior, results = given.decide(X)
    np.testing.assert_array_equal(posterior, given.predict_proba(X))
    for p, result in zip(posterior, results, strict=True):
        share = p[np.searchsorted(LABELS, result.candidates)]
        np.testing.assert_allclose(share / share.sum(), result.posterior, rtol=1e-9)
        best_first = np.argsort(-result.posterior, kind="stable")
        assert result.ranking == tuple(result.candidates[i] for i in best_first)
        assert result.evidence.shape == (result.rows, len(result.candidates))
        assert result.evaluations == np.isfinite(result.evidence).sum()
        assert result.stopped_by in ("confident", "budget")
    assert {r.stopped_by for r in results} == {"confident", "budget"}


@pytest.mark.parametrize("allocation", [FixedTrials(2), Race(max_trials=2)])
def test_a_tie_goes_to_the_first_class_everywhere(allocation: Any, gaussian_denoiser: Callable[..., Any]) -> None:
    """Tier 1 prefers the third of four classes, of which the first three are alike to tier 2."""
    denoiser = gaussian_denoiser(dict(zip("abcd", [np.ones(4)] * 3 + [-np.ones(4)], strict=True)))
    prior = np.log([0.2, 0.3, 0.4, 0.1])
    clf = HybridClassifier(lambda X: np.tile(prior, (len(X), 1)), denoiser, allocation=allocation, random_state=0)
    posterior, results = clf.fit(None, list("abcd")).decide(np.ones((2, 4)))
    assert posterior[0, 0] == posterior[0, 1] == posterior[0, 2]
    assert clf.predict(np.ones((2, 4))).tolist() == ["a", "a"]
    for result in (*results, *clf.rerank(np.ones((2, 4)))):
        assert result.label == "a" and result.ranking == tuple("abcd") and result.candidates == tuple("cbad")


def test_stream_ends_with_what_rerank_returns(given: HybridClassifier, blobs: Any) -> None:
    X, streamed = blobs[0][:20], {}
    for step in given.stream(X):
        streamed.update(step.finished)
    for i, result in enumerate(given.rerank(X)):
        assert streamed[i].ranking == result.ranking
        np.testing.assert_array_equal(streamed[i].posterior, result.posterior)


def test_top_1_is_tier_1_and_costs_nothing(given: HybridClassifier, blobs: Any) -> None:
    clf, X = with_params(given, top_k=1), blobs[0]
    np.testing.assert_allclose(clf.predict_proba(X), tier_1(given, X), rtol=1e-12)
    np.testing.assert_array_equal(clf.predict(X), given.proposer_.predict(X))
    assert all(r.evaluations == 0 and r.stopped_by == "confident" for r in clf.rerank(X))


def test_top_k_beyond_the_classes_is_all_of_them(given: HybridClassifier, blobs: Any) -> None:
    X = blobs[0][:10]
    assert {len(r.candidates) for r in with_params(given, top_k=99).rerank(X)} == {4}


def test_the_second_tier_is_a_stage_of_its_own(given: HybridClassifier, blobs: Any) -> None:
    alone = given.reranker(FixedTrials(16), given.fusion_.__class__())
    results = alone.rerank(blobs[0], [LABELS.tolist()] * 80)
    assert {r.evaluations for r in results} == {64}
    assert np.mean([r.ranking[0] == label for r, label in zip(results, blobs[1], strict=True)]) > 0.8


# --- what decides a prediction ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["mlp", "unet"])
def test_random_state_decides_everything(architecture: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, y = digits[0][:40], digits[1][:40]

    def posterior(random_state: Any) -> np.ndarray:
        clf = HybridClassifier(
            RandomForestClassifier(3),
            max_iter=1,
            cv=0.5,
            architecture=architecture,
            allocation=Race(max_trials=4),
            random_state=random_state,
        )
        return clf.fit(images, y).predict_proba(images)

    wanted = posterior(1)
    np.testing.assert_array_equal(posterior(1), wanted)
    np.testing.assert_array_equal(posterior(np.random.RandomState(1)), wanted)
    assert not np.array_equal(posterior(2), wanted)


def shuffles(n: int) -> list[np.ndarray]:
    """One at a time, backwards, and every third."""
    return [*np.arange(n)[:, None], np.arange(n)[::-1], np.arange(0, n, 3)]


def test_a_prediction_does_not_depend_on_its_companions(trained: HybridClassifier, digits: Any) -> None:
    images = digits[0][:12]
    for clf in (trained, with_params(trained, allocation=FixedTrials(4), top_k=3)):
        wanted = clf.predict_proba(images)
        for chosen in shuffles(12):
            np.testing.assert_allclose(clf.predict_proba(images[chosen]), wanted[chosen], atol=1e-9)


@pytest.mark.parametrize(("architecture", "network"), [("unet", LateUNet), ("mlp", LateMLP)])
def test_evidence_in_float32_is_the_same_but_for_rounding_in_any_company(
    architecture: str, network: type, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images, y = digits
    clf = HybridClassifier(
        max_iter=3,
        cv=0.3,
        architecture=architecture,
        dtype="float32",
        allocation=FixedTrials(2),  # two rows when alone: matrix products of so few round differently
        top_k=2,
        random_state=0,
    ).fit(images[:40], y[:40])
    assert type(clf.denoiser_.network) is network
    clf.fusion_ = replace(clf.fusion_, pays=True, harmed=())  # however little it was trained
    wanted = clf.rerank(images)
    assert len({r.evidence.tobytes() for r in wanted}) == len(images)
    for chosen in (*np.arange(4)[:, None], np.arange(9)[::-1], np.arange(0, 120, 3)):
        for i, result in zip(chosen, clf.rerank(images[chosen]), strict=True):
            assert result.candidates == wanted[i].candidates
            np.testing.assert_allclose(result.evidence, wanted[i].evidence, rtol=1e-4)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(80, 6), (80, 2, 3)])
def test_numbers_that_are_none(bad: float, shape: tuple[int, ...], given: HybridClassifier, blobs: Any) -> None:
    X = blobs[0].reshape(shape).copy()
    X[(5, *[0] * (len(shape) - 1))] = bad
    message = "NaN" if np.isnan(bad) else "infinity"
    with pytest.raises(ValueError, match=message):
        HybridClassifier(max_iter=1).fit(X, blobs[1])
    with pytest.raises(ValueError, match=message):
        given.predict(X)


@pytest.mark.parametrize("empty", [[], np.zeros((0, 6)), np.zeros((0, 2, 3), dtype=np.uint8), pd.DataFrame()])
def test_an_empty_X(empty: Any, given: HybridClassifier) -> None:
    for use in (lambda: HybridClassifier().fit(empty, []), lambda: given.predict(empty)):
        with pytest.raises(InvalidInputError, match="X is empty; give at least one image"):
            use()


def test_a_wrong_number_of_features(given: HybridClassifier, trained: HybridClassifier, blobs: Any) -> None:
    with pytest.raises(ValueError, match="X has 5 features, but HybridClassifier is expecting 6 features"):
        given.predict(blobs[0][:, :5])
    with pytest.raises(ValueError, match="X has 6 features, but HybridClassifier is expecting 64 features"):
        trained.predict(blobs[0])


def test_images_of_another_or_of_mixed_size(trained: HybridClassifier) -> None:
    with pytest.raises(InvalidInputError, match=r"X is one image, give a list of images: \[X\]"):
        trained.predict(np.zeros((8, 8, 1)))
    with pytest.raises(InvalidInputError, match="got images of 8x8x3; give PIL images, which are converted"):
        trained.predict(np.zeros((2, 8, 8, 3)))
    with pytest.raises(InvalidInputError, match="expected images of 8x8x1, got images of 9x8x1; resize them first"):
        trained.predict(np.zeros((2, 9, 8)))
    with pytest.raises(InvalidInputError, match="expected images of 8x8x1, got images of 8x8x3"):
        trained.predict(np.zeros((2, 8, 8, 3), dtype=np.uint8))
    mixed = [Image.new("L", (8, 8)), Image.new("L", (8, 9))]
    assert trained.predict(mixed).shape == (2,)
    with pytest.raises(InvalidInputError, match=r"images must share one size.*resize them first"):
        HybridClassifier().fit(mixed, [0, 1])


def test_an_image_shape_that_does_not_fit(blobs: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected images of 2x2x1, got vectors of 6 numbers"):
        HybridClassifier(image_shape=(2, 2)).fit(*blobs)


@pytest.mark.parametrize("part", ["proposer", "denoiser"])
@pytest.mark.parametrize("spec", ["no-such-adapter:x", "sklearn", "", "sklearn:"])
def test_an_unknown_spec_string(part: str, spec: str, blobs: Any) -> None:
    with pytest.raises(UnknownSpecError, match=f"'{spec}' is not a known {part}; type \"ADAPTER:NAME\""):
        HybridClassifier(**{part: spec}).fit(*blobs)


def test_an_unknown_classifier_name(blobs: Any) -> None:
    with pytest.raises(UnknownSpecError, match=r"scikit-learn has no classifier 'NoSuch'; it has .*LogisticRegression"):
        HybridClassifier("sklearn:NoSuch").fit(*blobs)


def test_a_label_that_is_not_among_the_classes(given: HybridClassifier, blobs: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"label 'elk' is not in the classes \['ant', 'bee', 'cow', 'dog'\]"):
        given.calibrate(blobs[0][:2], ["ant", "elk"])


def test_y_that_cannot_be_used(blobs: Any) -> None:
    X = blobs[0]
    with pytest.raises(InvalidInputError, match="y holds the one class 'ant'; a classifier needs at least 2 classes"):
        HybridClassifier().fit(X, ["ant"] * 80)
    with pytest.raises(InvalidInputError, match="requires y to be passed"):
        HybridClassifier().fit(X)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        HybridClassifier().fit(X, X[:, 0])
    with pytest.raises(ValueError, match="y contains NaN"):
        HybridClassifier().fit(X, np.where(np.arange(80) == 7, np.nan, np.arange(80) % 2))
    with pytest.raises(ValueError, match="y contains infinity"):
        HybridClassifier().fit(X, np.where(np.arange(80) == 7, np.inf, np.arange(80) % 2))
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[80, 79\]"):
        HybridClassifier().fit(X, np.arange(79) % 2)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"top_k": 0}, "top_k must be a whole number of at least 1, got 0"),
        ({"top_k": 2.5}, "top_k must be a whole number of at least 1, got 2.5"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1 or None, got 0"),
        ({"max_iter": 0}, "max_iter must be a whole number of at least 1"),
        ({"n_iter_no_change": 0}, "n_iter_no_change must be a whole number of at least 1"),
        (
            {"cv": 1},
            r"cv must be a number of folds >= 2, a share .* a scikit-learn splitter such as GroupKFold\(\), .*; got 1",
        ),
        ({"cv": 1.5}, "cv must be"),
        ({"validation_fraction": 1.0}, "validation_fraction must be a finite number above 0 and below 1"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0"),
        ({"wrong_class_weight": -1.0}, "wrong_class_weight must be a finite number of at least 0"),
        ({"objective": "mse"}, "'huber', 'vlb', 'l2.vlb'; got 'mse'"),
        (
            {"objective": "vlb"},
            "'vlb' needs a denoiser that has learned its variance.* the one that fit trains has not",
        ),
        ({"weighting": "none"}, "got 'none'"),
        ({"architecture": "vit"}, 'architecture must be "auto", "mlp" or "unet", got \'vit\''),
        ({"dtype": "int32"}, "dtype must be None, \"float64\".*got 'int32'"),
        ({"image_shape": 8}, r"image_shape must be \(H, W\) or \(H, W, C\), got 8"),
        ({"image_shape": (2, 0)}, "image_shape must be"),
        ({"architecture": "unet"}, "architecture='unet' needs images"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_a_parameter_out_of_range(params: dict[str, Any], message: str, blobs: Any) -> None:
    with pytest.raises(InvalidInputError, match=message):
        HybridClassifier(**params).fit(*blobs)


@pytest.mark.parametrize(
    "make", [lambda: FixedTrials(0), lambda: Race(max_trials=0), lambda: PairedTTest(max_trials=0)]
)
def test_a_budget_below_one(make: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInputError, match="must be a whole number of at least"):
        make()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"allocation": "race"}, r"allocation must be an object such as Race\(\)"),
        ({"denoiser": 3}, "denoiser must have"),
    ],
    ids=["allocation", "denoiser"],
)
def test_an_object_of_the_wrong_kind(params: dict[str, Any], message: str, blobs: Any) -> None:
    with pytest.raises(InvalidTypeError, match=message) as e:
        HybridClassifier(**params).fit(*blobs)
    assert isinstance(e.value, HybridClfError | TypeError)


def test_progress_bars_on_request(digits: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
    images, y = digits
    clf = HybridClassifier(max_iter=1, cv=0.3, allocation=QUICK, random_state=0)
    clf.fit(images, y).predict(images)
    assert capsys.readouterr() == ("", "")
    clf.set_params(verbose=True).fit(images, y).predict(images)
    out, err = capsys.readouterr()
    assert out == "" and "record held-out images: 100%" in err and "rerank: 100%" in err


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "rerank", "decide"])
def test_nothing_is_predicted_before_fit(method: str, blobs: Any) -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(HybridClassifier(), method)(blobs[0])
    with pytest.raises(NotFittedError, match="not fitted yet"):
        HybridClassifier().calibrate(*blobs)


def test_images_of_another_scale_than_the_denoisers_are_noticed() -> None:
    """All are one grey to the denoiser, and re-ranking would seem not to pay."""
    digits, denoiser = load_digits(), HybridClassifier.from_pretrained("digits").denoiser_
    X, y = digits.images[:200], digits.target[:200]
    tier_1 = FrozenEstimator(GaussianNB().fit(X.reshape(200, -1) / 16, y))
    with pytest.warns(UserWarning, match=r"vary 0\.06\d times as much as those that the denoiser was trained on"):
        HybridClassifier(tier_1, denoiser, random_state=0).fit(X / 16, y)
    HybridClassifier(tier_1, denoiser, random_state=0).fit(X, y)  # without a warning, which would be an error
